//! The states of a tenant and the ways between them.

use crate::audit::{self, Entry};
use crate::context::registry::Status;
use crate::database;
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock;
use crate::json::Object;
use crate::metering::plan;
use crate::monitor;
use crate::query;
use crate::text;
use pgrx::datum::Interval;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

const LOCK_ROW: &str =
    "SELECT status, slug, purge_started_at IS NOT NULL, plan FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const READ_ROW: &str = "SELECT status, slug, purge_started_at IS NOT NULL, plan FROM tenancy.tenants WHERE id = $1";
const SET_STATUS: &str = "UPDATE tenancy.tenants
    SET status = $2, status_reason = $3, status_since = pg_catalog.now(), updated_at = pg_catalog.now(),
        deleted_at = CASE WHEN $2 = 'deleted' THEN pg_catalog.now() END,
        purge_after = CASE WHEN $2 = 'deleted' THEN pg_catalog.now() + $4 END
    WHERE id = $1 RETURNING purge_after";
const SET_PLAN: &str = "UPDATE tenancy.tenants SET plan = $2, updated_at = pg_catalog.now() WHERE id = $1";
const NOT_NEGATIVE: &str = "SELECT $1 >= '0'::pg_catalog.interval";
const TERMINATE: &str = "SELECT pg_catalog.pg_terminate_backend($1)";

/// What a change of state looks at.
struct Row {
    status: Status,
    slug: String,
    purge_begun: bool,
    plan: String,
}

impl Row {
    fn from(row: &query::Row) -> Result<Self> {
        Ok(Self {
            status: Status::from_name(&row.must::<String>(1)?)?,
            slug: row.must(2)?,
            purge_begun: row.must(3)?,
            plan: row.must(4)?,
        })
    }
}

/// The tenant's row, locked until the transaction ends.
fn lock_row(tenant: Uuid) -> Result<Row> {
    query::returning(LOCK_ROW, &[tenant.into()], Row::from)?.ok_or_else(|| Error::unknown_tenant(tenant))
}

/// A change of state: where it may start, where it leads, and what is said of it.
struct Transition<'a> {
    action: &'static str,
    from: &'static [Status],
    to: Status,
    reason: Option<&'a str>,
    retention: Option<Interval>,
}

impl Transition<'_> {
    fn check(&self, row: &Row) -> Result<()> {
        if row.purge_begun {
            return Err(Error::PurgeBegun);
        }
        if self.from.contains(&row.status) {
            Ok(())
        } else {
            Err(Error::IllegalChange { state: row.status.name(), change: format!("become {}", self.to.name()) })
        }
    }

    /// Waits for the tenant's writers, then changes its state, so that none of them writes after it.
    ///
    /// The tenant's lock comes before the row's: a writer holds the first and never waits for the second.
    fn apply(self, tenant: Uuid) -> Result<Option<TimestampWithTimeZone>> {
        lock::wait_for_writers(tenant);
        database::wait_for_writers(tenant)?;
        let row = lock_row(tenant)?;
        self.check(&row)?;
        // A tenant that was deleted before its database was there has to wait for it.
        let is_unfinished = self.to == Status::Active && database::is_unfinished(tenant)?;
        let to = if is_unfinished { Status::Provisioning } else { self.to };
        let args = [tenant.into(), to.name().into(), self.reason.into(), self.retention.into()];
        let purge_after = query::returning(SET_STATUS, &args, |row| row.get(1))?.flatten();
        database::set_state(tenant, to.name())?;
        audit::record(&Entry {
            action: self.action,
            tenant: Some(tenant),
            target: Some(&row.slug),
            before: Some(Object::new().text("status", row.status.name()).finish()),
            after: Some(Object::new().text("status", to.name()).optional("reason", self.reason).finish()),
        })?;
        Ok(purge_after)
    }
}

/// Ends the sessions that serve `tenant` now, but for our own.
fn terminate_sessions(tenant: Uuid) -> Result<()> {
    // SAFETY: a plain read.
    let own = unsafe { pg_sys::MyProcPid };
    for backend in monitor::bound_backends() {
        if backend.tenant == tenant && backend.pid != own {
            query::value::<bool>(TERMINATE, &[backend.pid.into()])?;
        }
    }
    database::terminate_sessions(tenant)
}

/// Closes a tenant, or makes it read-only.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn suspend_tenant(
    tenant: Option<Uuid>,
    reason: default!(Option<&str>, "NULL"),
    mode: default!(Option<&str>, "'blocked'"),
    terminate: default!(Option<bool>, "false"),
) -> SqlResult<Uuid> {
    use Status::{Active, ReadOnly, Suspended};
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let (from, to): (&[Status], Status) = match mode.ok_or(Error::Null("mode"))? {
        "blocked" => (&[Active, ReadOnly], Suspended),
        "read_only" => (&[Active, Suspended], ReadOnly),
        other => {
            let other: String = other.chars().take(63).collect();
            return Err(Error::invalid(format!("\"{other}\" is not a mode"), "Modes are blocked and read_only.").into());
        }
    };
    let reason = reason.map(text::check_reason).transpose()?;
    let transition = Transition { action: "tenant.suspend", from, to, reason, retention: None };
    if terminate.ok_or(Error::Null("terminate"))? {
        let row = query::first(READ_ROW, &[tenant.into()], Row::from)?.ok_or_else(|| Error::unknown_tenant(tenant))?;
        transition.check(&row)?;
        terminate_sessions(tenant)?;
    }
    transition.apply(tenant)?;
    Ok(tenant)
}

/// Makes an active tenant read-only.
pub fn make_read_only(tenant: Uuid, reason: &str) -> Result<()> {
    let from = &[Status::Active];
    let reason = Some(reason);
    Transition { action: "tenant.suspend", from, to: Status::ReadOnly, reason, retention: None }.apply(tenant).map(drop)
}

/// Makes a suspended or read-only tenant active.
pub fn resume(tenant: Uuid) -> Result<()> {
    let from = &[Status::Suspended, Status::ReadOnly];
    Transition { action: "tenant.resume", from, to: Status::Active, reason: None, retention: None }
        .apply(tenant)
        .map(drop)
}

/// Makes a suspended or read-only tenant active.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn resume_tenant(tenant: Option<Uuid>) -> SqlResult<Uuid> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    resume(tenant)?;
    Ok(tenant)
}

/// Closes a tenant whose subscription ended.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn cancel_tenant(tenant: Option<Uuid>, reason: default!(Option<&str>, "NULL")) -> SqlResult<Uuid> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let reason = reason.map(text::check_reason).transpose()?;
    let from = &[Status::Active, Status::ReadOnly, Status::Suspended];
    Transition { action: "tenant.cancel", from, to: Status::Cancelled, reason, retention: None }.apply(tenant)?;
    Ok(tenant)
}

/// Deletes a tenant softly; when it may be purged.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn delete_tenant(
    tenant: Option<Uuid>,
    retention: default!(Option<Interval>, "'30 days'"),
) -> SqlResult<Option<TimestampWithTimeZone>> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let retention = retention.ok_or(Error::Null("retention"))?;
    if query::value::<bool>(NOT_NEGATIVE, &[retention.into()])? != Some(true) {
        return Err(Error::invalid("retention must not be negative", "").into());
    }
    let from = &[Status::Provisioning, Status::Active, Status::ReadOnly, Status::Suspended, Status::Cancelled];
    let deletion =
        Transition { action: "tenant.delete", from, to: Status::Deleted, reason: None, retention: Some(retention) };
    Ok(deletion.apply(tenant)?)
}

/// Brings a cancelled or deleted tenant back.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn restore_tenant(tenant: Option<Uuid>) -> SqlResult<Uuid> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let from = &[Status::Cancelled, Status::Deleted];
    Transition { action: "tenant.restore", from, to: Status::Active, reason: None, retention: None }.apply(tenant)?;
    Ok(tenant)
}

/// Puts a tenant on another plan.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn change_plan(tenant: Option<Uuid>, plan: Option<&str>) -> SqlResult<Uuid> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let plan = plan.ok_or(Error::Null("plan"))?;
    let row = lock_row(tenant)?;
    if row.status == Status::Deleted {
        return Err(Error::IllegalChange { state: row.status.name(), change: "change its plan".to_owned() }.into());
    }
    plan::isolation_of(plan)?;
    query::run(SET_PLAN, &[tenant.into(), plan.into()])?;
    audit::record(&Entry {
        action: "tenant.change_plan",
        tenant: Some(tenant),
        target: Some(&row.slug),
        before: Some(Object::new().text("plan", &row.plan).finish()),
        after: Some(Object::new().text("plan", plan).finish()),
    })?;
    Ok(tenant)
}
