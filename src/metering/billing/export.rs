//! Closed periods as a billing system takes them.

use super::close::moment;
use super::period;
use crate::context::registry;
use crate::error::{Error, Result};
use crate::metering::time;
use crate::query;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, Uuid};

const LINES: &str = "SELECT t.external_id, s.stripe_customer_id, s.stripe_subscription_id, l.metric, l.unit, l.quantity,
        l.period_start, l.period_end, CASE l.period_start WHEN l.billed_with THEN 'usage' ELSE 'adjustment' END, l.line_id::text
    FROM tenancy.billing_lines l
    JOIN tenancy.tenants t ON t.id = l.tenant_id
    LEFT JOIN tenancy.subscriptions s ON s.tenant_id = l.tenant_id
    WHERE l.tenant_id = $1 AND l.billed_with = $2
    ORDER BY l.period_start = l.billed_with DESC, l.period_start, l.metric";

type Line = (
    Uuid,
    Option<String>,
    Option<String>,
    Option<String>,
    String,
    Option<String>,
    AnyNumeric,
    TimestampWithTimeZone,
    TimestampWithTimeZone,
    String,
    String,
);

fn export(tenant: Uuid, month: &str) -> Result<Vec<Line>> {
    let closed = period::closed_in_month(tenant, time::month(month)?)?;
    if closed.is_empty() {
        return Err(Error::State(
            "no period that begins in this month is closed".to_owned(),
            "Close it with close_billing_period() first.",
        ));
    }
    let mut lines = Vec::new();
    for period in closed {
        lines.extend(query::rows(LINES, &[tenant.into(), moment(period.start)?.into()], |row| {
            Ok((
                tenant,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.must(4)?,
                row.get(5)?,
                row.must(6)?,
                row.must(7)?,
                row.must(8)?,
                row.must(9)?,
                row.must(10)?,
            ))
        })?);
    }
    Ok(lines)
}

/// The lines that were billed with the periods that begin in a month.
#[pg_extern(security_definer, stable)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn export_billing_period(
    tenant: Option<Uuid>,
    month: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(tenant_id, Uuid),
            name!(external_id, Option<String>),
            name!(stripe_customer_id, Option<String>),
            name!(stripe_subscription_id, Option<String>),
            name!(metric, String),
            name!(unit, Option<String>),
            name!(quantity, AnyNumeric),
            name!(period_start, TimestampWithTimeZone),
            name!(period_end, TimestampWithTimeZone),
            name!(kind, String),
            name!(idempotency_key, String),
        ),
    >,
    ErrorReport,
> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let month = month.ok_or(Error::Null("month"))?;
    registry::find(tenant)?.ok_or_else(|| Error::unknown_tenant(tenant))?;
    Ok(TableIterator::new(export(tenant, month)?))
}
