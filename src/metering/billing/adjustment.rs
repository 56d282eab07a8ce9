//! What has come for periods since they were closed.

use super::period;
use crate::context::registry;
use crate::error::{Error, Result};
use crate::metering::time::Bounds;
use crate::metering::usage::{self, Figure};
use crate::query;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, Uuid};
use std::collections::HashMap;

const BILLED: &str =
    "SELECT metric, pg_catalog.sum(quantity), pg_catalog.sum(events)::bigint FROM tenancy.billing_lines
    WHERE tenant_id = $1 AND period_start = $2 GROUP BY metric";

/// The difference between a figure and what is billed of it.
pub struct Adjustment {
    pub period: Bounds,
    pub metric: String,
    pub unit: Option<String>,
    pub aggregation: String,
    pub quantity: AnyNumeric,
    pub events: i64,
}

fn zero() -> AnyNumeric {
    AnyNumeric::from(0)
}

/// What is not billed yet of closed periods. The caller runs as the extension's owner.
pub fn pending(tenant: Uuid, closed: &[Bounds]) -> Result<Vec<Adjustment>> {
    let mut pending = Vec::new();
    for period in closed {
        let start: TimestampWithTimeZone =
            period.start.try_into().map_err(|_| Error::Internal("a period is out of range".to_owned()))?;
        let mut billed: HashMap<String, (AnyNumeric, i64)> =
            query::rows(BILLED, &[tenant.into(), start.into()], |row| {
                Ok((row.must::<String>(1)?, (row.must(2)?, row.must(3)?)))
            })?
            .into_iter()
            .collect();
        for Figure { metric, unit, aggregation, quantity, events } in usage::figures(tenant, *period, None)? {
            let (billed_quantity, billed_events) = billed.remove(&metric).unwrap_or_else(|| (zero(), 0));
            let quantity = quantity.unwrap_or_else(zero) - billed_quantity;
            let events = events - billed_events;
            if events != 0 || quantity != zero() {
                pending.push(Adjustment { period: *period, metric, unit, aggregation, quantity, events });
            }
        }
    }
    Ok(pending)
}

/// What will be billed of closed periods with the tenant's next close.
#[pg_extern(security_definer, stable)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn pending_adjustments(
    tenant: Option<Uuid>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(period_start, TimestampWithTimeZone),
            name!(period_end, TimestampWithTimeZone),
            name!(metric, String),
            name!(unit, Option<String>),
            name!(aggregation, String),
            name!(quantity, AnyNumeric),
            name!(events, i64),
        ),
    >,
    ErrorReport,
> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    registry::find(tenant)?.ok_or_else(|| Error::unknown_tenant(tenant))?;
    let mut rows = Vec::new();
    for found in pending(tenant, &period::closed(tenant)?)? {
        let (Ok(start), Ok(end)) = (found.period.start.try_into(), found.period.end.try_into()) else { continue };
        rows.push((start, end, found.metric, found.unit, found.aggregation, found.quantity, found.events));
    }
    Ok(TableIterator::new(rows))
}
