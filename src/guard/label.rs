//! Security labels: what tells that a table was protected once the extension is gone. Policies go with DROP EXTENSION, and with them
//! the sign by which the guard knows the table; the label stays with the table, and pg_dump carries it.

use pgrx::{PgSqlErrorCode, ereport, pg_guard, pg_sys};
use std::ffi::{CStr, c_char};

pub const PROVIDER: &str = "pg_tenancy";
/// The label of a protected table.
pub const PROTECTED: &str = "protected";

const PROVIDER_NAME: &CStr = c"pg_tenancy";

pub fn init() {
    // SAFETY: a constant C string and a static function.
    unsafe { pg_sys::register_label_provider(PROVIDER_NAME.as_ptr(), Some(relabel)) };
}

/// Decides who may label what: superusers (and so restores and our own definer functions), tables, with the one label there is.
#[pg_guard]
unsafe extern "C-unwind" fn relabel(object: *const pg_sys::ObjectAddress, label: *const c_char) {
    // SAFETY: PostgreSQL passes the object, and the label as a C string or null.
    let (class, known) =
        unsafe { ((*object).classId, label.is_null() || CStr::from_ptr(label).to_bytes() == PROTECTED.as_bytes()) };
    // SAFETY: reads the current role's attributes.
    if !unsafe { pg_sys::superuser() } {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "labels of pg_tenancy are set by protect_table() and unprotect_table()"
        );
    }
    if class != pg_sys::RelationRelationId || !known {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "a label of pg_tenancy is \"protected\", on a table"
        );
    }
}

/// Whether the relation carries the label.
pub fn is_protected(relation: pg_sys::Oid) -> bool {
    let object = pg_sys::ObjectAddress { classId: pg_sys::RelationRelationId, objectId: relation, objectSubId: 0 };
    // SAFETY: a scan of pg_seclabel that returns null or a palloc'd C string.
    unsafe {
        let label = pg_sys::GetSecurityLabel(&object, PROVIDER_NAME.as_ptr());
        !label.is_null() && CStr::from_ptr(label).to_bytes() == PROTECTED.as_bytes()
    }
}
