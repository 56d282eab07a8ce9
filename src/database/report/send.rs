//! In a tenant's own database: reporting what is new.

use super::uses;
use crate::error::{Error, Result};
use crate::guard::lock::{Mode, Subject};
use crate::home;
use crate::metering::usage::days::{self, Files};
use crate::query;
use crate::worker::errand;
use pgrx::{Uuid, pg_sys};
use serde_json::json;

/// The errand of [`super::receive`].
pub const ERRAND: &str = "database.report";

/// Days of usage that one report holds.
const DAYS: i64 = 31;

/// What was told last ([`crate::database::state`]): its digest, or nothing where someone has changed it since.
const STATE: &str = "SELECT digest FROM tenancy.received_state";
/// What was reported last, whether that is long ago, and whether all usage was compared long ago.
const SENT: &str = "SELECT digest, sent_at < pg_catalog.clock_timestamp() - '1 hour'::interval,
    verified_at IS NULL OR verified_at < pg_catalog.clock_timestamp() - '1 day'::interval FROM tenancy.sent_reports";
const NOTE_SENT: &str = "WITH before AS (DELETE FROM tenancy.sent_reports RETURNING verified_at)
    INSERT INTO tenancy.sent_reports (digest, sent_at, verified_at)
    SELECT $1, pg_catalog.clock_timestamp(), CASE WHEN $2 THEN pg_catalog.clock_timestamp() ELSE (SELECT verified_at FROM before) END";

/// The workers' step: where others report, there is nothing to do.
pub fn batch() -> Result<(u64, bool)> {
    if home::here().is_some() && step().try_lock(Mode::Exclusive) { report() } else { Ok((0, false)) }
}

/// Reports all that has been rolled up: in a transaction that has not done that, whose lock nobody must wait for who is waited for here.
pub fn report_all() -> Result<()> {
    step().lock(Mode::Exclusive);
    while report()?.1 {}
    Ok(())
}

fn step() -> Subject {
    Subject::step("report")
}

/// Reports what is new, as the extension's owner: whether it was anything, and whether there may be more.
fn report() -> Result<(u64, bool)> {
    let Some(home) = home::here() else { return Ok((0, false)) };
    let tenant = Uuid::from_bytes(home.tenant);
    let days = days::unreported(DAYS)?;
    let uses = uses::read(tenant)?;
    let state: Option<String> = query::current_rows(STATE, &[], |row| row.must(1))?.pop();
    let digest = uses::digest(&json!([uses, state]))?;
    let sent =
        query::current_rows(SENT, &[], |row| Ok((row.must::<String>(1)?, row.must::<bool>(2)?, row.must::<bool>(3)?)))?
            .pop();
    let (is_new, verify) = match sent {
        Some((sent, is_old, is_unverified)) => (sent != digest || is_old || is_unverified, is_unverified),
        None => (true, true),
    };
    if days.is_empty() && !is_new {
        return Ok((0, false));
    }
    let files = Files::new()?;
    let numbers: Vec<i32> = days.iter().map(|(day, _)| *day).collect();
    // What is written is at least as new as the numbers' versions.
    days::unload(tenant, &numbers, files.paths())?;
    let request = json!({
        "tenant": tenant.to_string(),
        // SAFETY: a plain read.
        "database": unsafe { pg_sys::MyDatabaseId }.to_u32(),
        "days": numbers,
        "files": files.names(),
        "uses": uses,
        "state": state,
        "checksums": if verify { Some(days::checksums(tenant)?) } else { None },
    });
    let differing = errand::send(home::database(&home.control)?, ERRAND, &request)?.wait()?;
    let differing: Vec<i32> =
        serde_json::from_value(differing).map_err(|_| Error::Internal("an answer cannot be read".to_owned()))?;
    days::reported(&days)?;
    days::mark(&differing)?;
    query::run(NOTE_SENT, &[digest.into(), verify.into()])?;
    Ok((1, days.len() as i64 == DAYS || !differing.is_empty()))
}
