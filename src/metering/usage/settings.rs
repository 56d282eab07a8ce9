//! The settings of usage. A superuser sets them, in postgresql.conf or for a database.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// What becomes of a month of the archive whose retention is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Retention {
    #[name = c"drop"]
    Drop,
    /// It stays as a table of its own.
    #[name = c"detach"]
    Detach,
}

static RETENTION_MONTHS: GucSetting<i32> = GucSetting::<i32>::new(0);
static RETENTION_ACTION: GucSetting<Retention> = GucSetting::<Retention>::new(Retention::Drop);
static IDEMPOTENCY_DAYS: GucSetting<i32> = GucSetting::<i32>::new(MIN_IDEMPOTENCY_DAYS);

/// A hundred years.
pub const MAX_MONTHS: i32 = 1200;
const MIN_IDEMPOTENCY_DAYS: i32 = 35;
const MAX_IDEMPOTENCY_DAYS: i32 = 3660;

pub fn init() {
    GucRegistry::define_int_guc(
        c"tenancy.usage_retention_months",
        c"How many whole months of usage events the archive keeps besides the running one; 0 keeps all.",
        c"The sums by 15 minutes are kept in any case.",
        &RETENTION_MONTHS,
        0,
        MAX_MONTHS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"tenancy.usage_retention_action",
        c"Whether a month of usage events whose retention is over is dropped, or detached to be a table of its own.",
        c"",
        &RETENTION_ACTION,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"tenancy.idempotency_days",
        c"For how many days the idempotency key of a usage event is remembered.",
        c"",
        &IDEMPOTENCY_DAYS,
        MIN_IDEMPOTENCY_DAYS,
        MAX_IDEMPOTENCY_DAYS,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// None to keep all.
pub fn retention_months() -> Option<i32> {
    Some(RETENTION_MONTHS.get()).filter(|months| *months > 0)
}

pub fn retention_action() -> Retention {
    RETENTION_ACTION.get()
}

pub fn idempotency_days() -> i32 {
    IDEMPOTENCY_DAYS.get()
}
