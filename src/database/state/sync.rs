//! When tenants' own databases are told what has changed.

use super::contents;
use super::tell::{self, Outcome};
use crate::database::report;
use crate::error::{Result, SqlResult};
use crate::home;
use crate::metering::usage;
use crate::procedure::Procedure;
use crate::query;
use crate::role;
use crate::scratch;
use crate::worker::process::Failure;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

/// What concerns all is queued for each, so that one that cannot be told does not keep it from the others.
const SPREAD: &str = "WITH gone AS (DELETE FROM tenancy.database_changes WHERE tenant_id IS NULL RETURNING changed_at)
    INSERT INTO tenancy.database_changes (tenant_id, is_general, changed_at)
    SELECT t.id, true, g.since FROM (SELECT pg_catalog.min(changed_at) AS since FROM gone HAVING pg_catalog.count(*) > 0) AS g
    CROSS JOIN tenancy.tenants t WHERE t.database_name IS NOT NULL";
/// What concerns one tenant comes first: a revocation does not wait until a thousand databases have heard of a plan, nor until a database is due
/// again that could not be told of something else.
const NEXT: &str = "SELECT c.tenant_id FROM tenancy.database_changes c
    LEFT JOIN tenancy.told_states s ON s.tenant_id = c.tenant_id
    LEFT JOIN tenancy.tenants t ON t.id = c.tenant_id
    WHERE c.tenant_id IS NOT NULL AND t.status IS DISTINCT FROM 'provisioning'
      AND (NOT c.is_tried OR s.next_attempt_at IS NULL OR s.next_attempt_at <= pg_catalog.clock_timestamp())
    GROUP BY c.tenant_id ORDER BY pg_catalog.bool_and(c.is_general), pg_catalog.min(c.id) LIMIT 1";
/// The tenants with databases, behind the last one that was looked at.
const DATABASES: &str = "SELECT id FROM tenancy.tenants
    WHERE database_name IS NOT NULL AND status <> 'provisioning' AND ($1 IS NULL OR id > $1) ORDER BY id LIMIT 1";
const TIDY: &str = "DELETE FROM tenancy.told_states s
    WHERE NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.id = s.tenant_id AND t.isolation = 'database')";

fn one(sql: &'static str, args: &[DatumWithOid]) -> Result<Option<Uuid>> {
    Ok(query::current_rows(sql, args, |row| row.must(1))?.pop())
}

/// Tells one database what is queued for it: how many were told, and whether there may be more.
pub fn batch() -> Result<(u64, bool)> {
    query::run(SPREAD, &[])?;
    let Some(tenant) = one(NEXT, &[])? else { return Ok((0, false)) };
    match tell::try_to_tell(tenant, false)? {
        Ok(outcome) => Ok((u64::from(outcome == Outcome::Told), true)),
        // tenancy.database_state shows it. A failure of this step would make all others wait.
        Err(_) => Ok((0, true)),
    }
}

/// Looks at every database for what nobody has queued, where someone has switched the triggers off: queues it.
pub fn sweep() -> Result<(u64, bool)> {
    query::run(TIDY, &[])?;
    scratch::remove_orphans()?;
    super::note::note_all()?;
    Ok((0, false))
}

/// Tells each database everything now, and has it report; in a tenant's own, reports.
#[pg_extern(sql = "CREATE PROCEDURE sync_tenant_databases() LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn sync_tenant_databases(fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "sync_tenant_databases") }?;
    Ok(sync_all(&procedure)?)
}

fn sync_all(procedure: &Procedure) -> Result<()> {
    if home::here().is_some() {
        role::as_extension_owner(usage::roll_up)?;
        procedure.commit();
        return role::as_extension_owner(report::report_all);
    }
    scratch::remove_orphans()?;
    role::as_extension_owner(|| query::run(SPREAD, &[]))?;
    procedure.commit();
    let (mut last, mut synced, mut failed) = (None, 0_u64, 0_u64);
    while let Some(tenant) = role::as_extension_owner(|| one(DATABASES, &[last.into()]))? {
        let done = role::as_extension_owner(|| tell::try_to_tell(tenant, true))?;
        procedure.commit();
        let done = match done {
            Ok(_) => ask(procedure, tenant).map_err(|error| Failure::from(error).message),
            Err(message) => Err(message),
        };
        procedure.commit();
        match done {
            Ok(()) => synced += 1,
            Err(message) => {
                failed += 1;
                warning!("the database of tenant \"{tenant}\" was not synchronised: {message}");
            }
        }
        last = Some(tenant);
    }
    notice!("{synced} databases of tenants are synchronised, {failed} failed");
    Ok(())
}

/// Has the tenant's own database report.
fn ask(procedure: &Procedure, tenant: Uuid) -> Result<()> {
    match role::as_extension_owner(|| contents::database_of(tenant))? {
        Some(database) => report::drain(procedure, database),
        None => Ok(()),
    }
}
