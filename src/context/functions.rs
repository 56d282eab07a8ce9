//! The SQL functions of the context.

use super::bind;
use super::key;
use super::state::{self, Grants, STATE, Source};
use crate::error::{Error, SqlResult, raise};
use crate::monitor::{self, Refusal};
use crate::raw::raw_function;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

/// Binds the transaction to a tenant, and says which user acts.
#[pg_extern]
fn set_tenant(tenant: Option<Uuid>, user_id: default!(Option<Uuid>, "NULL")) -> SqlResult<Uuid> {
    Ok(bind::set_by_id(tenant.ok_or(Error::Null("tenant"))?, user_id, Source::SetTenant)?)
}

/// Binds the transaction to the tenant with this slug.
#[pg_extern]
fn set_tenant_by_slug(slug: Option<&str>, user_id: default!(Option<Uuid>, "NULL")) -> SqlResult<Uuid> {
    Ok(bind::set_by_slug(slug.ok_or(Error::Null("slug"))?, user_id)?)
}

/// Changes the tenant in mid-transaction.
#[pg_extern]
fn rebind_tenant(tenant: Option<Uuid>) -> SqlResult<Uuid> {
    Ok(bind::set_by_id(tenant.ok_or(Error::Null("tenant"))?, None, Source::Rebind)?)
}

/// Unbinds the tenant; true when one was bound.
#[pg_extern]
fn clear_tenant() -> bool {
    bind::clear()
}

/// The principal of the transaction: one row, or none when no tenant is bound.
#[pg_extern(stable, parallel_safe)]
#[allow(clippy::type_complexity)]
fn current_principal() -> TableIterator<
    'static,
    (
        name!(tenant_id, Uuid),
        name!(user_id, Option<Uuid>),
        name!(role, Option<String>),
        name!(api_key_id, Option<Uuid>),
        name!(scopes, Option<Vec<String>>),
        name!(source, String),
    ),
> {
    TableIterator::new(state::bound().into_iter().map(|context| {
        let Grants { role, api_key, scopes } = state::grants();
        let user = context.user.map(Uuid::from_bytes);
        let api_key = api_key.map(Uuid::from_bytes);
        (Uuid::from_bytes(context.tenant), user, role, api_key, scopes, context.source.name().to_owned())
    }))
}

/// True when `tenant` is the bound one; raises "tenant mismatch" otherwise.
#[pg_extern(stable, parallel_safe)]
fn assert_tenant(tenant: Option<Uuid>) -> SqlResult<bool> {
    let bound = state::bound().ok_or(Error::Unbound)?;
    match tenant {
        Some(tenant) if *tenant.as_bytes() == bound.tenant => Ok(true),
        other => {
            monitor::count(Some(&bound.tenant), Refusal::Mismatch);
            Err(Error::TenantMismatch(other.map(|tenant| tenant.to_string())).into())
        }
    }
}

/// Called by the WITH CHECK of a protected table when a row's tenant is not the bound one: counts it, and raises.
#[pg_extern(schema = "tenancy", name = "refuse_row", volatile, parallel_safe)]
fn refuse_row(tenant: Option<&str>) -> SqlResult<bool> {
    let bound = state::bound().ok_or(Error::Unbound)?;
    monitor::count(Some(&bound.tenant), Refusal::Mismatch);
    Err(Error::ForeignRow(tenant.map(str::to_owned)).into())
}

/// Raises the error of an unbound transaction. Apart, so that the functions below stay small.
#[cold]
#[inline(never)]
#[pg_guard]
extern "C-unwind" fn raise_unbound() -> pg_sys::Datum {
    raise(Error::Unbound)
}

/// A copy of a value that outlives the binding it was read under: kept with the calling expression, made anew after each change, never
/// overwritten, since some callers (PL/pgSQL's CALL) keep the pointer.
#[repr(C)]
struct Kept<T> {
    generation: u64,
    value: T,
}

/// The datum of `value`: the expression's own copy if it has one of this generation.
///
/// # Safety
/// `fcinfo` is a valid call record, and every call with its `flinfo` asks for the same type.
#[inline(always)]
unsafe fn kept<T: Copy>(fcinfo: pg_sys::FunctionCallInfo, value: &T) -> pg_sys::Datum {
    // SAFETY: fn_extra is null or what keep put there.
    unsafe {
        let info = (*fcinfo).flinfo;
        let copy = if info.is_null() { std::ptr::null() } else { (*info).fn_extra.cast::<Kept<T>>().cast_const() };
        if !copy.is_null() && (*copy).generation == (*STATE.as_ptr()).generation {
            return pg_sys::Datum::from(&raw const (*copy).value);
        }
        keep(info, value)
    }
}

/// # Safety
/// As for [`kept`].
#[cold]
#[inline(never)]
unsafe fn keep<T: Copy>(info: *mut pg_sys::FmgrInfo, value: &T) -> pg_sys::Datum {
    // SAFETY: the copy is allocated where the expression lives, or where the caller's results go, with the alignment of palloc.
    unsafe {
        let context = if info.is_null() { pg_sys::CurrentMemoryContext } else { (*info).fn_mcxt };
        let copy = pg_sys::MemoryContextAlloc(context, size_of::<Kept<T>>()).cast::<Kept<T>>();
        copy.write(Kept { generation: (*STATE.as_ptr()).generation, value: *value });
        if !info.is_null() {
            (*info).fn_extra = copy.cast();
        }
        pg_sys::Datum::from(&raw const (*copy).value)
    }
}

raw_function! {
    /// The guard: the bound tenant, or an error.
    pg_tenancy_current_tenant, pg_finfo_pg_tenancy_current_tenant, |fcinfo| {
        let state = STATE.as_ptr();
        // SAFETY: PostgreSQL passes a valid call record, and the state is this backend's.
        unsafe {
            if !(*state).bound {
                return raise_unbound();
            }
            kept(fcinfo, &(*state).context.tenant)
        }
    }
}

raw_function! {
    /// The guard for tenant columns of type text.
    pg_tenancy_current_tenant_text, pg_finfo_pg_tenancy_current_tenant_text, |fcinfo| {
        let state = STATE.as_ptr();
        // SAFETY: as for pg_tenancy_current_tenant.
        unsafe {
            if !(*state).bound {
                return raise_unbound();
            }
            kept(fcinfo, &(*state).text)
        }
    }
}

/// Raises the error of a tenant that has no key of this kind.
#[cold]
#[inline(never)]
#[pg_guard]
extern "C-unwind" fn raise_keyless() -> pg_sys::Datum {
    raise(Error::State(
        "the bound tenant has no key that the table's rows could have".to_owned(),
        "Say with update_tenant(..., external_id => ...) what the application's own tables know the tenant by.",
    ))
}

raw_function! {
    /// The guard for tenant columns that hold the application's own keys, of type text.
    pg_tenancy_current_tenant_key_text, pg_finfo_pg_tenancy_current_tenant_key_text, |fcinfo| {
        let state = STATE.as_ptr();
        // SAFETY: as for pg_tenancy_current_tenant.
        unsafe {
            if !(*state).bound {
                return raise_unbound();
            }
            if (*state).context.key.is_none() {
                return raise_keyless();
            }
            if !(*state).key_is_held {
                key::hold();
            }
            kept(fcinfo, &(*state).key_text)
        }
    }
}

raw_function! {
    /// The same for columns of integers.
    pg_tenancy_current_tenant_key_bigint, pg_finfo_pg_tenancy_current_tenant_key_bigint, |_| {
        let state = STATE.as_ptr();
        // SAFETY: as for pg_tenancy_current_tenant.
        unsafe {
            match (*state).key_number {
                _ if !(*state).bound => raise_unbound(),
                Some(number) => {
                    if !(*state).key_is_held {
                        key::hold();
                    }
                    pg_sys::Datum::from(number)
                }
                None => raise_keyless(),
            }
        }
    }
}

raw_function! {
    /// The bound tenant, or NULL.
    pg_tenancy_current_tenant_or_null, pg_finfo_pg_tenancy_current_tenant_or_null, |fcinfo| {
        let state = STATE.as_ptr();
        // SAFETY: as for pg_tenancy_current_tenant.
        unsafe {
            if !(*state).bound {
                (*fcinfo).isnull = true;
                return pg_sys::Datum::null();
            }
            kept(fcinfo, &(*state).context.tenant)
        }
    }
}

raw_function! {
    /// The user that the bind named, or NULL.
    pg_tenancy_current_user_id, pg_finfo_pg_tenancy_current_user_id, |fcinfo| {
        let state = STATE.as_ptr();
        // SAFETY: as for pg_tenancy_current_tenant.
        unsafe {
            match &(*state).context.user {
                Some(user) if (*state).bound => kept(fcinfo, user),
                _ => {
                    (*fcinfo).isnull = true;
                    pg_sys::Datum::null()
                }
            }
        }
    }
}

raw_function! {
    /// True: the permissive half of a protected table's policies, which goes with the extension.
    pg_tenancy_guard, pg_finfo_pg_tenancy_guard, |_| pg_sys::Datum::from(true)
}

extension_sql_file!(
    "../../sql/context.sql",
    name = "context",
    requires = [
        "bootstrap",
        set_tenant,
        set_tenant_by_slug,
        rebind_tenant,
        clear_tenant,
        current_principal,
        assert_tenant,
        refuse_row
    ]
);
