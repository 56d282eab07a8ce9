//! Which period of a tenant is closed next, and which ones are.

use crate::error::{Error, Result};
use crate::metering::plan::Period;
use crate::metering::time::{self, Bounds};
use crate::query;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

/// The closed periods of a tenant in their order.
const CLOSED: &str =
    "SELECT period_start, period_end FROM tenancy.billing_periods WHERE tenant_id = $1 ORDER BY period_start";
/// The first bucket of the tenant that is in none of its closed periods, and when the tenant was created.
const OLDEST: &str = "SELECT (
        SELECT pg_catalog.min(u.at) FROM (
            SELECT bucket_start FROM tenancy.usage_buckets WHERE tenant_id = $1
            UNION ALL
            SELECT pg_catalog.date_bin('15 minutes', occurred_at, '2000-01-01 00:00+00') FROM tenancy.usage_pending
            WHERE tenant_id = $1 AND counted = ANY ('{f,t}')) AS u (at)
        WHERE NOT EXISTS (SELECT FROM tenancy.billing_periods p
                          WHERE p.tenant_id = $1 AND u.at >= p.period_start AND u.at < p.period_end)),
    (SELECT created_at FROM tenancy.tenants WHERE id = $1)";

/// The closed periods of a tenant.
pub fn closed(tenant: Uuid) -> Result<Vec<Bounds>> {
    query::rows(CLOSED, &[tenant.into()], |row| {
        let moment = |column| row.must::<TimestampWithTimeZone>(column).map(TimestampWithTimeZone::into_inner);
        Ok(Bounds { start: moment(1)?, end: moment(2)? })
    })
}

/// Those of them that begin in a calendar month.
pub fn closed_in_month(tenant: Uuid, month: Bounds) -> Result<Vec<Bounds>> {
    Ok(closed(tenant)?.into_iter().filter(|period| month.contains(period.start)).collect())
}

/// The part of the tenant's month that `at` is in that `closed` leaves around it.
fn around(tenant: Uuid, at: pg_sys::TimestampTz, closed: &[Bounds]) -> Result<Bounds> {
    let mut period = time::of_tenant(tenant, Period::Month, at)?;
    for other in closed {
        if other.end <= at {
            period.start = period.start.max(other.end);
        } else if other.start > at {
            period.end = period.end.min(other.start);
        }
    }
    Ok(period)
}

/// The period that begins in a calendar month, none of which is closed.
pub fn of_month(tenant: Uuid, month: Bounds) -> Result<Bounds> {
    let closed = closed(tenant)?;
    let last = month.end - time::BUCKET;
    let named = time::of_tenant(tenant, Period::Month, last)?;
    // A period of before may reach into it.
    let free = closed.iter().filter(|other| other.contains(named.start)).map(|other| other.end).max();
    let at = free.unwrap_or(named.start);
    if at >= named.end || !month.contains(at) {
        return Err(Error::State(
            "this month is closed as a part of other periods".to_owned(),
            "SELECT period_start, period_end FROM tenancy.billing_periods; with month NULL the oldest is closed that is not.",
        ));
    }
    around(tenant, at, &closed)
}

/// The oldest period that is not closed: what follows the last closed one, or an earlier one that something was recorded for since.
pub fn oldest(tenant: Uuid) -> Result<Bounds> {
    let closed = closed(tenant)?;
    let (used, created) = query::first(OLDEST, &[tenant.into()], |row| {
        Ok((row.get::<TimestampWithTimeZone>(1)?, row.get::<TimestampWithTimeZone>(2)?))
    })?
    .unwrap_or_default();
    let created = created.ok_or_else(|| Error::unknown_tenant(tenant))?.into_inner();
    let next = closed.iter().map(|period| period.end).max().unwrap_or(created);
    let at = used.map_or(next, |used| used.into_inner().min(next));
    around(tenant, time::bucket(at), &closed)
}
