//! `for_each_tenant`: a data migration, or any job, for one tenant after another.

use crate::context::{self, Source};
use crate::error::{Error, Result, SqlResult};
use crate::isolation::row::erase;
use crate::procedure::{self, Procedure};
use crate::query;
use crate::role;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use std::time::{Duration, Instant};

/// How often it tells how far it has come.
const REPORT_EVERY: Duration = Duration::from_secs(3);
/// Tenants whose failures are told one by one; the rest is counted.
const SHOWN: usize = 100;

const TENANTS: &str = "SELECT id, slug, status = 'active' AND isolation <> 'database' FROM tenancy.tenants
    WHERE ($1 IS NULL OR id = ANY ($1)) AND status <> 'deleted' ORDER BY slug";
const STRANGER: &str = "SELECT u.id FROM pg_catalog.unnest($1) u (id) WHERE NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.id = u.id) LIMIT 1";

fn tenants(asked: Option<Vec<Uuid>>) -> Result<Vec<(Uuid, String, bool)>> {
    if let Some(asked) = &asked
        && let Some(stranger) = query::value::<Uuid>(STRANGER, &[asked.clone().into()])?
    {
        return Err(Error::unknown_tenant(stranger));
    }
    let asked: DatumWithOid = asked.into();
    query::rows(TENANTS, &[asked], |row| Ok((row.must(1)?, row.must(2)?, row.must(3)?)))
}

/// Runs the statements for one tenant; what it leaves to the end of the transaction is done at once, so that its failure stays its own.
fn serve(tenant: Uuid, sql: &str) -> Result<()> {
    context::set_by_id(tenant, None, Source::SetTenant)?;
    query::statement(sql, &[])?;
    erase::check_constraints_now()
}

fn conduct(procedure: &Procedure, sql: &str, asked: Option<Vec<Uuid>>) -> Result<()> {
    let all = role::as_extension_owner(|| tenants(asked.clone()))?;
    procedure.commit();
    let (open, closed): (Vec<_>, Vec<_>) = all.into_iter().partition(|(.., is_open)| *is_open);
    let (mut failed, mut next_report) = (0, Instant::now() + REPORT_EVERY);
    for (number, (tenant, slug, _)) in open.iter().enumerate() {
        if let Err(message) = procedure::attempt(|| serve(*tenant, sql)) {
            failed += 1;
            if failed <= SHOWN {
                warning!("tenant {slug} (\"{tenant}\"): {message}");
            }
        }
        procedure.commit();
        if Instant::now() >= next_report {
            notice!("{} of {} tenants done, {failed} failed", number + 1, open.len());
            next_report = Instant::now() + REPORT_EVERY;
        }
    }
    notice!("{} of {} tenants done, {failed} failed", open.len(), open.len());
    if !closed.is_empty() {
        warning!("{} tenants are not active here and were left out", closed.len());
    }
    Ok(())
}

/// Runs statements for each tenant, bound, in a transaction of its own.
#[pg_extern(sql = "CREATE PROCEDURE for_each_tenant(sql text, tenants uuid[] DEFAULT NULL)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn for_each_tenant(
    sql: Option<String>,
    tenants: Option<Vec<Option<Uuid>>>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "for_each_tenant") }?;
    let sql = sql.ok_or(Error::Null("sql"))?;
    if sql.trim().is_empty() {
        return Err(Error::invalid("there is nothing to run", "").into());
    }
    let tenants = tenants
        .map(|tenants| tenants.into_iter().collect::<Option<Vec<Uuid>>>().ok_or(Error::Null("tenants")))
        .transpose()?;
    Ok(conduct(&procedure, &sql, tenants)?)
}
