//! The product's own locks: in PostgreSQL's table of locks, where no SQL function can take or release them.
//!
//! A class sets one kind apart from the others, and all from SQL's advisory locks, which use 1 and 2 there; pg_locks shows it as `objsubid`. Two
//! things whose keys collide wait for each other; nothing else happens.

use pgrx::pg_sys;

/// What a lock is of.
#[derive(Clone, Copy)]
#[repr(u16)]
pub enum Class {
    /// A tenant: shared by those who write for it, taken alone by who changes its state.
    Tenant = 0x7e4a,
    /// What is done to a tenant's schema as a whole.
    Schema,
    /// What is done to a template.
    Template,
    /// A run of migrations over a template's tenants.
    Run,
    /// Which worker of a run works on which schema.
    Claim,
    /// The name that a schema is made under.
    Name,
    /// What a tenant has used of its limits.
    Counts,
    /// A step that one session at a time does in a database.
    Step,
    /// Who makes or drops the database of a tenant.
    Database,
    /// A single step of that, which a worker does.
    DatabaseStep,
    /// A move of a tenant.
    Move,
    /// The key that the application's own tables know a tenant by.
    Key,
}

/// A lock of this class, for what this key stands for in a database. The server's table knows the locks of all databases.
pub fn of(database: pg_sys::Oid, key: u64, class: Class) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: (key >> 32) as u32,
        locktag_field3: key as u32,
        locktag_field4: class as u16,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// The key of a tenant.
pub fn key_of_tenant(tenant: &[u8; 16]) -> u64 {
    let number = u128::from_be_bytes(*tenant);
    (number >> 64) as u64 ^ number as u64
}

/// The key of a name: FNV-1a, the same in every process and version.
pub fn key_of(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}
