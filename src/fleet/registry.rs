//! The migrations of each template.

use super::script::Script;
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{Mode, Subject};
use crate::isolation::schema;
use crate::json::Object;
use crate::query;
use crate::sqltype::Name;
use crate::text;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

const TEMPLATE: &str = "SELECT true FROM tenancy.templates WHERE template = $1";
const CHECKSUM: &str = "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
    pg_catalog.json_build_array($1::text, $2::text, $3::text, $4::text, $5::boolean)::text, 'UTF8')), 'hex')";
const STORED: &str =
    "SELECT m.checksum, EXISTS (SELECT FROM tenancy.applied_migrations a WHERE a.template = $1 AND a.version = $2)
    FROM tenancy.migrations m WHERE m.template = $1 AND m.version = $2";
const PUT: &str = "INSERT INTO tenancy.migrations (template, version, position, sql, down_sql, verify_sql, description, transactional, checksum)
    SELECT $1, $2, coalesce(max(position), 0) + 1, $3, $4, $5, $6, $7, $8 FROM tenancy.migrations WHERE template = $1
    ON CONFLICT ON CONSTRAINT migrations_pkey DO UPDATE SET sql = excluded.sql, down_sql = excluded.down_sql,
        verify_sql = excluded.verify_sql, description = excluded.description, transactional = excluded.transactional,
        checksum = excluded.checksum, added_at = excluded.added_at";
const REMOVE: &str = "DELETE FROM tenancy.migrations WHERE template = $1 AND version = $2";
const FORGET_FAILURES: &str = "DELETE FROM tenancy.failed_migrations WHERE template = $1 AND version = $2";

const FORGET_TEMPLATE: [&str; 3] = [
    "DELETE FROM tenancy.migrations WHERE template = $1",
    "DELETE FROM tenancy.failed_migrations WHERE template = $1",
    "DELETE FROM tenancy.migration_runs WHERE template = $1",
];

/// Fails when there is no such template.
pub fn check_template(template: &Name) -> Result<()> {
    match query::value::<bool>(TEMPLATE, &[template.clone().into()])? {
        Some(_) => Ok(()),
        None => Err(Error::Unknown("template", template.0.clone())),
    }
}

/// The checksum of a migration that is there, locked against runs, so that it stays applied nowhere. Fails when it is applied and `change`
/// would change it.
fn changeable(template: &Name, version: &str, change: impl Fn(&str) -> bool) -> Result<Option<String>> {
    check_template(template)?;
    query::refuse_old_snapshot("cannot change migrations")?;
    Subject::template(&template.0).lock(Mode::Exclusive);
    let stored = query::current_rows(STORED, &[template.clone().into(), version.into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<bool>(2)?))
    })?;
    match stored.into_iter().next() {
        Some((checksum, true)) if change(&checksum) => Err(Error::State(
            format!("migration \"{version}\" of template \"{}\" has been applied and cannot be edited", template.0),
            "Add another one that changes what it did, or undo it with rollback_tenants().",
        )),
        stored => Ok(stored.map(|(checksum, _)| checksum)),
    }
}

/// Parses what a migration runs, and checks that it can run.
fn check(argument: &'static str, sql: &str, transactional: bool) -> Result<()> {
    let script = Script::parse(argument, sql)?;
    if transactional { script.check_transactional(argument) } else { script.check_single(argument) }
}

/// Adds a migration to a template, or replaces one that is applied nowhere.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn add_migration(
    template: Option<Name>,
    version: Option<&str>,
    sql: Option<&str>,
    description: default!(Option<&str>, "NULL"),
    down_sql: default!(Option<&str>, "NULL"),
    verify_sql: default!(Option<&str>, "NULL"),
    transactional: default!(Option<bool>, "true"),
) -> SqlResult<String> {
    let template = template.ok_or(Error::Null("template"))?;
    let version = text::check_version(version.ok_or(Error::Null("version"))?)?;
    let sql = sql.ok_or(Error::Null("sql"))?;
    let transactional = transactional.ok_or(Error::Null("transactional"))?;
    check("sql", sql, transactional)?;
    if let Some(down_sql) = down_sql {
        check("down_sql", down_sql, transactional)?;
    }
    if let Some(verify_sql) = verify_sql {
        check("verify_sql", verify_sql, true)?;
    }
    let content: [DatumWithOid; 5] =
        [sql.into(), down_sql.into(), verify_sql.into(), description.into(), transactional.into()];
    let checksum: String = query::value(CHECKSUM, &content)?.unwrap_or_default();
    let stored = changeable(&template, version, |stored| stored != checksum)?;
    if stored.as_ref() == Some(&checksum) {
        return Ok(version.to_owned());
    }
    let [sql, down_sql, verify_sql, description, transactional] = content;
    let key: [DatumWithOid; 2] = [template.clone().into(), version.into()];
    let [of, named] = key;
    query::run(PUT, &[of, named, sql, down_sql, verify_sql, description, transactional, checksum.as_str().into()])?;
    query::run(FORGET_FAILURES, &[template.clone().into(), version.into()])?;
    let entry = |checksum: &str| {
        Object::new().text("template", &template.0).text("version", version).text("checksum", checksum).finish()
    };
    audit::record(&Entry {
        action: "migration.add",
        target: Some(&template.0),
        before: stored.as_deref().map(entry),
        after: Some(entry(&checksum)),
        ..Entry::default()
    })?;
    Ok(version.to_owned())
}

/// Removes a migration that is applied nowhere.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn remove_migration(template: Option<Name>, version: Option<&str>) -> SqlResult<bool> {
    let template = template.ok_or(Error::Null("template"))?;
    let version = version.ok_or(Error::Null("version"))?;
    let Some(checksum) = changeable(&template, version, |_| true)? else { return Ok(false) };
    query::run(REMOVE, &[template.clone().into(), version.into()])?;
    query::run(FORGET_FAILURES, &[template.clone().into(), version.into()])?;
    audit::record(&Entry {
        action: "migration.remove",
        target: Some(&template.0),
        before: Some(Object::new().text("version", version).text("checksum", &checksum).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}

/// Forgets a template that no tenant uses, with its migrations.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn unregister_template(template: Option<Name>) -> SqlResult<bool> {
    let template = template.ok_or(Error::Null("template"))?;
    let existed = schema::unregister_template(&template.0)?;
    for forget in FORGET_TEMPLATE {
        query::run(forget, &[template.clone().into()])?;
    }
    Ok(existed)
}
