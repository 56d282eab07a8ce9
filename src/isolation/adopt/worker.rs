//! Building an index while everyone goes on writing, which PostgreSQL does outside a transaction only: by a background worker, while the
//! session that leads waits without a snapshot.

use super::registry;
use crate::error::{Error, Result, raise};
use crate::procedure::Procedure;
use crate::role::{self, Session};
use crate::worker::process;
use crate::worker::{Job, Worker};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, CString};

/// The function below, as the library exports it.
const FUNCTION: &CStr = c"pg_tenancy_adoption_worker";

/// Has a worker run the statement that is entered for `root`, and waits; the worker's error, if there was one.
pub fn run(procedure: &Procedure, root: pg_sys::Oid, table: pg_sys::Oid) -> Result<()> {
    // SAFETY: a plain read.
    let database = unsafe { pg_sys::MyDatabaseId };
    let job = Job { function: FUNCTION, name: "pg_tenancy: adoption", database };
    let worker = Worker::start(&job, &format!("{} {}", root.to_u32(), table.to_u32())).ok_or(Error::NoWorkers)?;
    procedure.wait_until(|| worker.has_ended());
    procedure.commit();
    match role::as_extension_owner(|| registry::outcome(root))? {
        (None, true) => Ok(()),
        (None, false) => Err(Error::State("the worker that built an index was ended".to_owned(), "Call again.")),
        (Some(message), _) => Err(Error::Unprotectable(message, "Mend the cause and call again.".to_owned())),
    }
}

/// Where the postmaster starts a worker.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_tenancy_adoption_worker(argument: pg_sys::Datum) {
    // SAFETY: the main function of a worker, which begins so.
    let orders = unsafe { process::begin(argument) };
    let numbers: Vec<pg_sys::Oid> =
        orders.split(' ').filter_map(|word| word.parse().ok()).map(pg_sys::Oid::from_u32).collect();
    let [root, table] = numbers[..] else {
        raise(Error::Internal(format!("a worker does not understand \"{orders}\"")));
    };
    // What a statement leaves unqualified is PostgreSQL's, too.
    process::configure();
    wait_for_locks();
    if let Err(failure) = process::attempt(|| build(root, table)) {
        let detail = failure.detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
        let message = format!("{}{detail}", failure.message);
        if let Err(error) = on_own_tables(|| registry::fail(root, &message)) {
            raise(error);
        }
    }
}

fn on_own_tables<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    process::transaction(|| true, || role::as_extension_owner(&work))?
        .ok_or_else(|| Error::Internal("a transaction without locks was not begun".to_owned()))
}

/// Others have their locks as long as they want: an index is built beside them.
fn wait_for_locks() {
    let (context, source) = (pg_sys::GucContext::PGC_USERSET, pg_sys::GucSource::PGC_S_OVERRIDE);
    // SAFETY: C strings, which are copied.
    unsafe { pg_sys::SetConfigOption(c"lock_timeout".as_ptr(), c"0".as_ptr(), context, source) };
}

fn build(root: pg_sys::Oid, table: pg_sys::Oid) -> Result<()> {
    let Some((statement, owner)) = on_own_tables(|| registry::order(root, table))? else {
        return Err(Error::State("nothing is left to build".to_owned(), "Call again."));
    };
    process::say(&format!("pg_tenancy: {statement}"));
    let text = CString::new(statement).map_err(|_| Error::Internal("a statement has a zero byte".to_owned()))?;
    // SAFETY: the worker is between transactions.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        let session = Session::for_one_statement(owner);
        process::run_alone(&text);
        pg_sys::CommitTransactionCommand();
        drop(session);
    }
    on_own_tables(|| registry::built(root))
}
