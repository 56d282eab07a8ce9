//! What the product itself keeps where a tenant's rows are, and goes along: what was used, under which idempotency keys, and the archive of that; and
//! back out of a database of its own, what was done there.
//!
//! The control database keeps what it had: a tenant's own database has all of that and more, so what comes back takes its place.

use crate::error::{Error, Result};
use crate::fields;
use crate::metering::usage::{
    self,
    days::{self, Files},
};
use crate::procedure::{self, Procedure};
use crate::query::{self, literal};
use crate::role;
use crate::row_file;
use crate::scratch::{self, Scratch};
use crate::transfer::remote::refuse_elsewhere;
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};
use std::path::Path;

pub const TAKE: Errand = Errand { name: "move.take_along", run: take };
pub const GIVE: Errand = Errand { name: "move.give_along", run: give };

const KEYS: (&str, &[&str]) = ("tenancy.usage_keys", &["tenant_id", "key_hash", "payload_hash", "recorded_at"]);
const EVENTS: (&str, &[&str]) = (
    "tenancy_archive.usage_events",
    &["tenant_id", "metric", "quantity", "occurred_at", "recorded_at", "resource_id", "properties", "counted"],
);
const AUDIT: (&str, &[&str]) = (
    "tenancy.audit_log",
    &["at", "session_user_name", "outer_user_name", "principal", "tenant_id", "action", "target", "before", "after"],
);
const OID: &str = "SELECT $1::pg_catalog.regclass::pg_catalog.oid";
const DELETE_KEYS: &str = "DELETE FROM tenancy.usage_keys WHERE tenant_id = $1";

/// What goes along, in files.
struct Luggage {
    keys: Scratch,
    events: Scratch,
    audit: Scratch,
}

impl Luggage {
    fn new() -> Result<Self> {
        Ok(Self { keys: Scratch::new()?, events: Scratch::new()?, audit: Scratch::new()? })
    }

    fn names(&self) -> Value {
        json!({ "keys": self.keys.name(), "events": self.events.name(), "audit": self.audit.name() })
    }
}

fn unload(table: &str, columns: &[&str], tenant: Uuid, path: &Path) -> Result<()> {
    let tenant = literal(&tenant.to_string());
    let query = format!("SELECT {} FROM {table} WHERE tenant_id = {tenant}", columns.join(", "));
    query::as_of_now(|| row_file::unload(&query, path)).map(drop)
}

fn load((table, columns): (&str, &[&str]), path: &Path) -> Result<()> {
    let oid: Option<pg_sys::Oid> = query::current_rows(OID, &[table.into()], |row| row.must(1))?.pop();
    let oid = oid.ok_or_else(|| Error::Internal(format!("{table} is not there")))?;
    let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    row_file::load(oid, &columns, path).map(drop)
}

/// Writes keys and the archive of events, which may be in several tables.
fn unload_usage(tenant: Uuid, keys: &Path, events: &Path) -> Result<()> {
    unload(KEYS.0, KEYS.1, tenant, keys)?;
    let tables = usage::archive_tables()?;
    let parts: Vec<String> =
        tables.iter().map(|table| format!("SELECT {} FROM {table}", EVENTS.1.join(", "))).collect();
    match parts.is_empty() {
        true => scratch::write(events, ""),
        false => unload(&format!("({}) AS events", parts.join(" UNION ALL ")), EVENTS.1, tenant, events),
    }
}

/// Puts keys and events in the place of what is there.
fn load_usage(tenant: Uuid, keys: &Path, events: &Path) -> Result<()> {
    query::run(DELETE_KEYS, &[tenant.into()])?;
    load(KEYS, keys)?;
    for table in usage::archive_tables()? {
        query::statement(&format!("DELETE FROM {table} WHERE tenant_id = $1"), &[tenant.into()])?;
    }
    if std::fs::metadata(events).is_ok_and(|file| file.len() > 0) {
        usage::prepare_archive()?;
        load(EVENTS, events)?;
    }
    Ok(())
}

/// Brings what was used to the tenant's new database, which has reported nothing yet. Commits.
pub fn send(procedure: &Procedure, tenant: Uuid, database: pg_sys::Oid) -> Result<()> {
    let (luggage, files) = (Luggage::new()?, Files::new()?);
    let days = procedure::caught(|| {
        role::as_extension_owner(|| {
            usage::roll_up()?;
            let days: Vec<i32> = days::checksums(tenant)?.into_iter().map(|(day, _)| day).collect();
            days::unload(tenant, &days, files.paths())?;
            unload_usage(tenant, luggage.keys.path(), luggage.events.path())?;
            Ok(days)
        })
    })?;
    let request =
        json!({ "tenant": tenant.to_string(), "days": days, "files": files.names(), "along": luggage.names() });
    errand::send(database, TAKE.name, &request)?.wait_in(procedure).map(drop)
}

/// In the tenant's database.
fn take(request: &Value) -> Result<Value> {
    let tenant = fields::tenant(request, "tenant")?;
    let days: Vec<i32> = serde_json::from_value(request["days"].clone())
        .map_err(|_| Error::Internal("days cannot be read".to_owned()))?;
    let files = fields::texts(request, "files")?;
    let path = |name: &str| scratch::path(fields::text(&request["along"], name)?);
    let take = || {
        refuse_elsewhere(tenant)?;
        if let [buckets, uniques] = &files[..] {
            days::replace(tenant, &days, [&scratch::path(buckets)?, &scratch::path(uniques)?])?;
        }
        load_usage(tenant, &path("keys")?, &path("events")?)
    };
    process::transaction(|| true, || role::as_extension_owner(take))?;
    Ok(Value::Null)
}

/// What comes back from the tenant's own database, whose usage was reported.
pub struct Back(Luggage);

/// Fetches it. Commits.
pub fn fetch(procedure: &Procedure, tenant: Uuid, database: pg_sys::Oid) -> Result<Back> {
    let luggage = Luggage::new()?;
    let request = json!({ "tenant": tenant.to_string(), "along": luggage.names() });
    errand::send(database, GIVE.name, &request)?.wait_in(procedure)?;
    Ok(Back(luggage))
}

/// In the tenant's database.
fn give(request: &Value) -> Result<Value> {
    let tenant = fields::tenant(request, "tenant")?;
    let path = |name: &str| scratch::path(fields::text(&request["along"], name)?);
    let give = || {
        refuse_elsewhere(tenant)?;
        unload_usage(tenant, &path("keys")?, &path("events")?)?;
        unload(AUDIT.0, AUDIT.1, tenant, &path("audit")?)
    };
    process::transaction(|| true, || role::as_extension_owner(give))?;
    Ok(Value::Null)
}

impl Back {
    /// Takes it over, as the extension's owner.
    pub fn take(&self, tenant: Uuid) -> Result<()> {
        load_usage(tenant, self.0.keys.path(), self.0.events.path())?;
        load(AUDIT, self.0.audit.path())
    }
}
