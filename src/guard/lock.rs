//! The tenant's lock. The first write of a bound transaction shares it until the transaction ends and then checks the tenant's
//! state again; whoever changes the state takes it alone first. So a writer that was admitted before commits before the change,
//! and none writes after it. Readers take no lock.

use super::refuse;
use crate::backend::BackendStatic;
use crate::context::{self, Context, registry};
use crate::error::{Error, Result, raise};
use crate::lock_tag::{self, Class};
use crate::version;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

fn this_database() -> pg_sys::Oid {
    // SAFETY: a plain read.
    unsafe { pg_sys::MyDatabaseId }
}

fn acquire(tenant: &[u8; 16], mode: u32, wait: bool) -> pg_sys::LockAcquireResult::Type {
    acquire_in(this_database(), tenant, mode, wait)
}

fn acquire_in(database: pg_sys::Oid, tenant: &[u8; 16], mode: u32, wait: bool) -> pg_sys::LockAcquireResult::Type {
    // SAFETY: takes a lock that the transaction's end releases; waits as any lock does, under lock_timeout.
    unsafe {
        pg_sys::LockAcquire(
            &lock_tag::of(database, lock_tag::key_of_tenant(tenant), Class::Tenant),
            mode as pg_sys::LOCKMODE,
            false,
            !wait,
        )
    }
}

/// Admits a write of the bound tenant: cheap when this transaction has written before.
///
/// A savepoint rollback releases the lock if it was taken inside; then the next write takes it and checks again.
pub fn admit_writer() {
    let Some(bound) = context::bound() else { return };
    if context::in_maintenance() || context::in_migration() {
        return;
    }
    if let Err(error) = context::refuse_elsewhere().and_then(|()| admit_bound(&bound)) {
        if matches!(error, Error::Internal(_)) { raise(error) } else { refuse(error) }
    }
}

/// Admits a change of the bound tenant's people and keys, which are here wherever its tables are.
pub fn admit_change() {
    let Some(bound) = context::bound() else { return };
    if context::in_maintenance() || context::in_migration() {
        return;
    }
    if let Err(error) = admit_writer_of(Uuid::from_bytes(bound.tenant)) {
        if matches!(error, Error::Internal(_)) { raise(error) } else { refuse(error) }
    }
}

/// The binding that was admitted to write last: of which transaction, and which in the session. It holds as long as the lock was not given back.
static ADMITTED: BackendStatic<Option<(pg_sys::LocalTransactionId, u64)>> = BackendStatic::new(None);

/// Shares the tenant's lock; whether the transaction had it.
fn share(tenant: &[u8; 16]) -> bool {
    use pg_sys::LockAcquireResult::{LOCKACQUIRE_ALREADY_CLEAR, LOCKACQUIRE_ALREADY_HELD};
    let result = acquire(tenant, pg_sys::ShareLock, true);
    let had = matches!(result, LOCKACQUIRE_ALREADY_HELD | LOCKACQUIRE_ALREADY_CLEAR);
    if !had {
        ADMITTED.set(None);
    }
    had
}

/// Admits a write of what is bound. The lock alone does not say that: it may have been taken for something that does not depend on where the
/// tenant's tables are, after the tenant was moved away from where this binding has them.
fn admit_bound(bound: &Context) -> Result<()> {
    let binding = Some((version::local_transaction_id(), context::generation()));
    if share(&bound.tenant) && ADMITTED.get() == binding {
        return Ok(());
    }
    let id = Uuid::from_bytes(bound.tenant);
    let tenant = registry::find(id)?.ok_or_else(|| Error::unknown_tenant(id))?;
    tenant.admit(true)?;
    context::refuse_moved(&tenant, bound)?;
    ADMITTED.set(binding);
    Ok(())
}

/// Admits a write for a tenant that need not be bound, to what is in the same place wherever the tenant's tables are.
pub fn admit_writer_of(tenant: Uuid) -> Result<()> {
    if share(tenant.as_bytes()) {
        return Ok(());
    }
    registry::find(tenant)?.ok_or_else(|| Error::unknown_tenant(tenant))?.admit(true)
}

/// Shares the lock as a writer does: the tenant's state stays what it is, and is to be checked.
pub fn join_writers(tenant: Uuid) {
    share(tenant.as_bytes());
}

/// Takes the lock alone: no transaction that has written for the tenant is left, and new ones wait until ours ends.
pub fn take_alone(tenant: Uuid) {
    acquire(tenant.as_bytes(), pg_sys::ExclusiveLock, true);
}

/// Like [`take_alone`], telling the caller when there is someone to wait for.
pub fn wait_for_writers(tenant: Uuid) {
    wait_for_writers_in(this_database(), tenant);
}

/// The same for those who write in another database, which is the tenant's own.
pub fn wait_for_writers_in(database: pg_sys::Oid, tenant: Uuid) {
    use pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL;
    if acquire_in(database, tenant.as_bytes(), pg_sys::ExclusiveLock, false) == LOCKACQUIRE_NOT_AVAIL {
        notice!("waiting for transactions that have written for tenant \"{tenant}\" to end");
        acquire_in(database, tenant.as_bytes(), pg_sys::ExclusiveLock, true);
    }
}

/// What someone wants to do with a schema or template.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Read its definition, with others.
    Share,
    /// Change it or drop it, alone.
    Exclusive,
}

/// A schema or template, as something to lock. Taken before any other lock that the same work needs, in the order template, then tenants by
/// id, so that creating, cloning, migrating and dropping wait for each other and not in a circle.
#[derive(Clone, Copy)]
pub struct Subject(pg_sys::LOCKTAG);

impl Subject {
    pub fn schema_of(tenant: Uuid) -> Self {
        Self::of_tenant(tenant, Class::Schema)
    }

    pub fn template(name: &str) -> Self {
        Self::of_name(name, Class::Template)
    }

    /// A run of migrations: its leader holds it as long as the run lasts.
    pub fn run(template: &str) -> Self {
        Self::of_name(template, Class::Run)
    }

    /// What one worker of a run holds while it works on a tenant's schema, so that the others need not wait for it.
    pub fn claim(tenant: Uuid) -> Self {
        Self::of_tenant(tenant, Class::Claim)
    }

    /// What a tenant has used of its limits, all of them: one lock, so that two of its transactions wait for each other and not in a circle.
    /// Who counts takes it alone; who is not limited shares it.
    pub fn counts_of(tenant: Uuid) -> Self {
        Self::of_tenant(tenant, Class::Counts)
    }

    /// A move of a tenant: who works at it holds this, in a session.
    pub fn move_of(tenant: Uuid) -> Self {
        Self::of_tenant(tenant, Class::Move)
    }

    /// A step of the product's own upkeep.
    pub fn step(name: &str) -> Self {
        Self::of_name(name, Class::Step)
    }

    /// That tenants' external ids stay what they are: shared by who changes one, taken alone by who makes them guard rows.
    pub fn external_ids() -> Self {
        Self::step("external ids")
    }

    /// The database of a tenant: who makes it or drops it holds this for as long as that takes.
    pub fn database_of(tenant: Uuid) -> Self {
        Self::of_tenant(tenant, Class::Database)
    }

    /// A step of that: the worker that does it may outlive who sent it.
    pub fn database_step_of(tenant: Uuid) -> Self {
        Self::of_tenant(tenant, Class::DatabaseStep)
    }

    fn of_tenant(tenant: Uuid, class: Class) -> Self {
        Self(lock_tag::of(this_database(), lock_tag::key_of_tenant(tenant.as_bytes()), class))
    }

    /// A name that a schema is made under.
    pub fn name(name: &str) -> Self {
        Self::of_name(name, Class::Name)
    }

    fn of_name(name: &str, class: Class) -> Self {
        Self(lock_tag::of(this_database(), lock_tag::key_of(name), class))
    }

    /// Waits for the lock, which the transaction's end releases.
    pub fn lock(&self, mode: Mode) {
        self.acquire(mode, false, true);
    }

    /// Takes the lock until the transaction's end, unless someone would have to be waited for.
    pub fn try_lock(&self, mode: Mode) -> bool {
        self.acquire(mode, false, false)
    }

    /// Waits for the lock, which outlives transactions until [`Self::unlock_session`] or the end of the process.
    pub fn lock_session(&self, mode: Mode) {
        self.acquire(mode, true, true);
    }

    /// Takes that lock unless someone would have to be waited for.
    pub fn try_lock_session(&self, mode: Mode) -> bool {
        self.acquire(mode, true, false)
    }

    pub fn unlock_session(&self, mode: Mode) {
        // SAFETY: gives back what lock_session took; PostgreSQL warns when there is nothing.
        unsafe { pg_sys::LockRelease(&self.0, mode.lock_mode(), true) };
    }

    fn acquire(&self, mode: Mode, session: bool, wait: bool) -> bool {
        // SAFETY: takes a lock as any other, under lock_timeout.
        let result = unsafe { pg_sys::LockAcquire(&self.0, mode.lock_mode(), session, !wait) };
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

impl Mode {
    fn lock_mode(self) -> pg_sys::LOCKMODE {
        match self {
            Self::Share => pg_sys::ShareLock as _,
            Self::Exclusive => pg_sys::ExclusiveLock as _,
        }
    }
}
