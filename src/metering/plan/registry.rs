//! Plans: a name, the isolation of its tenants, settings and features.

use crate::audit::{self, Entry};
use crate::context::plan;
use crate::error::{Error, Result, SqlResult};
use crate::json::{Jsonb, Object};
use crate::query;
use pgrx::prelude::*;

/// The plan that needs no creating.
pub const FREE: &str = "free";

const MAX_NAME: usize = 63;

const UPSERT: &str = "INSERT INTO tenancy.plans (plan, isolation, settings, features) VALUES ($1, $2, $3, $4)
    ON CONFLICT (plan) DO UPDATE SET isolation = excluded.isolation, settings = excluded.settings, features = excluded.features";
const INSERT_FREE: &str = "INSERT INTO tenancy.plans (plan) VALUES ('free') ON CONFLICT DO NOTHING";
const ISOLATION: &str = "SELECT isolation FROM tenancy.plans WHERE plan = $1";
const BEFORE: &str = "SELECT pg_catalog.to_jsonb(p) - 'created_at' FROM tenancy.plans p WHERE plan = $1";

/// The isolation, if it is one.
pub fn check_isolation(isolation: &str) -> Result<&str> {
    match isolation {
        "row" | "schema" | "database" => Ok(isolation),
        _ => Err(Error::invalid(
            format!("\"{}\" is not an isolation", isolation.chars().take(63).collect::<String>()),
            "Isolations are row, schema and database.",
        )),
    }
}

/// The isolation of the plan of this name. The free plan is made when it is first asked for: a row that the install script
/// inserted would collide with the dumped one at restore.
pub fn isolation_of(plan: &str) -> Result<String> {
    if let Some(isolation) = query::value(ISOLATION, &[plan.into()])? {
        return Ok(isolation);
    }
    if plan != FREE {
        return Err(Error::Unknown("plan", plan.to_owned()));
    }
    query::run(INSERT_FREE, &[])?;
    Ok("row".to_owned())
}

/// Creates or replaces a plan.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
pub fn create_plan(
    plan: Option<&str>,
    isolation: default!(Option<&str>, "'row'"),
    settings: default!(Option<Jsonb>, "'{}'"),
    features: default!(Option<Vec<Option<String>>>, "'{}'"),
) -> SqlResult<String> {
    let plan = plan.ok_or(Error::Null("plan"))?;
    let well_formed = plan.len() <= MAX_NAME
        && plan.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && plan.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
    if !well_formed {
        return Err(Error::invalid(
            format!("plan \"{}\" is malformed", plan.chars().take(MAX_NAME + 1).collect::<String>()),
            "A plan's name has lower-case letters, digits, hyphens and underscores, at most 63 characters.",
        )
        .into());
    }
    let isolation = check_isolation(isolation.ok_or(Error::Null("isolation"))?)?;
    let settings = settings.ok_or(Error::Null("settings"))?;
    if !settings.is_object() {
        return Err(Error::invalid("settings must be a JSON object", "").into());
    }
    plan::validate(settings.clone().into())?;
    let features: Vec<String> =
        features.ok_or(Error::Null("features"))?.into_iter().collect::<Option<_>>().ok_or(Error::Null("features"))?;
    let before: Option<Jsonb> = query::value(BEFORE, &[plan.into()])?;
    let after = Object::new()
        .text("plan", plan)
        .text("isolation", isolation)
        .jsonb("settings", &settings)
        .texts("features", features.iter().map(String::as_str))
        .finish();
    query::run(UPSERT, &[plan.into(), isolation.into(), settings.into(), features.into()])?;
    audit::record(&Entry {
        action: if before.is_some() { "plan.update" } else { "plan.create" },
        target: Some(plan),
        before,
        after: Some(after),
        ..Entry::default()
    })?;
    Ok(plan.to_owned())
}
