//! What nobody else does to a tenant, its schema and its template while it is moved: locks of the session, whatever is committed meanwhile.

use crate::error::{Error, Result};
use crate::guard::lock::{Mode, Subject};
use pgrx::Uuid;

/// A template that nobody changes or migrates as long as this lives.
pub struct Kept(Subject);

impl Kept {
    pub fn share(template: &str) -> Self {
        let lock = Subject::template(template);
        lock.lock_session(Mode::Share);
        Self(lock)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.unlock_session(Mode::Share);
    }
}

/// The locks of a move, which its worker holds in its session as long as this lives: nobody else moves the tenant, nor works on its schema.
pub struct Held([Subject; 2]);

impl Held {
    /// None when someone else works at a move of the tenant.
    pub fn take(tenant: Uuid) -> Option<Self> {
        let [own, schema] = [Subject::move_of(tenant), Subject::schema_of(tenant)];
        if !own.try_lock_session(Mode::Exclusive) {
            return None;
        }
        if !schema.try_lock_session(Mode::Exclusive) {
            own.unlock_session(Mode::Exclusive);
            return None;
        }
        Some(Self([schema, own]))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().for_each(|lock| lock.unlock_session(Mode::Exclusive));
    }
}

/// Takes the move's lock, or says that someone else has it.
pub fn hold(tenant: Uuid) -> Result<Held> {
    Held::take(tenant).ok_or_else(|| {
        Error::State(
            format!("tenant \"{tenant}\" is being moved by another session"),
            "tenancy.moves says how far that is.",
        )
    })
}
