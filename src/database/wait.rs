//! Waiting for a tenant.

use crate::context::registry::Status;
use crate::error::{Error, Result, SqlResult};
use crate::query;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, Uuid, pg_sys};
use std::ffi::c_long;
use std::time::{Duration, Instant};

/// The state, and whether the row is one that this transaction has written.
const STATE: &str = "SELECT status, pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.xid = xmin FROM tenancy.tenants WHERE id = $1";

/// How often it is looked, and the longest wait.
const LOOK: Duration = Duration::from_millis(50);
const LONGEST_S: f64 = 86_400.0;

fn state(tenant: Uuid) -> Result<(Status, bool)> {
    let found = query::as_of_now(|| {
        query::active_rows(STATE, &[tenant.into()], |row| {
            Ok((Status::from_name(&row.must::<String>(1)?)?, row.get::<bool>(2)? == Some(true)))
        })
    })?;
    found.into_iter().next().ok_or_else(|| Error::unknown_tenant(tenant))
}

/// Sleeps for a moment, or until the session is to stop.
fn sleep(duration: Duration) {
    const EVENTS: u32 = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = c_long::try_from(duration.as_millis()).unwrap_or(1).max(1);
    // SAFETY: the latch is this process's own.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, EVENTS as _, milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Waits until a tenant can be used, or is not to be; its state.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn wait_for_tenant(tenant: Option<Uuid>, timeout_s: default!(Option<AnyNumeric>, "60")) -> SqlResult<String> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let timeout_s = timeout_s.ok_or(Error::Null("timeout_s"))?;
    let seconds = f64::try_from(timeout_s).ok().filter(|seconds| (0.0..=LONGEST_S).contains(seconds));
    let seconds = seconds.ok_or_else(|| Error::invalid("timeout_s must be from 0 to 86400", ""))?;
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    loop {
        let (status, is_ours) = state(tenant)?;
        if !matches!(status, Status::Provisioning | Status::Moving) {
            return Ok(status.name().to_owned());
        }
        if is_ours {
            return Err(Error::State(
                format!("tenant \"{tenant}\" becomes {} only when this transaction commits", status.name()),
                "Commit, then wait.",
            )
            .into());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(status.name().to_owned());
        }
        sleep(left.min(LOOK));
    }
}
