//! Putting events into the inbox: without SPI, because it is done on every request.

use super::event::Event;
use super::quantity;
use crate::error::Result;
use crate::metering::time;
use crate::monitor;
use crate::scan::Table;
use crate::store;
use pgrx::{AnyNumeric, IntoDatum, Uuid, pg_sys};

static INBOX: Table = Table::by(c"usage_inbox", c"usage_inbox_txid_idx");

/// Adds a checked event of the tenant. The row names the transaction that it commits with, which the rollup goes by.
pub fn insert(tenant: &[u8; 16], event: &Event, counted: bool) -> Result<()> {
    let now = time::now();
    monitor::announce();
    // SAFETY: gives the transaction an id if it has none.
    let transaction = unsafe { pg_sys::GetTopFullTransactionId() }.value;
    store::insert(
        &INBOX,
        [
            Some(pg_sys::Datum::from(tenant.as_ptr())),
            Some(pg_sys::Datum::from(transaction)),
            Some(pg_sys::Datum::from(event.occurred_at.unwrap_or(now))),
            Some(pg_sys::Datum::from(now)),
            Some(pg_sys::Datum::from(counted)),
            event.metric.into_datum(),
            Some(event.quantity),
            event.resource.as_ref().map(|resource| pg_sys::Datum::from(resource.as_ptr())),
            event.properties,
            Some(pg_sys::Datum::from(false)),
        ],
    )?;
    // The metric may have changed while create_metric() kept us waiting; from here on it does not.
    event.check_metric()
}

/// Adds an event that has happened at this moment, or now; `counted` says that it was consumed of a quota.
pub fn insert_event(
    tenant: Uuid,
    metric: &str,
    quantity: AnyNumeric,
    occurred_at: Option<i64>,
    counted: bool,
) -> Result<()> {
    let quantity = quantity::datum(quantity)?;
    insert(tenant.as_bytes(), &Event { metric, quantity, occurred_at, resource: None, properties: None }, counted)
}
