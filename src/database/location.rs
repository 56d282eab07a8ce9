//! Where a tenant is.

use crate::context::registry;
use crate::error::Error;
use crate::home;
use crate::query;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

const PLACE: &str = "SELECT isolation, database_name::text, schema_name::text FROM tenancy.tenants WHERE id = $1";

/// The tenant's isolation, database and schema.
#[pg_extern(stable, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn tenant_location(
    slug: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(tenant_id, Uuid),
            name!(isolation, String),
            name!(database_name, Option<String>),
            name!(schema_name, Option<String>),
            name!(host, Option<String>),
            name!(port, Option<i32>),
        ),
    >,
    ErrorReport,
> {
    let slug = slug.ok_or(Error::Null("slug"))?;
    let tenant = registry::find_by_slug(slug)?.ok_or_else(|| Error::UnknownTenant(slug.to_owned()))?.id;
    let found = query::first(PLACE, &[tenant.into()], |row| {
        Ok((row.must::<String>(1)?, row.get::<String>(2)?, row.get::<String>(3)?))
    })?;
    let (isolation, database, schema) = found.ok_or_else(|| Error::unknown_tenant(tenant))?;
    let database = if isolation == "database" { database } else { Some(home::this()) };
    Ok(TableIterator::once((tenant, isolation, database, schema, None, None)))
}
