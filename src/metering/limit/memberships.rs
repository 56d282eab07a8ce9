//! `tenancy.memberships` as a limited table. It is the product's own, so its triggers are always there, and a table of its own says what
//! they count.

use crate::error::Result;
use crate::scan::Table;
use pgrx::pg_sys;

const RESOURCE: i16 = 1;

/// Resources that members can be counted as.
pub const MAX_RESOURCES: usize = 8;

static LIMITED_MEMBERSHIPS: Table = Table::by(c"limited_memberships", c"limited_memberships_pkey");

/// The table, or invalid where the extension is not installed.
pub fn table() -> pg_sys::Oid {
    // SAFETY: syscache look-ups by C strings.
    unsafe { pg_sys::get_relname_relid(c"memberships".as_ptr(), pg_sys::get_namespace_oid(c"tenancy".as_ptr(), true)) }
}

/// The resources that members are counted as.
pub fn resources() -> Result<Vec<String>> {
    LIMITED_MEMBERSHIPS.all::<MAX_RESOURCES>(&[], |_| true)?.iter().map(|row| row.must(RESOURCE)).collect()
}
