//! The settings of background workers, for the whole server.

use crate::monitor::VISITS;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::time::Duration;

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static NAPTIME_S: GucSetting<i32> = GucSetting::<i32>::new(5);

pub fn init() {
    GucRegistry::define_bool_guc(
        c"tenancy.workers_enabled",
        c"Lets background workers do what is due in each database.",
        c"Off, they pause; every step can be called.",
        &ENABLED,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"tenancy.max_workers",
        c"How many background workers may be at work at once, besides the one that starts them.",
        c"Each is one of max_worker_processes while it works.",
        &MAX_WORKERS,
        1,
        VISITS as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"tenancy.worker_naptime",
        c"How long a database is left alone between two visits of background workers, unless the first has left something undone.",
        c"",
        &NAPTIME_S,
        1,
        3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
}

pub fn enabled() -> bool {
    ENABLED.get()
}

pub fn max_workers() -> usize {
    usize::try_from(MAX_WORKERS.get()).unwrap_or(1)
}

pub fn naptime() -> Duration {
    Duration::from_secs(u64::try_from(NAPTIME_S.get()).unwrap_or(1))
}
