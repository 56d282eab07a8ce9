//! The executor's permission check, which every query, COPY and prepared plan passes each time it starts.

use super::schema::{self, Place};
use super::{exemption, explain, lock, refuse, session_is_guarded, statistics};
use crate::backend::BackendStatic;
use crate::context;
use crate::error::Error;
use crate::label;
use crate::namespace;
use crate::raw;
use crate::relation;
use crate::version::{RelationUse, check_perms_hook, relation_uses};
use pgrx::pg_sys;

static PREVIOUS_CHECK_PERMS: BackendStatic<pg_sys::ExecutorCheckPerms_hook_type> = BackendStatic::new(None);

const WRITES: pg_sys::AclMode = (pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE | pg_sys::ACL_DELETE) as pg_sys::AclMode;

/// What may write a row to another partition than one that the statement reads.
const ROUTED: pg_sys::AclMode = (pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE) as pg_sys::AclMode;

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query runs.
    unsafe {
        PREVIOUS_CHECK_PERMS.set(pg_sys::ExecutorCheckPerms_hook);
        pg_sys::ExecutorCheckPerms_hook = Some(hook);
    }
}

check_perms_hook!(hook, check);

/// Refuses what neither PostgreSQL's rights nor row security stop. An ordinary read costs two comparisons per relation, and in a database
/// that has schemas of tenants the look-up of its schema.
///
/// # Safety
/// The lists that the executor handed to the hook.
unsafe fn check(range_table: *mut pg_sys::List, permissions: *mut pg_sys::List, report: bool) -> bool {
    let (current, session) = (raw::GetUserId(), raw::GetOuterUserId());
    let context = context::bound();
    let bound = context.is_some();
    let elsewhere = context.is_some_and(|context| context.elsewhere);
    let shared_is_closed = context.is_some_and(|context| context.shared_is_closed);
    let tells_counts = explain::would_tell();
    let schemas = namespace::are_used_by_now();
    // SAFETY: the caller's promise.
    let uses = || unsafe { relation_uses(range_table, permissions) };
    let check = |usage: RelationUse| {
        let place = if schemas { schema::place_of_relation(usage.relation) } else { Place::Shared };
        let foreign = match place {
            Place::Foreign(namespace) => Some(namespace),
            // A row may be routed to any of its partitions, which the statement does not name.
            Place::Shared if schemas && usage.required & ROUTED != 0 => schema::foreign_partition(usage.relation),
            _ => None,
        };
        if let Some(namespace) = foreign
            && !is_exempt_from_schemas(uses, usage)
        {
            return Err(schema::foreign(namespace));
        }
        if usage.required == 0 {
            return Ok(());
        }
        if schemas && statistics::shows_all_schemas(usage.relation) && !is_exempt_from_schemas(uses, usage) {
            return Err(Error::ShowsAllSchemas(relation::name(usage.relation)));
        }
        let effective = if usage.check_as == pg_sys::InvalidOid { current } else { usage.check_as };
        if effective != session && is_back_door(uses, usage, effective) {
            let (relation, owner) = (relation::name(usage.relation), relation::role_name(effective));
            return Err(Error::BackDoor { relation, owner });
        }
        if tells_counts && place == Place::Shared && relation::is_protected(usage.relation) {
            return Err(Error::Counts(relation::name(usage.relation)));
        }
        if shared_is_closed && place == Place::Shared && relation::is_protected(usage.relation) {
            return Err(Error::LeftRows(relation::name(usage.relation)));
        }
        if elsewhere && (place == Place::Own || relation::is_protected(usage.relation)) {
            // What is left of it here is not the tenant's any more.
            context::refuse_elsewhere()?;
        }
        if bound && usage.required & WRITES != 0 && (place == Place::Own || relation::is_protected(usage.relation)) {
            lock::admit_writer();
        }
        Ok(())
    };
    match context::see_statement(bound).and_then(|()| uses().try_for_each(check)) {
        Ok(()) => true,
        Err(error) if report => refuse(error),
        Err(_) => false,
    }
}

/// Whether the statement uses a protected table as `effective`, who bypasses row security, for a session that does not.
///
/// Referential integrity checks run as the table's owner with FORCE suspended; they return no rows and are let through, and so is
/// the product's own work on a tenant's rows.
#[cold]
fn is_back_door<I: Iterator<Item = RelationUse>>(
    uses: impl Fn() -> I,
    usage: RelationUse,
    effective: pg_sys::Oid,
) -> bool {
    // SAFETY: a catalog look-up by oid.
    let bypasses = unsafe { pg_sys::has_bypassrls_privilege(effective) };
    if !bypasses || !session_is_guarded() || raw::InNoForceRLSOperation() {
        return false;
    }
    if !relation::is_protected(usage.relation) || exemption::function_is_exempt() || context::in_maintenance() {
        return false;
    }
    !comes_by_exempt_views(uses(), usage)
}

/// Whether an administrator has let through what uses a relation of another tenant's schema, or one that shows them all. What the product
/// itself does is not asked for exemptions.
#[cold]
fn is_exempt_from_schemas<I: Iterator<Item = RelationUse>>(uses: impl Fn() -> I, usage: RelationUse) -> bool {
    !schema::is_worked_on() && (exemption::function_is_exempt() || comes_by_exempt_views(uses(), usage))
}

/// Whether the relation is used through a view (or a rule), and every such relation of that owner in the statement is exempt. PostgreSQL's
/// own views need no exemption.
fn comes_by_exempt_views(uses: impl Iterator<Item = RelationUse>, usage: RelationUse) -> bool {
    let owner = usage.check_as;
    let mut sources = uses
        .filter(|other| other.relation.to_u32() >= pg_sys::FirstNormalObjectId)
        .filter(|other| relation::has_rules_of(other.relation, owner))
        .map(|other| label::is_exempt(other.relation))
        .peekable();
    owner != pg_sys::InvalidOid && sources.peek().is_some() && sources.all(|exempt| exempt)
}
