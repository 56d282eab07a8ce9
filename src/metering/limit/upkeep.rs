//! Counting again, and comparing counters with rows.

use super::{counter, recount, resources};
use crate::audit::{self, Entry};
use crate::context::registry;
use crate::error::{Error, Result, SqlResult};
use crate::json::Object;
use crate::query;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

const VALID: &str =
    "SELECT pg_catalog.count(*) FROM tenancy.row_counters c JOIN tenancy.limited_resources r USING (resource, version)
    WHERE c.tenant_id = $1 OR $1 IS NULL";
const COUNTERS: &str = "SELECT c.tenant_id, c.resource, c.used FROM tenancy.row_counters c JOIN tenancy.limited_resources r USING (resource, version)
    ORDER BY c.tenant_id, c.resource";

/// Has the rows of a tenant, or of all, counted anew when they next change.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn recount_limits(tenant: default!(Option<Uuid>, "NULL")) -> SqlResult<i64> {
    if let Some(tenant) = tenant {
        registry::find(tenant)?.ok_or_else(|| Error::unknown_tenant(tenant))?;
    }
    let valid: Vec<i64> = query::as_of_now(|| query::active_rows(VALID, &[tenant.into()], |row| row.must(1)))?;
    match tenant {
        Some(tenant) => counter::erase(tenant).map(drop)?,
        None => resources::counted()?.iter().try_for_each(|resource| resources::renew(resource))?,
    }
    let valid = valid.first().copied().unwrap_or_default();
    audit::record(&Entry {
        action: if tenant.is_some() { "tenant.recount_limits" } else { "limits.recount" },
        tenant,
        after: Some(Object::new().number("counters", valid.cast_unsigned()).finish()),
        ..Entry::default()
    })?;
    Ok(valid)
}

/// A counter that is not the number of rows.
type Wrong = (Uuid, String, i64, i64);

/// Compares each counter with the rows, in one snapshot: a transaction changes both.
fn wrong() -> Result<Vec<Wrong>> {
    query::as_of_now(|| {
        let counters: Vec<(Uuid, String, i64)> =
            query::active_rows(COUNTERS, &[], |row| Ok((row.must(1)?, row.must(2)?, row.must(3)?)))?;
        let mut wrong = Vec::new();
        for (tenant, resource, counted) in counters {
            let actual = recount::rows_in_snapshot(tenant, &resource)?.unwrap_or(0);
            if actual != counted {
                wrong.push((tenant, resource, counted, actual));
            }
        }
        Ok(wrong)
    })
}

/// The counters that are not the number of rows.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn verify_limits() -> std::result::Result<
    TableIterator<'static, (name!(tenant_id, Uuid), name!(resource, String), name!(counted, i64), name!(actual, i64))>,
    ErrorReport,
> {
    Ok(TableIterator::new(wrong()?))
}
