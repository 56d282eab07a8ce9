//! A migration of a schema that is in a database of the tenant's own.
//!
//! The worker of the run holds the tenant's locks in the control database and sends the migration there, where it is done as it would be here,
//! and recorded; then it records it here. When it is ended in between, the next one is told there that it has been done.

use super::run::Run;
use super::target::Step;
use crate::error::{Error, Result};
use crate::home;
use crate::query;
use crate::role;
use crate::sqltype::Name;
use crate::worker::errand;
use pgrx::Uuid;
use serde_json::json;

/// What the tenant's own database is asked to do.
pub const ERRAND: &str = "fleet.step";

const APPLIED: &str =
    "SELECT version FROM tenancy.applied_migrations WHERE template = $1 AND tenant_id = $2 ORDER BY version";

/// The migrations of a tenant that this database knows to be applied.
pub fn applied(template: &Name, tenant: Uuid) -> Result<Vec<String>> {
    role::as_extension_owner(|| {
        query::current_rows(APPLIED, &[template.clone().into(), tenant.into()], |row| row.must(1))
    })
}

/// Has a step done there, and waits.
pub fn send(run: &Run, tenant: Option<Uuid>, step: &Step, database: &str) -> Result<()> {
    let (Some(tenant), Some(owner)) = (tenant, step.owner) else {
        return Err(Error::Unknown("schema of template", run.template.0.clone()));
    };
    let request = json!({
        "tenant": tenant.to_string(),
        "template": run.template.0,
        "direction": run.direction.name(),
        "lock_timeout": run.lock_timeout,
        "applied": applied(&run.template, tenant)?,
        "schema_name": step.schema_name,
        "called": step.called,
        "owner": owner.to_u32(),
        "version": step.version,
        "sql": step.sql,
        "verify_sql": step.verify_sql,
        "transactional": step.transactional,
    });
    errand::send(home::find(tenant, database)?, ERRAND, &request)?.wait().map(drop)
}
