//! The statement whose AFTER triggers run. A count of rows that is made while a statement is under way holds a part of what that statement
//! will report, so whoever counts must know which statements began before.

use crate::backend::BackendStatic;
use crate::version;
use pgrx::{pg_guard, pg_sys};

static PREVIOUS_FINISH: BackendStatic<pg_sys::ExecutorFinish_hook_type> = BackendStatic::new(None);
/// Statements whose triggers run, each by a trigger of the one before; those beyond have no place.
static RUNNING: BackendStatic<[Option<Running>; MAX_RUNNING]> = BackendStatic::new([None; MAX_RUNNING]);
static DEPTH: BackendStatic<usize> = BackendStatic::new(0);

const MAX_RUNNING: usize = 32;

/// A statement, and in which transaction and how many savepoints its triggers run.
#[derive(Clone, Copy)]
struct Running {
    transaction: pg_sys::LocalTransactionId,
    level: i32,
    statement: Statement,
}

/// What there is to know of the statement.
#[derive(Clone, Copy)]
pub struct Statement {
    /// The command that its rows are marked with; 0 where it is not known, as for COPY.
    pub command: pg_sys::CommandId,
    /// Whether several of its triggers may report changes of one resource: an upsert, a MERGE, a WITH that writes.
    pub is_compound: bool,
}

const UNKNOWN: Statement = Statement { command: 0, is_compound: false };

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query runs.
    unsafe {
        PREVIOUS_FINISH.set(pg_sys::ExecutorFinish_hook);
        pg_sys::ExecutorFinish_hook = Some(finish);
        pg_sys::RegisterSubXactCallback(Some(forget), std::ptr::null_mut());
    }
}

/// The innermost statement of this transaction, if it has a place.
fn innermost() -> Option<Running> {
    let place = DEPTH.get().checked_sub(1)?;
    // SAFETY: one thread; the entry is copied.
    let running = unsafe { (*RUNNING.as_ptr()).get(place).copied().flatten() };
    running.filter(|running| running.transaction == version::local_transaction_id())
}

/// The statement whose AFTER triggers run now.
pub fn current() -> Statement {
    innermost().map_or(UNKNOWN, |running| running.statement)
}

/// Runs a statement's AFTER triggers. The frame has no destructor and no boundary, so an ERROR of a user's trigger passes with every field.
unsafe extern "C-unwind" fn finish(query: *mut pg_sys::QueryDesc) {
    unsafe extern "C-unwind" {
        fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
    }
    // What a transaction that failed has left counts no more.
    // SAFETY: one thread; the entry is copied.
    let outermost = unsafe { (*RUNNING.as_ptr())[0] };
    let goes_on = outermost.is_some_and(|running| running.transaction == version::local_transaction_id());
    let before = if goes_on { DEPTH.get() } else { 0 };
    // SAFETY: the executor passes a query that it has run; the argument is handed on. One thread.
    unsafe {
        if let Some(place) = (*RUNNING.as_ptr()).get_mut(before) {
            let level = pg_sys::GetCurrentTransactionNestLevel();
            *place = Some(Running { transaction: version::local_transaction_id(), level, statement: of(query) });
        }
        DEPTH.set(before + 1);
        match PREVIOUS_FINISH.get() {
            Some(previous) => previous(query),
            None => standard_ExecutorFinish(query),
        }
    }
    DEPTH.set(before);
}

/// # Safety
/// A query that was started.
unsafe fn of(query: *mut pg_sys::QueryDesc) -> Statement {
    // SAFETY: the caller's promise; the plan of an INSERT begins with a ModifyTable, which its tag tells.
    unsafe {
        let (plan, estate) = ((*query).plannedstmt, (*query).estate);
        if plan.is_null() || estate.is_null() {
            return UNKNOWN;
        }
        let tree = (*plan).planTree;
        let is_upsert = !tree.is_null()
            && (*tree.cast::<pg_sys::Node>()).type_ == pg_sys::NodeTag::T_ModifyTable
            && (*tree.cast::<pg_sys::ModifyTable>()).onConflictAction == pg_sys::OnConflictAction::ONCONFLICT_UPDATE;
        let is_merge = (*plan).commandType == pg_sys::CmdType::CMD_MERGE;
        Statement { command: (*estate).es_output_cid, is_compound: is_upsert || is_merge || (*plan).hasModifyingCTE }
    }
}

/// Statements that failed inside a savepoint have left their marks; the one whose trigger began it goes on.
#[pg_guard]
unsafe extern "C-unwind" fn forget(
    event: pg_sys::SubXactEvent::Type,
    _subtransaction: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    if event != pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        return;
    }
    // SAFETY: a plain read.
    let level = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    DEPTH.set(DEPTH.get().min(MAX_RUNNING));
    while innermost().is_some_and(|running| running.level >= level) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
