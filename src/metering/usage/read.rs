//! What was used: the buckets of the rollup and the events that it has not come to yet, added up in one statement, so that each reader counts
//! each event that is committed for it once, at any moment.
//!
//! A range takes the buckets, of a quarter of an hour, that begin in it.

use crate::context::{self, registry};
use crate::error::{Error, Result, SqlResult};
use crate::metering::plan::{self, Period};
use crate::metering::time::{self, Bounds};
use crate::query;
use crate::role;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, Uuid};

/// What was used of each metric, or of `$4` alone, by tenant `$1` from `$2` to `$3`.
const FIGURES: &str = "SELECT m.metric, m.unit, m.aggregation,
           CASE m.aggregation
               WHEN 'sum' THEN s.quantity
               WHEN 'max' THEN s.greatest
               WHEN 'last' THEN (
                   SELECT l.quantity FROM (
                       SELECT b.last_quantity, b.last_at FROM tenancy.usage_buckets b
                       WHERE b.tenant_id = $1 AND b.metric = m.metric AND b.bucket_start >= $2 AND b.bucket_start < $3
                       UNION ALL SELECT i.quantity, i.occurred_at FROM tenancy.usage_pending i
                       WHERE i.tenant_id = $1 AND i.metric = m.metric AND i.counted = ANY ('{f,t}')
                         AND i.occurred_at >= $2 AND i.occurred_at < $3) AS l (quantity, at)
                   ORDER BY l.at DESC, l.quantity DESC LIMIT 1)
               ELSE (
                   SELECT pg_catalog.count(*) FROM (
                       SELECT u.resource_id FROM tenancy.usage_uniques u
                       WHERE u.tenant_id = $1 AND u.metric = m.metric AND u.bucket_start >= $2 AND u.bucket_start < $3
                       UNION SELECT i.resource_id FROM tenancy.usage_pending i
                       WHERE i.resource_id IS NOT NULL AND i.tenant_id = $1 AND i.metric = m.metric AND i.counted = ANY ('{f,t}')
                         AND i.occurred_at >= $2 AND i.occurred_at < $3) AS r)
           END,
           s.events
    FROM tenancy.metrics m
    CROSS JOIN LATERAL (
        SELECT pg_catalog.sum(p.quantity) AS quantity, pg_catalog.sum(p.events)::bigint AS events, pg_catalog.max(p.greatest) AS greatest
        FROM (SELECT b.quantity, b.events, b.max_quantity FROM tenancy.usage_buckets b
              WHERE b.tenant_id = $1 AND b.metric = m.metric AND b.bucket_start >= $2 AND b.bucket_start < $3
              UNION ALL SELECT i.quantity, 1, i.quantity FROM tenancy.usage_pending i
              WHERE i.tenant_id = $1 AND i.metric = m.metric AND i.counted = ANY ('{f,t}')
                AND i.occurred_at >= $2 AND i.occurred_at < $3) AS p (quantity, events, greatest)
    ) AS s
    WHERE $4::text IS NULL OR m.metric = $4
    ORDER BY m.metric";

/// The same of metric `$4` in steps: quarters of an hour, or what `$5` names, by the calendar of zone `$6`.
const SERIES: &str = "WITH inbox AS MATERIALIZED (
        SELECT quantity, occurred_at, resource_id, pg_catalog.date_bin('15 minutes', occurred_at, '2000-01-01 00:00+00') AS bucket_start
        FROM tenancy.usage_pending
        WHERE tenant_id = $1 AND counted = ANY ('{f,t}') AND metric = $4 AND occurred_at >= $2 AND occurred_at < $3),
    parts AS (
        SELECT b.bucket_start, b.quantity, b.events, b.max_quantity, b.last_quantity, b.last_at FROM tenancy.usage_buckets b
        WHERE b.tenant_id = $1 AND b.metric = $4 AND b.bucket_start >= $2 AND b.bucket_start < $3
        UNION ALL SELECT i.bucket_start, i.quantity, 1, i.quantity, i.quantity, i.occurred_at FROM inbox i),
    steps AS (SELECT p.*, CASE $5 WHEN '15m' THEN bucket_start ELSE pg_catalog.date_trunc($5, bucket_start, $6) END AS step FROM parts p),
    resources AS (
        SELECT CASE $5 WHEN '15m' THEN r.bucket_start ELSE pg_catalog.date_trunc($5, r.bucket_start, $6) END AS step,
               pg_catalog.count(DISTINCT r.resource_id) AS number
        FROM (SELECT u.bucket_start, u.resource_id FROM tenancy.usage_uniques u
              WHERE u.tenant_id = $1 AND u.metric = $4 AND u.bucket_start >= $2 AND u.bucket_start < $3
              UNION ALL SELECT i.bucket_start, i.resource_id FROM inbox i WHERE i.resource_id IS NOT NULL) AS r
        GROUP BY 1)
    SELECT s.step,
           CASE m.aggregation
               WHEN 'sum' THEN pg_catalog.sum(s.quantity)
               WHEN 'max' THEN pg_catalog.max(s.max_quantity)
               WHEN 'last' THEN (pg_catalog.array_agg(s.last_quantity ORDER BY s.last_at DESC, s.last_quantity DESC))[1]
               ELSE (SELECT r.number FROM resources r WHERE r.step = s.step)
           END,
           pg_catalog.sum(s.events)::bigint
    FROM tenancy.metrics m CROSS JOIN steps s
    WHERE m.metric = $4
    GROUP BY s.step, m.aggregation
    ORDER BY s.step";

const METRIC_EXISTS: &str = "SELECT true FROM tenancy.metrics WHERE metric = $1";

/// What was used of a metric.
pub struct Figure {
    pub metric: String,
    pub unit: Option<String>,
    pub aggregation: String,
    /// None where nothing was.
    pub quantity: Option<AnyNumeric>,
    pub events: i64,
}

/// What a tenant used of each metric there is, or of one, as the active snapshot has it. The caller runs as the extension's owner.
pub fn figures(tenant: Uuid, bounds: Bounds, metric: Option<&str>) -> Result<Vec<Figure>> {
    let args = [tenant.into(), moment(bounds.start).into(), moment(bounds.end).into(), metric.into()];
    by_index(|| {
        query::active_rows(FIGURES, &args, |row| {
            Ok(Figure {
                metric: row.must(1)?,
                unit: row.get(2)?,
                aggregation: row.must(3)?,
                quantity: row.get(4)?,
                events: row.get(5)?.unwrap_or(0),
            })
        })
    })
}

/// Runs a query on the inbox by its indexes, whatever the statistics of a table say that is filled and emptied all the time: under a long
/// snapshot elsewhere its pages are full of rows that are gone.
pub fn by_index<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    role::with_settings([("enable_seqscan", "off")], work)
}

/// What a tenant has used of a metric in the period that is now; None for no such metric.
pub fn total_in_period(tenant: Uuid, metric: &str, period: Period) -> Result<Option<AnyNumeric>> {
    let bounds = time::of_tenant(tenant, period, time::now())?;
    let figure = query::as_of_now(|| role::as_extension_owner(|| Ok(figures(tenant, bounds, Some(metric))?.pop())))?;
    Ok(figure.map(|figure| figure.quantity.unwrap_or_else(|| AnyNumeric::from(0))))
}

fn moment(at: pg_sys::TimestampTz) -> Option<TimestampWithTimeZone> {
    at.try_into().ok()
}

fn bound_tenant() -> Result<Uuid> {
    context::bound().map(|bound| Uuid::from_bytes(bound.tenant)).ok_or(Error::Unbound)
}

/// The buckets that begin from one moment to another.
fn range(from: Option<TimestampWithTimeZone>, to: Option<TimestampWithTimeZone>) -> Result<Bounds> {
    let from = from.ok_or(Error::Null("from_time"))?.into_inner();
    let to = to.ok_or(Error::Null("to_time"))?.into_inner();
    if from > to {
        return Err(Error::invalid("from_time must not be after to_time", ""));
    }
    Ok(Bounds { start: time::next_bucket(from), end: time::next_bucket(to) })
}

/// What the bound tenant used of a metric.
#[pg_extern(security_definer, stable)]
#[search_path(pg_catalog, pg_temp)]
fn usage_total(
    metric: Option<&str>,
    from_time: Option<TimestampWithTimeZone>,
    to_time: Option<TimestampWithTimeZone>,
) -> SqlResult<Option<AnyNumeric>> {
    let metric = metric.ok_or(Error::Null("metric"))?;
    let bounds = range(from_time, to_time)?;
    let figure = figures(bound_tenant()?, bounds, Some(metric))?.pop();
    let figure = figure.ok_or_else(|| Error::Unknown("metric", metric.to_owned()))?;
    Ok(figure.quantity.or_else(|| is_additive(&figure.aggregation).then(|| AnyNumeric::from(0))))
}

/// Whether nothing at all is zero, and not unknown.
fn is_additive(aggregation: &str) -> bool {
    matches!(aggregation, "sum" | "unique")
}

/// What the bound tenant used of a metric, in steps.
#[pg_extern(security_definer, stable)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn usage_series(
    metric: Option<&str>,
    bucket: Option<&str>,
    from_time: Option<TimestampWithTimeZone>,
    to_time: Option<TimestampWithTimeZone>,
) -> std::result::Result<
    TableIterator<
        'static,
        (name!(bucket_start, TimestampWithTimeZone), name!(quantity, Option<AnyNumeric>), name!(events, i64)),
    >,
    ErrorReport,
> {
    let metric = metric.ok_or(Error::Null("metric"))?;
    let bucket = bucket.ok_or(Error::Null("bucket"))?;
    if !matches!(bucket, "15m" | "hour" | "day" | "month") {
        let bucket: String = bucket.chars().take(63).collect();
        return Err(
            Error::invalid(format!("\"{bucket}\" is not a bucket"), "Buckets are 15m, hour, day and month.").into()
        );
    }
    let bounds = range(from_time, to_time)?;
    let tenant = bound_tenant()?;
    if query::value::<bool>(METRIC_EXISTS, &[metric.into()])?.is_none() {
        return Err(Error::Unknown("metric", metric.to_owned()).into());
    }
    let args = [
        tenant.into(),
        moment(bounds.start).into(),
        moment(bounds.end).into(),
        metric.into(),
        bucket.into(),
        time::zone_name().into(),
    ];
    let rows = by_index(|| query::rows(SERIES, &args, |row| Ok((row.must(1)?, row.get(2)?, row.must(3)?))))?;
    Ok(TableIterator::new(rows))
}

/// A metric of a month: its figure, its events, its limit and what is left.
type Line = (String, Option<AnyNumeric>, i64, Option<AnyNumeric>, Option<AnyNumeric>);

/// What a tenant used in a month of each metric that it used at all or that its months are limited by.
fn of_month(tenant: Uuid, month: Option<&str>) -> Result<Vec<Line>> {
    let bounds = match month {
        Some(month) => time::month(month)?,
        None => time::of_tenant(tenant, Period::Month, time::now())?,
    };
    let mut rows = Vec::new();
    for figure in figures(tenant, bounds, None)? {
        let limit = plan::monthly_limit(tenant, &figure.metric)?;
        if figure.events == 0 && limit.is_none() {
            continue;
        }
        let max = limit.and_then(|limit| limit.numeric());
        let used = figure.quantity.or_else(|| is_additive(&figure.aggregation).then(|| AnyNumeric::from(0)));
        let remaining = max.clone().map(|max| remaining(max, used.clone()));
        rows.push((figure.metric, used, figure.events, max, remaining));
    }
    Ok(rows)
}

/// What is left of a limit.
pub fn remaining(max: AnyNumeric, used: Option<AnyNumeric>) -> AnyNumeric {
    match used {
        Some(used) if used >= max => AnyNumeric::from(0),
        Some(used) => max - used,
        None => max,
    }
}

/// The bound tenant's month.
#[pg_extern(security_definer, stable)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn monthly_usage(
    month: default!(Option<&str>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(metric, String),
            name!(quantity, Option<AnyNumeric>),
            name!(events, i64),
            name!(max_value, Option<AnyNumeric>),
            name!(remaining, Option<AnyNumeric>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::new(of_month(bound_tenant()?, month)?))
}

/// Any tenant's month.
#[pg_extern(security_definer, stable)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn tenant_usage(
    tenant: Option<Uuid>,
    month: default!(Option<&str>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(metric, String),
            name!(quantity, Option<AnyNumeric>),
            name!(events, i64),
            name!(max_value, Option<AnyNumeric>),
            name!(remaining, Option<AnyNumeric>),
        ),
    >,
    ErrorReport,
> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    registry::find(tenant)?.ok_or_else(|| Error::unknown_tenant(tenant))?;
    Ok(TableIterator::new(of_month(tenant, month)?))
}

/// The hour, day or month of the bound tenant that a moment is in: what its limits are counted over.
#[pg_extern(stable)]
#[allow(clippy::type_complexity)]
fn usage_period(
    period: Option<&str>,
    at: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> std::result::Result<
    TableIterator<'static, (name!(period_start, TimestampWithTimeZone), name!(period_end, TimestampWithTimeZone))>,
    ErrorReport,
> {
    let period = Period::from_name(period.ok_or(Error::Null("period"))?)?;
    let at = at.map_or_else(time::now, TimestampWithTimeZone::into_inner);
    if at == i64::MIN || at == i64::MAX {
        return Err(Error::invalid("a moment must not be infinite", "").into());
    }
    let bounds = time::of_tenant(bound_tenant()?, period, at)?;
    Ok(TableIterator::new(moment(bounds.start).zip(moment(bounds.end))))
}
