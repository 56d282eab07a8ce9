//! Which migrations a schema has.

use crate::error::Result;
use crate::query;
use pgrx::Uuid;

const OF_TEMPLATE: &str = "INSERT INTO tenancy.applied_migrations (template, tenant_id, version)
    SELECT template, $2, version FROM tenancy.applied_migrations WHERE template = $1 AND tenant_id IS NULL";
const OF_TENANT: &str = "INSERT INTO tenancy.applied_migrations (template, tenant_id, version)
    SELECT template, $2, version FROM tenancy.applied_migrations WHERE tenant_id = $1";
const REMOVE: &str = "DELETE FROM tenancy.applied_migrations WHERE tenant_id = $1";
const FORGET: &str = "DELETE FROM tenancy.applied_migrations WHERE template = $1";

/// A copy of the template has what the template has, whatever a schema had that was dropped by hand.
pub fn copy_of_template(template: &str, tenant: Uuid) -> Result<()> {
    remove(tenant)?;
    query::run(OF_TEMPLATE, &[template.into(), tenant.into()]).map(drop)
}

pub fn copy_of_tenant(source: Uuid, destination: Uuid) -> Result<()> {
    remove(destination)?;
    query::run(OF_TENANT, &[source.into(), destination.into()]).map(drop)
}

pub fn remove(tenant: Uuid) -> Result<()> {
    query::run(REMOVE, &[tenant.into()]).map(drop)
}

pub fn forget(template: &str) -> Result<()> {
    query::run(FORGET, &[template.into()]).map(drop)
}
