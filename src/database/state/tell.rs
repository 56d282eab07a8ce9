//! Telling a tenant's own database what it is to know.

use super::contents::{self, Contents};
use crate::error::{Error, Result};
use crate::guard::lock::{Mode, Subject};
use crate::query;
use crate::worker::errand;
use crate::worker::process::Failure;
use pgrx::Uuid;
use serde_json::json;

/// The errand of [`super::receive`].
pub const ERRAND: &str = "database.state";

const WAITING: &str = "SELECT id FROM tenancy.database_changes WHERE tenant_id = $1";
const HEARD: &str = "DELETE FROM tenancy.database_changes WHERE id = ANY ($1)";
const TRIED: &str = "UPDATE tenancy.database_changes SET is_tried = true WHERE id = ANY ($1) AND NOT is_tried";
const FORGET: &str = "DELETE FROM tenancy.database_changes WHERE tenant_id = $1";
const TOLD: &str = "SELECT digest FROM tenancy.told_states WHERE tenant_id = $1 AND attempts = 0";
/// Later transactions have greater numbers, in every database of the server.
const VERSION: &str = "SELECT pg_catalog.pg_current_xact_id()::text::bigint";
const NOTE_TOLD: &str = "INSERT INTO tenancy.told_states AS s (tenant_id, digest, told_at) VALUES ($1, $2, pg_catalog.clock_timestamp())
    ON CONFLICT (tenant_id) DO UPDATE SET digest = excluded.digest, told_at = excluded.told_at, attempts = 0, next_attempt_at = NULL";
/// The wait doubles from a second to five minutes.
const NOTE_FAILED: &str = "INSERT INTO tenancy.told_states AS s (tenant_id, attempts, next_attempt_at, last_failed_at, last_sqlstate, last_error)
    VALUES ($1, 1, pg_catalog.clock_timestamp() + '1 s'::interval, pg_catalog.clock_timestamp(), $2, $3)
    ON CONFLICT (tenant_id) DO UPDATE SET attempts = s.attempts + 1, last_failed_at = excluded.last_failed_at,
        next_attempt_at = excluded.last_failed_at + least(300, pg_catalog.power(2, least(s.attempts, 10))) * '1 s'::interval,
        last_sqlstate = excluded.last_sqlstate, last_error = excluded.last_error";

/// Characters of an error's message that are kept.
const MAX_MESSAGE: usize = 1000;

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The database has it.
    Told,
    /// It had it before, or there is no such database.
    Nothing,
}

/// Tells the tenant's own database what is so now, and waits until it has it; with `anyway`, also what was told before. As the extension's owner.
/// The caller's transaction must not hold what [`super::receive`] would wait for: it works in another database.
pub fn tell(tenant: Uuid, anyway: bool) -> Result<Outcome> {
    // One at a time: of two, the later read would not be the later told.
    Subject::step(&format!("state of {tenant}")).lock(Mode::Exclusive);
    // What is queued from here on is told again.
    let waiting: Vec<i64> = query::current_rows(WAITING, &[tenant.into()], |row| row.must(1))?;
    let Some(database) = contents::database_of(tenant)? else {
        query::run(FORGET, &[tenant.into()])?;
        return Ok(Outcome::Nothing);
    };
    let contents = Contents::read(tenant)?;
    let told = query::current_rows(TOLD, &[tenant.into()], |row| row.get::<String>(1))?;
    let is_known = told.first().is_some_and(|told| told.as_ref() == Some(&contents.digest));
    if anyway || !is_known {
        let version: i64 = query::current_rows(VERSION, &[], |row| row.must(1))?.pop().unwrap_or_default();
        let request = json!({
            "tenant": tenant.to_string(), "version": version, "digest": contents.digest, "is_patient": anyway, "rows": contents.rows, "levels": contents.levels, "limits": contents.limits });
        errand::send(database, ERRAND, &request)?.wait()?;
        query::run(NOTE_TOLD, &[tenant.into(), contents.digest.as_str().into()])?;
    }
    query::run(HEARD, &[waiting.into()])?;
    Ok(if anyway || !is_known { Outcome::Told } else { Outcome::Nothing })
}

/// The same, where a failure is written down, to be tried again later: how it went, or the message.
pub fn try_to_tell(tenant: Uuid, anyway: bool) -> Result<std::result::Result<Outcome, String>> {
    // What comes later is not kept waiting by the failure.
    let waiting: Vec<i64> = query::current_rows(WAITING, &[tenant.into()], |row| row.must(1))?;
    match tell(tenant, anyway) {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(error @ Error::Internal(_)) => Err(error),
        Err(error) => {
            let failure = Failure::from(error);
            let message: String = failure.message.chars().take(MAX_MESSAGE).collect();
            query::run(NOTE_FAILED, &[tenant.into(), failure.sqlstate.as_str().into(), message.as_str().into()])?;
            query::run(TRIED, &[waiting.into()])?;
            Ok(Err(message))
        }
    }
}
