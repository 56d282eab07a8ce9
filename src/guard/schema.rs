//! The schemas of tenants: which of them the session may use now.
//!
//! A tenant's schema is for transactions that are bound to it, a template's for its owner while nothing is bound. Roles that bypass row security
//! use them all, but for what users' code does while the product itself works on some.

use super::session_is_guarded;
use crate::backend::BackendStatic;
use crate::context;
use crate::error::Error;
use crate::label::Use;
use crate::namespace;
use crate::relation;
use pgrx::pg_sys;

/// The schemas that the product itself is working on, if it is.
static WORKING_ON: BackendStatic<Option<[pg_sys::Oid; 2]>> = BackendStatic::new(None);

/// Runs `work`, which may touch the given schemas of tenants and templates and no other, whatever is bound and whoever asked.
pub fn while_working_on<T>(schemas: &[pg_sys::Oid], work: impl FnOnce() -> T) -> T {
    let _work = Work::on(schemas);
    work()
}

/// The product's own work on some schemas, as long as this lives: for what goes on until a transaction has committed.
pub struct Work(Option<[pg_sys::Oid; 2]>);

impl Work {
    pub fn on(schemas: &[pg_sys::Oid]) -> Self {
        let at = |index: usize| schemas.get(index).copied().unwrap_or(pg_sys::InvalidOid);
        let before = WORKING_ON.get();
        work_on(Some([at(0), at(1)]));
        Self(before)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        work_on(self.0);
    }
}

fn work_on(schemas: Option<[pg_sys::Oid; 2]>) {
    WORKING_ON.set(schemas);
    namespace::look_up_search_path_again();
}

/// Whether the product itself is working on schemas.
pub fn is_worked_on() -> bool {
    WORKING_ON.get().is_some()
}

/// Whether the guard has a say in what the session does: not in a database without schemas of tenants, nor for roles that bypass row
/// security by themselves.
pub fn is_enforced() -> bool {
    namespace::are_used() && (is_worked_on() || session_is_guarded())
}

/// Where something is, as the session sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where everyone may be whom PostgreSQL lets.
    Shared,
    /// In the bound tenant's schema.
    Own,
    /// In this schema, which the session may not use now.
    Foreign(pg_sys::Oid),
}

/// Where a schema is.
#[inline]
pub fn place_of(namespace: pg_sys::Oid) -> Place {
    match namespace::usage(namespace) {
        None => Place::Shared,
        Some(usage) => judge(namespace, usage),
    }
}

/// Where a relation is.
#[inline]
pub fn place_of_relation(relation: pg_sys::Oid) -> Place {
    if relation.to_u32() < pg_sys::FirstNormalObjectId {
        return Place::Shared;
    }
    place_of(namespace::of_relation(relation))
}

/// The schema of a partition of the relation that the session may not use, if there is one.
pub fn foreign_partition(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    relation::find_in_partitions(relation, &|partition| match place_of_relation(partition) {
        Place::Foreign(namespace) => Some(namespace),
        _ => None,
    })
}

fn judge(namespace: pg_sys::Oid, usage: Use) -> Place {
    let bound = context::bound();
    let is_own = bound.is_some_and(|bound| match usage {
        Use::Tenant(tenant) => tenant == bound.tenant,
        // Who was bound when it was the tenant's reads on; nobody writes ([`super::lock`]).
        Use::Moved(tenant) => tenant == bound.tenant && namespace.to_u32() == bound.schema,
        Use::Template => false,
    });
    let admitted = match WORKING_ON.get() {
        Some(schemas) => schemas.contains(&namespace),
        None if is_own => true,
        None => {
            let is_owners = usage == Use::Template && bound.is_none() && namespace::is_owned_by_session(namespace);
            is_owners || !session_is_guarded()
        }
    };
    match admitted {
        true if is_own => Place::Own,
        true => Place::Shared,
        false => Place::Foreign(namespace),
    }
}

/// The refusal of a schema.
#[cold]
pub fn foreign(namespace: pg_sys::Oid) -> Error {
    let name = namespace::name(namespace);
    match namespace::usage(namespace) {
        Some(Use::Template) => Error::TemplateSchema(name),
        _ => Error::ForeignSchema(name),
    }
}
