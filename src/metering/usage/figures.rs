//! What a tenant has used between two moments, of every metric: for billing.

use crate::error::Result;
use crate::query;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, Uuid};

/// Buckets and inbox are read in one statement, which sees one state of both.
const FIGURES: &str = "SELECT m.metric, m.unit, m.aggregation,
        CASE m.aggregation WHEN 'sum' THEN s.quantity WHEN 'max' THEN s.greatest WHEN 'last' THEN s.last
            ELSE (SELECT pg_catalog.count(DISTINCT resource_id)::numeric FROM (
                SELECT resource_id FROM tenancy.usage_uniques
                WHERE tenant_id = $1 AND metric = m.metric AND bucket_start >= $2 AND bucket_start < $3
                UNION ALL
                SELECT resource_id FROM tenancy.usage_pending p
                WHERE tenant_id = $1 AND metric = m.metric
                  AND pg_catalog.date_bin('15 minutes', occurred_at, '2000-01-01 00:00+00') >= $2
                  AND pg_catalog.date_bin('15 minutes', occurred_at, '2000-01-01 00:00+00') < $3) AS resources) END,
        s.events::bigint
    FROM tenancy.metrics m
    CROSS JOIN LATERAL (
        SELECT pg_catalog.sum(quantity) AS quantity, pg_catalog.sum(events) AS events, pg_catalog.max(greatest) AS greatest,
               (pg_catalog.array_agg(last ORDER BY last_at DESC, last DESC))[1] AS last
        FROM (SELECT quantity, events, max_quantity AS greatest, last_quantity AS last, last_at FROM tenancy.usage_buckets
              WHERE tenant_id = $1 AND metric = m.metric AND bucket_start >= $2 AND bucket_start < $3
              UNION ALL
              SELECT quantity, 1, quantity, quantity, occurred_at FROM tenancy.usage_pending
              WHERE tenant_id = $1 AND metric = m.metric
                AND pg_catalog.date_bin('15 minutes', occurred_at, '2000-01-01 00:00+00') >= $2
                AND pg_catalog.date_bin('15 minutes', occurred_at, '2000-01-01 00:00+00') < $3) AS events) AS s
    WHERE s.events > 0
    ORDER BY m.metric";

/// What was used of a metric.
#[derive(Clone, Debug)]
#[allow(dead_code)]
pub struct Figure {
    pub metric: String,
    pub unit: Option<String>,
    pub aggregation: String,
    pub quantity: AnyNumeric,
    pub events: i64,
}

/// The figures of the buckets that begin from `from` on and before `to`, of metrics with events there, by name. As of now.
#[allow(dead_code)]
pub fn figures(tenant: Uuid, from: TimestampWithTimeZone, to: TimestampWithTimeZone) -> Result<Vec<Figure>> {
    query::as_of_now(|| {
        query::rows(FIGURES, &[tenant.into(), from.into(), to.into()], |row| {
            Ok(Figure {
                metric: row.must(1)?,
                unit: row.get(2)?,
                aggregation: row.must(3)?,
                quantity: row.must(4)?,
                events: row.must(5)?,
            })
        })
    })
}
