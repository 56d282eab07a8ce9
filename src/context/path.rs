//! The `search_path` of a transaction that is bound to a tenant with a schema: the tenant's, the extension's, public. It has the binding's own
//! scope, as SET LOCAL has.

use crate::changes;
use crate::error::{Error, Result};
use crate::extension;
use crate::namespace;
use crate::version;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// What follows the tenant's schema, and the generations of what it was made from.
struct Rest {
    of: (u64, u64),
    schemas: Vec<String>,
}

thread_local! {
    /// What the session had before its transaction first bound a tenant with a schema.
    static BEFORE: RefCell<Option<(pg_sys::LocalTransactionId, CString)>> = const { RefCell::new(None) };
    static REST: RefCell<Option<Rest>> = const { RefCell::new(None) };
}

/// Follows a change of the binding to a tenant, whose schema this is; `was_in_schema` says whether the former one had one.
pub fn enter(schema: Option<&str>, was_in_schema: bool) -> Result<()> {
    match schema {
        Some(schema) => {
            if !was_in_schema {
                let before = current().to_owned();
                BEFORE.set(Some((version::local_transaction_id(), before)));
            }
            set(Some(&path_of(schema)?));
        }
        None if was_in_schema => leave(),
        None => {}
    }
    Ok(())
}

/// Puts back what the session had.
pub fn leave() {
    let transaction = version::local_transaction_id();
    BEFORE.with_borrow(|before| {
        set(before.as_ref().filter(|(of, _)| *of == transaction).map(|(_, path)| path.as_c_str()));
    });
}

fn path_of(schema: &str) -> Result<CString> {
    let of = (changes::generation(), namespace::generation());
    REST.with_borrow_mut(|rest| {
        if rest.as_ref().is_none_or(|rest| rest.of != of) {
            *rest = Some(Rest { of, schemas: vec![extension_schema()?, "public".to_owned()] });
        }
        let mut path = quoted(schema);
        let mut named = vec![schema];
        for other in rest.iter().flat_map(|rest| &rest.schemas) {
            if !named.contains(&other.as_str()) {
                named.push(other);
                path.push_str(", ");
                path.push_str(&quoted(other));
            }
        }
        CString::new(path).map_err(|_| Error::Internal("a schema's name holds a zero".to_owned()))
    })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The schema of the public functions, as it is named now.
fn extension_schema() -> Result<String> {
    let schema = extension::schema_oid();
    schema.map(namespace::name).ok_or_else(|| Error::Internal("extension pg_tenancy is not installed".to_owned()))
}

fn current() -> &'static CStr {
    // SAFETY: the setting's value, a C string or null; the caller copies it.
    unsafe {
        let path = pg_sys::namespace_search_path;
        if path.is_null() { c"" } else { CStr::from_ptr(path) }
    }
}

/// SET LOCAL search_path; None for its default.
fn set(path: Option<&CStr>) {
    // SAFETY: the name and the value are C strings that PostgreSQL copies.
    unsafe {
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            path.map_or(std::ptr::null(), CStr::as_ptr),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}
