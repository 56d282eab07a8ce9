//! Security labels: what the guard knows of an object and keeps on the object itself, through renames, dumps and upgrades.
//!
//! `protected`, on a table: policies go with DROP EXTENSION, and with them the sign by which the guard knows the table; this stays.
//! `exempt: reason`, on a view, materialised view or function that an administrator lets through.
//! `tenant: uuid`, on a schema that is a tenant's own; `moved: uuid`, on one that was until the tenant was moved; `template: name`, on one that
//! tenants' schemas are made from.
//! `tenant: uuid state of control`, on a database that is a tenant's own: its state, and the database that keeps its registry. Labels of databases
//! are in a catalog that all databases share, so that a change of state reaches the tenant's database with the commit that makes it.

use crate::error::{Error, Result};
use crate::uuid;
use pgrx::{PgSqlErrorCode, ereport, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char};

pub const PROVIDER: &str = "pg_tenancy";
/// The label of a protected table.
pub const PROTECTED: &str = "protected";
/// How the label of an exempt object begins; the reason follows.
pub const EXEMPT: &str = "exempt: ";

/// How the label of a template's schema begins; the template's name follows.
pub const TEMPLATE: &str = "template: ";
/// How the label of a tenant's schema begins; the tenant's id follows.
pub const TENANT: &str = "tenant: ";
/// How the label of a schema begins that a tenant was moved out of; the tenant's id follows.
pub const MOVED: &str = "moved: ";

const PROVIDER_NAME: &CStr = c"pg_tenancy";

pub fn init() {
    // SAFETY: a constant C string and a static function.
    unsafe { pg_sys::register_label_provider(PROVIDER_NAME.as_ptr(), Some(relabel)) };
}

/// Decides who may label what: superusers, and so restores and our own definer functions.
#[pg_guard]
unsafe extern "C-unwind" fn relabel(object: *const pg_sys::ObjectAddress, label: *const c_char) {
    // SAFETY: PostgreSQL passes the object, and the label as a C string or null; the current role's attributes are read.
    let (class, label, superuser) = unsafe {
        let label = if label.is_null() { None } else { Some(CStr::from_ptr(label).to_string_lossy()) };
        ((*object).classId, label, pg_sys::superuser())
    };
    let known = match (class, label) {
        (_, None) => true,
        (pg_sys::RelationRelationId, Some(label)) => label == PROTECTED || label.starts_with(EXEMPT),
        (pg_sys::ProcedureRelationId, Some(label)) => label.starts_with(EXEMPT),
        (pg_sys::NamespaceRelationId, Some(label)) => Use::from_label(&label).is_some(),
        (pg_sys::DatabaseRelationId, Some(label)) => Home::from_label(&label).is_some(),
        _ => false,
    };
    if !superuser {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "labels of pg_tenancy are set by protect_table(), allow_definer(), register_template() and create_tenant_schema(), and those of databases by the product"
        );
    }
    if !known {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "a label of pg_tenancy is \"protected\" or \"exempt: ...\", and of a schema \"template: ...\" or \"tenant: ...\""
        );
    }
    if class == pg_sys::NamespaceRelationId || class == pg_sys::DatabaseRelationId {
        // Labels have no cache of their own; whoever remembers one hears of it as of a change of the schema or the database.
        // SAFETY: the oid of a catalog.
        unsafe { pg_sys::CacheInvalidateCatalog(class) };
    }
}

/// What the label of a tenant's own database says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    pub tenant: [u8; 16],
    /// The tenant's state, as the registry has it.
    pub state: String,
    /// The database that keeps the tenant's registry row, its people and its keys.
    pub control: String,
}

impl Home {
    fn from_label(label: &str) -> Option<Self> {
        let (tenant, rest) = label.strip_prefix(TENANT)?.split_once(' ')?;
        let (state, control) = rest.split_once(" of ")?;
        Some(Self { tenant: uuid::parse(tenant.as_bytes())?, state: state.to_owned(), control: control.to_owned() })
    }

    pub fn to_label(&self) -> String {
        let Self { tenant, state, control } = self;
        format!("{TENANT}{} {state} of {control}", String::from_utf8_lossy(&uuid::format(tenant)))
    }
}

/// What a database is, as its label says; None for one that is no tenant's. Reads the catalog: whoever asks often remembers it.
pub fn of_database(database: pg_sys::Oid) -> Option<Home> {
    of(pg_sys::DatabaseRelationId, database).and_then(|label| Home::from_label(&label))
}

/// Labels a database until the transaction's end says whether it stays so. Nobody drops or renames it meanwhile.
pub fn set_of_database(database: pg_sys::Oid, home: &Home) -> Result<()> {
    let label = CString::new(home.to_label()).map_err(|_| Error::Internal("a label has a zero byte".to_owned()))?;
    let object = pg_sys::ObjectAddress { classId: pg_sys::DatabaseRelationId, objectId: database, objectSubId: 0 };
    // SAFETY: what SECURITY LABEL does, by oid; C strings that are copied.
    unsafe {
        let mode = pg_sys::ShareUpdateExclusiveLock as _;
        pg_sys::LockSharedObject(pg_sys::DatabaseRelationId, database, 0, mode);
        pg_sys::SetSecurityLabel(&object, PROVIDER_NAME.as_ptr(), label.as_ptr());
        pg_sys::CacheInvalidateCatalog(pg_sys::DatabaseRelationId);
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// What a schema is used for, as its label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Tenant([u8; 16]),
    /// It was the tenant's until that was moved: for transactions that were bound before.
    Moved([u8; 16]),
    Template,
}

impl Use {
    fn from_label(label: &str) -> Option<Self> {
        let id = |prefix| label.strip_prefix(prefix).map(|id: &str| uuid::parse(id.as_bytes()));
        if let Some(tenant) = id(TENANT) {
            return tenant.map(Self::Tenant);
        }
        if let Some(tenant) = id(MOVED) {
            return tenant.map(Self::Moved);
        }
        label.starts_with(TEMPLATE).then_some(Self::Template)
    }
}

/// What a schema is used for; None for an ordinary one. Reads the catalog: whoever asks often remembers it.
pub fn of_schema(namespace: pg_sys::Oid) -> Option<Use> {
    of(pg_sys::NamespaceRelationId, namespace).and_then(|label| Use::from_label(&label))
}

/// The label of an object.
fn of(class: pg_sys::Oid, object: pg_sys::Oid) -> Option<String> {
    let object = pg_sys::ObjectAddress { classId: class, objectId: object, objectSubId: 0 };
    // SAFETY: a scan of pg_seclabel that returns null or a palloc'd C string.
    unsafe {
        let label = pg_sys::GetSecurityLabel(&object, PROVIDER_NAME.as_ptr());
        (!label.is_null()).then(|| CStr::from_ptr(label).to_string_lossy().into_owned())
    }
}

/// Whether the relation was protected.
pub fn is_protected(relation: pg_sys::Oid) -> bool {
    of(pg_sys::RelationRelationId, relation).is_some_and(|label| label == PROTECTED)
}

/// Whether the relation is exempt.
pub fn is_exempt(relation: pg_sys::Oid) -> bool {
    of(pg_sys::RelationRelationId, relation).is_some_and(|label| label.starts_with(EXEMPT))
}
