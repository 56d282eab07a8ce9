//! The schemas of tenants.

use crate::backend::BackendStatic;
use pgrx::pg_sys;

/// The schemas that the product itself is working on, if it is.
static WORKING_ON: BackendStatic<Option<[pg_sys::Oid; 2]>> = BackendStatic::new(None);

/// Runs `work`, which may touch the given schemas of tenants and templates and no other, whatever is bound and whoever asked.
pub fn while_working_on<T>(schemas: &[pg_sys::Oid], work: impl FnOnce() -> T) -> T {
    let _work = Work::on(schemas);
    work()
}

/// The product's own work on some schemas, as long as this lives: for what goes on until a transaction has committed.
pub struct Work(Option<[pg_sys::Oid; 2]>);

impl Work {
    pub fn on(schemas: &[pg_sys::Oid]) -> Self {
        let at = |index: usize| schemas.get(index).copied().unwrap_or(pg_sys::InvalidOid);
        let before = WORKING_ON.get();
        WORKING_ON.set(Some([at(0), at(1)]));
        Self(before)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        WORKING_ON.set(self.0);
    }
}
