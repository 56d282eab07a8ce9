//! The extension itself, as this database has it.

use crate::error::{Error, Result};
use crate::query;
use crate::routine;
use crate::scan::{self, Key};
use pgrx::pg_sys;
use std::ffi::CStr;

/// Column numbers of pg_extension, and its index on the first.
const NAME: i16 = pg_sys::Anum_pg_extension_extname as i16;
const NAMESPACE: i16 = pg_sys::Anum_pg_extension_extnamespace as i16;
const BY_NAME: pg_sys::Oid = pg_sys::Oid::from_u32(pg_sys::ExtensionNameIndexId);

const SCHEMA: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_tenancy'";
const FUNCTIONS: &str = "SELECT CASE WHEN n.nspname = 'tenancy' THEN 'tenancy.' || p.proname ELSE p.proname::text END,
        pg_catalog.format('%s %I.%I(%s)', CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
                          n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid))
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_tenancy'
    JOIN pg_catalog.pg_proc p ON p.oid = d.objid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
      AND d.deptype = 'e'";

/// A function or procedure of the extension.
pub struct Function {
    /// `set_tenant`, or `tenancy.seal` for what lives in that schema.
    pub name: String,
    /// What GRANT calls it: `FUNCTION public.set_tenant(uuid, uuid)`.
    pub object: String,
}

/// Every function and procedure of the extension.
pub fn functions() -> Result<Vec<Function>> {
    query::rows(FUNCTIONS, &[], |row| Ok(Function { name: row.must(1)?, object: row.must(2)? }))
}

/// The schema of the public functions, quoted.
pub fn schema() -> Result<String> {
    query::value(SCHEMA, &[])?.ok_or_else(|| Error::Internal("extension pg_tenancy is not installed".to_owned()))
}

/// The schema of the public functions, looked up without SPI; None where the extension is not installed.
pub fn schema_oid() -> Option<pg_sys::Oid> {
    let keys = [Key::name(NAME, c"pg_tenancy")];
    scan::catalog_row(pg_sys::ExtensionRelationId, Some(BY_NAME), &keys)?.get(NAMESPACE)
}

/// A function of schema `tenancy`, looked up without SPI; None where the extension is not installed.
pub fn internal_function(name: &CStr, arguments: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache look-up by a C string.
    let schema = unsafe { pg_sys::get_namespace_oid(c"tenancy".as_ptr(), true) };
    routine::find(schema, name, arguments)
}

/// Whether the session's role is one that works for tenants: of level client or app, but not of admin. Where the extension was dropped
/// nobody can tell, and everyone is.
pub fn confines_session() -> bool {
    // SAFETY: a plain read.
    let role = unsafe { pg_sys::GetOuterUserId() };
    let Some(schema) = schema_oid() else { return true };
    let may = |name, arguments| routine::find(schema, name, arguments).is_some_and(|it| routine::may_execute(role, it));
    may(c"clear_tenant", &[]) && !may(c"grant_access", &[pg_sys::REGROLEOID, pg_sys::TEXTOID])
}

/// Who owns the extension's tables: the superuser who installed it. Looked up without SPI.
pub fn owner() -> Result<pg_sys::Oid> {
    // SAFETY: syscache lookups by C strings and oids; the tuple is released after its field is copied.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"tenancy".as_ptr(), true);
        let table = pg_sys::get_relname_relid(c"tenants".as_ptr(), schema);
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as _, pg_sys::Datum::from(table));
        if tuple.is_null() {
            return Err(Error::Internal("schema tenancy is not complete".to_owned()));
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Ok(owner)
    }
}
