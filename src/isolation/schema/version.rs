//! Which migrations a schema has.

use crate::error::Result;
use crate::query;
use pgrx::Uuid;

const OF_TEMPLATE: &str = "INSERT INTO tenancy.applied_migrations (template, tenant_id, version)
    SELECT template, $2, version FROM tenancy.applied_migrations WHERE template = $1 AND tenant_id IS NULL";
const OF_TENANT: &str = "INSERT INTO tenancy.applied_migrations (template, tenant_id, version)
    SELECT template, $2, version FROM tenancy.applied_migrations WHERE tenant_id = $1";
const LIST: &str = "SELECT version FROM tenancy.applied_migrations
    WHERE template = $1 AND tenant_id IS NOT DISTINCT FROM $2 ORDER BY version";
const RECORD: &str = "INSERT INTO tenancy.applied_migrations (template, tenant_id, version)
    SELECT $1, $2, version FROM pg_catalog.unnest($3::text[]) AS v (version)";
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

/// What a tenant's schema has, or with None the template's own.
pub fn applied(template: &str, tenant: Option<Uuid>) -> Result<Vec<String>> {
    query::current_rows(LIST, &[template.into(), tenant.into()], |row| row.must(1))
}

/// Says that a tenant's schema has these, and no others.
pub fn record(template: &str, tenant: Uuid, versions: Vec<String>) -> Result<()> {
    remove(tenant)?;
    query::run(RECORD, &[template.into(), tenant.into(), versions.into()]).map(drop)
}

pub fn remove(tenant: Uuid) -> Result<()> {
    query::run(REMOVE, &[tenant.into()]).map(drop)
}

pub fn forget(template: &str) -> Result<()> {
    query::run(FORGET, &[template.into()]).map(drop)
}
