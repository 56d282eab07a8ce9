//! The trigger of a limited table: sums up what a statement has changed, by tenant, and hands it to [`counter`].
//!
//! Rows are read out of the transition tables in a frame that has no destructor and no boundary: an ERROR of users' code, which a
//! condition may call, passes with every field.

use super::counter;
use super::known::{self, Plan, Tenant};
use super::memberships;
use super::statement;
use super::totals::Totals;
use crate::error::{Error, Result, raise};
use crate::raw::raw_function;
use pgrx::pg_sys::{self, panic::pgrx_extern_c_guard};

/// PostgreSQL's functions as they are.
mod unguarded {
    use pgrx::pg_sys::*;
    use std::ffi::{c_char, c_int};

    unsafe extern "C-unwind" {
        pub fn tuplestore_select_read_pointer(store: *mut Tuplestorestate, pointer: c_int);
        pub fn tuplestore_rescan(store: *mut Tuplestorestate);
        pub fn tuplestore_gettupleslot(
            store: *mut Tuplestorestate,
            forward: bool,
            copy: bool,
            slot: *mut TupleTableSlot,
        ) -> bool;
        pub fn MakeSingleTupleTableSlot(
            descriptor: TupleDesc,
            operations: *const TupleTableSlotOps,
        ) -> *mut TupleTableSlot;
        pub fn ExecDropSingleTupleTableSlot(slot: *mut TupleTableSlot);
        pub fn slot_getsomeattrs_int(slot: *mut TupleTableSlot, number: c_int);
        pub fn CreateStandaloneExprContext() -> *mut ExprContext;
        pub fn FreeExprContext(context: *mut ExprContext, is_commit: bool);
        pub fn MemoryContextReset(context: MemoryContext);
        pub fn expression_planner(expression: *mut Expr) -> *mut Expr;
        pub fn ExecInitExpr(expression: *mut Expr, parent: *mut PlanState) -> *mut ExprState;
        pub fn GetUserIdAndSecContext(user: *mut Oid, context: *mut c_int);
        pub fn SetUserIdAndSecContext(user: Oid, context: c_int);
        pub fn NewGUCNestLevel() -> c_int;
        pub fn AtEOXact_GUC(is_commit: bool, level: c_int);
        pub fn set_config_option(
            name: *const c_char,
            value: *const c_char,
            context: GucContext::Type,
            source: GucSource::Type,
            action: GucAction::Type,
            change: bool,
            level: c_int,
            is_reload: bool,
        ) -> c_int;
    }
}

raw_function! {
    /// The trigger of limited tables, after each statement.
    pg_tenancy_count_rows, pg_finfo_pg_tenancy_count_rows, count
}

/// # Safety
/// `fcinfo` is the record of the running call.
unsafe fn count(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: a trigger is called with a TriggerData, on an open relation. The three parts leave nothing of ours behind when one raises.
    unsafe {
        let plan = pgrx_extern_c_guard(|| begin(fcinfo).unwrap_or_else(|error| raise(error)));
        let trigger = (*fcinfo).context.cast::<pg_sys::TriggerData>();
        let changed = sum(trigger, &plan);
        pgrx_extern_c_guard(|| finish(trigger, &plan, &changed).unwrap_or_else(|error| raise(error)));
    }
    pg_sys::Datum::null()
}

/// # Safety
/// `fcinfo` is the record of the running call.
unsafe fn begin(fcinfo: pg_sys::FunctionCallInfo) -> Result<Plan> {
    // SAFETY: the context of a trigger's call is a TriggerData.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return Err(Error::Unsupported("tenancy.count_rows() is a trigger".to_owned()));
        }
        known::plan(context.cast())
    }
}

/// What the statement has done to the number of rows that count.
#[derive(Clone, Copy)]
enum Changed {
    /// All rows of the table are gone.
    Truncated,
    By(Totals),
}

/// # Safety
/// The data of a trigger that runs after a statement, and its plan.
unsafe fn sum(trigger: *mut pg_sys::TriggerData, plan: &Plan) -> Changed {
    use unguarded::*;
    // SAFETY: the caller's promise. What is changed of the session is put back; after an ERROR by PostgreSQL, as the (sub)transaction ends.
    unsafe {
        let event = (*trigger).tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
        if event == pg_sys::TRIGGER_EVENT_TRUNCATE {
            return Changed::Truncated;
        }
        let mut totals = Totals::new();
        if matches!(plan.tenant, Tenant::Nobody | Tenant::Unknown) {
            return Changed::By(totals);
        }
        let (mut role, mut context, mut level) = (pg_sys::InvalidOid, 0, 0);
        if let Some((owner, path)) = plan.owner {
            GetUserIdAndSecContext(&mut role, &mut context);
            let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
            SetUserIdAndSecContext(owner, context | restricted as i32);
            level = NewGUCNestLevel();
            set_config_option(
                c"search_path".as_ptr(),
                path,
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        let descriptor = (*(*trigger).tg_relation).rd_att;
        let slot = MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsMinimalTuple);
        let mut condition = Condition::new(plan.condition);
        for (store, change) in [((*trigger).tg_oldtable, -1), ((*trigger).tg_newtable, 1)] {
            if store.is_null() {
                continue;
            }
            // Every other reader has a pointer of its own, and begins by going back.
            tuplestore_select_read_pointer(store, 0);
            tuplestore_rescan(store);
            while tuplestore_gettupleslot(store, true, false, slot) {
                if let Some(tenant) = tenant(slot, plan.tenant)
                    && condition.holds(slot)
                {
                    totals.add(&tenant, change);
                }
            }
        }
        condition.end();
        ExecDropSingleTupleTableSlot(slot);
        if plan.owner.is_some() {
            AtEOXact_GUC(false, level);
            SetUserIdAndSecContext(role, context);
        }
        Changed::By(totals)
    }
}

/// Whose the row is.
///
/// # Safety
/// A slot that holds a row of the table.
unsafe fn tenant(slot: *mut pg_sys::TupleTableSlot, tenant: Tenant) -> Option<[u8; 16]> {
    match tenant {
        Tenant::Of(tenant) => Some(tenant),
        // SAFETY: the caller's promise; the column is one of the table's.
        Tenant::Column { number, is_uuid } => unsafe {
            if (*slot).tts_nvalid < number {
                unguarded::slot_getsomeattrs_int(slot, number.into());
            }
            let place = (number - 1) as usize;
            known::tenant_of(*(*slot).tts_values.add(place), *(*slot).tts_isnull.add(place), is_uuid)
        },
        Tenant::Nobody | Tenant::Unknown => None,
    }
}

/// A condition that is evaluated for one row after another.
#[derive(Clone, Copy)]
struct Condition {
    state: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
}

impl Condition {
    /// # Safety
    /// An expression of the call's own, or null for every row. Users' code may run.
    unsafe fn new(expression: *mut pg_sys::Node) -> Self {
        use unguarded::*;
        if expression.is_null() {
            return Self { state: std::ptr::null_mut(), context: std::ptr::null_mut() };
        }
        // SAFETY: the caller's promise.
        unsafe {
            let planned = expression_planner(expression.cast());
            Self { state: ExecInitExpr(planned, std::ptr::null_mut()), context: CreateStandaloneExprContext() }
        }
    }

    /// Whether the row counts.
    ///
    /// # Safety
    /// A slot that holds a row of the table. Users' code may run.
    unsafe fn holds(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        if self.state.is_null() {
            return true;
        }
        // SAFETY: the caller's promise; what evaluation allocates is thrown away with each row.
        unsafe {
            let Some(evaluate) = (*self.state).evalfunc else { return false };
            (*self.context).ecxt_scantuple = slot;
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*self.context).ecxt_per_tuple_memory;
            let mut is_null = false;
            let holds = evaluate(self.state, self.context, &mut is_null);
            pg_sys::CurrentMemoryContext = before;
            unguarded::MemoryContextReset((*self.context).ecxt_per_tuple_memory);
            !is_null && holds.value() != 0
        }
    }

    /// # Safety
    /// Once, at the end.
    unsafe fn end(self) {
        if !self.context.is_null() {
            // SAFETY: the context that `new` made.
            unsafe { unguarded::FreeExprContext(self.context, true) };
        }
    }
}

/// # Safety
/// The data of a trigger that runs, its plan, and what `sum` found, in memory that is still there.
unsafe fn finish(trigger: *mut pg_sys::TriggerData, plan: &Plan, changed: &Changed) -> Result<()> {
    // SAFETY: the caller's promise.
    let (resource, changes) = unsafe {
        let changes = if let Changed::By(totals) = changed { Some(totals.sorted()) } else { None };
        (known::argument(trigger, 0), changes)
    };
    let resources = match resource {
        Some(resource) => vec![resource],
        None => memberships::resources()?,
    };
    for resource in &resources {
        match (plan.tenant, &changes) {
            (Tenant::Nobody, _) => {}
            (Tenant::Of(tenant), None) => counter::forget(resource, &[tenant])?,
            (Tenant::Unknown, _) | (_, None) => counter::forget_all(resource)?,
            (_, Some(changes)) => counter::change(resource, changes, statement::current())?,
        }
    }
    Ok(())
}
