//! Saying what plans and tenants are limited to.

use super::{Owner, Period, check_name};
use crate::error::{Error, Result, SqlResult};
use crate::json::{Jsonb, Object};
use crate::metering::usage;
use crate::query;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, Uuid};

const PLAN_BEFORE: &str =
    "SELECT pg_catalog.to_jsonb(l) FROM tenancy.plan_limits l WHERE plan = $1 AND resource = $2 AND period = $3";
const SET_FOR_PLAN: &str = "INSERT INTO tenancy.plan_limits (plan, resource, period, max_value) VALUES ($1, $2, $3, $4)
    ON CONFLICT (plan, resource, period) DO UPDATE SET max_value = excluded.max_value";
const UNSET_FOR_PLAN: &str =
    "WITH gone AS (DELETE FROM tenancy.plan_limits WHERE plan = $1 AND resource = $2 RETURNING period, max_value)
    SELECT pg_catalog.jsonb_object_agg(period, max_value) FROM gone";
const TENANT_BEFORE: &str =
    "SELECT pg_catalog.to_jsonb(l) FROM tenancy.tenant_limits l WHERE tenant_id = $1 AND resource = $2 AND period = $3";
const SET_FOR_TENANT: &str =
    "INSERT INTO tenancy.tenant_limits (tenant_id, resource, period, max_value) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant_id, resource, period) DO UPDATE SET max_value = excluded.max_value";
const UNSET_FOR_TENANT: &str = "WITH gone AS (DELETE FROM tenancy.tenant_limits WHERE tenant_id = $1 AND resource = $2 RETURNING period, max_value)
    SELECT pg_catalog.jsonb_object_agg(period, max_value) FROM gone";

/// A limit as it was asked for.
struct Asked<'a> {
    resource: &'a str,
    max_value: Option<AnyNumeric>,
    period: Period,
}

impl<'a> Asked<'a> {
    fn new(resource: Option<&'a str>, max_value: Option<AnyNumeric>, period: Option<&str>) -> Result<Self> {
        let resource = check_name("resource", resource.ok_or(Error::Null("resource"))?)?;
        let period = Period::from_name(period.ok_or(Error::Null("period"))?)?;
        if max_value.as_ref().is_some_and(|max| max.is_nan() || *max < AnyNumeric::from(0)) {
            return Err(Error::invalid("max_value must be a number that is not negative, or NULL for no limit", ""));
        }
        Ok(Self { resource, max_value, period })
    }

    /// What is limited over a period is measured, so there is to be such a metric.
    fn ensure_metric(&self) -> Result<()> {
        if self.period == Period::Total { Ok(()) } else { usage::ensure_metric(self.resource) }
    }

    fn finish(&self) -> Jsonb {
        let max = self.max_value.as_ref().map(AnyNumeric::to_string);
        let object = Object::new().text("period", self.period.name());
        object.optional("max_value", max.as_deref()).finish()
    }
}

/// The statements that limit a resource for an owner of one kind.
struct Statements {
    before: &'static str,
    set: &'static str,
    action: &'static str,
}

const OF_PLAN: Statements = Statements { before: PLAN_BEFORE, set: SET_FOR_PLAN, action: "plan.set_limit" };
const OF_TENANT: Statements = Statements { before: TENANT_BEFORE, set: SET_FOR_TENANT, action: "tenant.set_limit" };

impl Asked<'_> {
    fn set(&self, owner: &Owner, statements: &Statements) -> Result<()> {
        self.ensure_metric()?;
        let period = self.period.name();
        let before: Option<Jsonb> =
            query::value(statements.before, &[owner.argument(), self.resource.into(), period.into()])?;
        let args = [owner.argument(), self.resource.into(), period.into(), self.max_value.clone().into()];
        query::run(statements.set, &args)?;
        owner.record(statements.action, self.resource, before, Some(self.finish()))
    }
}

/// Limits a resource for the tenants of a plan.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
pub fn set_plan_limit(
    plan: Option<&str>,
    resource: Option<&str>,
    max_value: Option<AnyNumeric>,
    period: default!(Option<&str>, "'total'"),
) -> SqlResult<String> {
    let plan = plan.ok_or(Error::Null("plan"))?;
    let asked = Asked::new(resource, max_value, period)?;
    asked.set(&Owner::plan(Some(plan))?, &OF_PLAN)?;
    Ok(plan.to_owned())
}

/// Takes what a plan says of a resource back.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn unset_plan_limit(plan: Option<&str>, resource: Option<&str>) -> SqlResult<bool> {
    Ok(Owner::plan(plan)?.take_back(UNSET_FOR_PLAN, "plan.unset_limit", resource)?)
}

/// Limits a resource for one tenant, whatever its plan says.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn set_tenant_limit(
    tenant: Option<Uuid>,
    resource: Option<&str>,
    max_value: Option<AnyNumeric>,
    period: default!(Option<&str>, "'total'"),
) -> SqlResult<String> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let asked = Asked::new(resource, max_value, period)?;
    asked.set(&Owner::tenant(Some(tenant))?, &OF_TENANT)?;
    Ok(asked.resource.to_owned())
}

/// Takes a tenant's own limits of a resource back: its plan's hold again.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn unset_tenant_limit(tenant: Option<Uuid>, resource: Option<&str>) -> SqlResult<bool> {
    Ok(Owner::tenant(tenant)?.take_back(UNSET_FOR_TENANT, "tenant.unset_limit", resource)?)
}
