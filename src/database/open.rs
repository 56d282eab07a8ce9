//! A tenant's state, where its own database reads it: on the label. All of it takes effect with the commit of the transaction that changes the registry.

use super::dress;
use super::found;
use super::intent::{Intent, Phase, announce};
use crate::error::{Error, Result};
use crate::guard::lock;
use crate::home;
use crate::label::{self, Home};
use crate::query::{self, ident};
use pgrx::Uuid;

const RETRY: &str = "UPDATE tenancy.tenant_databases SET attempts = 0, next_attempt_at = pg_catalog.clock_timestamp() WHERE tenant_id = $1";

/// Waits for those who write for the tenant in its own database, and keeps new ones waiting until the transaction ends. Comes before any lock of a row.
pub fn wait_for_writers(tenant: Uuid) -> Result<()> {
    if let Some(database) = found::of(tenant)? {
        lock::wait_for_writers_in(database, tenant);
    }
    Ok(())
}

/// Puts a state on the label of the tenant's database, if there is one.
pub fn set_state(tenant: Uuid, state: &str) -> Result<()> {
    let Some(database) = found::of(tenant)? else { return Ok(()) };
    let home = Home { tenant: *tenant.as_bytes(), state: state.to_owned(), control: home::this() };
    label::set_of_database(database, &home)
}

/// Opens a database that is whole, with this state.
pub fn open(tenant: Uuid, state: &str) -> Result<()> {
    let intent = Intent::get_in(tenant, &[Phase::Filled, Phase::Ready])?;
    let missing = || Error::Unknown("database", intent.database.clone());
    let database = found::of(tenant)?.ok_or_else(missing)?;
    dress::as_control(database)?;
    let name = home::name_of(database).ok_or_else(missing)?;
    query::statement(&format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", ident(&name)), &[])?;
    set_state(tenant, state)?;
    intent.advance(Phase::Ready)
}

/// Closes the tenant's database, if there is one, for all that come; its label says why to those who are there.
pub fn close(tenant: Uuid, state: &str) -> Result<()> {
    let Some(name) = found::of(tenant)?.and_then(home::name_of) else { return Ok(()) };
    query::statement(&format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", ident(&name)), &[])?;
    set_state(tenant, state)
}

/// What the tenant's database is called.
pub fn name_of(tenant: Uuid) -> Result<String> {
    found::of(tenant)?.and_then(home::name_of).ok_or_else(|| Error::Unknown("database of tenant", tenant.to_string()))
}

/// Whether the tenant is to have a database that is not there yet; it is then tried again at once.
pub fn is_unfinished(tenant: Uuid) -> Result<bool> {
    let is_unfinished = Intent::find(tenant)?.is_some_and(|intent| intent.phase != Phase::Ready);
    if is_unfinished {
        query::run(RETRY, &[tenant.into()])?;
        announce();
    }
    Ok(is_unfinished)
}
