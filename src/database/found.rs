//! What there is of tenants' databases.

use crate::error::Result;
use crate::home;
use crate::query;
use pgrx::{Uuid, pg_sys};

const OID: &str = "SELECT database_oid FROM tenancy.tenant_databases WHERE tenant_id = $1 AND database_oid IS NOT NULL";
const TERMINATE: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_get_activity(NULL)
    WHERE datid = $1 AND backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()";

/// The database of a tenant, if there is one: half made or whole.
pub fn of(tenant: Uuid) -> Result<Option<pg_sys::Oid>> {
    let noted: Option<pg_sys::Oid> = query::current_rows(OID, &[tenant.into()], |row| row.must(1))?.pop();
    Ok(noted.filter(|database| home::of(tenant, *database).is_some()))
}

/// Ends the sessions in a tenant's own database.
pub fn terminate_sessions(tenant: Uuid) -> Result<()> {
    if let Some(database) = of(tenant)? {
        query::current_rows(TERMINATE, &[database.into()], |_| Ok(()))?;
    }
    Ok(())
}
