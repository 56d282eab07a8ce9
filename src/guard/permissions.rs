//! The executor's permission check, which every query, COPY and prepared plan passes each time it starts.

use super::{exemption, lock, refuse, session_is_guarded};
use crate::backend::BackendStatic;
use crate::context;
use crate::error::Error;
use crate::label;
use crate::raw;
use crate::relation;
use crate::version::{RelationUse, check_perms_hook, relation_uses};
use pgrx::pg_sys;

static PREVIOUS_CHECK_PERMS: BackendStatic<pg_sys::ExecutorCheckPerms_hook_type> = BackendStatic::new(None);

const WRITES: pg_sys::AclMode = (pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE | pg_sys::ACL_DELETE) as pg_sys::AclMode;

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query runs.
    unsafe {
        PREVIOUS_CHECK_PERMS.set(pg_sys::ExecutorCheckPerms_hook);
        pg_sys::ExecutorCheckPerms_hook = Some(hook);
    }
}

check_perms_hook!(hook, check);

/// Refuses what row security would let through. An ordinary read costs two comparisons per relation.
///
/// # Safety
/// `list` is the list that the executor handed to the hook.
unsafe fn check(list: *mut pg_sys::List, report: bool) -> bool {
    let (current, session) = (raw::GetUserId(), raw::GetOuterUserId());
    let bound = context::bound().is_some();
    if let Err(error) = context::see_statement(bound) {
        if !report {
            return false;
        }
        refuse(error);
    }
    // SAFETY: the caller's promise.
    for usage in unsafe { relation_uses(list) } {
        if usage.required == 0 {
            continue;
        }
        let effective = if usage.check_as == pg_sys::InvalidOid { current } else { usage.check_as };
        // SAFETY: the caller's promise.
        if effective != session && unsafe { is_back_door(list, usage, effective) } {
            if !report {
                return false;
            }
            refuse(Error::BackDoor { relation: relation::name(usage.relation), owner: relation::role_name(effective) });
        }
        if bound && usage.required & WRITES != 0 && relation::is_protected(usage.relation) {
            lock::admit_writer();
        }
    }
    true
}

/// Whether the statement uses a protected table as `effective`, who bypasses row security, for a session that does not.
///
/// Referential integrity checks run as the table's owner with FORCE suspended; they return no rows and are let through, and so is
/// the product's own work on a tenant's rows.
///
/// # Safety
/// As for [`check`].
#[cold]
unsafe fn is_back_door(list: *mut pg_sys::List, usage: RelationUse, effective: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up by oid.
    let bypasses = unsafe { pg_sys::has_bypassrls_privilege(effective) };
    if !bypasses || !session_is_guarded() || raw::InNoForceRLSOperation() {
        return false;
    }
    if !relation::is_protected(usage.relation) || exemption::function_is_exempt() || context::in_maintenance() {
        return false;
    }
    // The table may be used through a view (or a rule): then every such relation of that owner in the statement must be exempt.
    // SAFETY: the caller's promise.
    let mut sources = unsafe { relation_uses(list) }
        .filter(|other| relation::has_rules_of(other.relation, effective))
        .map(|other| label::is_exempt(other.relation))
        .peekable();
    usage.check_as == pg_sys::InvalidOid || sources.peek().is_none() || !sources.all(|exempt| exempt)
}
