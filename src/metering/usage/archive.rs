//! The archive: every event that the rollup has taken, by month. Its schema and its partitions are made at run time and are no members of the
//! extension, so that a dump holds them as what they are. They are made when there is something to put into them, never while a dump is
//! being restored, which brings its own.
//!
//! Months are those of UTC. An event of a month that has no partition is in the partition `usage_events_default`, and moves when it gets one.

use super::settings::{self, Retention};
use crate::audit::{self, Entry};
use crate::erased::{self, Erased};
use crate::error::{Error, Result, SqlResult};
use crate::extension;
use crate::guard::lock::{Mode, Subject};
use crate::json::Object;
use crate::own_ddl;
use crate::query;
use crate::role;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

/// Months before and after the running one that have partitions.
const BEFORE: i32 = 13;
const AFTER: i32 = 2;

const SCHEMA_OWNER: &str = "SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'tenancy_archive'";
const TABLE_OWNER: &str =
    "SELECT c.relowner FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'tenancy_archive' AND c.relname = 'usage_events'";
const IS_IN_USE: &str = "SELECT EXISTS (SELECT FROM tenancy.usage_buckets)";

const CREATE_SCHEMA: &str = "CREATE SCHEMA tenancy_archive";
const CREATE_TABLE: &str = "CREATE TABLE tenancy_archive.usage_events (
        tenant_id uuid NOT NULL,
        metric text COLLATE \"C\" NOT NULL,
        quantity numeric NOT NULL,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        resource_id uuid,
        properties jsonb,
        counted boolean NOT NULL
    ) PARTITION BY RANGE (occurred_at);
    CREATE INDEX usage_events_tenant_id_idx ON tenancy_archive.usage_events (tenant_id, occurred_at);
    ALTER TABLE tenancy_archive.usage_events ENABLE ROW LEVEL SECURITY;
    COMMENT ON TABLE tenancy_archive.usage_events IS
        'Usage events that pg_tenancy has rolled up, by month. Whom to show them is for who owns it to say: there is no policy.';
    CREATE TABLE tenancy_archive.usage_events_default PARTITION OF tenancy_archive.usage_events DEFAULT;
    ALTER TABLE tenancy_archive.usage_events_default ENABLE ROW LEVEL SECURITY";

/// The names and borders of the months that are to have a partition and have no table. A table that is there but is no partition was detached.
const MISSING: &str = "SELECT name, month::text || '+00', (month + '1 month'::interval)::text || '+00'
    FROM pg_catalog.generate_series(-$1, $2) AS i
    CROSS JOIN LATERAL (SELECT pg_catalog.date_trunc('month', pg_catalog.now() AT TIME ZONE 'UTC') + pg_catalog.make_interval(months => i) AS month) AS m
    CROSS JOIN LATERAL (SELECT 'usage_events_' || pg_catalog.to_char(month, 'YYYY_MM') AS name) AS n
    WHERE pg_catalog.to_regclass('tenancy_archive.' || name) IS NULL ORDER BY month";
/// The partitions of months that end before the first month to keep.
const OLD: &str = "SELECT c.relname::text FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = pg_catalog.to_regclass('tenancy_archive.usage_events')
      AND c.relname ~ '^usage_events_[0-9]{4}_[0-9]{2}$'
      AND c.relname < 'usage_events_' || pg_catalog.to_char(
          (pg_catalog.now() AT TIME ZONE 'UTC') - pg_catalog.make_interval(months => $1), 'YYYY_MM')
    ORDER BY c.relname";
const TRIM_REST: &str = "DELETE FROM tenancy_archive.usage_events_default
    WHERE occurred_at < (pg_catalog.date_trunc('month', pg_catalog.now() AT TIME ZONE 'UTC') - pg_catalog.make_interval(months => $1)) AT TIME ZONE 'UTC'";
/// The archive with what was detached from it.
const TABLES: &str =
    "SELECT c.oid::regclass::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'tenancy_archive' AND NOT c.relispartition AND c.relkind IN ('r', 'p')
      AND c.relname ~ '^usage_events(_[0-9]{4}_[0-9]{2})?$' AND c.relowner = n.nspowner";

/// Whether there is an archive, and it is ours: what others made in its place could run their code with our rights.
fn exists() -> Result<bool> {
    let ours = extension::owner()?;
    let check = |owner: &[pg_sys::Oid]| match owner {
        [] => Ok(false),
        [owner] if *owner == ours => Ok(true),
        _ => Err(Error::State(
            "schema tenancy_archive or its table usage_events belongs to another role than the extension".to_owned(),
            "Rename it, or give it to the extension's owner.",
        )),
    };
    let owner = |sql| query::current_rows(sql, &[], |row| row.must::<pg_sys::Oid>(1));
    Ok(check(&owner(SCHEMA_OWNER)?)? && check(&owner(TABLE_OWNER)?)?)
}

fn step() -> Subject {
    Subject::step("usage archive")
}

/// Makes the archive if there is none.
pub fn prepare() -> Result<()> {
    if exists()? {
        return Ok(());
    }
    own_ddl::run(|| {
        if query::value::<pg_sys::Oid>(SCHEMA_OWNER, &[])?.is_none() {
            query::statement(CREATE_SCHEMA, &[])?;
        }
        query::statement(CREATE_TABLE, &[])?;
        add_months().map(drop)
    })
}

/// Makes the partitions that are missing, and moves what there is for them; how many.
fn add_months() -> Result<u64> {
    let before = settings::retention_months().map_or(BEFORE, |keep| keep.min(BEFORE));
    let missing: Vec<(String, String, String)> = query::current_rows(MISSING, &[before.into(), AFTER.into()], |row| {
        Ok((row.must(1)?, row.must(2)?, row.must(3)?))
    })?;
    for (name, from, to) in &missing {
        query::statement(
            &format!(
                "CREATE TABLE tenancy_archive.{name} (LIKE tenancy_archive.usage_events INCLUDING ALL);
                 ALTER TABLE tenancy_archive.{name} ENABLE ROW LEVEL SECURITY;
                 WITH moved AS (DELETE FROM tenancy_archive.usage_events_default
                                WHERE occurred_at >= '{from}' AND occurred_at < '{to}' RETURNING *)
                 INSERT INTO tenancy_archive.{name} SELECT * FROM moved;
                 ALTER TABLE tenancy_archive.usage_events ATTACH PARTITION tenancy_archive.{name} FOR VALUES FROM ('{from}') TO ('{to}')"
            ),
            &[],
        )?;
    }
    Ok(missing.len() as u64)
}

/// Ends the months before those to keep; how many.
fn trim(keep: i32, action: Retention) -> Result<u64> {
    let old: Vec<String> = query::current_rows(OLD, &[keep.into()], |row| row.must(1))?;
    for name in &old {
        let statement = match action {
            Retention::Drop => format!("DROP TABLE tenancy_archive.{name}"),
            Retention::Detach => {
                format!("ALTER TABLE tenancy_archive.usage_events DETACH PARTITION tenancy_archive.{name}")
            }
        };
        query::statement(&statement, &[])?;
    }
    if action == Retention::Drop {
        query::statement(TRIM_REST, &[keep.into()])?;
    }
    Ok(old.len() as u64)
}

/// The workers' step: partitions ahead, and retention. Does not wait long for those who read the archive, because others would wait behind it.
pub fn maintain() -> Result<(u64, bool)> {
    if !step().try_lock(Mode::Exclusive) || !exists()? || query::value::<bool>(IS_IN_USE, &[])? != Some(true) {
        return Ok((0, false));
    }
    role::with_settings([("lock_timeout", "2s")], || {
        own_ddl::run(|| {
            let trimmed = match settings::retention_months() {
                Some(keep) => trim(keep, settings::retention_action())?,
                None => 0,
            };
            Ok((trimmed + add_months()?, false))
        })
    })
}

/// The archive, and what was detached from it; nothing where there is none.
pub fn tables() -> Result<Vec<String>> {
    if exists()? { query::current_rows(TABLES, &[], |row| row.must(1)) } else { Ok(Vec::new()) }
}

/// Removes a tenant's events, from what was detached too.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    for table in tables()? {
        let rows = query::statement(&format!("DELETE FROM {table} WHERE tenant_id = $1"), &[tenant.into()])?;
        erased::add(erased, &table, rows);
    }
    Ok(())
}

/// Drops or detaches the months of the archive before the running one and the last `keep_months` before it; how many.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn trim_usage_archive(keep_months: Option<i32>, detach: default!(Option<bool>, "false")) -> SqlResult<i64> {
    let keep = keep_months.ok_or(Error::Null("keep_months"))?;
    let detach = detach.ok_or(Error::Null("detach"))?;
    if !(0..=settings::MAX_MONTHS).contains(&keep) {
        return Err(Error::invalid("keep_months must be from 0 to 1200", "").into());
    }
    let action = if detach { Retention::Detach } else { Retention::Drop };
    step().lock(Mode::Exclusive);
    let months = if exists()? { own_ddl::run(|| trim(keep, action))? } else { 0 };
    audit::record(&Entry {
        action: "usage.trim_archive",
        after: Some(Object::new().number("months", months).boolean("detach", detach).finish()),
        ..Entry::default()
    })?;
    Ok(months.cast_signed())
}
