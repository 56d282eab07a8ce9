//! Rows and positions of sequences, as they are at one moment, while others go on writing.

use super::plan::{Plan, Position, Rows};
use crate::error::{Error, Result};
use crate::query::{self, ident};
use crate::relation;
use crate::role;
use pgrx::pg_sys;
use std::ffi::CString;

/// Which rows a copy gets.
#[derive(Clone, PartialEq, Eq)]
pub enum Data {
    /// Those of the tables of these names: a template's reference rows.
    Tables(Vec<String>),
    All,
}

impl Data {
    fn includes(&self, table: &str) -> bool {
        match self {
            Self::Tables(names) => names.iter().any(|name| name == table),
            Self::All => true,
        }
    }
}

/// One snapshot for all tables, so that rows that refer to each other fit together.
struct Moment(pg_sys::Snapshot);

impl Moment {
    fn now() -> Self {
        // SAFETY: registered with the current resource owner, and given back by drop or by the end of the transaction.
        Self(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()) })
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        // SAFETY: what now() registered.
        unsafe { pg_sys::UnregisterSnapshot(self.0) }
    }
}

/// Fills the copy, whose tables exist and have no triggers yet.
pub fn copy(source: &str, destination: &str, plan: &Plan, data: &Data) -> Result<()> {
    let wanted: Vec<&Rows> = plan.rows.iter().filter(|table| data.includes(&table.name)).collect();
    if let Data::Tables(names) = data
        && let Some(unknown) = names.iter().find(|name| !plan.rows.iter().any(|table| table.name == **name))
    {
        return Err(Error::Unknown("table", format!("{}.{}", ident(source), ident(unknown))));
    }
    {
        let moment = Moment::now();
        for table in &wanted {
            if table.columns.is_empty() {
                continue;
            }
            let columns = table.columns.join(", ");
            let name = ident(&table.name);
            let sql = format!(
                "INSERT INTO {}.{name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM ONLY {}.{name}",
                ident(destination),
                ident(source)
            );
            let is_lent = table.maker != table.owner;
            let lend = |verb: &str, preposition: &str| {
                let role = relation::role_name(table.owner);
                query::statement(&format!("{verb} INSERT ON {}.{name} {preposition} {role}", ident(destination)), &[])
            };
            if is_lent {
                lend("GRANT", "TO")?;
            }
            role::as_owner_of_all_rows(table.owner, || execute(&sql, moment.0))?;
            if is_lent {
                lend("REVOKE", "FROM")?;
            }
        }
    }
    // Positions are not part of a snapshot: read after it, none is behind the rows.
    let includes = |position: &&Position| match position.table {
        Some(table) => wanted.iter().any(|rows| rows.oid == table),
        None => *data == Data::All,
    };
    for position in plan.positions.iter().filter(includes) {
        let name = ident(&position.name);
        let new = query::literal(&format!("{}.{name}", ident(destination)));
        let sql = format!(
            "SELECT pg_catalog.setval({new}::pg_catalog.regclass, last_value, is_called) FROM {}.{name}",
            ident(source)
        );
        query::statement(&sql, &[])?;
    }
    Ok(())
}

/// Runs a statement that reads with the given snapshot.
fn execute(sql: &str, snapshot: pg_sys::Snapshot) -> Result<()> {
    let sql = CString::new(sql).map_err(|_| Error::Internal("a statement has a zero byte".to_owned()))?;
    // SAFETY: a connection that is closed below, or by the end of the transaction on an ERROR; the plan lives as long as the connection; the
    // snapshot is registered.
    unsafe {
        pg_sys::SPI_connect();
        let plan = pg_sys::SPI_prepare(sql.as_ptr(), 0, std::ptr::null_mut());
        let code = if plan.is_null() {
            pg_sys::SPI_result
        } else {
            pg_sys::SPI_execute_snapshot(
                plan,
                std::ptr::null_mut(),
                std::ptr::null(),
                snapshot,
                std::ptr::null_mut(),
                false,
                true,
                0,
            )
        };
        pg_sys::SPI_finish();
        if code < 0 { Err(Error::Internal(format!("SPI: {code}"))) } else { Ok(()) }
    }
}
