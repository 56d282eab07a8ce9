//! The schemas of tenants.

use crate::backend::BackendStatic;
use pgrx::pg_sys;

/// The schemas that the product itself is working on, if it is.
static WORKING_ON: BackendStatic<Option<[pg_sys::Oid; 2]>> = BackendStatic::new(None);

/// Runs `work`, which may touch the given schemas of tenants and templates and no other, whatever is bound and whoever asked.
pub fn while_working_on<T>(schemas: &[pg_sys::Oid], work: impl FnOnce() -> T) -> T {
    let at = |index: usize| schemas.get(index).copied().unwrap_or(pg_sys::InvalidOid);
    let _restore = Restore(WORKING_ON.get());
    WORKING_ON.set(Some([at(0), at(1)]));
    work()
}

struct Restore(Option<[pg_sys::Oid; 2]>);

impl Drop for Restore {
    fn drop(&mut self) {
        WORKING_ON.set(self.0);
    }
}
