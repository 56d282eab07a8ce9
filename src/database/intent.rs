//! Which tenants are to have a database, and how far it is: `tenancy.tenant_databases`.

use super::needs;
use crate::error::{Error, Result};
use crate::guard::lock::{Mode, Subject};
use crate::isolation::schema::{self, Schema, Template};
use crate::monitor;
use crate::query;
use crate::worker::process::Failure;
use pgrx::{PgXactCallbackEvent, Uuid, pg_sys};

const INSERT: &str = "INSERT INTO tenancy.tenant_databases (tenant_id, database_name, template, schema_name, control_oid)
    SELECT $1, $2, $3, $4, oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database() ON CONFLICT DO NOTHING";
const ATTACH: &str = "UPDATE tenancy.tenants SET status = 'provisioning', isolation = 'database', database_name = $2, schema_name = $3, template = $4,
        updated_at = pg_catalog.now()
    WHERE id = $1";
const SLUG: &str = "SELECT slug FROM tenancy.tenants WHERE id = $1";
const LOCK: &str = "SELECT database_name::text, database_oid, template::text, schema_name::text, phase, attempts
    FROM tenancy.tenant_databases WHERE tenant_id = $1 FOR UPDATE";
const ADVANCE: &str =
    "UPDATE tenancy.tenant_databases SET phase = $2, updated_at = pg_catalog.clock_timestamp() WHERE tenant_id = $1";
const CHOOSE: &str = "UPDATE tenancy.tenant_databases SET phase = 'creating', database_oid = $2, updated_at = pg_catalog.clock_timestamp()
    WHERE tenant_id = $1";
const FAILED: &str =
    "UPDATE tenancy.tenant_databases SET attempts = attempts + 1, last_failed_at = pg_catalog.clock_timestamp(),
        last_sqlstate = $2, last_error = $3, updated_at = pg_catalog.clock_timestamp(),
        next_attempt_at = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs =>
            CASE WHEN attempts < $4 THEN 1 ELSE LEAST(60 * pg_catalog.power(2, LEAST(attempts - $4, 20)), 3600) END)
    WHERE tenant_id = $1 RETURNING attempts <= $4";
const FORGET: &str = "DELETE FROM tenancy.tenant_databases WHERE tenant_id = $1";
const DUE: &str = "SELECT d.tenant_id FROM tenancy.tenant_databases d JOIN tenancy.tenants t ON t.id = d.tenant_id
    WHERE d.phase <> 'ready' AND t.status = 'provisioning' AND t.isolation = 'database'
      AND d.next_attempt_at <= pg_catalog.clock_timestamp()
    ORDER BY d.next_attempt_at, d.tenant_id";

/// Attempts that follow each other at once; further ones wait for a minute, then twice as long each time, up to an hour.
const QUICK_ATTEMPTS: i32 = 3;
/// Characters of an error's message that are kept.
const MAX_MESSAGE: usize = 4000;

/// How far a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Requested,
    Creating,
    Installing,
    Filling,
    Filled,
    Ready,
    Dropping,
}

impl Phase {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Requested, "requested"),
        (Self::Creating, "creating"),
        (Self::Installing, "installing"),
        (Self::Filling, "filling"),
        (Self::Filled, "filled"),
        (Self::Ready, "ready"),
        (Self::Dropping, "dropping"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|(_, known)| *known == name);
        found.map(|(phase, _)| phase).ok_or_else(|| Error::Internal(format!("unknown phase {name}")))
    }
}

/// A database that is to be, or is.
pub struct Intent {
    pub tenant: Uuid,
    pub database: String,
    /// Chosen before the database is made.
    pub oid: Option<pg_sys::Oid>,
    /// What the tenant's schema follows; None for one that follows none.
    pub template: Option<String>,
    pub schema: String,
    pub phase: Phase,
}

impl Intent {
    /// The tenant's, locked until the transaction ends; None for a tenant that has none and is to have none.
    pub fn find(tenant: Uuid) -> Result<Option<Self>> {
        query::returning(LOCK, &[tenant.into()], |row| {
            Ok(Self {
                tenant,
                database: row.must(1)?,
                oid: row.get(2)?,
                template: row.get(3)?,
                schema: row.must(4)?,
                phase: Phase::from_name(&row.must::<String>(5)?)?,
            })
        })
    }

    pub fn get(tenant: Uuid) -> Result<Self> {
        Self::find(tenant)?.ok_or_else(|| Error::Unknown("database of tenant", tenant.to_string()))
    }

    /// The tenant's, which must be in one of these phases: nobody has ended what the caller goes on with.
    pub fn get_in(tenant: Uuid, phases: &[Phase]) -> Result<Self> {
        let intent = Self::get(tenant)?;
        if phases.contains(&intent.phase) {
            return Ok(intent);
        }
        Err(Error::State(format!("the database of tenant \"{tenant}\" is {} by now", intent.phase.name()), ""))
    }

    pub fn advance(&self, phase: Phase) -> Result<()> {
        query::run(ADVANCE, &[self.tenant.into(), phase.name().into()]).map(drop)
    }

    /// Notes which oid the database will have.
    pub fn choose(&self, oid: pg_sys::Oid) -> Result<()> {
        query::run(CHOOSE, &[self.tenant.into(), oid.into()]).map(drop)
    }

    pub fn forget(&self) -> Result<()> {
        query::run(FORGET, &[self.tenant.into()]).map(drop)
    }
}

/// Says that a tenant is to have a database, in which its schema will have this name; nobody makes it by themselves. Returns its name.
pub fn register(tenant: Uuid, template: Option<&str>, schema: &str) -> Result<String> {
    schema::check_name(schema)?;
    let database = format!("tenant_{tenant}");
    let args = [tenant.into(), database.as_str().into(), template.into(), schema.into()];
    if query::run(INSERT, &args)? == 1 {
        Ok(database)
    } else {
        Err(Error::Duplicate("database of tenant", tenant.to_string()))
    }
}

/// Has a worker make the database of a tenant that was just registered, once the transaction has committed.
pub fn request(tenant: Uuid, template: &str, schema_name: Option<&str>) -> Result<()> {
    query::refuse_old_snapshot("a tenant with a database cannot be registered")?;
    let template = Template::share(template)?;
    needs::of(&Schema::get(&template.schema)?)?;
    let slug: String = query::current_rows(SLUG, &[tenant.into()], |row| row.must(1))?.pop().unwrap_or_default();
    let schema = schema::name_for(schema_name.unwrap_or(&template.tenant_schema), tenant, &slug);
    let database = register(tenant, Some(&template.name), &schema)?;
    Subject::name(&schema).lock(Mode::Exclusive);
    let args = [tenant.into(), database.as_str().into(), schema.as_str().into(), template.name.as_str().into()];
    query::run(ATTACH, &args)?;
    announce();
    Ok(())
}

/// Has a worker come once the transaction has committed.
pub fn announce() {
    pgrx::register_xact_callback(PgXactCallbackEvent::Commit, monitor::announce);
}

/// The tenants whose database is to be made now.
pub fn due() -> Result<Vec<Uuid>> {
    query::current_rows(DUE, &[], |row| row.must(1))
}

/// Writes down why an attempt failed, and when the next one is due: after the first ones a worker comes soon.
pub fn note_failure(tenant: Uuid, failure: &Failure) -> Result<()> {
    let message: String = failure.message.chars().take(MAX_MESSAGE).collect();
    let args = [tenant.into(), failure.sqlstate.as_str().into(), message.into(), QUICK_ATTEMPTS.into()];
    if query::returning(FAILED, &args, |row| row.must::<bool>(1))? == Some(true) {
        announce();
    }
    Ok(())
}
