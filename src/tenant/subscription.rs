//! Subscriptions: what the billing system says of a tenant, and what follows for the tenant's state.

use super::lifecycle;
use crate::audit::{self, Entry};
use crate::context::registry::{self, Status};
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock;
use crate::json::Jsonb;
use crate::metering::time;
use crate::procedure;
use crate::query;
use crate::text;
use crate::worker::task::{self, Task, Work};
use pgrx::Uuid;
use pgrx::datum::Interval;
use pgrx::prelude::*;

const STATUSES: [&str; 4] = ["trialing", "active", "past_due", "canceled"];

/// Tenants whose grace has passed that one transaction looks at.
const BATCH: i64 = 100;

/// What background workers do.
pub const TASKS: &[Task] = &[Task { name: "subscription grace", every_s: 60, work: Work::Batch(apply) }];

/// The tenant's row comes first: two that say something of the same tenant wait here.
const LOCK_TENANT: &str = "SELECT true FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const BEFORE: &str = "SELECT status, months_from, current_period_start, current_period_end, restricted_since,
        pg_catalog.to_jsonb(s) - '{tenant_id,created_at,updated_at}'::text[]
    FROM tenancy.subscriptions s WHERE tenant_id = $1";
const NOT_NEGATIVE: &str = "SELECT $1 >= '0'::pg_catalog.interval";
/// A grace begins when the status becomes one that has it; what is canceled is paid for until its period ends.
const SET: &str = "INSERT INTO tenancy.subscriptions AS s
        (tenant_id, status, current_period_start, current_period_end, stripe_customer_id, stripe_subscription_id, months_from, grace_until)
    VALUES ($1, $2, $3, $4, $5, $6, $7, CASE $2 WHEN 'past_due' THEN pg_catalog.now() + $8
            WHEN 'canceled' THEN greatest($4, pg_catalog.now()) + $8 END)
    ON CONFLICT (tenant_id) DO UPDATE SET
        status = excluded.status,
        current_period_start = excluded.current_period_start, current_period_end = excluded.current_period_end,
        stripe_customer_id = coalesce(excluded.stripe_customer_id, s.stripe_customer_id),
        stripe_subscription_id = coalesce(excluded.stripe_subscription_id, s.stripe_subscription_id),
        months_from = excluded.months_from,
        grace_until = CASE WHEN excluded.status = s.status THEN s.grace_until ELSE excluded.grace_until END,
        restricted_since = CASE WHEN excluded.grace_until IS NULL THEN NULL ELSE s.restricted_since END
    RETURNING pg_catalog.to_jsonb(s) - '{tenant_id,created_at,updated_at}'::text[]";
const TOUCH: &str = "UPDATE tenancy.subscriptions SET updated_at = pg_catalog.clock_timestamp() WHERE tenant_id = $1";

/// In no order, so that one that cannot be changed is not always tried first.
const PASSED: &str = "SELECT s.tenant_id FROM tenancy.subscriptions s JOIN tenancy.tenants t ON t.id = s.tenant_id
    WHERE s.grace_until <= pg_catalog.now() AND s.restricted_since IS NULL AND t.status = 'active'
    ORDER BY pg_catalog.random() LIMIT $1";
const STILL_PASSED: &str = "SELECT status FROM tenancy.subscriptions
    WHERE tenant_id = $1 AND grace_until <= pg_catalog.now() AND restricted_since IS NULL FOR UPDATE";
const RESTRICTED: &str = "UPDATE tenancy.subscriptions SET restricted_since = pg_catalog.now() WHERE tenant_id = $1";
/// Nobody has changed the tenant's state since.
const IS_STILL_RESTRICTED: &str =
    "SELECT status = 'read_only' AND status_since = $2 FROM tenancy.tenants WHERE id = $1";

/// What was said of a tenant before.
#[derive(Default)]
struct Before {
    status: Option<String>,
    months_from: Option<TimestampWithTimeZone>,
    period_start: Option<TimestampWithTimeZone>,
    period_end: Option<TimestampWithTimeZone>,
    restricted_since: Option<TimestampWithTimeZone>,
    all: Option<Jsonb>,
}

impl Before {
    fn read(tenant: Uuid) -> Result<Self> {
        let found = query::current_rows(BEFORE, &[tenant.into()], |row| {
            Ok(Self {
                status: row.get(1)?,
                months_from: row.get(2)?,
                period_start: row.get(3)?,
                period_end: row.get(4)?,
                restricted_since: row.get(5)?,
                all: row.get(6)?,
            })
        })?;
        Ok(found.into_iter().next().unwrap_or_default())
    }
}

/// What the tenant's months begin with, now that its period begins at `start`: what they began with before, if that is one of their borders.
fn months_from(
    before: &Before,
    follows: Option<bool>,
    start: Option<TimestampWithTimeZone>,
) -> Result<Option<TimestampWithTimeZone>> {
    if !follows.unwrap_or(before.months_from.is_some()) {
        return Ok(None);
    }
    let start = start.ok_or_else(|| Error::invalid("follows_period needs a current_period_start", ""))?;
    let Some(from) = before.months_from else { return Ok(Some(start)) };
    let month = time::anchored_month(from.into_inner(), start.into_inner())?;
    let is_border =
        time::next_bucket(start.into_inner()) == month.start || time::next_bucket(start.into_inner()) == month.end;
    Ok(Some(if is_border { from } else { start }))
}

/// Says what the billing system says.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)]
fn set_subscription(
    tenant: Option<Uuid>,
    status: Option<&str>,
    current_period_start: default!(Option<TimestampWithTimeZone>, "NULL"),
    current_period_end: default!(Option<TimestampWithTimeZone>, "NULL"),
    stripe_customer_id: default!(Option<&str>, "NULL"),
    stripe_subscription_id: default!(Option<&str>, "NULL"),
    grace: default!(Option<Interval>, "'14 days'"),
    follows_period: default!(Option<bool>, "NULL"),
) -> SqlResult<Uuid> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let status = status.ok_or(Error::Null("status"))?;
    if !STATUSES.contains(&status) {
        let status: String = status.chars().take(63).collect();
        return Err(Error::invalid(
            format!("\"{status}\" is not a status of a subscription"),
            "They are trialing, active, past_due and canceled.",
        )
        .into());
    }
    let grace = grace.ok_or(Error::Null("grace"))?;
    if query::value::<bool>(NOT_NEGATIVE, &[grace.into()])? != Some(true) {
        return Err(Error::invalid("grace must not be negative", "").into());
    }
    let customer = stripe_customer_id.map(text::check_external_id).transpose()?;
    let subscription = stripe_subscription_id.map(text::check_external_id).transpose()?;
    query::returning(LOCK_TENANT, &[tenant.into()], |row| row.must::<bool>(1))?
        .ok_or_else(|| Error::unknown_tenant(tenant))?;
    let before = Before::read(tenant)?;
    let start = current_period_start.or(before.period_start);
    let end = current_period_end.or(before.period_end);
    check_period(start, end)?;
    let months_from = months_from(&before, follows_period, start)?;
    let args = [
        tenant.into(),
        status.into(),
        start.into(),
        end.into(),
        customer.into(),
        subscription.into(),
        months_from.into(),
        grace.into(),
    ];
    let after: Option<Jsonb> = query::returning(SET, &args, |row| row.get(1))?.flatten();
    if after != before.all {
        query::run(TOUCH, &[tenant.into()])?;
        audit::record(&Entry {
            action: "subscription.set",
            tenant: Some(tenant),
            target: before.status.as_deref().or(Some(status)),
            before: before.all,
            after,
        })?;
    }
    if let ("active" | "trialing", Some(since)) = (status, before.restricted_since) {
        lift(tenant, since)?;
    }
    Ok(tenant)
}

fn check_period(start: Option<TimestampWithTimeZone>, end: Option<TimestampWithTimeZone>) -> Result<()> {
    let moments = [start, end].map(|moment| moment.map(TimestampWithTimeZone::into_inner));
    if moments.iter().flatten().any(|moment| matches!(*moment, i64::MIN | i64::MAX)) {
        return Err(Error::invalid("a period must begin and end some time", ""));
    }
    match moments {
        [Some(start), Some(end)] if start >= end => Err(Error::invalid("a period must begin before it ends", "")),
        _ => Ok(()),
    }
}

/// Makes a tenant active again that was restricted at `since`, unless someone has changed its state after that.
fn lift(tenant: Uuid, since: TimestampWithTimeZone) -> Result<()> {
    let args = [tenant.into(), since.into()];
    let is_ours = query::current_rows(IS_STILL_RESTRICTED, &args, |row| row.must::<bool>(1))? == [true];
    if is_ours { lifecycle::resume(tenant) } else { Ok(()) }
}

/// Makes a tenant read-only whose grace has passed; false where that is no longer so.
fn restrict(tenant: Uuid) -> Result<bool> {
    lock::take_alone(tenant);
    let is_active = registry::find(tenant)?.is_some_and(|tenant| tenant.status == Status::Active);
    let status = query::current_rows(STILL_PASSED, &[tenant.into()], |row| row.must::<String>(1))?;
    let (true, [status]) = (is_active, status.as_slice()) else { return Ok(false) };
    lifecycle::make_read_only(tenant, &format!("subscription {status}"))?;
    query::run(RESTRICTED, &[tenant.into()])?;
    Ok(true)
}

/// As many as there is time for: how many were restricted, and whether there may be more.
fn apply() -> Result<(u64, bool)> {
    let passed: Vec<Uuid> = query::rows(PASSED, &[BATCH.into()], |row| row.must(1))?;
    let mut restricted = 0;
    for (tried, tenant) in passed.iter().enumerate() {
        if task::time_is_up() {
            return Ok((restricted, tried > 0));
        }
        match procedure::attempt(|| restrict(*tenant)) {
            Ok(done) => restricted += u64::from(done),
            Err(error) => {
                let message = format!("tenant \"{tenant}\" was not made read-only: {error}");
                task::note_failure(&message);
                warning!("{message}");
            }
        }
    }
    Ok((restricted, restricted == BATCH.cast_unsigned()))
}

/// Makes tenants read-only whose grace has passed.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn apply_subscription_grace() -> SqlResult<i64> {
    query::refuse_old_snapshot("subscriptions cannot be looked after")?;
    let mut total = 0;
    loop {
        let (restricted, more) = apply()?;
        total += restricted;
        if !more {
            return Ok(total.cast_signed());
        }
    }
}
