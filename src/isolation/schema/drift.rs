//! Drift: where the schema of a tenant is no longer what its template is.

use super::copy::{self, Part, Schema};
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::json::Object;
use crate::procedure;
use crate::query;
use crate::text;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use std::collections::BTreeMap;

/// Not those whose purge has begun: migrations leave them as they are.
const TENANTS: &str =
    "SELECT t.template::pg_catalog.text, p.schema_name::pg_catalog.text, t.id, t.slug, t.schema_name::pg_catalog.text
    FROM tenancy.tenants t JOIN tenancy.templates p ON p.template = t.template
    WHERE t.isolation = 'schema' AND t.schema_name IS NOT NULL AND t.purge_started_at IS NULL AND ($1 IS NULL OR t.id = $1) ORDER BY t.template, t.slug";
const ALLOWED: &str = "SELECT tenant_id, object FROM tenancy.allowed_drift";
const ALLOW: &str = "INSERT INTO tenancy.allowed_drift (tenant_id, object, reason) VALUES ($1, $2, $3)
    ON CONFLICT (tenant_id, object) DO UPDATE SET reason = excluded.reason";
const DISALLOW: &str = "DELETE FROM tenancy.allowed_drift WHERE tenant_id = $1 AND object = $2";
const SLUG: &str = "SELECT slug FROM tenancy.tenants WHERE id = $1";
const FORGET: &str = "DELETE FROM tenancy.allowed_drift WHERE tenant_id = $1";

const MAX_OBJECT: usize = 1000;

/// What a schema consists of, by kind and name.
type Description = BTreeMap<(&'static str, String), String>;

/// What every schema is called in its description; quoted wherever it stands.
const ANY: &str = "{schema}";

fn describe(schema: &str) -> Result<Description> {
    let parts = copy::describe(&Schema::get(schema)?, ANY)?;
    Ok(parts.into_iter().map(|Part { kind, name, definition }| ((kind, name), definition)).collect())
}

/// A difference: what the template has, and what the tenant has instead.
struct Difference {
    kind: String,
    object: String,
    difference: &'static str,
    expected: Option<String>,
    found: Option<String>,
}

fn compare(expected: &Description, found: &Description) -> Vec<Difference> {
    let missing_or_different = expected.iter().filter_map(|((kind, object), definition)| {
        let other = found.get(&(*kind, object.clone()));
        let difference = match other {
            None => "missing",
            Some(other) if other != definition => "different",
            Some(_) => return None,
        };
        let (kind, object) = ((*kind).to_owned(), object.clone());
        Some(Difference { kind, object, difference, expected: Some(definition.clone()), found: other.cloned() })
    });
    let extra =
        found.iter().filter(|(key, _)| !expected.contains_key(*key)).map(|((kind, object), definition)| Difference {
            kind: (*kind).to_owned(),
            object: object.clone(),
            difference: "extra",
            expected: None,
            found: Some(definition.clone()),
        });
    missing_or_different.chain(extra).collect()
}

/// Every difference between the schemas of tenants and their templates that is not allowed.
#[pg_extern(schema = "tenancy", name = "differences", volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn differences(
    tenant: default!(Option<Uuid>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(template, String),
            name!(tenant_id, Uuid),
            name!(slug, String),
            name!(schema_name, String),
            name!(kind, String),
            name!(object, String),
            name!(difference, String),
            name!(expected, Option<String>),
            name!(found, Option<String>),
        ),
    >,
    ErrorReport,
> {
    tenant.map(slug).transpose()?;
    let allowed: Vec<(Uuid, String)> = query::rows(ALLOWED, &[], |row| Ok((row.must(1)?, row.must(2)?)))?;
    let tenants: Vec<(String, String, Uuid, String, String)> = query::rows(TENANTS, &[tenant.into()], |row| {
        Ok((row.must(1)?, row.must(2)?, row.must(3)?, row.must(4)?, row.must(5)?))
    })?;
    let mut rows = Vec::new();
    let mut known: Option<(String, Description)> = None;
    for (template, template_schema, tenant, slug, schema) in tenants {
        pg_sys::check_for_interrupts!();
        if known.as_ref().is_none_or(|(known, _)| *known != template_schema) {
            known = Some((template_schema.clone(), describe(&template_schema)?));
        }
        let Some((_, expected)) = &known else { continue };
        // What cannot be described is a difference too; and a schema may just have been dropped.
        let differences = match procedure::attempt(|| describe(&schema)) {
            Ok(found) => compare(expected, &found),
            Err(message) => vec![Difference {
                kind: "schema".to_owned(),
                object: schema.clone(),
                difference: "different",
                expected: None,
                found: Some(message),
            }],
        };
        for Difference { kind, object, difference, expected, found } in differences {
            if !allowed.contains(&(tenant, object.clone())) {
                let row = (template.clone(), tenant, slug.clone(), schema.clone());
                rows.push((row.0, row.1, row.2, row.3, kind, object, difference.to_owned(), expected, found));
            }
        }
    }
    Ok(TableIterator::new(rows))
}

fn slug(tenant: Uuid) -> Result<String> {
    query::value(SLUG, &[tenant.into()])?.ok_or_else(|| Error::unknown_tenant(tenant))
}

/// Declares that an object of a tenant's schema is meant to differ from the template.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn allow_schema_drift(tenant: Option<Uuid>, object: Option<&str>, reason: Option<&str>) -> SqlResult<bool> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let object = object.ok_or(Error::Null("object"))?;
    let reason = text::check_reason(reason.ok_or(Error::Null("reason"))?)?;
    if object.trim().is_empty() || object.chars().count() > MAX_OBJECT {
        return Err(Error::invalid(
            "an object needs a name of at most 1000 characters",
            "Write it as column object of tenancy.schema_drift shows it.",
        )
        .into());
    }
    let slug = slug(tenant)?;
    query::run(ALLOW, &[tenant.into(), object.into(), reason.into()])?;
    audit::record(&Entry {
        action: "drift.allow",
        tenant: Some(tenant),
        target: Some(&slug),
        after: Some(Object::new().text("object", object).text("reason", reason).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}

/// Takes such a declaration back; false when there was none.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn disallow_schema_drift(tenant: Option<Uuid>, object: Option<&str>) -> SqlResult<bool> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let object = object.ok_or(Error::Null("object"))?;
    let slug = slug(tenant)?;
    if query::run(DISALLOW, &[tenant.into(), object.into()])? == 0 {
        return Ok(false);
    }
    audit::record(&Entry {
        action: "drift.disallow",
        tenant: Some(tenant),
        target: Some(&slug),
        before: Some(Object::new().text("object", object).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}

/// The tenant's schema is gone, and what was said of it.
pub fn forget(tenant: Uuid) -> Result<()> {
    query::run(FORGET, &[tenant.into()]).map(drop)
}
