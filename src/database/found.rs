//! What there is of tenants' databases.

use crate::error::Result;
use crate::label::{self, Home};
use crate::query;
use pgrx::{Uuid, pg_sys};
use std::ffi::CStr;

const OID: &str = "SELECT database_oid FROM tenancy.tenant_databases WHERE tenant_id = $1 AND database_oid IS NOT NULL";
const TERMINATE: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_get_activity(NULL)
    WHERE datid = $1 AND backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()";

/// The name of a database, as it is now; None where there is none.
pub fn name_of(database: pg_sys::Oid) -> Option<String> {
    // SAFETY: a look-up by oid that gives null or a palloc'd C string.
    unsafe {
        let name = pg_sys::get_database_name(database);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// The name of this database.
pub fn control() -> String {
    // SAFETY: a plain read.
    name_of(unsafe { pg_sys::MyDatabaseId }).unwrap_or_default()
}

/// What the label of a database says, if it is this tenant's, and this database the one that keeps its registry: a copy of a control database knows the
/// same tenants, and must not touch their databases.
pub fn home_of(tenant: Uuid, database: pg_sys::Oid) -> Option<Home> {
    label::of_database(database).filter(|home| home.tenant == *tenant.as_bytes() && home.control == control())
}

/// The database of a tenant, if there is one: half made or whole.
pub fn of(tenant: Uuid) -> Result<Option<pg_sys::Oid>> {
    let noted: Option<pg_sys::Oid> = query::current_rows(OID, &[tenant.into()], |row| row.must(1))?.pop();
    Ok(noted.filter(|database| home_of(tenant, *database).is_some()))
}

/// Ends the sessions in a tenant's own database.
pub fn terminate_sessions(tenant: Uuid) -> Result<()> {
    if let Some(database) = of(tenant)? {
        query::current_rows(TERMINATE, &[database.into()], |_| Ok(()))?;
    }
    Ok(())
}
