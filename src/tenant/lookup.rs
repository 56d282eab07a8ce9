//! Finding a tenant before one is bound.

use super::slug;
use crate::context::registry;
use crate::error::{Error, SqlResult};
use crate::query;
use pgrx::Uuid;
use pgrx::prelude::*;

const BY_EXTERNAL_ID: &str = "SELECT id FROM tenancy.tenants WHERE external_id = $1";

/// The tenant with this slug or external id, or NULL.
#[pg_extern(stable, parallel_safe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn find_tenant(
    slug: default!(Option<&str>, "NULL"),
    external_id: default!(Option<&str>, "NULL"),
) -> SqlResult<Option<Uuid>> {
    match (slug, external_id) {
        (Some(slug), None) => Ok(registry::find_by_slug(slug)?.map(|tenant| tenant.id)),
        (None, Some(external_id)) => Ok(query::value(BY_EXTERNAL_ID, &[external_id.into()])?),
        _ => Err(Error::invalid("give either a slug or an external id", "").into()),
    }
}

/// Whether a tenant could take this slug.
#[pg_extern(stable, parallel_safe)]
fn slug_available(slug: Option<&str>) -> SqlResult<bool> {
    let slug = slug.ok_or(Error::Null("slug"))?;
    Ok(slug::is_well_formed(slug) && !slug::is_reserved(slug) && registry::find_by_slug(slug)?.is_none())
}
