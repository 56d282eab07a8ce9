//! Reading a tenant's state: an index scan of `tenancy.tenants` without SPI, so that the caller's search_path, row security and
//! snapshot have no say, and a bind costs microseconds.

use crate::error::{Error, Result};
use pgrx::pg_sys;
use pgrx::{FromDatum, IntoDatum, Uuid};
use std::ffi::CStr;

/// Column numbers of `tenancy.tenants`; sql/tenant.sql keeps them.
const ID: i16 = 1;
const SLUG: i16 = 2;
const STATUS: i16 = 3;

/// The lifecycle of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Provisioning,
    Active,
    ReadOnly,
    Suspended,
    Moving,
    Cancelled,
    Deleted,
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::ReadOnly => "read_only",
            Self::Suspended => "suspended",
            Self::Moving => "moving",
            Self::Cancelled => "cancelled",
            Self::Deleted => "deleted",
        }
    }

    pub fn from_name(name: &str) -> Result<Self> {
        [
            Self::Provisioning,
            Self::Active,
            Self::ReadOnly,
            Self::Suspended,
            Self::Moving,
            Self::Cancelled,
            Self::Deleted,
        ]
        .into_iter()
        .find(|status| status.name() == name)
        .ok_or_else(|| Error::Internal(format!("unknown tenant status {name}")))
    }
}

/// What a bind needs to know of a tenant.
#[derive(Clone, Copy)]
pub struct Tenant {
    pub id: Uuid,
    pub status: Status,
}

impl Tenant {
    /// Whether the tenant may be used now, and for writing.
    pub fn admit(&self, write: bool) -> Result<()> {
        match self.status {
            Status::Active => Ok(()),
            Status::ReadOnly if write => Err(Error::ReadOnlyTenant),
            Status::ReadOnly => Ok(()),
            Status::Provisioning | Status::Moving => {
                Err(Error::TenantBusy { tenant: self.id.to_string(), state: self.status.name() })
            }
            Status::Suspended | Status::Cancelled | Status::Deleted => {
                Err(Error::TenantClosed { tenant: self.id.to_string(), state: self.status.name() })
            }
        }
    }
}

/// The tenant with this id, as of the latest commit and the caller's own changes.
pub fn find(id: Uuid) -> Result<Option<Tenant>> {
    scan(c"tenants_pkey", ID, pg_sys::F_UUID_EQ.into(), id.into_datum())
}

/// The tenant with this slug, likewise.
pub fn find_by_slug(slug: &str) -> Result<Option<Tenant>> {
    scan(c"tenants_slug_key", SLUG, pg_sys::F_TEXTEQ.into(), slug.into_datum())
}

fn relation(name: &CStr, namespace: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache lookup by a C string.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), namespace) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

fn scan(index: &CStr, column: i16, equal: pg_sys::Oid, key: Option<pg_sys::Datum>) -> Result<Option<Tenant>> {
    let missing = || Error::Internal("schema tenancy is not complete".to_owned());
    let key = key.ok_or_else(missing)?;
    // SAFETY: a syscache lookup by a C string.
    let namespace = unsafe { pg_sys::get_namespace_oid(c"tenancy".as_ptr(), true) };
    let table = relation(c"tenants", namespace).ok_or_else(missing)?;
    let index = relation(index, namespace).ok_or_else(missing)?;
    // SAFETY: the table is opened with a lock and closed; the scan ends before it; a null snapshot means the latest one; the
    // values are copied out of the tuple before the scan goes on. On an ERROR PostgreSQL releases all of it.
    unsafe {
        let table = pg_sys::table_open(table, pg_sys::AccessShareLock as _);
        let mut scan_key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(&mut scan_key, column, pg_sys::BTEqualStrategyNumber as _, equal, key);
        let scan = pg_sys::systable_beginscan(table, index, true, std::ptr::null_mut(), 1, &mut scan_key);
        let tuple = pg_sys::systable_getnext(scan);
        let found = if tuple.is_null() { None } else { Some(read(tuple, (*table).rd_att)) };
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, pg_sys::AccessShareLock as _);
        found.transpose()
    }
}

/// # Safety
/// `tuple` is a row of `tenancy.tenants`, and `descriptor` that table's.
unsafe fn read(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Result<Tenant> {
    let missing = || Error::Internal("a tenant without id or status".to_owned());
    // SAFETY: the columns are a uuid and a text, both NOT NULL.
    unsafe {
        let mut null = false;
        let id = pg_sys::heap_getattr(tuple, ID.into(), descriptor, &mut null);
        let id = Uuid::from_datum(id, null).ok_or_else(missing)?;
        let status = pg_sys::heap_getattr(tuple, STATUS.into(), descriptor, &mut null);
        let status = <&str>::from_datum(status, null).ok_or_else(missing)?;
        Ok(Tenant { id, status: Status::from_name(status)? })
    }
}
