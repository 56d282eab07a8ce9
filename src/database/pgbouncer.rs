//! What PgBouncer needs to know of tenants' databases.

use crate::error::{Error, Result};
use crate::query;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The pool of a plan's tenants, by its settings in this order; what is no whole number is not one.
const DATABASES: &str = "SELECT t.id, t.database_name::text,
        (SELECT s.value FROM tenancy.plans p, LATERAL (VALUES (1, p.settings ->> 'pool_size'), (2, p.settings ->> 'max_concurrent_transactions')) s (place, value)
         WHERE p.plan = t.plan AND s.value ~ '^[1-9][0-9]{0,5}$' ORDER BY s.place LIMIT 1)
    FROM tenancy.tenants t JOIN tenancy.tenant_databases d ON d.tenant_id = t.id AND d.phase = 'ready'
    WHERE t.isolation = 'database' AND t.database_name IS NOT NULL AND t.status <> 'deleted'
    ORDER BY t.database_name";

/// A line of the section: the name that clients connect to, and a connection string. PgBouncer's keys have no quotes (tried, whatever its manual says):
/// a database whose name someone has changed to one that it cannot write goes by the name that it was made with.
fn line(tenant: Uuid, database: &str, connection: &str, pool_size: Option<&str>) -> String {
    let is_plain = database.chars().all(|character| character.is_ascii_alphanumeric() || "_.-".contains(character));
    let key = if is_plain { database.to_owned() } else { format!("tenant_{tenant}") };
    let value = database.replace('\'', "''");
    let pool_size = pool_size.map(|size| format!(" pool_size={size}")).unwrap_or_default();
    let space = if connection.is_empty() { "" } else { " " };
    format!("{key} = {connection}{space}dbname='{value}'{pool_size}")
}

fn lines(connection: &str) -> Result<Vec<String>> {
    if connection.contains(char::is_control) {
        return Err(Error::invalid("connection must be one line of key=value pairs", ""));
    }
    query::rows(DATABASES, &[], |row| {
        let (tenant, database, pool_size) = (row.must(1)?, row.must::<String>(2)?, row.get::<String>(3)?);
        Ok(line(tenant, &database, connection.trim(), pool_size.as_deref()))
    })
}

/// The lines of PgBouncer's [databases] section for tenants' databases.
#[pg_extern(stable, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn pgbouncer_databases(
    connection: default!(Option<&str>, "''"),
) -> std::result::Result<SetOfIterator<'static, String>, ErrorReport> {
    Ok(SetOfIterator::new(lines(connection.ok_or(Error::Null("connection"))?)?))
}
