//! What is measured, remembered by each backend until the table says that it has changed.

use crate::audit::{self, Entry};
use crate::changes::Remembered;
use crate::error::{Error, Result, SqlResult};
use crate::json::{Jsonb, Object};
use crate::metering::plan::check_name;
use crate::query;
use crate::role;
use crate::scan::{Key, Table};
use crate::text;
use pgrx::prelude::*;
use std::cell::RefCell;

/// Column numbers of `tenancy.metrics`; sql/metering/usage.sql keeps them.
const METRIC: i16 = 1;
const AGGREGATION: i16 = 2;

static METRICS: Table = Table::by(c"metrics", c"metrics_pkey");

const FIND: &str =
    "SELECT aggregation, pg_catalog.to_jsonb(m) - 'created_at' FROM tenancy.metrics m WHERE metric = $1 FOR UPDATE";
const CREATE: &str = "INSERT INTO tenancy.metrics (metric, unit, aggregation) VALUES ($1, $2, $3)
    ON CONFLICT (metric) DO UPDATE SET unit = excluded.unit, aggregation = excluded.aggregation";
const ENSURE: &str = "INSERT INTO tenancy.metrics (metric) VALUES ($1) ON CONFLICT DO NOTHING";
const HAS_EVENTS: &str = "SELECT EXISTS (SELECT FROM tenancy.usage_inbox WHERE metric = $1)
    OR EXISTS (SELECT FROM tenancy.usage_buckets WHERE metric = $1)";

const LOCK_INBOX: &str = "LOCK TABLE tenancy.usage_inbox IN SHARE MODE";

/// How the events of a period become one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    Sum,
    Max,
    Last,
    /// The number of different resources.
    Unique,
}

impl Aggregation {
    const ALL: [Self; 4] = [Self::Sum, Self::Max, Self::Last, Self::Unique];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Last => "last",
            Self::Unique => "unique",
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|aggregation| aggregation.name() == name).ok_or_else(|| {
            Error::invalid(format!("\"{name}\" is not an aggregation"), "Aggregations are sum, max, last and unique.")
        })
    }
}

thread_local! {
    static KNOWN: RefCell<Remembered<Aggregation>> = RefCell::default();
}

/// Metrics are of no tenant.
const NOBODY: [u8; 16] = [0; 16];

/// The aggregation of a metric, as of the latest commit and the caller's own changes. An error where there is no such metric.
pub fn find(metric: &str) -> Result<Aggregation> {
    Remembered::find(&KNOWN, &NOBODY, metric, || {
        check_name("metric", metric)?;
        let (row, is_announced) = METRICS.first_and_announced(&[Key::text(METRIC, metric)?])?;
        let row = row.ok_or_else(|| Error::UnknownMetric(metric.to_owned()))?;
        Ok((Aggregation::from_name(row.must::<&str>(AGGREGATION)?)?, is_announced))
    })
}

/// Sees to it that there is such a metric: what is limited over a period is measured.
pub fn ensure(metric: &str) -> Result<()> {
    query::run(ENSURE, &[metric.into()]).map(drop)
}

/// Creates a metric, or changes its unit.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn create_metric(
    metric: Option<&str>,
    unit: default!(Option<&str>, "NULL"),
    aggregation: default!(Option<&str>, "'sum'"),
) -> SqlResult<String> {
    let metric = check_name("metric", metric.ok_or(Error::Null("metric"))?)?;
    let unit = unit.map(text::check_name).transpose()?;
    let aggregation = Aggregation::from_name(aggregation.ok_or(Error::Null("aggregation"))?)?;
    let found = query::returning(FIND, &[metric.into()], |row| Ok((row.must::<String>(1)?, row.must::<Jsonb>(2)?)))?;
    let changes_aggregation = found.as_ref().is_some_and(|(before, _)| before != aggregation.name());
    if changes_aggregation {
        // Whoever has recorded an event and not committed; those that come later look again.
        role::with_settings([("lock_timeout", "2s")], || query::statement(LOCK_INBOX, &[]).map(drop))?;
    }
    if changes_aggregation && query::current_rows(HAS_EVENTS, &[metric.into()], |row| row.must::<bool>(1))? == [true] {
        return Err(Error::State(
            format!("metric \"{metric}\" has events, so that its aggregation cannot change"),
            "Create another metric.",
        )
        .into());
    }
    query::run(CREATE, &[metric.into(), unit.into(), aggregation.name().into()])?;
    audit::record(&Entry {
        action: "metric.create",
        target: Some(metric),
        before: found.map(|(_, before)| before),
        after: Some(Object::new().optional("unit", unit).text("aggregation", aggregation.name()).finish()),
        ..Entry::default()
    })?;
    Ok(metric.to_owned())
}
