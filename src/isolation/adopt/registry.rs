//! `tenancy.adoptions`: what an adoption has done and what it is doing, for those who watch and for the call after a crash.

use super::request::Request;
use super::scope::Root;
use crate::audit::{self, Entry};
use crate::erased::{self, Erased};
use crate::error::{Error, Result};
use crate::json::Object;
use crate::query::{self, ident};
use crate::sqltype::RegClass;
use pgrx::datum::DatumWithOid;
use pgrx::{Uuid, pg_sys};

const FIND: &str =
    "SELECT tenant_id, tenant_column::text FROM tenancy.adoptions WHERE table_name = $1 AND finished_at IS NULL";
const BEGIN: &str = "INSERT INTO tenancy.adoptions AS a (table_name, tenant_id, tenant_column, keys, steps) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (table_name) DO UPDATE SET tenant_id = excluded.tenant_id, tenant_column = excluded.tenant_column, keys = excluded.keys,
        steps = excluded.steps, steps_done = 0, rows_filled = CASE WHEN a.finished_at IS NULL THEN a.rows_filled ELSE 0 END,
        statement = NULL, failure = NULL, updated_at = pg_catalog.clock_timestamp(), finished_at = NULL,
        started_at = CASE WHEN a.finished_at IS NULL THEN a.started_at ELSE pg_catalog.clock_timestamp() END";
const ENTER: &str = "UPDATE tenancy.adoptions SET statement = $2, failure = NULL, updated_at = pg_catalog.clock_timestamp() WHERE table_name = $1";
const LEAVE: &str = "UPDATE tenancy.adoptions SET steps_done = steps_done + 1, statement = NULL, updated_at = pg_catalog.clock_timestamp()
    WHERE table_name = $1";
const FILLED: &str = "UPDATE tenancy.adoptions SET rows_filled = rows_filled + $2, updated_at = pg_catalog.clock_timestamp() WHERE table_name = $1";
const FINISH: &str =
    "UPDATE tenancy.adoptions SET finished_at = pg_catalog.clock_timestamp(), updated_at = pg_catalog.clock_timestamp()
    WHERE table_name = $1 RETURNING rows_filled";
const ORDER: &str = "SELECT a.statement, c.relowner FROM tenancy.adoptions a, pg_catalog.pg_class c WHERE a.table_name = $1 AND c.oid = $2";
const BUILT: &str =
    "UPDATE tenancy.adoptions SET statement = NULL, updated_at = pg_catalog.clock_timestamp() WHERE table_name = $1";
const FAIL: &str =
    "UPDATE tenancy.adoptions SET failure = $2, updated_at = pg_catalog.clock_timestamp() WHERE table_name = $1";
const OUTCOME: &str = "SELECT failure, statement IS NULL FROM tenancy.adoptions WHERE table_name = $1";
const FORGET: &str = "DELETE FROM tenancy.adoptions WHERE tenant_id = $1";

/// Fails when the table's rows are being adopted by another tenant, or under another column: what has none yet would be given to both.
pub fn refuse_other(root: &Root, request: &Request) -> Result<()> {
    let table = root.table();
    let begun =
        query::first(FIND, &[RegClass(table.oid).into()], |row| Ok((row.must::<Uuid>(1)?, row.must::<String>(2)?)))?;
    match begun {
        Some((tenant, column)) if request.tenant.is_some_and(|asked| asked != tenant) || column != request.column => {
            Err(Error::Unprotectable(
                format!(
                    "an adoption of {} by tenant \"{tenant}\" under column {} has begun",
                    table.name,
                    ident(&column)
                ),
                "Call again with that tenant and column to finish it.".to_owned(),
            ))
        }
        _ => Ok(()),
    }
}

pub fn begin(root: &Root, tenant: Uuid, request: &Request, steps: usize) -> Result<()> {
    let table = root.table();
    let args: [DatumWithOid; 5] = [
        RegClass(table.oid).into(),
        tenant.into(),
        request.column.as_str().into(),
        request.keys.name().into(),
        (steps as i32).into(),
    ];
    query::run(BEGIN, &args)?;
    audit::record(&Entry {
        action: "table.adopt",
        tenant: Some(tenant),
        target: Some(&table.name),
        after: Some(Object::new().text("tenant_column", &request.column).text("keys", request.keys.name()).finish()),
        ..Entry::default()
    })
}

pub fn enter(table: pg_sys::Oid, statement: &str) -> Result<()> {
    query::run(ENTER, &[RegClass(table).into(), statement.into()]).map(drop)
}

pub fn leave(table: pg_sys::Oid) -> Result<()> {
    query::run(LEAVE, &[RegClass(table).into()]).map(drop)
}

pub fn add_filled(table: pg_sys::Oid, rows: u64) -> Result<()> {
    query::run(FILLED, &[RegClass(table).into(), rows.cast_signed().into()]).map(drop)
}

/// Says that the table is adopted.
pub fn finish(root: &Root, tenant: Uuid) -> Result<()> {
    let table = root.table();
    let filled = query::returning(FINISH, &[RegClass(table.oid).into()], |row| row.must::<i64>(1))?.unwrap_or_default();
    audit::record(&Entry {
        action: "table.adopted",
        tenant: Some(tenant),
        target: Some(&table.name),
        after: Some(Object::new().number("rows_filled", filled.cast_unsigned()).finish()),
        ..Entry::default()
    })
}

/// What a worker is to run for `table`, which inherits from `root` or is it, and as whom.
pub fn order(root: pg_sys::Oid, table: pg_sys::Oid) -> Result<Option<(String, pg_sys::Oid)>> {
    let map = |row: &query::Row| Ok((row.get(1)?, row.must(2)?));
    let found = query::current_rows(ORDER, &[RegClass(root).into(), table.into()], map)?;
    Ok(found.into_iter().next().and_then(|(statement, owner): (Option<String>, _)| Some((statement?, owner))))
}

pub fn fail(root: pg_sys::Oid, message: &str) -> Result<()> {
    query::run(FAIL, &[RegClass(root).into(), message.into()]).map(drop)
}

/// Says that the worker has done what is entered.
pub fn built(root: pg_sys::Oid) -> Result<()> {
    query::run(BUILT, &[RegClass(root).into()]).map(drop)
}

/// Why the worker failed, and whether it has said that it is done: one that was ended said neither.
pub fn outcome(root: pg_sys::Oid) -> Result<(Option<String>, bool)> {
    let found = query::current_rows(OUTCOME, &[RegClass(root).into()], |row| Ok((row.get(1)?, row.must(2)?)))?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// Removes what is known of a tenant's adoptions.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    erased::run(&[FORGET], tenant, erased)
}
