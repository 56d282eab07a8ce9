//! The `search_path` of a transaction that is bound to a tenant with a schema: the tenant's, the extension's, public. It has the binding's own
//! scope, as SET LOCAL has.

use super::registry::Identifier;
use crate::changes;
use crate::error::{Error, Result};
use crate::extension;
use crate::namespace;
use crate::version;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// A path that was made, for which schema, and in which generations of what it was made from.
struct Made {
    schema: Identifier,
    of: (u64, u64),
    path: CString,
}

thread_local! {
    /// What the session had before its transaction first bound a tenant with a schema.
    static BEFORE: RefCell<Option<(pg_sys::LocalTransactionId, CString)>> = const { RefCell::new(None) };
    /// The path that was set last.
    static MADE: RefCell<Option<Made>> = const { RefCell::new(None) };
}

/// Follows a change of the binding to a tenant, whose schema this is; `was_in_schema` says whether the former one had one.
pub fn enter(schema: Option<Identifier>, was_in_schema: bool) -> Result<()> {
    match schema {
        Some(schema) => {
            if !was_in_schema {
                let before = current().to_owned();
                BEFORE.set(Some((version::local_transaction_id(), before)));
            }
            set_for(schema)?;
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

/// Sets the path of a tenant's schema.
fn set_for(schema: Identifier) -> Result<()> {
    let of = (changes::generation(), namespace::generation());
    MADE.with_borrow_mut(|made| {
        let path = match made {
            Some(made) if made.schema == schema && made.of == of => &made.path,
            _ => &made.insert(Made { schema, of, path: path_of(schema.as_str())? }).path,
        };
        set(Some(path));
        Ok(())
    })
}

fn path_of(schema: &str) -> Result<CString> {
    let extension = extension_schema()?;
    let mut schemas = vec![schema, &extension, "public"];
    schemas.dedup();
    let path = schemas.into_iter().map(quoted).collect::<Vec<_>>().join(", ");
    CString::new(path).map_err(|_| Error::Internal("a schema's name holds a zero".to_owned()))
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
