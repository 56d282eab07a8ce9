//! `consume_quota`: checks and records at once, so that what is consumed never passes the limit.
//!
//! Who consumes holds the tenant's counting lock until its transaction ends, so what others consumed before is committed or undone. What has
//! been used of a period is three parts: what was consumed, in a counter of the period; what was recorded otherwise and is in buckets,
//! remembered beside it for as long as the rollup has not run again; and what was recorded otherwise and is still in the inbox. The
//! counter is no more than a memory: where it is missing (a new period, a restored database) it is added up from the same events.
//!
//! A counter's version moves to a new place in its index with every [`ERA`] changes, and is read from that index's end. So a reader finds the newest
//! without walking the old ones, which a long transaction elsewhere may keep from being removed.

use super::metric::Aggregation;
use super::{inbox, metric, quantity, read};
use crate::context;
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{self, Mode, Subject};
use crate::metering::plan::{self, Limit, Period};
use crate::metering::time::{self, Bounds};
use crate::query;
use crate::scan::{Key, Row, Table};
use crate::store::{self, Place};
use pgrx::prelude::*;
use pgrx::{AnyNumeric, IntoDatum, Uuid};

/// Changes of a counter in one place of its index.
const ERA: i64 = 64;

/// Column numbers of `tenancy.quota_counters`; sql/metering/usage.sql keeps them.
const TENANT: i16 = 1;
const METRIC: i16 = 2;
const PERIOD: i16 = 3;
const PERIOD_START: i16 = 4;
const CONSUMED: i16 = 6;
const RECORDED: i16 = 7;
const ROLLUPS: i16 = 8;
const CHANGES: i16 = 9;

static COUNTERS: Table = Table::by(c"quota_counters", c"quota_counters_pkey");

/// What was consumed of metric `$2` from `$3` to `$4`.
const CONSUMED_BY_EVENTS: &str = "SELECT coalesce((
        SELECT pg_catalog.sum(consumed) FROM tenancy.usage_buckets
        WHERE tenant_id = $1 AND metric = $2 AND bucket_start >= $3 AND bucket_start < $4), 0)
    + coalesce((
        SELECT pg_catalog.sum(quantity) FROM tenancy.usage_pending
        WHERE tenant_id = $1 AND counted AND metric = $2 AND occurred_at >= $3 AND occurred_at < $4), 0)";

/// What was recorded otherwise: in the inbox, in buckets unless the rollup numbered `$5` was the last, and which was.
const RECORDED_OTHERWISE: &str = "SELECT coalesce((
        SELECT pg_catalog.sum(quantity) FROM tenancy.usage_pending
        WHERE tenant_id = $1 AND NOT counted AND metric = $2 AND occurred_at >= $3 AND occurred_at < $4), 0),
        CASE WHEN p.rollups IS DISTINCT FROM $5 THEN coalesce((
            SELECT pg_catalog.sum(quantity - consumed) FROM tenancy.usage_buckets
            WHERE tenant_id = $1 AND metric = $2 AND bucket_start >= $3 AND bucket_start < $4), 0) END,
        p.rollups
    FROM (SELECT coalesce((SELECT rollups FROM tenancy.usage_progress ORDER BY rollups DESC LIMIT 1), 0)) AS p (rollups)";

/// The counter of one period, as it is to be written.
struct Counter {
    place: Option<Place>,
    consumed: AnyNumeric,
    recorded: AnyNumeric,
    rollups: i64,
    changes: i64,
    /// Recorded otherwise, and not in buckets yet.
    in_inbox: AnyNumeric,
}

impl Counter {
    /// The counter of the period as all that is committed makes it. The caller holds the tenant's lock.
    fn read(tenant: Uuid, metric: &str, period: Period, bounds: Bounds) -> Result<Self> {
        let known = COUNTERS.last(&Self::keys(&tenant, metric, period, bounds)?)?;
        let moment = |at: pg_sys::TimestampTz| TimestampWithTimeZone::try_from(at).ok();
        let args = || [tenant.into(), metric.into(), moment(bounds.start).into(), moment(bounds.end).into()];
        let read_events = || {
            let (place, consumed, recorded, rollups, changes) = match known {
                Some((row, place)) => {
                    let row: &Row = &row;
                    (
                        Some(place),
                        row.must(CONSUMED)?,
                        row.must(RECORDED)?,
                        Some(row.must::<i64>(ROLLUPS)?),
                        row.must(CHANGES)?,
                    )
                }
                None => {
                    let consumed = query::active_rows(CONSUMED_BY_EVENTS, &args(), |row| row.must(1))?.pop();
                    let consumed: AnyNumeric = consumed.unwrap_or_else(|| AnyNumeric::from(0));
                    (None, consumed, AnyNumeric::from(0), None, 0)
                }
            };
            let [tenant, metric, start, end] = args();
            let (in_inbox, in_buckets, last) =
                query::active_rows(RECORDED_OTHERWISE, &[tenant, metric, start, end, rollups.into()], |row| {
                    Ok((row.must(1)?, row.get(2)?, row.must(3)?))
                })?
                .pop()
                .ok_or_else(|| Error::Internal("an aggregate has no row".to_owned()))?;
            let recorded = in_buckets.unwrap_or(recorded);
            Ok(Self { place, consumed, recorded, rollups: last, changes, in_inbox })
        };
        query::as_of_now(|| read::by_index(read_events))
    }

    /// Forgets the counter of a period that is not limited now, and so is not counted on.
    fn forget(tenant: Uuid, metric: &str, period: Period, now: pg_sys::TimestampTz) -> Result<()> {
        let bounds = time::of_tenant(tenant, period, now)?;
        match COUNTERS.last(&Self::keys(&tenant, metric, period, bounds)?)? {
            Some((_, place)) => store::delete(&COUNTERS, place),
            None => Ok(()),
        }
    }

    fn keys(tenant: &Uuid, metric: &str, period: Period, bounds: Bounds) -> Result<[Key; 4]> {
        Ok([
            Key::uuid(TENANT, tenant.as_bytes()),
            Key::text(METRIC, metric)?,
            Key::text(PERIOD, period.name())?,
            Key::timestamp(PERIOD_START, bounds.start),
        ])
    }

    fn used(&self) -> AnyNumeric {
        self.consumed.clone() + self.recorded.clone() + self.in_inbox.clone()
    }

    /// Adds what is consumed now.
    fn add(self, tenant: Uuid, metric: &str, period: Period, bounds: Bounds, quantity: &AnyNumeric) -> Result<()> {
        let changes = self.changes + 1;
        let values = [
            tenant.into_datum(),
            metric.into_datum(),
            period.name().into_datum(),
            Some(bounds.start.into()),
            (changes / ERA).into_datum(),
            (self.consumed + quantity.clone()).into_datum(),
            self.recorded.into_datum(),
            self.rollups.into_datum(),
            changes.into_datum(),
        ];
        match self.place {
            Some(place) => store::update(&COUNTERS, place, values),
            None => store::insert(&COUNTERS, values),
        }
    }
}

/// A period that is limited, and by how much.
fn limited(limits: &[Limit]) -> impl Iterator<Item = (Period, AnyNumeric)> {
    limits.iter().filter_map(|limit| Some((limit.period, limit.numeric()?)))
}

/// Records that the bound tenant used so much of a metric, unless that would pass a limit; what remains.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn consume_quota(metric: Option<&str>, quantity: default!(Option<AnyNumeric>, "1")) -> SqlResult<Option<AnyNumeric>> {
    let name = metric.ok_or(Error::Null("metric"))?;
    let quantity = quantity.ok_or(Error::Null("quantity"))?;
    store::refuse_if_read_only(c"consume_quota()");
    let tenant = context::bound().map(|bound| Uuid::from_bytes(bound.tenant)).ok_or(Error::Unbound)?;
    if metric::find(name)? != Aggregation::Sum {
        return Err(Error::invalid(
            format!("metric \"{name}\" is not a sum, so that it cannot be consumed"),
            "Use record_usage() and check_limit().",
        )
        .into());
    }
    quantity::datum(quantity.clone())?;
    lock::admit_writer();
    if limited(&plan::limits_of(tenant, name)?).next().is_none() {
        inbox::insert_event(tenant, name, quantity, None, false)?;
        return Ok(None);
    }
    Subject::counts_of(tenant).lock(Mode::Exclusive);
    let now = time::now();
    let mut counters = Vec::new();
    let mut left: Option<AnyNumeric> = None;
    for (period, max) in limited(&plan::limits_of(tenant, name)?) {
        let bounds = time::of_tenant(tenant, period, now)?;
        let counter = Counter::read(tenant, name, period, bounds)?;
        let used = counter.used() + quantity.clone();
        if used > max {
            return Err(Error::LimitReached { resource: name.to_owned(), max: max.normalize().to_owned() }.into());
        }
        let remaining = read::remaining(max, Some(used));
        left = Some(left.map_or(remaining.clone(), |left| if left < remaining { left } else { remaining }));
        counters.push((period, bounds, counter));
    }
    for period in Period::ALL {
        if !counters.iter().any(|(counted, ..)| *counted == period) {
            Counter::forget(tenant, name, period, now)?;
        }
    }
    for (period, bounds, counter) in counters {
        counter.add(tenant, name, period, bounds, &quantity)?;
    }
    inbox::insert_event(tenant, name, quantity, Some(now), true)?;
    Ok(left)
}
