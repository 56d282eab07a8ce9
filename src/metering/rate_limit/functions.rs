//! Saying how often plans and tenants may do what, and seeing what the buckets hold.

use super::rate::{self, Per};
use crate::error::{Error, Result, SqlResult};
use crate::json::{Jsonb, Object};
use crate::metering::plan::{Owner, check_name};
use crate::monitor;
use crate::query;
use pgrx::Uuid;
use pgrx::prelude::*;

const PLAN_BEFORE: &str =
    "SELECT pg_catalog.to_jsonb(l) FROM tenancy.plan_rate_limits l WHERE plan = $1 AND resource = $2";
const SET_FOR_PLAN: &str =
    "INSERT INTO tenancy.plan_rate_limits (plan, resource, max_value, period, burst) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (plan, resource) DO UPDATE SET max_value = excluded.max_value, period = excluded.period, burst = excluded.burst";
const UNSET_FOR_PLAN: &str =
    "WITH gone AS (DELETE FROM tenancy.plan_rate_limits WHERE plan = $1 AND resource = $2 RETURNING *)
    SELECT pg_catalog.to_jsonb(gone) FROM gone";
const TENANT_BEFORE: &str =
    "SELECT pg_catalog.to_jsonb(l) FROM tenancy.tenant_rate_limits l WHERE tenant_id = $1 AND resource = $2";
const SET_FOR_TENANT: &str =
    "INSERT INTO tenancy.tenant_rate_limits (tenant_id, resource, max_value, period, burst) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant_id, resource) DO UPDATE SET max_value = excluded.max_value, period = excluded.period, burst = excluded.burst";
const UNSET_FOR_TENANT: &str =
    "WITH gone AS (DELETE FROM tenancy.tenant_rate_limits WHERE tenant_id = $1 AND resource = $2 RETURNING *)
    SELECT pg_catalog.to_jsonb(gone) FROM gone";

/// A rate limit as it was asked for.
struct Asked<'a> {
    resource: &'a str,
    max_value: Option<i32>,
    per: Per,
    burst: Option<i32>,
}

impl<'a> Asked<'a> {
    fn new(
        resource: Option<&'a str>,
        max_value: Option<i32>,
        period: Option<&str>,
        burst: Option<i32>,
    ) -> Result<Self> {
        let resource = check_name("resource", resource.ok_or(Error::Null("resource"))?)?;
        let per = Per::from_name(period.ok_or(Error::Null("period"))?)?;
        rate::validate(max_value, per, burst)?;
        Ok(Self { resource, max_value, per, burst })
    }

    fn finish(&self) -> Jsonb {
        let number = |number: Option<i32>| number.map(|number| number.to_string());
        Object::new()
            .text("period", self.per.name())
            .optional("max_value", number(self.max_value).as_deref())
            .optional("burst", number(self.burst).as_deref())
            .finish()
    }
}

/// The statements that limit a resource for an owner of one kind.
struct Statements {
    before: &'static str,
    set: &'static str,
    action: &'static str,
}

const OF_PLAN: Statements = Statements { before: PLAN_BEFORE, set: SET_FOR_PLAN, action: "plan.set_rate_limit" };
const OF_TENANT: Statements =
    Statements { before: TENANT_BEFORE, set: SET_FOR_TENANT, action: "tenant.set_rate_limit" };

impl Asked<'_> {
    fn set(&self, owner: &Owner, statements: &Statements) -> Result<()> {
        let before: Option<Jsonb> = query::value(statements.before, &[owner.argument(), self.resource.into()])?;
        let args =
            [owner.argument(), self.resource.into(), self.max_value.into(), self.per.name().into(), self.burst.into()];
        query::run(statements.set, &args)?;
        owner.record(statements.action, self.resource, before, Some(self.finish()))
    }
}

/// Limits how often the tenants of a plan may use a resource.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
pub fn set_plan_rate_limit(
    plan: Option<&str>,
    resource: Option<&str>,
    max_value: Option<i32>,
    period: default!(Option<&str>, "'hour'"),
    burst: default!(Option<i32>, "NULL"),
) -> SqlResult<String> {
    let plan = plan.ok_or(Error::Null("plan"))?;
    let asked = Asked::new(resource, max_value, period, burst)?;
    asked.set(&Owner::plan(Some(plan))?, &OF_PLAN)?;
    Ok(plan.to_owned())
}

/// Takes the rate limit that a plan has for a resource back.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn unset_plan_rate_limit(plan: Option<&str>, resource: Option<&str>) -> SqlResult<bool> {
    Ok(Owner::plan(plan)?.take_back(UNSET_FOR_PLAN, "plan.unset_rate_limit", resource)?)
}

/// Limits how often one tenant may use a resource, whatever its plan says.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn set_tenant_rate_limit(
    tenant: Option<Uuid>,
    resource: Option<&str>,
    max_value: Option<i32>,
    period: default!(Option<&str>, "'hour'"),
    burst: default!(Option<i32>, "NULL"),
) -> SqlResult<String> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let asked = Asked::new(resource, max_value, period, burst)?;
    asked.set(&Owner::tenant(Some(tenant))?, &OF_TENANT)?;
    Ok(asked.resource.to_owned())
}

/// Takes a tenant's own rate limit of a resource back: its plan's holds again.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn unset_tenant_rate_limit(tenant: Option<Uuid>, resource: Option<&str>) -> SqlResult<bool> {
    Ok(Owner::tenant(tenant)?.take_back(UNSET_FOR_TENANT, "tenant.unset_rate_limit", resource)?)
}

/// What the buckets of this server hold now, and what has happened to them.
#[pg_extern(schema = "tenancy")]
#[allow(clippy::type_complexity)]
fn rate_limit_buckets() -> TableIterator<
    'static,
    (name!(part, String), name!(buckets, i64), name!(busy, i64), name!(evicted, i64), name!(refused_for_room, i64)),
> {
    TableIterator::new(monitor::bucket_status().into_iter().map(|status| {
        let [evicted, refused] = [status.evicted, status.refused].map(u64::cast_signed);
        (status.part.name().to_owned(), status.buckets as i64, status.busy as i64, evicted, refused)
    }))
}
