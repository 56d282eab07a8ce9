//! What the bound tenant's plan includes.

use crate::context::{self, registry};
use crate::error::{Error, SqlResult};
use crate::query;
use crate::role;
use pgrx::Uuid;
use pgrx::prelude::*;

const HAS_FEATURE: &str = "SELECT $2 = ANY (features) FROM tenancy.plans WHERE plan = $1";

/// Whether the plan of the bound tenant has a feature.
#[pg_extern(stable)]
fn has_feature(feature: Option<&str>) -> SqlResult<bool> {
    let feature = feature.ok_or(Error::Null("feature"))?;
    let tenant = Uuid::from_bytes(context::bound().ok_or(Error::Unbound)?.tenant);
    let plan = registry::plan_of(tenant)?.0.ok_or_else(|| Error::unknown_tenant(tenant))?;
    let args = [plan.into(), feature.into()];
    let found: Vec<Option<bool>> =
        query::as_of_now(|| role::as_extension_owner(|| query::active_rows(HAS_FEATURE, &args, |row| row.get(1))))?;
    Ok(found.into_iter().flatten().next().unwrap_or(false))
}
