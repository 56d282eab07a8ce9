//! What the fleet is doing: which backend serves which tenant, what was refused to whom, and how often who asked. All of it lives in shared
//! memory, so that it survives the rollback that follows a refusal; it is lost when the server restarts.

mod activity;
mod attempts;
mod buckets;
mod locks;
mod maintenance;
mod places;
mod refusals;
mod shared;
mod touches;

pub use activity::{ELSEWHERE, Room, SHARED, backends_at, bound_backends, leave, publish, take_room};
pub use attempts::{Kind, Reason, count as count_attempt};
pub use buckets::{Ask, Key as BucketKey, Outcome, Part, secret, status as bucket_status, take};
pub use maintenance::{Announced, Report, VISITS, announce, announced, launcher, set_launcher, visit};
pub use refusals::{Refusal, count};
pub use touches::is_due;

use crate::backend::BackendStatic;
use crate::level::Level;
use crate::query;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashMap;

/// Who may call what (see [`crate::authority`]).
pub const FUNCTIONS: &[(Level, &str)] =
    &[(Level::Monitor, "tenancy.backends"), (Level::Monitor, "tenancy.refused"), (Level::Monitor, "tenancy.failed")];
pub const RELATIONS: &[(Level, &str)] = &[
    (Level::Monitor, "tenancy.activity"),
    (Level::Monitor, "tenancy.refusals"),
    (Level::Monitor, "tenancy.failed_attempts"),
];

static PREVIOUS_REQUEST: BackendStatic<pg_sys::shmem_request_hook_type> = BackendStatic::new(None);
static PREVIOUS_STARTUP: BackendStatic<pg_sys::shmem_startup_hook_type> = BackendStatic::new(None);

/// Asks for shared memory when the server starts.
pub fn init() {
    buckets::define_settings();
    // SAFETY: called once, from _PG_init, in the postmaster.
    unsafe {
        PREVIOUS_REQUEST.set(pg_sys::shmem_request_hook);
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(attach);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    if let Some(previous) = PREVIOUS_REQUEST.get() {
        // SAFETY: the hook that was there before; an ERROR unwinds through the boundary.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous()) };
    }
    activity::SLOTS.request();
    activity::LOCKS.request();
    refusals::COUNTERS.request();
    attempts::COUNTERS.request();
    touches::TOUCHES.request();
    maintenance::request();
    buckets::BUCKETS.request();
    buckets::HEAD.request();
    buckets::LOCKS.request();
}

#[pg_guard]
unsafe extern "C-unwind" fn attach() {
    if let Some(previous) = PREVIOUS_STARTUP.get() {
        // SAFETY: as in request.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous()) };
    }
    activity::SLOTS.attach();
    activity::LOCKS.attach();
    refusals::COUNTERS.attach();
    attempts::COUNTERS.attach();
    touches::TOUCHES.attach();
    maintenance::attach();
    buckets::BUCKETS.attach();
    buckets::HEAD.attach();
    buckets::LOCKS.attach();
}

extension_sql_file!("../../sql/monitor.sql", name = "monitor", requires = ["bootstrap", backends, refused, failed]);

const BACKENDS: &str = "SELECT pid, pg_catalog.pg_get_userbyid(usesysid)::text, state, state_change
    FROM pg_catalog.pg_stat_get_activity(NULL) WHERE pid IS NOT NULL";

type Timestamp = TimestampWithTimeZone;

/// The backends of this server that have a tenant bound, with what PostgreSQL knows of their state.
#[pg_extern(schema = "tenancy", security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn backends() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(pid, i32),
            name!(tenant_id, Uuid),
            name!(user_id, Option<Uuid>),
            name!(role, Option<String>),
            name!(state, Option<String>),
            name!(state_since, Option<Timestamp>),
            name!(bound_since, Option<Timestamp>),
        ),
    >,
    ErrorReport,
> {
    let known: HashMap<i32, (Option<String>, Option<String>, Option<Timestamp>)> =
        query::rows(BACKENDS, &[], |row| Ok((row.must(1)?, (row.get(2)?, row.get(3)?, row.get(4)?))))?
            .into_iter()
            .collect();
    let rows: Vec<_> = bound_backends()
        .into_iter()
        .filter_map(|bound| {
            let (role, state, since) = known.get(&bound.pid)?.clone();
            Some((bound.pid, bound.tenant, bound.user, role, state, since, bound.since.try_into().ok()))
        })
        .collect();
    Ok(TableIterator::new(rows))
}

/// What was refused since the server started, per tenant.
#[pg_extern(schema = "tenancy")]
#[allow(clippy::type_complexity)]
fn refused() -> TableIterator<
    'static,
    (
        name!(tenant_id, Option<Uuid>),
        name!(refused_binds, i64),
        name!(tenant_mismatches, i64),
        name!(guard_refusals, i64),
        name!(last_refusal_at, Option<Timestamp>),
    ),
> {
    TableIterator::new(refusals::counts().into_iter().map(|count| {
        let [binds, mismatches, guard] = count.refused.map(|number| number.cast_signed());
        (count.tenant, binds, mismatches, guard, count.last.try_into().ok())
    }))
}

/// Credentials that were refused since the server started, by prefix and reason.
#[pg_extern(schema = "tenancy")]
#[allow(clippy::type_complexity)]
fn failed() -> TableIterator<
    'static,
    (
        name!(credential, Option<String>),
        name!(prefix, Option<String>),
        name!(reason, String),
        name!(attempts, i64),
        name!(last_attempt_at, Option<Timestamp>),
    ),
> {
    TableIterator::new(attempts::attempts().into_iter().map(|found| {
        let kind = found.kind.map(str::to_owned);
        (kind, found.prefix, found.reason.to_owned(), found.number.cast_signed(), found.last.try_into().ok())
    }))
}
