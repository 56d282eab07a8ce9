//! The counters: how many live rows of a resource a tenant has.
//!
//! A counter is a cache of a count. Whoever changes the number of a tenant's rows holds the tenant's counting lock until the transaction ends,
//! and either brings the counter up to date or removes it; where there is none, the next who needs it counts the rows. So nothing has
//! to be done when a plan changes, a limit is set or a dump is restored, and a counter that is there is exact.
//!
//! - A tenant with any limit takes its lock alone: transactions that change its numbers come one after the other.
//! - A tenant without any shares it, and has no counters. Whoever then finds one takes the lock alone and removes them.
//! - What bypasses row security, and what the product does for itself, is never refused; it removes counters. For many tenants at once, and
//!   for what happens to a table as a whole, the resource gets a new version, which makes every counter of an older one void.
//!
//! A count that is made while a statement is under way holds a part of what that statement reports afterwards. Such a report makes
//! a new count instead of a sum: [`statement`] knows which statements were under way.

use super::recount;
use super::resources;
use super::statement::Statement;
use crate::context::{self, registry};
use crate::error::{Error, Result};
use crate::guard;
use crate::guard::lock::{Mode, Subject};
use crate::home;
use crate::metering::plan::{self, Period};
use crate::monitor;
use crate::scan::{Key, Row, Table};
use crate::store::{self, Place};
use crate::version;
use pgrx::{IntoDatum, Uuid, pg_sys};
use std::cell::RefCell;

/// Column numbers of `tenancy.row_counters`; sql/metering/limit.sql keeps them.
mod column {
    pub const TENANT: i16 = 1;
    pub const RESOURCE: i16 = 2;
    pub const USED: i16 = 4;
    pub const CHANGES: i16 = 5;
    pub const VERSION: i16 = 6;
}

static ROW_COUNTERS: Table = Table::by(c"row_counters", c"row_counters_pkey");

/// Changes of a counter between two entries in its index: where old versions of the row cannot be removed yet, the newest is found
/// without visiting more of them than this.
const CHANGES_PER_ERA: i64 = 64;

/// Tenants whose locks one statement of a role that bypasses row security takes; one that touches more makes a new version.
const MAX_LOCKS: usize = 16;

/// A counter that is there.
struct Counter {
    used: i64,
    changes: i64,
    /// Whether it counts what the resource is now.
    is_valid: bool,
    place: Place,
}

impl Counter {
    fn read(row: &Row, place: Place, version: i64) -> Result<Self> {
        Ok(Self {
            used: row.must(column::USED)?,
            changes: row.must(column::CHANGES)?,
            is_valid: row.must::<i64>(column::VERSION)? == version,
            place,
        })
    }
}

fn find(tenant: Uuid, resource: &str, version: i64) -> Result<Option<Counter>> {
    let keys = [Key::uuid(column::TENANT, tenant.as_bytes()), Key::text(column::RESOURCE, resource)?];
    ROW_COUNTERS.last(&keys)?.map(|(row, place)| Counter::read(&row, place, version)).transpose()
}

/// The count that a counter holds; None where there is none.
pub fn used(tenant: Uuid, resource: &str) -> Result<Option<i64>> {
    let found = find(tenant, resource, resources::version(resource)?)?;
    Ok(found.filter(|counter| counter.is_valid).map(|counter| counter.used))
}

fn write(tenant: Uuid, resource: &str, before: Option<&Counter>, used: i64, version: i64) -> Result<()> {
    let changes = before.map_or(0, |before| before.changes + 1);
    let values = [
        Some(pg_sys::Datum::from(tenant.as_bytes().as_ptr())),
        resource.into_datum(),
        (changes / CHANGES_PER_ERA).into_datum(),
        used.into_datum(),
        changes.into_datum(),
        version.into_datum(),
    ];
    if home::here().is_some() {
        // The control database is to hear of it.
        monitor::announce();
    }
    match before {
        Some(before) => store::update(&ROW_COUNTERS, before.place, values),
        None => store::insert(&ROW_COUNTERS, values),
    }
}

/// Removes the tenant's counters. The caller holds the tenant's lock alone.
fn remove_all(tenant: Uuid) -> Result<()> {
    while let Some((_, place)) = ROW_COUNTERS.last(&[Key::uuid(column::TENANT, tenant.as_bytes())])? {
        store::delete(&ROW_COUNTERS, place)?;
    }
    Ok(())
}

/// What a tenant may have of a resource.
enum Allowed {
    /// Nothing was ever said of it: the error that tells so.
    Unsaid(Error),
    Any,
    UpTo(i64),
}

fn allowed(tenant: Uuid, resource: &str) -> Result<Allowed> {
    let limits = match plan::limits_of(tenant, resource) {
        Ok(limits) => limits,
        // A tenant whose row is gone already, as at the end of a purge, has none either.
        Err(error @ (Error::NoLimit { .. } | Error::UnknownTenant(_))) => return Ok(Allowed::Unsaid(error)),
        Err(error) => return Err(error),
    };
    Ok(match limits.iter().find(|limit| limit.period == Period::Total) {
        Some(limit) => limit.whole.map_or(Allowed::Any, Allowed::UpTo),
        None => Allowed::Unsaid(Error::NoLimit {
            resource: resource.to_owned(),
            plan: registry::plan_of(tenant)?.0.unwrap_or_default(),
        }),
    })
}

/// Whether none of the counted resources has a limit for the tenant: not those alone that a statement touches, so that a transaction
/// that touches one after the other need not exchange its lock for a stronger one.
fn is_unlimited(tenant: Uuid) -> Result<bool> {
    for resource in resources::counted()?.iter() {
        if let Allowed::UpTo(_) = allowed(tenant, resource)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is a number of the resource that the tenant may have.
pub fn is_limited(tenant: Uuid, resource: &str) -> Result<bool> {
    Ok(matches!(allowed(tenant, resource)?, Allowed::UpTo(_)))
}

fn has_counters(tenant: Uuid) -> Result<bool> {
    Ok(ROW_COUNTERS.last(&[Key::uuid(column::TENANT, tenant.as_bytes())])?.is_some())
}

/// Takes the tenant's counting lock as its limits demand: true when it is taken alone, and counters are kept.
fn hold(tenant: Uuid, resource: &str) -> Result<bool> {
    let lock = Subject::counts_of(tenant);
    let is_limited =
        || -> Result<bool> { Ok(matches!(allowed(tenant, resource)?, Allowed::UpTo(_)) || !is_unlimited(tenant)?) };
    if !is_limited()? && !has_counters(tenant)? {
        lock.lock(Mode::Share);
        // As it is now, after whoever held it.
        if !is_limited()? && !has_counters(tenant)? {
            return Ok(false);
        }
    }
    lock.lock(Mode::Exclusive);
    if is_limited()? {
        return Ok(true);
    }
    remove_all(tenant)?;
    Ok(false)
}

/// A count that this transaction has made: of what, and the first command that it knows nothing of.
struct Made {
    tenant: [u8; 16],
    resource: String,
    before: pg_sys::CommandId,
}

thread_local! {
    /// The counts of a transaction, which has this local id.
    static MADE: RefCell<(pg_sys::LocalTransactionId, Vec<Made>)> = const { RefCell::new((0, Vec::new())) };
}

/// Whether a count was made while the statement was under way.
fn is_counted_in_part(tenant: &[u8; 16], resource: &str, statement: Statement) -> bool {
    let transaction = version::local_transaction_id();
    MADE.with_borrow(|(of, made)| {
        *of == transaction
            && made
                .iter()
                .any(|made| made.before > statement.command && made.tenant == *tenant && made.resource == resource)
    })
}

/// Counts the tenant's rows, those of the running transaction included. The caller holds the tenant's lock alone.
fn count(tenant: Uuid, resource: &str) -> Result<i64> {
    let used = recount::rows(tenant, resource)?;
    // SAFETY: a plain read; the count has made the transaction's commands up to here visible.
    let before = unsafe { pg_sys::GetCurrentCommandId(false) };
    let transaction = version::local_transaction_id();
    MADE.with_borrow_mut(|(of, made)| {
        if *of != transaction {
            made.clear();
            *of = transaction;
        }
        made.retain(|made| made.tenant != *tenant.as_bytes() || made.resource != resource);
        made.push(Made { tenant: *tenant.as_bytes(), resource: resource.to_owned(), before });
    });
    Ok(used)
}

/// Whether limits bind what the session does now.
fn is_enforced() -> bool {
    guard::session_is_guarded() && !context::in_maintenance() && !context::in_migration()
}

/// A statement has changed the numbers of some tenants, which are in order.
pub fn change(resource: &str, changes: &[([u8; 16], i64)], statement: Statement) -> Result<()> {
    let changes =
        changes.iter().filter(|(tenant, change)| *change != 0 || is_counted_in_part(tenant, resource, statement));
    if !is_enforced() {
        let tenants: Vec<[u8; 16]> = changes.map(|(tenant, _)| *tenant).collect();
        return forget(resource, &tenants);
    }
    changes.map(|(tenant, change)| (Uuid::from_bytes(*tenant), *change)).try_for_each(|(tenant, change)| {
        let is_kept = hold(tenant, resource)?;
        match allowed(tenant, resource)? {
            Allowed::Unsaid(error) if change > 0 => Err(error),
            _ if !is_kept => Ok(()),
            Allowed::UpTo(max) => add(tenant, resource, change, Some(max), statement),
            // Kept while it is there, made by nobody.
            Allowed::Any | Allowed::Unsaid(_) if used(tenant, resource)?.is_none() => Ok(()),
            Allowed::Any | Allowed::Unsaid(_) => add(tenant, resource, change, None, statement),
        }
    })
}

/// Brings a counter up to date, if the tenant may have that many.
fn add(tenant: Uuid, resource: &str, change: i64, max: Option<i64>, statement: Statement) -> Result<()> {
    // Before anything is counted: a count is of this version, whatever comes meanwhile.
    let version = resources::version(resource)?;
    let before = find(tenant, resource, version)?;
    let is_new = is_counted_in_part(tenant.as_bytes(), resource, statement);
    let sum = before.as_ref().filter(|before| before.is_valid && !is_new).map(|before| before.used + change);
    let exceeds = |used: i64| change > 0 && max.is_some_and(|max| used > max);
    let used = match sum {
        // What another trigger of the statement will report may make up for it.
        Some(sum) if sum >= 0 && !(exceeds(sum) && statement.is_compound) => sum,
        _ => count(tenant, resource)?,
    };
    if exceeds(used) {
        let max = max.unwrap_or_default().to_string();
        return Err(Error::LimitReached { resource: resource.to_owned(), max });
    }
    write(tenant, resource, before.as_ref(), used, version)
}

/// The numbers of these tenants, in order, have changed in a way that nobody counts.
pub fn forget(resource: &str, tenants: &[[u8; 16]]) -> Result<()> {
    if tenants.len() > MAX_LOCKS {
        return forget_all(resource);
    }
    for tenant in tenants {
        let tenant = Uuid::from_bytes(*tenant);
        Subject::counts_of(tenant).lock(Mode::Exclusive);
        if let Some(counter) = find(tenant, resource, 0)? {
            store::delete(&ROW_COUNTERS, counter.place)?;
        }
    }
    Ok(())
}

/// The numbers of every tenant may have changed.
pub fn forget_all(resource: &str) -> Result<()> {
    resources::renew(resource)
}

/// Removes the counters of a tenant; true when there were some.
pub fn erase(tenant: Uuid) -> Result<bool> {
    Subject::counts_of(tenant).lock(Mode::Exclusive);
    let had = has_counters(tenant)?;
    remove_all(tenant)?;
    Ok(had)
}
