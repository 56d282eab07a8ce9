//! (in the making)

use crate::error::Result;
use pgrx::Uuid;

/// Removes what is kept of a purged tenant.
pub fn erase(_tenant: Uuid) -> Result<()> {
    Ok(())
}

/// How many live rows of the resource the tenant has; None where no table is limited by it.
#[expect(dead_code)]
pub fn live_rows(_tenant: Uuid, _resource: &str) -> Result<Option<i64>> {
    Ok(None)
}
