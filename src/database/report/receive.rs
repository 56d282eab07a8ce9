//! In the control database: taking over what a tenant's own database reports.

use super::uses;
use crate::error::{Error, Result};
use crate::home;
use crate::metering::usage::days;
use crate::monitor;
use crate::query;
use crate::scratch;
use crate::sqltype::Name;
use crate::uuid;
use crate::worker::errand;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};

/// Locked, so that the tenant stays where it is until the report is taken over.
const DATABASE: &str = "SELECT database_name FROM tenancy.tenants WHERE id = $1 AND isolation = 'database' FOR SHARE";
const REPORTED: &str =
    "INSERT INTO tenancy.database_reports (tenant_id, reported_at) VALUES ($1, pg_catalog.clock_timestamp())
    ON CONFLICT (tenant_id) DO UPDATE SET reported_at = excluded.reported_at";
/// It does not know what it was told last: it is told again, unless that waits to be done already.
const TELL_AGAIN: &str = "WITH forgotten AS (
        UPDATE tenancy.told_states SET digest = NULL WHERE tenant_id = $1 AND digest IS DISTINCT FROM $2 RETURNING true)
    INSERT INTO tenancy.database_changes (tenant_id, is_general) SELECT $1, false
    WHERE (EXISTS (SELECT FROM forgotten) OR NOT EXISTS (SELECT FROM tenancy.told_states WHERE tenant_id = $1))
      AND NOT EXISTS (SELECT FROM tenancy.database_changes WHERE tenant_id = $1)";

struct Report {
    tenant: Uuid,
    database: pg_sys::Oid,
    days: Vec<i32>,
    files: [String; 2],
    uses: Value,
    state: Option<String>,
    checksums: Option<Vec<(i32, String)>>,
}

impl Report {
    fn read(request: &Value) -> Option<Self> {
        let field = |name: &str| request.get(name).cloned().unwrap_or_default();
        Some(Self {
            tenant: Uuid::from_bytes(uuid::parse(field("tenant").as_str()?.as_bytes())?),
            database: u32::try_from(field("database").as_u64()?).ok()?.into(),
            days: serde_json::from_value(field("days")).ok()?,
            files: serde_json::from_value(field("files")).ok()?,
            uses: field("uses"),
            state: field("state").as_str().map(str::to_owned),
            checksums: serde_json::from_value(field("checksums")).ok()?,
        })
    }

    /// Only the database that is the tenant's now has something to say of it.
    fn check_sender(&self) -> Result<()> {
        let name = query::returning(DATABASE, &[self.tenant.into()], |row| row.get::<Name>(1))?.flatten();
        if let Some(Name(name)) = name
            && home::find(self.tenant, &name)? == self.database
        {
            return Ok(());
        }
        Err(Error::State(format!("tenant \"{}\" is not in this database of its own now", self.tenant), ""))
    }

    /// Takes it over; the days that are not the same here.
    fn take(&self) -> Result<Vec<i32>> {
        self.check_sender()?;
        let [buckets, uniques] = &self.files;
        if !self.days.is_empty() {
            days::replace(self.tenant, &self.days, [&scratch::path(buckets)?, &scratch::path(uniques)?])?;
        }
        uses::take(self.tenant, &self.uses)?;
        query::run(REPORTED, &[self.tenant.into()])?;
        if query::run(TELL_AGAIN, &[self.tenant.into(), self.state.as_deref().into()])? > 0 {
            pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, monitor::announce);
        }
        match &self.checksums {
            Some(theirs) => Ok(days::differing(theirs, &days::checksums(self.tenant)?)),
            None => Ok(Vec::new()),
        }
    }
}

/// The errand.
pub fn run(request: &Value) -> Result<Value> {
    let report = Report::read(request).ok_or_else(|| Error::Internal("a report cannot be read".to_owned()))?;
    Ok(json!(errand::transaction(|| report.take())?))
}
