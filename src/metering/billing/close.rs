//! Closing a period: its figures become lines that never change.

use super::adjustment::{self, Adjustment};
use super::period;
use crate::audit::{self, Entry};
use crate::context::registry;
use crate::error::{Error, Result};
use crate::guard::lock::{Mode, Subject};
use crate::json::Object;
use crate::metering::plan;
use crate::metering::time::{self, Bounds};
use crate::metering::usage;
use crate::query;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, Uuid};

const CLOSE: &str = "INSERT INTO tenancy.billing_periods (tenant_id, period_start, period_end) VALUES ($1, $2, $3)";
const ADD: &str = "INSERT INTO tenancy.billing_lines
        (tenant_id, billed_with, period_start, period_end, metric, unit, aggregation, quantity, events, max_value)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const NAME: &str = "SELECT pg_catalog.format('%s/%s', $1, $2)";
const LINES: &str =
    "SELECT metric, unit, aggregation, CASE period_start WHEN billed_with THEN 'usage' ELSE 'adjustment' END,
        period_start, period_end, quantity, events, max_value
    FROM tenancy.billing_lines WHERE tenant_id = $1 AND billed_with = $2
    ORDER BY period_start = billed_with DESC, period_start, metric";

pub fn moment(at: pg_sys::TimestampTz) -> Result<TimestampWithTimeZone> {
    at.try_into().map_err(|_| Error::Internal("a period is out of range".to_owned()))
}

/// One close of a tenant at a time. The caller reads what was committed while it waited.
fn lock(tenant: Uuid) -> Result<()> {
    query::refuse_old_snapshot("a period cannot be closed")?;
    Subject::step(&format!("billing of {tenant}")).lock(Mode::Exclusive);
    Ok(())
}

/// Freezes the figures of a period, and what came for earlier ones.
fn close(tenant: Uuid, period: Bounds) -> Result<()> {
    if period.end > time::now() {
        return Err(Error::State(
            "the period is not over".to_owned(),
            "A tenant's month is closed after its end; SELECT * FROM tenant_usage(...) shows what it has used so far.",
        ));
    }
    // The period itself is an adjustment of nothing.
    let mut lines = adjustment::pending(tenant, &[period])?;
    lines.extend(adjustment::pending(tenant, &period::closed(tenant)?)?);
    let (start, end) = (moment(period.start)?, moment(period.end)?);
    query::run(CLOSE, &[tenant.into(), start.into(), end.into()])?;
    for line in &lines {
        add(tenant, start, line)?;
    }
    let name: Option<String> = query::value(NAME, &[start.into(), end.into()])?;
    audit::record(&Entry {
        action: "billing.close",
        tenant: Some(tenant),
        target: name.as_deref(),
        after: Some(Object::new().number("lines", lines.len() as u64).finish()),
        ..Entry::default()
    })
}

fn add(tenant: Uuid, billed_with: TimestampWithTimeZone, line: &Adjustment) -> Result<()> {
    let args = [
        tenant.into(),
        billed_with.into(),
        moment(line.period.start)?.into(),
        moment(line.period.end)?.into(),
        line.metric.as_str().into(),
        line.unit.as_deref().into(),
        line.aggregation.as_str().into(),
        line.quantity.clone().into(),
        line.events.into(),
        plan::monthly_limit(tenant, &line.metric)?.and_then(|limit| limit.numeric()).into(),
    ];
    query::run(ADD, &args).map(drop)
}

type Line = (
    String,
    Option<String>,
    String,
    String,
    TimestampWithTimeZone,
    TimestampWithTimeZone,
    AnyNumeric,
    i64,
    Option<AnyNumeric>,
);

fn lines(tenant: Uuid, period: Bounds) -> Result<Vec<Line>> {
    query::current_rows(LINES, &[tenant.into(), moment(period.start)?.into()], |row| {
        Ok((
            row.must(1)?,
            row.get(2)?,
            row.must(3)?,
            row.must(4)?,
            row.must(5)?,
            row.must(6)?,
            row.must(7)?,
            row.must(8)?,
            row.get(9)?,
        ))
    })
}

/// Closes what is to be closed; the periods whose lines are the answer.
fn close_or_find(tenant: Uuid, month: Option<&str>) -> Result<Vec<Bounds>> {
    let period = match month {
        None => period::oldest(tenant)?,
        Some(month) => {
            let month = time::month(month)?;
            let closed = period::closed_in_month(tenant, month)?;
            if !closed.is_empty() {
                return Ok(closed);
            }
            period::of_month(tenant, month)?
        }
    };
    close(tenant, period)?;
    Ok(vec![period])
}

/// Closes a period of a tenant, or shows what was closed.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn close_billing_period(
    tenant: Option<Uuid>,
    month: default!(Option<&str>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(metric, String),
            name!(unit, Option<String>),
            name!(aggregation, String),
            name!(kind, String),
            name!(period_start, TimestampWithTimeZone),
            name!(period_end, TimestampWithTimeZone),
            name!(quantity, AnyNumeric),
            name!(events, i64),
            name!(max_value, Option<AnyNumeric>),
        ),
    >,
    ErrorReport,
> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    registry::find(tenant)?.ok_or_else(|| Error::unknown_tenant(tenant))?;
    lock(tenant)?;
    // What a tenant has used in a database of its own.
    usage::fetch(tenant)?;
    let periods = query::as_of_now(|| close_or_find(tenant, month))?;
    let mut rows = Vec::new();
    for period in periods {
        rows.extend(lines(tenant, period)?);
    }
    Ok(TableIterator::new(rows))
}
