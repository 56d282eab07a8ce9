//! Forgetting invitations that have ended.

use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::json::Object;
use crate::query;
use crate::worker::task::{Task, Work};
use pgrx::datum::Interval;
use pgrx::prelude::*;

/// How long a worker keeps them, and the default of the function: PostgreSQL's words for an interval.
const KEEP: &str = "30 days";
/// Invitations that a worker removes in one transaction.
const BATCH: i64 = 5_000;

const NOT_NEGATIVE: &str = "SELECT $1 >= '0'::pg_catalog.interval";
/// An accepted one has ended, too. One that is being accepted now is left to who accepts it.
const TRIM: &str = "DELETE FROM tenancy.stored_invitations WHERE id IN (
    SELECT id FROM tenancy.stored_invitations
    WHERE COALESCE(accepted_at, revoked_at, expires_at) < pg_catalog.now() - $1::pg_catalog.interval
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)";
const AS_INTERVAL: &str = "SELECT $1::pg_catalog.interval";

/// What background workers do.
pub const TASKS: &[Task] = &[Task { name: "ended invitations", every_s: 3600, work: Work::Batch(batch) }];

fn batch() -> Result<(u64, bool)> {
    let keep: Interval = query::value(AS_INTERVAL, &[KEEP.into()])?.ok_or(Error::Null("keep"))?;
    let removed = trim(keep, Some(BATCH))?;
    Ok((removed, removed == BATCH.cast_unsigned()))
}

fn trim(keep: Interval, limit: Option<i64>) -> Result<u64> {
    let removed = query::run(TRIM, &[keep.into(), limit.into()])?;
    if removed > 0 {
        audit::record(&Entry {
            action: "invitation.trim",
            after: Some(Object::new().number("removed", removed).finish()),
            ..Entry::default()
        })?;
    }
    Ok(removed)
}

/// Removes invitations that ended longer ago than `keep`; how many.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn trim_invitations(keep: default!(Option<Interval>, "'30 days'")) -> SqlResult<i64> {
    let keep = keep.ok_or(Error::Null("keep"))?;
    if query::value::<bool>(NOT_NEGATIVE, &[keep.into()])? != Some(true) {
        return Err(Error::invalid("the age to keep must not be negative", "").into());
    }
    Ok(trim(keep, None)?.cast_signed())
}
