//! The trigger of tables that tenants' own databases have a copy of.
//!
//! In the control database it queues what a change concerns. In a tenant's own it refuses the change, unless the control database's worker makes
//! it, or a superuser by a statement of their own, as a restore does: what they leave there is mended by the next report
//! ([`crate::database::report`]), which says that the copy is no longer what was told.

use crate::backend::BackendStatic;
use crate::context;
use crate::context::registry::{self, Isolation};
use crate::error::{Error, Result};
use crate::home;
use crate::monitor;
use crate::query;
use crate::raw::fallible_function;
use crate::role;
use crate::version;
use crate::worker::errand;
use pgrx::{FromDatum, Uuid, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_void};

const NOTE: &str = "INSERT INTO tenancy.database_changes (tenant_id, is_general) VALUES ($1, $1 IS NULL)";
/// A user concerns the tenants that they are members of.
const NOTE_USER: &str = "INSERT INTO tenancy.database_changes (tenant_id, is_general)
    SELECT t.id, false FROM tenancy.memberships m JOIN tenancy.tenants t ON t.id = m.tenant_id
    WHERE m.user_id = $1 AND t.isolation = 'database'";
const HAS_DATABASES: &str = "SELECT EXISTS (SELECT FROM tenancy.tenants WHERE database_name IS NOT NULL)";
/// What is not what was told is told again.
const FORGET_RECEIVED: &str = "DELETE FROM tenancy.received_state";

/// The argument of a trigger whose rows concern all tenants, the tenants of a user, and none.
const ALL: &str = "*";
const USER: &str = "user";
const NONE: &str = "-";

/// Fails in a tenant's own database, but for the control database's worker: what would be changed is kept there.
pub fn refuse_at_home() -> Result<()> {
    match home::here() {
        Some(home) if !is_told() => Err(Error::KeptByControl(home.control)),
        _ => Ok(()),
    }
}

/// Whether the control database's worker is at work, and none of a migration's foreign SQL.
fn is_told() -> bool {
    errand::is_sent() && !context::in_migration()
}

/// Whether a superuser's own statement is at work, rather than a function of ours.
fn is_superusers_own() -> bool {
    // SAFETY: plain reads of the session's state.
    unsafe { pg_sys::superuser_arg(pg_sys::GetSessionUserId()) && !pg_sys::InLocalUserIdChange() }
}

fallible_function! {
    /// The trigger.
    pg_tenancy_note_change, pg_finfo_pg_tenancy_note_change, note
}

/// # Safety
/// `fcinfo` is the record of the running call.
unsafe fn note(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: a trigger is called with a TriggerData.
    let trigger = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return Err(Error::Unsupported("tenancy.note_change() is a trigger".to_owned()));
        }
        &*context.cast::<pg_sys::TriggerData>()
    };
    if home::here().is_some() {
        if is_superusers_own() && !is_told() {
            role::as_extension_owner(|| query::run(FORGET_RECEIVED, &[]))?;
        } else {
            refuse_at_home()?;
        }
        return Ok(pg_sys::Datum::null());
    }
    // SAFETY: the trigger's arguments are C strings.
    let whom = unsafe {
        let arguments = (*trigger.tg_trigger).tgargs;
        if (*trigger.tg_trigger).tgnargs == 1 { CStr::from_ptr(*arguments).to_string_lossy() } else { NONE.into() }
    };
    let is_truncate = trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_TRUNCATE;
    match whom.as_ref() {
        NONE => {}
        ALL => note_all()?,
        _ if is_truncate => note_all()?,
        USER => note_user(trigger)?,
        column => {
            for tenant in both(trigger, column) {
                note_tenant(tenant)?;
            }
        }
    }
    Ok(pg_sys::Datum::null())
}

/// A column of type uuid in the row, and in what it becomes if that is another.
fn both(trigger: &pg_sys::TriggerData, column: &str) -> impl Iterator<Item = Uuid> {
    let value = |tuple: pg_sys::HeapTuple| {
        let name = CString::new(column).ok()?;
        // SAFETY: a row of the trigger's table, whose descriptor is open.
        unsafe {
            let descriptor = (*trigger.tg_relation).rd_att;
            let number = pg_sys::SPI_fnumber(descriptor, name.as_ptr());
            if tuple.is_null() || number <= 0 {
                return None;
            }
            let mut is_null = false;
            let datum = pg_sys::heap_getattr(tuple, number, descriptor, &mut is_null);
            Uuid::from_datum(datum, is_null)
        }
    };
    let is_update = trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_UPDATE;
    let before = value(trigger.tg_trigtuple);
    let after = if is_update { value(trigger.tg_newtuple) } else { None };
    before.into_iter().chain(after.filter(|after| Some(after) != before.as_ref()))
}

/// What was noted last, in this subtransaction of this transaction: once is enough.
type Noted = (pg_sys::LocalTransactionId, pg_sys::SubTransactionId, Option<[u8; 16]>);
static NOTED: BackendStatic<Option<Noted>> = BackendStatic::new(None);

fn is_noted(tenant: Option<[u8; 16]>) -> bool {
    // SAFETY: a plain read.
    let now = (version::local_transaction_id(), unsafe { pg_sys::GetCurrentSubTransactionId() }, tenant);
    let before = NOTED.get();
    NOTED.set(Some(now));
    before == Some(now)
}

fn note_tenant(tenant: Uuid) -> Result<()> {
    let has_database = registry::find(tenant)?
        .is_some_and(|tenant| matches!(tenant.isolation, Isolation::Database { name: Some(_), .. }));
    if !has_database || is_noted(Some(*tenant.as_bytes())) {
        return Ok(());
    }
    role::as_extension_owner(|| query::run(NOTE, &[tenant.into()]))?;
    announce_with_commit();
    Ok(())
}

fn note_user(trigger: &pg_sys::TriggerData) -> Result<()> {
    for tenant in both(trigger, "tenant_id") {
        note_tenant(tenant)?;
    }
    if trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_INSERT {
        // No member yet; a membership notes itself.
        return Ok(());
    }
    for user in both(trigger, "id") {
        if role::as_extension_owner(|| query::run(NOTE_USER, &[user.into()]))? > 0 {
            announce_with_commit();
        }
    }
    Ok(())
}

/// Notes that something has changed that concerns every tenant.
pub fn note_all() -> Result<()> {
    let has_databases = || query::current_rows(HAS_DATABASES, &[], |row| row.must::<bool>(1));
    if is_noted(None) || role::as_extension_owner(has_databases)? != [true] {
        return Ok(());
    }
    role::as_extension_owner(|| query::run(NOTE, &[None::<Uuid>.into()]))?;
    announce_with_commit();
    Ok(())
}

static WATCHES: BackendStatic<bool> = BackendStatic::new(false);
static ANNOUNCES: BackendStatic<bool> = BackendStatic::new(false);

/// Has a worker come when what was noted can be seen.
fn announce_with_commit() {
    if !WATCHES.get() {
        // SAFETY: a static function of the signature that it asks for, registered once.
        unsafe { pg_sys::RegisterXactCallback(Some(end), std::ptr::null_mut()) };
        WATCHES.set(true);
    }
    ANNOUNCES.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_PREPARE) && ANNOUNCES.get() {
        monitor::announce();
    }
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        ANNOUNCES.set(false);
    }
}
