//! What the guard asks of a function.

use pgrx::{FromDatum, pg_sys};
use std::ffi::CStr;

/// PostgreSQL's oid of the language SQL.
const SQL_LANGUAGE: pg_sys::Oid = pg_sys::Oid::from_u32(14);

/// The function of this name and these arguments in a schema.
pub fn find(namespace: pg_sys::Oid, name: &CStr, arguments: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache look-up by a C string, a vector that outlives it, and an oid.
    let found = unsafe {
        let arguments = pg_sys::buildoidvector(arguments.as_ptr(), arguments.len() as i32);
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as _,
            pg_sys::Anum_pg_proc_oid as _,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(arguments),
            pg_sys::Datum::from(namespace),
            pg_sys::Datum::null(),
        )
    };
    (found != pg_sys::InvalidOid).then_some(found)
}

/// Whether a role may execute a function.
pub fn may_execute(role: pg_sys::Oid, function: pg_sys::Oid) -> bool {
    // SAFETY: a look-up by oids.
    unsafe { pg_sys::pg_proc_aclcheck(function, role, pg_sys::ACL_EXECUTE as _) == pg_sys::AclResult::ACLCHECK_OK }
}

/// The body of a function in SQL, as text and, where it was parsed when the function was made, as the parser's tree.
pub fn sql_body(function: pg_sys::Oid) -> Option<(String, Option<String>)> {
    // SAFETY: a syscache look-up whose tuple is released after its columns, both text in form, are copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return None;
        }
        let text = |column: u32| {
            let mut is_null = false;
            let datum = pg_sys::SysCacheGetAttr(cache, tuple, column as _, &mut is_null);
            String::from_datum(datum, is_null)
        };
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let body = ((*form).prolang == SQL_LANGUAGE)
            .then(|| (text(pg_sys::Anum_pg_proc_prosrc).unwrap_or_default(), text(pg_sys::Anum_pg_proc_prosqlbody)));
        pg_sys::ReleaseSysCache(tuple);
        body
    }
}
