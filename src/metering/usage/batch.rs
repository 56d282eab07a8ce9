//! Recording many events in one call, all or none.

use super::event::Event;
use super::{key, record};
use crate::error::{Error, Result, SqlResult};
use crate::json::Jsonb;
use crate::procedure;
use crate::query;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, IntoDatum, Uuid, pg_sys};

/// What is wrong with the form of the first event that has not the right one.
const FAULT: &str = "SELECT fault FROM (
        SELECT n, CASE WHEN pg_catalog.jsonb_typeof(e) <> 'object' THEN pg_catalog.format('event %s is not an object', n)
            WHEN e ->> 'metric' IS NULL THEN pg_catalog.format('event %s has no metric', n)
            ELSE (SELECT pg_catalog.format('event %s has an unknown field: \"%s\"', n, field)
                  FROM pg_catalog.jsonb_object_keys(e) AS field
                  WHERE field <> ALL ('{metric,quantity,idempotency_key,occurred_at,resource_id,properties}') LIMIT 1) END AS fault
        FROM pg_catalog.jsonb_array_elements($1) WITH ORDINALITY AS events (e, n)) AS faults
    WHERE fault IS NOT NULL ORDER BY n LIMIT 1";
const EVENTS: &str = "SELECT metric, coalesce(quantity, 1)::text, idempotency_key, occurred_at, resource_id, properties
    FROM pg_catalog.jsonb_to_recordset($1) AS e
        (metric text, quantity numeric, idempotency_key text, occurred_at timestamptz, resource_id uuid, properties jsonb)";

/// One event of the array.
struct Item {
    metric: String,
    quantity: String,
    key: Option<String>,
    occurred_at: Option<i64>,
    resource: Option<Uuid>,
    properties: Option<Jsonb>,
}

fn read(events: &Jsonb) -> Result<Vec<Item>> {
    let argument = || -> [DatumWithOid; 1] { [events.clone().into()] };
    if let Some(fault) = query::value::<String>(FAULT, &argument())? {
        return Err(Error::Invalid(fault, ""));
    }
    query::rows(EVENTS, &argument(), |row| {
        Ok(Item {
            metric: row.must(1)?,
            quantity: row.must(2)?,
            key: row.get(3)?,
            occurred_at: row.get::<TimestampWithTimeZone>(4)?.map(pg_sys::TimestampTz::from),
            resource: row.get(5)?,
            properties: row.get(6)?,
        })
    })
}

/// Records an item, unless it was recorded under its key before.
fn record(tenant: &[u8; 16], item: &Item, key: Option<[u8; 16]>) -> Result<bool> {
    let quantity = AnyNumeric::try_from(item.quantity.as_str()).ok().into_datum();
    let event = Event {
        metric: &item.metric,
        quantity: quantity.ok_or_else(|| Error::invalid("quantity is no number", ""))?,
        occurred_at: item.occurred_at,
        resource: item.resource.map(|resource| *resource.as_bytes()),
        properties: item.properties.clone().into_datum(),
    };
    // SAFETY: the datums were made of values of their types.
    record::record(tenant, &unsafe { event.check() }?, key)
}

/// Records the events of a JSON array for the bound tenant; how many were new.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn record_usage_batch(events: Option<Jsonb>) -> SqlResult<i64> {
    let events = events.ok_or(Error::Null("events"))?;
    if !events.is_array() {
        return Err(Error::invalid("events must be a JSON array of objects", "").into());
    }
    let tenant = record::writing_tenant(c"record_usage_batch()")?;
    let items = procedure::attempt(|| read(&events)).map_err(|fault| Error::Invalid(fault, ""))?;
    let mut items: Vec<(Option<[u8; 16]>, Item)> = items
        .into_iter()
        .map(|item| Ok((item.key.as_deref().map(key::hash).transpose()?, item)))
        .collect::<Result<_>>()?;
    // In one order, so that two batches with the same keys wait for each other and not in a circle.
    items.sort_by_key(|(key, _)| *key);
    let mut new = 0;
    for (key, item) in &items {
        new += i64::from(record(&tenant, item, *key)?);
    }
    Ok(new)
}
