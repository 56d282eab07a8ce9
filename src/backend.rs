//! State of this backend process: what a C extension would keep in a static variable.

use std::cell::UnsafeCell;

/// A static of a backend. PostgreSQL backends have one thread, so no lock is needed; the value is copied in and out and
/// never borrowed across a call, so no two references to it meet.
pub struct BackendStatic<T>(UnsafeCell<T>);

// SAFETY: only the backend's single thread touches it; pgrx refuses to run PostgreSQL calls on any other.
unsafe impl<T> Sync for BackendStatic<T> {}

impl<T> BackendStatic<T> {
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The address, for a datum that points at the static or for a reader that copies a part.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }

    #[inline(always)]
    pub fn set(&self, value: T) {
        // SAFETY: one thread, and no reference is alive (see the type).
        unsafe { *self.0.get() = value }
    }
}

impl<T: Copy> BackendStatic<T> {
    #[inline(always)]
    pub fn get(&self) -> T {
        // SAFETY: one thread, and the value is copied out.
        unsafe { *self.0.get() }
    }
}
