//! Making the databases of tenants that were registered with one.

use super::fill::Contents;
use super::intent::{self, Intent, Phase};
use super::{create, fill, install, open, remove, state};
use crate::audit::{self, Entry};
use crate::context::registry::Status;
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{self, Mode, Subject};
use crate::home;
use crate::json::Object;
use crate::label::{self, Home};
use crate::procedure::{self, Procedure};
use crate::query;
use crate::role;
use crate::worker::process::Failure;
use crate::worker::task;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

const LOCK_ROW: &str = "SELECT status, slug FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const ACTIVATE: &str = "UPDATE tenancy.tenants SET status = 'active', status_since = pg_catalog.now(), updated_at = pg_catalog.now() WHERE id = $1";
/// The databases that are labelled as those of tenants: whose, and of which control database.
macro_rules! labelled {
    ($rest:literal) => {
        concat!("WITH labelled AS (
        SELECT l.objoid AS oid, b.datname, pg_catalog.substr(l.label, 9, 36) AS tenant,
               pg_catalog.substr(l.label, pg_catalog.strpos(l.label, ' of ') + 4) AS control
        FROM pg_catalog.pg_shseclabel l JOIN pg_catalog.pg_database b ON b.oid = l.objoid
        WHERE l.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.provider = 'pg_tenancy'
          AND pg_catalog.starts_with(l.label, 'tenant: ')
    ), known AS (
        SELECT d.tenant_id, d.database_oid, d.database_name, l.oid, l.datname, l.control, l.oid = d.database_oid AS is_same,
               d.control_oid IS NOT DISTINCT FROM (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS is_kept_here
        FROM tenancy.tenant_databases d JOIN labelled l ON l.tenant = d.tenant_id::pg_catalog.text WHERE d.phase = 'ready'
    )", $rest)
    };
}
/// Those that someone has renamed, or restored with this database under other oids. One that is where it was stays it.
const MOVED: &str = labelled!(
    ", changed AS (
        SELECT DISTINCT ON (k.tenant_id) k.tenant_id, k.oid, k.datname FROM known k
        WHERE k.control = pg_catalog.current_database() AND (k.is_same OR NOT EXISTS (
            SELECT FROM known o WHERE o.tenant_id = k.tenant_id AND o.is_same))
        ORDER BY k.tenant_id, k.oid
    ), followed AS (
        UPDATE tenancy.tenant_databases d SET database_name = c.datname, database_oid = c.oid FROM changed c
        WHERE d.tenant_id = c.tenant_id AND (d.database_name, d.database_oid) IS DISTINCT FROM (c.datname, c.oid)
    )
    UPDATE tenancy.tenants t SET database_name = c.datname, updated_at = pg_catalog.now() FROM changed c
    WHERE t.id = c.tenant_id AND t.isolation = 'database' AND t.database_name IS DISTINCT FROM c.datname"
);
/// Notes that this is the database that keeps those which name it: after a restore it has another oid.
const KEPT: &str = labelled!(
    " UPDATE tenancy.tenant_databases d SET control_oid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    FROM known k WHERE k.tenant_id = d.tenant_id AND NOT k.is_kept_here AND k.control = pg_catalog.current_database()"
);
/// Those that this database keeps and whose label names one that is not there any more: this one has been renamed. A copy of it keeps none.
const ORPHANED: &str = labelled!(
    " SELECT k.tenant_id, k.oid FROM known k
    WHERE k.is_same AND k.is_kept_here AND NOT EXISTS (SELECT FROM pg_catalog.pg_database b WHERE b.datname = k.control)"
);

/// Who makes the database of a tenant, as long as this lives.
struct Claim(Subject);

impl Claim {
    /// None while someone else does.
    fn take(tenant: Uuid) -> Option<Self> {
        let subject = Subject::database_of(tenant);
        subject.try_lock_session(Mode::Exclusive).then(|| Self(subject))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.unlock_session(Mode::Exclusive);
    }
}

/// Makes the tenant's database, whole and closed: it knows the tenant's people, keys, plan and limits before anyone can connect. Commits.
pub fn build(procedure: &Procedure, tenant: Uuid, contents: Contents) -> Result<()> {
    create::create(procedure, tenant)?;
    install::install(procedure, tenant)?;
    fill::fill(procedure, tenant, contents)?;
    procedure::caught(|| role::as_extension_owner(|| state::tell(tenant, true).map(drop)))?;
    procedure.commit();
    Ok(())
}

/// Opens the database that is whole, and makes the tenant active that waited for it.
fn finish(tenant: Uuid) -> Result<()> {
    lock::take_alone(tenant);
    let (status, slug) = query::returning(LOCK_ROW, &[tenant.into()], |row| {
        Ok((Status::from_name(&row.must::<String>(1)?)?, row.must::<String>(2)?))
    })?
    .ok_or_else(|| Error::unknown_tenant(tenant))?;
    let state = if status == Status::Provisioning { Status::Active } else { status };
    if state != status {
        query::run(ACTIVATE, &[tenant.into()])?;
    }
    open::open(tenant, state.name())?;
    let database = Intent::get(tenant)?.database;
    audit::record(&Entry {
        action: "tenant.provision",
        tenant: Some(tenant),
        target: Some(&slug),
        before: Some(Object::new().text("status", status.name()).finish()),
        after: Some(Object::new().text("status", state.name()).text("database_name", &database).finish()),
    })
}

/// Makes one tenant's database; what is left of an attempt that failed is removed.
fn provision(procedure: &Procedure, tenant: Uuid) -> Result<()> {
    let done = build(procedure, tenant, Contents::Template)
        .and_then(|()| procedure::caught(|| role::as_extension_owner(|| finish(tenant))));
    procedure.commit();
    let Err(error) = done else { return Ok(()) };
    let failure = Failure::from(error);
    let message = format!("the database of tenant \"{tenant}\" was not made: {}", failure.message);
    let left = procedure::caught(|| {
        role::as_extension_owner(|| {
            intent::note_failure(tenant, &failure)?;
            let Some(intent) = Intent::find(tenant)? else { return Ok(None) };
            // Another session may have begun to drop it.
            if matches!(intent.phase, Phase::Ready | Phase::Dropping) {
                return Ok(None);
            }
            intent.advance(Phase::Requested)?;
            Ok(intent.oid)
        })
    })?;
    procedure.commit();
    task::note_failure(&message);
    warning!("{message}");
    match left {
        // What cannot be removed now is before the next attempt.
        Some(left) => remove::remove(procedure, tenant, left).or(Ok(())),
        None => Ok(()),
    }
}

/// Follows what was renamed by hand: databases of tenants, and this one.
fn follow() -> Result<()> {
    query::run(KEPT, &[])?;
    let orphaned = query::current_rows(ORPHANED, &[], |row| Ok((row.must::<Uuid>(1)?, row.must::<pg_sys::Oid>(2)?)))?;
    for (tenant, database) in orphaned {
        let Some(home) = label::of_database(database).filter(|home| home.tenant == *tenant.as_bytes()) else {
            continue;
        };
        label::set_of_database(database, &Home { control: home::this(), ..home })?;
    }
    query::run(MOVED, &[]).map(drop)
}

/// Makes every database that is due.
#[pg_extern(sql = "CREATE PROCEDURE provision_tenants()
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn provision_tenants(fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "provision_tenants") }?;
    if let Err(error) = procedure::attempt(|| role::as_extension_owner(follow)) {
        task::note_failure(&error);
        warning!("{error}");
    }
    procedure.commit();
    for tenant in role::as_extension_owner(intent::due)? {
        let Some(_claim) = Claim::take(tenant) else { continue };
        // Someone may have made it before the claim was ours.
        let is_due = role::as_extension_owner(intent::due)?.contains(&tenant);
        procedure.commit();
        if is_due {
            provision(&procedure, tenant)?;
            task::note_done(1);
        }
        if task::time_is_up() {
            break;
        }
    }
    Ok(())
}
