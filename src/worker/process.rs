//! A worker's own process.

use crate::backend::BackendStatic;
use crate::error::{Error, Result};
use crate::raw;
use crate::version;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_int, c_long, c_void};
use std::panic::AssertUnwindSafe;

unsafe extern "C-unwind" {
    fn ResetSequenceCaches();
    fn enable_timeout_after(id: c_int, milliseconds: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
    fn die(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
    fn SignalHandlerForShutdownRequest(signal: c_int);
}

/// `STATEMENT_TIMEOUT` of PostgreSQL's enum TimeoutId (utils/timeout.h).
const STATEMENT_TIMEOUT: c_int = 3;

/// Connects the process to the database that it was started for, as the bootstrap superuser, and gives what it is told.
///
/// # Safety
/// Called once, first, by the main function of a [`super::Worker`], with its argument.
pub unsafe fn begin(argument: pg_sys::Datum) -> String {
    // SAFETY: the caller's promise.
    unsafe { connect(argument, 0) }
}

/// Like [`begin`], also in a database that allows no connections, as one does that is being made.
///
/// # Safety
/// As [`begin`].
pub unsafe fn begin_where_nobody_may(argument: pg_sys::Datum) -> String {
    // SAFETY: the caller's promise.
    unsafe { connect(argument, pg_sys::BGWORKER_BYPASS_ALLOWCONN) }
}

/// # Safety
/// As [`begin`].
unsafe fn connect(argument: pg_sys::Datum, flags: u32) -> String {
    // SAFETY: the caller's promise; the entry's texts are C strings.
    unsafe {
        version::handle_signal(pg_sys::SIGTERM as c_int, die);
        version::handle_signal(pg_sys::SIGHUP as c_int, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
        let database = pg_sys::Oid::from(argument.value() as u32);
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, flags);
        pg_sys::pgstat_report_appname(c"pg_tenancy".as_ptr());
        CStr::from_ptr((*pg_sys::MyBgworkerEntry).bgw_extra.as_ptr()).to_string_lossy().into_owned()
    }
}

/// Connects the process, which [`super::keep`] keeps, to no database: it reads the catalogs that all share.
///
/// # Safety
/// Called once, first, by the main function of such a process.
pub unsafe fn begin_without_database() {
    // SAFETY: the caller's promise.
    unsafe {
        version::handle_signal(pg_sys::SIGTERM as c_int, SignalHandlerForShutdownRequest);
        version::handle_signal(pg_sys::SIGHUP as c_int, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
}

/// Sleeps until a signal or the end of a started worker wakes the process, or so many milliseconds; ends the process that was told to, so that
/// the postmaster starts it again unless the server stops. Whether the configuration was read again.
pub fn sleep(milliseconds: c_long) -> bool {
    const EVENTS: u32 = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch is this process's own; nothing of ours needs to be undone when the process ends.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, EVENTS as _, milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        if (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 {
            pg_sys::proc_exit(1);
        }
    }
    breathe()
}

/// What holds whatever the database's owner has set for it. Nobody's lock is waited for long.
const SETTINGS: [(&CStr, &CStr); 9] = [
    (c"role", c"none"),
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"lock_timeout", c"1s"),
    (c"statement_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"jit", c"off"),
];

/// Puts the process under them: at its beginning, and after foreign SQL.
pub fn configure() {
    for (name, value) in SETTINGS {
        // SAFETY: C strings.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// What pg_stat_activity says that the worker does.
pub fn say(activity: &str) {
    let activity = CString::new(activity).unwrap_or_default();
    // SAFETY: a C string, which is copied.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr()) };
}

/// Between two things to do: takes in a changed configuration and hands over statistics; ends the process that was told to. Whether the
/// configuration was read again.
pub fn breathe() -> bool {
    pgrx::check_for_interrupts!();
    // SAFETY: between transactions.
    unsafe {
        let reload = (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0;
        if reload {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        pg_sys::pgstat_report_stat(false);
        reload
    }
}

/// Why something could not be done.
#[derive(Debug)]
pub struct Failure {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Failure {
    fn new(sqlstate: i32, message: &str, detail: Option<&str>, hint: Option<&str>) -> Self {
        let [detail, hint] = [detail, hint].map(|text| text.map(str::to_owned));
        Self { sqlstate: unpack(sqlstate), message: message.to_owned(), detail, hint }
    }

    /// One that was caught where it happened, and of which no more is known than this.
    pub fn noted(message: String) -> Self {
        Self { message, ..Self::new(PgSqlErrorCode::ERRCODE_WARNING as i32, "", None, None) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Error::Elsewhere { sqlstate, message, detail, hint } = error {
            return Self { sqlstate, message, detail, hint };
        }
        let (code, message, detail, hint) = error.into_parts();
        Self::new(code as i32, &message, detail.as_deref(), hint.as_deref())
    }
}

impl From<&CaughtError> for Failure {
    fn from(error: &CaughtError) -> Self {
        use CaughtError::{ErrorReport, PostgresError, RustPanic};
        match error {
            // What pgrx makes of an SQLSTATE that it does not know is not what was raised.
            PostgresError(report)
                if SQLSTATE.get() != 0 && report.sql_error_code() == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR =>
            {
                Self::new(SQLSTATE.get(), report.message(), report.detail(), report.hint())
            }
            PostgresError(report) | ErrorReport(report) | RustPanic { ereport: report, .. } => {
                Self::new(report.sql_error_code() as i32, report.message(), report.detail(), report.hint())
            }
        }
    }
}

/// The five characters of PostgreSQL's packed form (utils/elog.h, MAKE_SQLSTATE).
fn unpack(sqlstate: i32) -> String {
    (0..5).map(|place| char::from(b'0' + (sqlstate >> (6 * place) & 0x3f) as u8)).collect()
}

/// The SQLSTATE of the error that was raised last, as PostgreSQL has it.
static SQLSTATE: BackendStatic<i32> = BackendStatic::new(0);

#[pg_guard]
unsafe extern "C-unwind" fn note_sqlstate(_argument: *mut c_void) {
    // SAFETY: PostgreSQL calls this while it reports.
    SQLSTATE.set(unsafe { pg_sys::geterrcode() });
}

/// Does one thing: `work` begins and commits its transactions. When it fails, the transaction that is open is rolled back and the session goes
/// on. FATAL errors end the process, as everywhere.
pub fn attempt<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, Failure> {
    SQLSTATE.set(0);
    // SAFETY: the boundary of each call into PostgreSQL puts the stack of contexts back on an error; below it is put back on any way out.
    let mut callback = unsafe {
        pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(note_sqlstate),
            arg: std::ptr::null_mut(),
        }
    };
    // SAFETY: as above; the callback outlives the work.
    unsafe { pg_sys::error_context_stack = &raw mut callback };
    let result = PgTryBuilder::new(AssertUnwindSafe(|| work().map_err(Failure::from)))
        .catch_others(|error| Err(Failure::from(&error)))
        .catch_rust_panic(|error| Err(Failure::from(&error)))
        .execute();
    // SAFETY: as above; a failed transaction is rolled back, and what was to interrupt it is not to interrupt the next thing.
    unsafe {
        pg_sys::error_context_stack = callback.previous;
        if result.is_err() {
            pg_sys::AbortCurrentTransaction();
            (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
        }
    }
    result
}

/// Runs `work` in a transaction. `before` comes first, to take locks: what `work` reads is newer than they are.
pub fn transaction<T>(before: impl FnOnce() -> bool, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    // SAFETY: the worker is between transactions; an error leaves this one to attempt().
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        let result = if before() {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let result = work()?;
            pg_sys::PopActiveSnapshot();
            Some(result)
        } else {
            None
        };
        pg_sys::CommitTransactionCommand();
        Ok(result)
    }
}

/// Leaves nothing of what foreign SQL did in the session: what DISCARD ALL does, but for plans, which hold
/// no data, and LISTEN, which a worker cannot.
pub fn forget() -> Result<()> {
    transaction(
        || true,
        || {
            // SAFETY: a transaction without portals of ours; what raises, does so through the boundary.
            unsafe {
                pg_sys::PortalHashTableDeleteAll();
                pg_sys::ResetAllOptions();
                pg_sys::DropAllPreparedStatements();
                pg_sys::LockReleaseAll(pg_sys::USER_LOCKMETHOD as _, true);
                pg_sys::ResetTempTableNamespace();
                pg_sys::ffi::pg_guard_ffi_boundary(|| ResetSequenceCaches());
            }
            Ok(())
        },
    )
    .map(drop)
}

/// Runs one statement as a client's own, in a transaction that was just begun and outside any block: it commits and begins transactions as it
/// likes.
pub fn run_alone(text: &CStr) {
    // SAFETY: what PostgreSQL does for a client's statement (exec_simple_query); the portal keeps the text and the plan in memory that outlives
    // the statement's own commits.
    unsafe {
        let portal = pg_sys::CreatePortal(c"".as_ptr(), true, true);
        (*portal).visible = false;
        let context = pg_sys::MemoryContextSwitchTo((*portal).portalContext);
        let text = pg_sys::pstrdup(text.as_ptr());
        for statement in raw::elements::<pg_sys::RawStmt>(pg_sys::pg_parse_query(text)) {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let tag = pg_sys::CreateCommandTag((*statement).stmt);
            let queries =
                pg_sys::pg_analyze_and_rewrite_fixedparams(statement, text, std::ptr::null(), 0, std::ptr::null_mut());
            let plans = pg_sys::pg_plan_queries(queries, text, 0, std::ptr::null_mut());
            pg_sys::PopActiveSnapshot();
            pg_sys::PortalDefineQuery(portal, std::ptr::null(), text, tag, plans, std::ptr::null_mut());
        }
        pg_sys::PortalStart(portal, std::ptr::null_mut(), 0, std::ptr::null_mut());
        pg_sys::MemoryContextSwitchTo(context);
        timed(|| version::portal_run(portal));
        pg_sys::PortalDrop(portal, false);
    }
}

/// Runs one statement under statement_timeout, which PostgreSQL itself only heeds for clients.
pub fn timed<T>(statement: impl FnOnce() -> T) -> T {
    struct Timer;
    impl Drop for Timer {
        fn drop(&mut self) {
            // SAFETY: a timer that every backend has; ending one that does not run does nothing.
            unsafe { disable_timeout(STATEMENT_TIMEOUT, false) };
        }
    }
    // SAFETY: plain reads, and a timer that every backend has.
    let _timer = unsafe {
        (pg_sys::StatementTimeout > 0).then(|| {
            enable_timeout_after(STATEMENT_TIMEOUT, pg_sys::StatementTimeout);
            Timer
        })
    };
    statement()
}
