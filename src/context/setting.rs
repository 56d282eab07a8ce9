//! The settings. `tenancy.context` carries the tenant; nothing but [`set`] can give it a value, whatever SQL may be granted.

use super::state::{self, Context, Grants};
use crate::backend::BackendStatic;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_int, c_void};

const NAME: &CStr = c"tenancy.context";

static CONTEXT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ALLOW_BYPASS: GucSetting<bool> = GucSetting::<bool>::new(false);
static ALLOW_REBIND: GucSetting<bool> = GucSetting::<bool>::new(false);

/// True only while [`set`] runs.
static SETTING: BackendStatic<bool> = BackendStatic::new(false);

pub fn init() {
    // SAFETY: the hooks have the signatures of string settings, and are called by PostgreSQL with what those promise.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            NAME,
            c"The tenant that this transaction is bound to.",
            c"Set by set_tenant() and its kin, and by nothing else.",
            &CONTEXT,
            GucContext::Suset,
            GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_FILE,
            Some(check),
            Some(assign),
            None,
        );
    }
    GucRegistry::define_bool_guc(
        c"tenancy.allow_bypass",
        c"Lets a role that bypasses row security bind a tenant.",
        c"For maintenance: such a session sees the rows of every tenant all the same.",
        &ALLOW_BYPASS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"tenancy.allow_rebind",
        c"Lets a transaction bind one tenant after another.",
        c"For test suites that run in one transaction; never for production.",
        &ALLOW_REBIND,
        GucContext::Suset,
        GucFlags::default(),
    );
}

pub fn allow_bypass() -> bool {
    ALLOW_BYPASS.get()
}

pub fn allow_rebind() -> bool {
    ALLOW_REBIND.get()
}

/// Binds the principal until the end of the transaction or, with None, unbinds.
pub fn set(principal: Option<(&Context, &Grants)>) {
    let value = principal.map(|(context, grants)| state::encode(context, grants)).unwrap_or_default();
    let value = CString::new(value).unwrap_or_default();
    SETTING.set(true);
    let _reset = ResetOnDrop;
    // SAFETY: the name and the value are C strings that PostgreSQL copies.
    unsafe {
        pg_sys::set_config_option(
            NAME.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

struct ResetOnDrop;

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        SETTING.set(false);
    }
}

/// Makes the transaction read-only, as SET LOCAL transaction_read_only does.
pub fn set_transaction_read_only() {
    // SAFETY: constant C strings.
    unsafe {
        pg_sys::set_config_option(
            c"transaction_read_only".as_ptr(),
            c"on".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// # Safety
/// `value` is null or a C string.
unsafe fn decode(value: *const c_char) -> Option<(Context, Grants)> {
    if value.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    state::decode(unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// Accepts a value from [`set`], or from the leader while a parallel worker starts. From anyone else only "unbound" is
/// accepted, so that SET by a superuser, GRANT SET ON PARAMETER, ALTER ROLE … SET and a function's SET clause bind nothing.
#[pg_guard]
unsafe extern "C-unwind" fn check(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes the address of the new value, null or a C string.
    unsafe {
        let value = *value;
        if value.is_null() || *value == 0 {
            return true;
        }
        if (SETTING.get() || pg_sys::InitializingParallelWorker) && decode(value).is_some() {
            return true;
        }
        pg_sys::GUC_check_errcode(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE as c_int);
        pg_sys::GUC_check_errmsg_string = pg_sys::pstrdup(c"parameter \"tenancy.context\" cannot be set".as_ptr());
        pg_sys::GUC_check_errhint_string =
            pg_sys::pstrdup(c"A tenant is bound by set_tenant() or by a credential, for one transaction.".as_ptr());
        false
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn assign(value: *const c_char, _extra: *mut c_void) {
    // SAFETY: the value that check accepted, or one that was assigned before.
    state::assign(unsafe { decode(value) });
}
