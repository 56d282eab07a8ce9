//! What PgBouncer needs to know of tenants' databases.

use crate::error::Result;
use crate::query;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The pool of a plan's tenants, by its settings in this order; what is no whole number is not one.
const DATABASES: &str = "SELECT t.database_name::text,
        (SELECT s.value FROM tenancy.plans p, LATERAL (VALUES (1, p.settings ->> 'pool_size'), (2, p.settings ->> 'max_concurrent_transactions')) s (place, value)
         WHERE p.plan = t.plan AND s.value ~ '^[1-9][0-9]{0,5}$' ORDER BY s.place LIMIT 1)
    FROM tenancy.tenants t JOIN tenancy.tenant_databases d ON d.tenant_id = t.id AND d.phase = 'ready'
    WHERE t.isolation = 'database' AND t.database_name IS NOT NULL AND t.status <> 'deleted'
    ORDER BY t.database_name";

/// A line of the section: the name that clients connect to, quoted as an SQL identifier, and a connection string as libpq reads it.
fn line(database: &str, pool_size: Option<&str>) -> String {
    let key = database.replace('"', "\"\"");
    let value = database.replace('\'', "''");
    let pool_size = pool_size.map(|size| format!(" pool_size={size}")).unwrap_or_default();
    format!("\"{key}\" = dbname='{value}'{pool_size}")
}

fn lines() -> Result<Vec<String>> {
    query::rows(DATABASES, &[], |row| Ok(line(&row.must::<String>(1)?, row.get::<String>(2)?.as_deref())))
}

/// The lines of PgBouncer's [databases] section for tenants' databases.
#[pg_extern(stable, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn pgbouncer_databases() -> std::result::Result<SetOfIterator<'static, String>, ErrorReport> {
    Ok(SetOfIterator::new(lines()?))
}
