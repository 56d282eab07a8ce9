//! Giving rows without a tenant theirs, where the table had a tenant column before.

use crate::error::{Error, Result};
use crate::isolation::row::inspect::{self, Table};
use crate::procedure::Procedure;
use crate::query::{self, ident};
use crate::role;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CString;
use std::time::{Duration, Instant};

const REPORT_EVERY: Duration = Duration::from_secs(3);
const MAX_NAME: usize = 63;
/// Passes over the table: others may go on writing rows without a tenant until the check keeps them from it.
const PASSES: u32 = 3;

const HAS_CONSTRAINT: &str =
    "SELECT true FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND conname = $2::name AND contype = 'c'";
/// What would happen beside the UPDATE, or not happen although it should: triggers are off meanwhile, foreign keys among them.
const INTERFERENCE: &str = "SELECT pg_catalog.format('trigger %I fires always', tgname) FROM pg_catalog.pg_trigger
        WHERE tgrelid = $1 AND tgenabled = 'A' AND tgtype & 16 <> 0
    UNION ALL SELECT pg_catalog.format('rule %I rewrites an UPDATE', rulename) FROM pg_catalog.pg_rewrite
        WHERE ev_class = $1 AND ev_type = '2' AND ev_enabled <> 'D'
    UNION ALL SELECT pg_catalog.format('foreign key %I has the column', con.conname) FROM pg_catalog.pg_constraint con
        JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attname = $2::name AND a.attnum = ANY (con.conkey)
        WHERE con.conrelid = $1 AND con.contype = 'f' LIMIT 1";

/// The check that stands for NOT NULL until PostgreSQL has taken it from it.
pub fn constraint_name(column: &str) -> String {
    const SUFFIX: &str = "_is_given";
    let mut end = column.len().min(MAX_NAME - SUFFIX.len());
    while !column.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{SUFFIX}", &column[..end])
}

pub fn has_constraint(table: &Table, name: &str) -> Result<bool> {
    Ok(query::value::<bool>(HAS_CONSTRAINT, &[table.oid.into(), name.into()])?.is_some())
}

/// What the whole table would be filled by; a batch is the same for some of its rows.
pub fn statement(table: &Table, column: &str, tenant: &str) -> String {
    format!("UPDATE ONLY {0} SET {1} = {tenant} WHERE {1} IS NULL", table.name, ident(column))
}

pub fn has_rows_to_fill(table: &Table, column: &str) -> Result<bool> {
    let sql = format!("SELECT true FROM ONLY {} WHERE {} IS NULL LIMIT 1", table.name, ident(column));
    role::as_owner_of_all_rows(table.owner, || Ok(!query::column::<bool>(&sql)?.is_empty()))
}

pub fn refuse_interference(table: &Table, column: &str) -> Result<()> {
    match query::value::<String>(INTERFERENCE, &[table.oid.into(), column.into()])? {
        None => Ok(()),
        Some(what) => Err(Error::Unprotectable(
            format!("{} has rows without a tenant, and {what}", table.name),
            format!("Fill the column yourself: UPDATE {} SET {} = ...;", table.name, ident(column)),
        )),
    }
}

/// Keeps triggers from firing while this lives; the setting is undone with the settings that role::as_owner keeps.
fn without_triggers() {
    let value = CString::from(c"replica");
    // SAFETY: C strings, which are copied; only superusers may set it, which is what the product is.
    unsafe {
        pg_sys::set_config_option(
            c"session_replication_role".as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

/// A table that is being filled.
pub struct Fill<'a> {
    pub table: pg_sys::Oid,
    pub name: &'a str,
    pub owner: pg_sys::Oid,
    pub column: &'a str,
    pub tenant: String,
    pub batch: i32,
}

impl Fill<'_> {
    /// Fills all rows, committing after each batch; how many.
    pub fn run(&self, procedure: &Procedure, mut commit: impl FnMut(u64) -> Result<()>) -> Result<u64> {
        let (mut total, mut next_report) = (0, Instant::now() + REPORT_EVERY);
        for _ in 0..PASSES {
            let (mut place, mut in_pass) = ("(0,0)".to_owned(), 0);
            while let Some((last, filled)) = role::as_extension_owner(|| self.batch(&place))? {
                (place, in_pass, total) = (last, in_pass + filled, total + filled);
                commit(filled)?;
                procedure.commit();
                if Instant::now() >= next_report {
                    notice!("{total} rows of {} have their tenant", self.name);
                    next_report = Instant::now() + REPORT_EVERY;
                }
            }
            if in_pass == 0 {
                break;
            }
        }
        Ok(total)
    }

    /// Fills the next rows behind `place`: the place of the last one, and how many; None when there is none left.
    fn batch(&self, place: &str) -> Result<Option<(String, u64)>> {
        let (table, column) = (self.name, ident(self.column));
        let find = format!(
            "SELECT ctid::pg_catalog.text FROM ONLY {table} WHERE ctid OPERATOR(pg_catalog.>) '{place}'::pg_catalog.tid AND {column} IS NULL LIMIT {}",
            self.batch
        );
        let fill = format!(
            "UPDATE ONLY {table} SET {column} = {} WHERE ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.tid[]) AND {column} IS NULL",
            self.tenant
        );
        // SAFETY: any oid may be locked; the transaction's end gives it back.
        unsafe { pg_sys::LockRelationOid(self.table, pg_sys::RowExclusiveLock as _) };
        inspect::refuse_other(self.table, table, self.owner)?;
        role::as_owner_of_all_rows(self.owner, || {
            let found: Vec<String> = query::current_column(&find, &[])?.into_iter().flatten().collect();
            let Some(last) = found.last().cloned() else { return Ok(None) };
            without_triggers();
            Ok(Some((last, query::statement(&fill, &[found.into()])?)))
        })
    }
}
