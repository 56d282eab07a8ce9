//! Binding: from "who asks for which tenant" to the context of the transaction.

use super::registry::{self, Identifier, Status, Tenant};
use super::state::{self, Context, FIRST, First, Grants, Source};
use super::{cursors, path, plan, sequences, setting, statement};
use crate::error::{Error, Result};
use crate::monitor::{self, Refusal};
use crate::namespace;
use crate::version;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use std::ffi::CStr;

/// Who is to be bound, where the tenant is known.
pub struct Principal {
    pub tenant: Tenant,
    pub user: Option<Uuid>,
    pub source: Source,
    pub grants: Grants,
}

/// Binds the transaction to the tenant of `principal`, if the caller, the tenant's state and what was bound before allow it.
pub fn bind(principal: &Principal) -> Result<Uuid> {
    let mut tenant = principal.tenant;
    warn_outside_transaction_block();
    let before = state::first().filter(|first| first.tenant == *tenant.id.as_bytes()).and_then(|first| first.place);
    loop {
        bind_to(&tenant, principal, before)?;
        // Whoever moves a tenant looks, once that is committed, for transactions that were bound before: one that read the registry before and
        // could not be seen yet must not be bound to where the tenant was.
        let now = registry::find(tenant.id)?.ok_or_else(|| Error::unknown_tenant(tenant.id))?;
        if (now.status, now.isolation, now.left_rows) == (tenant.status, tenant.isolation, tenant.left_rows) {
            return Ok(tenant.id);
        }
        tenant = now;
    }
}

/// `before` is where this transaction has had the tenant's tables.
fn bind_to(tenant: &Tenant, principal: &Principal, before: Option<u32>) -> Result<()> {
    let Principal { user, source, grants, .. } = principal;
    let refused = |_: &Error| monitor::count(Some(tenant.id.as_bytes()), Refusal::Bind);
    // People, keys and plans are kept here even of a tenant whose tables are in a database of its own.
    let elsewhere = tenant.is_elsewhere();
    let schema = || if elsewhere { Ok(None) } else { tenant.schema() };
    let schema = admit(tenant, *source).and_then(|()| schema()).inspect_err(refused)?;
    let was_in_schema = state::bound().is_some_and(|before| before.is_in_schema());
    let context = Context {
        tenant: *tenant.id.as_bytes(),
        user: user.map(|user| *user.as_bytes()),
        source: *source,
        schema: place(tenant, schema)?,
        shared_is_closed: schema.is_some() && tenant.left_rows,
        elsewhere,
        key: tenant.key,
    };
    if before.is_some_and(|before| before != context.place()) {
        // A savepoint could lead back to where it was, and whoever removes what is left there would not know.
        return Err(Error::Moved(tenant.id.to_string())).inspect_err(refused);
    }
    let room = take_room(tenant, &context).inspect_err(refused)?;
    setting::set(Some((&context, grants)));
    if let Some(room) = room {
        room.keep();
    }
    sequences::forget_others(context.tenant, context.is_in_schema());
    path::enter(schema, was_in_schema)?;
    plan::enter(tenant.plan);
    let (transaction, place) = (version::local_transaction_id(), Some(context.place()));
    FIRST.set(Some(First { transaction, tenant: context.tenant, place }));
    if tenant.status == Status::ReadOnly {
        setting::set_transaction_read_only();
    }
    Ok(())
}

/// The oid of the schema that a tenant's tables are found in; 0 for shared tables.
fn place(tenant: &Tenant, schema: Option<Identifier>) -> Result<u32> {
    let Some(schema) = schema else { return Ok(0) };
    let found = namespace::oid(schema.as_str());
    found.map(pg_sys::Oid::to_u32).ok_or_else(|| Error::NoSchema(tenant.id.to_string()))
}

/// Fails when the tenant's tables are not where the binding has them: it was moved while this transaction was under way.
pub fn refuse_moved(tenant: &Tenant, bound: &Context) -> Result<()> {
    let schema = tenant.schema()?;
    if place(tenant, schema)? == bound.schema { Ok(()) } else { Err(Error::Moved(tenant.id.to_string())) }
}

/// Binds a tenant that the caller chose, acting for `user`.
fn choose(tenant: Option<Tenant>, asked: impl ToString, user: Option<Uuid>, source: Source) -> Result<Uuid> {
    let named = |tenant: &Tenant| match user {
        Some(user) => registry::role_of_named_user(tenant.id, user),
        None => Ok(None),
    };
    let found = tenant.ok_or_else(|| Error::UnknownTenant(asked.to_string()));
    let (tenant, role) = found.and_then(|tenant| Ok((tenant, named(&tenant)?))).inspect_err(|_| {
        monitor::count(tenant.as_ref().map(|tenant| tenant.id.as_bytes()), Refusal::Bind);
    })?;
    bind(&Principal { tenant, user, source, grants: Grants { role, ..Grants::default() } })
}

fn admit(tenant: &Tenant, source: Source) -> Result<()> {
    refuse_bypassing_role()?;
    tenant.admit(false)?;
    cursors::refuse_holdable()?;
    let other = |bound: Option<[u8; 16]>| bound.is_some_and(|bound| bound != *tenant.id.as_bytes());
    let differs_from_first = other(state::first_of_transaction());
    if differs_from_first && source != Source::Rebind && !setting::allow_rebind() {
        return Err(Error::AlreadyBound);
    }
    if differs_from_first || other(state::bound().map(|context| context.tenant)) {
        cursors::refuse_open()?;
        statement::refuse_mixing()?;
    }
    Ok(())
}

/// Room for one more transaction of the tenant, where its plan allows only so many at once.
fn take_room(tenant: &Tenant, context: &Context) -> Result<Option<monitor::Room>> {
    let Some(most) = tenant.plan.and_then(|plan| plan.max_transactions) else { return Ok(None) };
    let room = monitor::take_room(&context.tenant, context.user.as_ref(), context.place(), most);
    let room = room.ok_or_else(|| Error::RateLimited {
        message: format!("tenant \"{}\" has {most} transactions open, as many as its plan allows at once", tenant.id),
        retry: "retry after one of them has ended".to_owned(),
    })?;
    Ok(Some(room))
}

/// A role that bypasses row security would see every tenant whatever it binds.
fn refuse_bypassing_role() -> Result<()> {
    // SAFETY: reads of the session's role and of its attributes, and the name of the database.
    unsafe {
        let role = pg_sys::GetOuterUserId();
        if setting::allow_bypass() || !pg_sys::has_bypassrls_privilege(role) {
            return Ok(());
        }
        let name = |text: *mut std::ffi::c_char| {
            if text.is_null() { String::new() } else { crate::query::ident(&CStr::from_ptr(text).to_string_lossy()) }
        };
        Err(Error::BypassingRole {
            role: name(pg_sys::GetUserNameFromId(role, true)),
            database: name(pg_sys::get_database_name(pg_sys::MyDatabaseId)),
        })
    }
}

/// Outside a transaction block the binding ends with its own statement; SET LOCAL warns of that, and so does this. Inside a
/// function the statement is the caller's, which may well go on to use the tenant.
fn warn_outside_transaction_block() {
    // SAFETY: both calls only look; asking SPI to unregister nothing tells whether a function runs us.
    let alone = unsafe {
        !pg_sys::IsTransactionBlock() && pg_sys::SPI_unregister_relation(c"".as_ptr()) == pg_sys::SPI_ERROR_UNCONNECTED
    };
    if alone {
        ereport!(
            WARNING,
            PgSqlErrorCode::ERRCODE_NO_ACTIVE_SQL_TRANSACTION,
            "a tenant can only be bound in transaction blocks: this binding ends with its statement"
        );
    }
}

/// The key of a tenant that is bound for the product's own sake; a tenant that is gone has none, and no rows that one guards.
fn key_of(tenant: Uuid) -> Option<Identifier> {
    registry::key_of(tenant).unwrap_or_else(|error| crate::error::raise(error))
}

/// Runs `work` bound to `tenant` for the product's own sake, whatever the tenant's state, then restores what was bound.
pub fn for_maintenance<T>(tenant: Uuid, work: impl FnOnce() -> T) -> T {
    let (before, grants) = (state::bound(), state::grants());
    let context = Context { key: key_of(tenant), ..Context::of(*tenant.as_bytes(), Source::Maintenance) };
    setting::set(Some((&context, &Grants::default())));
    let result = work();
    setting::set(before.as_ref().map(|before| (before, &grants)));
    result
}

/// Runs `work`, which may run users' code, bound to the tenant whose schema it makes, then restores what was bound.
pub fn while_making_schema<T>(tenant: Uuid, work: impl FnOnce() -> T) -> T {
    let (before, grants) = (state::bound(), state::grants());
    let context = Context { key: key_of(tenant), ..Context::of(*tenant.as_bytes(), Source::Migration) };
    setting::set(Some((&context, &Grants::default())));
    let result = work();
    setting::set(before.as_ref().map(|before| (before, &grants)));
    result
}

/// Binds the transaction to its end to the tenant whose schema is migrated, whatever the tenant's state; no other can be bound in it.
pub fn for_migration(tenant: Uuid) {
    let context = Context { key: key_of(tenant), ..Context::of(*tenant.as_bytes(), Source::Migration) };
    setting::set(Some((&context, &Grants::default())));
    let transaction = version::local_transaction_id();
    FIRST.set(Some(First { transaction, tenant: context.tenant, place: None }));
}

/// Unbinds; true when something was bound.
pub fn clear() -> bool {
    let Some(before) = state::bound() else { return false };
    setting::set(None);
    if before.is_in_schema() {
        path::leave();
    }
    plan::leave();
    true
}

pub fn set_by_id(tenant: Uuid, user: Option<Uuid>, source: Source) -> Result<Uuid> {
    choose(registry::find(tenant)?, tenant, user, source)
}

pub fn set_by_slug(slug: &str, user: Option<Uuid>) -> Result<Uuid> {
    choose(registry::find_by_slug(slug)?, slug, user, Source::SetTenant)
}
