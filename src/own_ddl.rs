//! Definitions that the product itself changes, which its event triggers need not look at.

use crate::backend::BackendStatic;

static RUNNING: BackendStatic<bool> = BackendStatic::new(false);

struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

/// Runs `work`, whose DDL is the product's own.
pub fn run<T>(work: impl FnOnce() -> T) -> T {
    let _restore = Restore(RUNNING.get());
    RUNNING.set(true);
    work()
}

/// Whether the DDL that an event trigger sees is our own.
pub fn is_running() -> bool {
    RUNNING.get()
}
