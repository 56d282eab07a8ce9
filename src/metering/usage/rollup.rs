//! The rollup: takes events out of the inbox, adds them to the buckets and puts them into the archive, one statement in one transaction.
//!
//! # Why no event is lost or counted twice
//!
//! An event is in the inbox, or it is in the buckets and the archive: the rollup moves it in one transaction, and one rollup runs at a time
//! ([`lock`]). So whoever adds both up in one statement counts it once, in every snapshot.
//!
//! # What the rollup leaves
//!
//! Under a long snapshot elsewhere the rows that were taken stay in the table and its indexes. So that nobody has to step over them, a rollup
//! writes down what it leaves: `floor` and `pending`, such that each event that is or will be visible names a transaction that is at least
//! `floor`, or one of `pending`. Take the snapshot of the statement that takes the events. Every transaction below its xmax has ended for it,
//! but for those that it lists as running, and for our own. A row of one that has ended is visible, and taken, or was rolled back, and never
//! seen. So with `floor` = xmax and `pending` = those that run and our own nothing is missed. A batch that is full has taken the oldest
//! transactions first, up to that of its last row, so then `floor` is at most that one.
//!
//! A reader sees `floor` and the inbox in one snapshot: if it sees what a rollup has left, it sees what that rollup has taken.
//!
//! In a tenant's own database it notes as well which days it has added to ([`super::days`]): that is what the control database is to hear of.
//!
//! All of this rests on rows that name the transaction that inserted them: see [`super::stamp`] for those from a dump. Where someone has
//! switched that trigger off (`pg_restore --disable-triggers`), [`sweep`] finds them a day later at most.

use super::archive;
use crate::error::{Result, SqlResult};
use crate::guard::lock::{Mode, Subject};
use crate::home;
use crate::query;
use crate::role;
use pgrx::prelude::*;

/// Events that one transaction takes.
const BATCH: i64 = 50_000;

const HOW_MANY: &str = "SELECT pg_catalog.count(*) FROM tenancy.usage_pending";
const HOW_MANY_AT_ALL: &str = "SELECT pg_catalog.count(*) FROM tenancy.usage_inbox";
const IS_NEEDED: &str = "SELECT EXISTS (SELECT FROM tenancy.usage_pending)";
const IS_NEEDED_FOR_ALL: &str = "SELECT EXISTS (SELECT FROM tenancy.usage_inbox)";

const ROLL_UP: &str = "WITH progress AS MATERIALIZED (
        SELECT rollups, floor, pending FROM tenancy.usage_progress ORDER BY rollups DESC LIMIT 1),
    taken AS (
        DELETE FROM tenancy.usage_inbox WHERE ctid = ANY (ARRAY(
            SELECT place FROM (
                (SELECT ctid AS place, txid FROM tenancy.usage_inbox
                 WHERE txid >= CASE WHEN $2 THEN 0 ELSE coalesce((SELECT floor FROM progress), 0) END
                 ORDER BY txid LIMIT $1)
                UNION ALL
                (SELECT ctid, txid FROM tenancy.usage_inbox
                 WHERE NOT $2 AND txid = ANY ((SELECT pending FROM progress)::bigint[]) ORDER BY txid LIMIT $1)) AS untaken
            ORDER BY txid LIMIT $1))
        RETURNING *),
    archived AS (
        INSERT INTO tenancy_archive.usage_events
            (tenant_id, metric, quantity, occurred_at, recorded_at, resource_id, properties, counted)
        SELECT tenant_id, metric, quantity, occurred_at, recorded_at, resource_id, properties, counted FROM taken),
    resources AS (
        INSERT INTO tenancy.usage_uniques (tenant_id, metric, bucket_start, resource_id)
        SELECT DISTINCT t.tenant_id, t.metric, pg_catalog.date_bin('15 minutes', t.occurred_at, '2000-01-01 00:00+00'), t.resource_id
        FROM taken t JOIN tenancy.metrics m ON m.metric = t.metric AND m.aggregation = 'unique'
        WHERE t.resource_id IS NOT NULL
        ORDER BY 1, 2, 3, 4
        ON CONFLICT DO NOTHING),
    bucketed AS (
        INSERT INTO tenancy.usage_buckets AS b
            (tenant_id, metric, bucket_start, quantity, events, consumed, max_quantity, last_quantity, last_at)
        SELECT tenant_id, metric, pg_catalog.date_bin('15 minutes', occurred_at, '2000-01-01 00:00+00'),
               pg_catalog.sum(quantity), pg_catalog.count(*), coalesce(pg_catalog.sum(quantity) FILTER (WHERE counted), 0),
               pg_catalog.max(quantity), (pg_catalog.array_agg(quantity ORDER BY occurred_at DESC, quantity DESC))[1],
               pg_catalog.max(occurred_at)
        FROM taken GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT (tenant_id, metric, bucket_start) DO UPDATE SET
            quantity = b.quantity + excluded.quantity,
            events = b.events + excluded.events,
            consumed = b.consumed + excluded.consumed,
            max_quantity = greatest(b.max_quantity, excluded.max_quantity),
            last_quantity = CASE WHEN (excluded.last_at, excluded.last_quantity) > (b.last_at, b.last_quantity)
                                 THEN excluded.last_quantity ELSE b.last_quantity END,
            last_at = greatest(b.last_at, excluded.last_at)),
    unreported AS (
        INSERT INTO tenancy.unreported_usage AS u (day, version)
        SELECT DISTINCT pg_catalog.floor(EXTRACT(epoch FROM occurred_at) / 86400)::integer, 1 FROM taken WHERE $3
        ON CONFLICT (day) DO UPDATE SET version = u.version + 1),
    total AS MATERIALIZED (SELECT pg_catalog.count(*) AS events, pg_catalog.max(txid) AS newest FROM taken),
    transactions AS MATERIALIZED (
        SELECT pg_catalog.pg_snapshot_xmax(s)::text::bigint AS next,
               ARRAY(SELECT x::text::bigint FROM pg_catalog.pg_snapshot_xip(s) AS x) || pg_catalog.pg_current_xact_id()::text::bigint AS running
        FROM pg_catalog.pg_current_snapshot() AS s),
    rest AS (
        SELECT least(next, CASE WHEN events = $1 THEN newest END) AS floor, running FROM total, transactions),
    forgotten AS (DELETE FROM tenancy.usage_progress),
    noted AS (
        INSERT INTO tenancy.usage_progress (rollups, floor, pending)
        SELECT coalesce((SELECT rollups FROM progress), 0) + 1, floor, ARRAY(SELECT x FROM pg_catalog.unnest(running) AS x WHERE x < floor)
        FROM rest)
    SELECT events FROM total";

/// Whether this database is at work: there has been a rollup in this cluster, or an event was recorded in it. Where a dump is being restored, the
/// buckets may be yet to come, and those that a rollup made before would be in their way.
const IS_AT_WORK: &str = "SELECT EXISTS (SELECT FROM tenancy.usage_progress)
    OR EXISTS (SELECT FROM tenancy.usage_pending WHERE NOT by_sql)";

fn step() -> Subject {
    Subject::step("rollup")
}

/// Waits until no other rollup runs; none does until our transaction ends.
pub fn lock() {
    step().lock(Mode::Exclusive);
}

/// Takes the next events, as the extension's owner and holding the lock: how many, and whether there may be more.
fn take(all: bool) -> Result<(u64, bool)> {
    // The statistics of a table that is filled and emptied all the time say nothing.
    role::with_settings([("enable_seqscan", "off")], || {
        let is_needed = if all { IS_NEEDED_FOR_ALL } else { IS_NEEDED };
        if query::current_rows(is_needed, &[], |row| row.must::<bool>(1))? != [true] {
            return Ok((0, false));
        }
        archive::prepare()?;
        let taken = query::current_rows(ROLL_UP, &[BATCH.into(), all.into(), home::here().is_some().into()], |row| {
            row.must::<i64>(1)
        })?;
        let taken = taken.first().copied().unwrap_or_default();
        Ok((taken.cast_unsigned(), taken == BATCH))
    })
}

/// As a worker does it: where others roll up, there is nothing to do.
fn take_if_at_work(all: bool) -> Result<(u64, bool)> {
    let is_at_work =
        step().try_lock(Mode::Exclusive) && query::current_rows(IS_AT_WORK, &[], |row| row.must::<bool>(1))? == [true];
    if is_at_work { take(all) } else { Ok((0, false)) }
}

/// The workers' step.
pub fn batch() -> Result<(u64, bool)> {
    take_if_at_work(false)
}

/// The workers' step for what the other would never find.
pub fn sweep() -> Result<(u64, bool)> {
    take_if_at_work(true)
}

/// Rolls up what is there now, and nothing of what others go on recording: how many events. With `all`, what readers do not find as well.
pub fn take_what_is_there(all: bool) -> Result<u64> {
    query::refuse_old_snapshot("usage cannot be rolled up")?;
    lock();
    let number = if all { HOW_MANY_AT_ALL } else { HOW_MANY };
    let there = query::current_rows(number, &[], |row| row.must::<i64>(1))?.first().copied().unwrap_or_default();
    let mut events = 0;
    loop {
        let (taken, more) = take(all)?;
        events += taken;
        if !more || events >= there.cast_unsigned() {
            return Ok(events);
        }
    }
}

/// Rolls up what is committed now: how many events.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rollup_usage() -> SqlResult<i64> {
    Ok(take_what_is_there(false)?.cast_signed())
}
