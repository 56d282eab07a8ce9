//! The extension in a tenant's database: in the schema, of the version and with the levels that it has in the control database, the extensions that the
//! tenant's tables need, and the one tenant.

use super::intent::{Intent, Phase};
use super::needs;
use crate::error::{Error, Result};
use crate::extension;
use crate::fields;
use crate::isolation::schema::{Schema, Template};
use crate::json::Jsonb;
use crate::procedure::{self, Procedure};
use crate::query::{self, ident, literal};
use crate::relation;
use crate::role;
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};

pub const ERRAND: Errand = Errand { name: "database.install", run };

const PRODUCT: &str = "SELECT s.nspname::text, e.extversion FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace s ON s.oid = e.extnamespace WHERE e.extname = $1";
const SCHEMA: &str = "SELECT pg_catalog.jsonb_build_object('name', n.nspname, 'owner', n.nspowner::bigint, 'privileges',
        coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.format('GRANT %s ON SCHEMA %I TO %s%s', a.privilege_type, n.nspname,
                CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
                CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END))
            FROM pg_catalog.aclexplode(n.nspacl) a), '[]'))
    FROM pg_catalog.pg_namespace n WHERE n.nspname = $1";
const LEVELS: &str = "SELECT pg_catalog.quote_ident(role), level FROM tenancy.access WHERE role_oid <> 0 ORDER BY 1, 2";
/// The state is on the label of the database: what its own row says of it is never read.
const TENANT: &str = "SELECT pg_catalog.to_jsonb(t) || pg_catalog.jsonb_build_object('isolation', 'database', 'database_name', $2::text,
        'schema_name', $3::text, 'template', $4::text, 'status', 'active', 'deleted_at', NULL, 'purge_after', NULL, 'purge_started_at', NULL,
        'purged_rows', NULL), (SELECT pg_catalog.to_jsonb(p) FROM tenancy.plans p WHERE p.plan = t.plan)
    FROM tenancy.tenants t WHERE t.id = $1";
const INSERT_TENANT: &str =
    "INSERT INTO tenancy.tenants SELECT * FROM pg_catalog.jsonb_populate_record(NULL::tenancy.tenants, $1)";
const DELETE_PLAN: &str = "DELETE FROM tenancy.plans WHERE plan = $1 ->> 'plan'";
const INSERT_PLAN: &str =
    "INSERT INTO tenancy.plans SELECT * FROM pg_catalog.jsonb_populate_record(NULL::tenancy.plans, $1)";
const HAS_TENANTS: &str = "SELECT true FROM tenancy.tenants LIMIT 1";

/// Puts the extension into a database that was just created. Commits.
pub fn install(procedure: &Procedure, tenant: Uuid) -> Result<()> {
    let (database, request) = procedure::caught(|| role::as_extension_owner(|| request(tenant)))?;
    errand::send(database, ERRAND.name, &request)?.wait_in(procedure)?;
    procedure::caught(|| {
        role::as_extension_owner(|| Intent::get_in(tenant, &[Phase::Installing])?.advance(Phase::Filling))
    })?;
    procedure.commit();
    Ok(())
}

fn request(tenant: Uuid) -> Result<(pg_sys::Oid, Value)> {
    let intent = Intent::get_in(tenant, &[Phase::Installing])?;
    let missing = || Error::Unknown("database", intent.database.clone());
    let database = super::oid_of(tenant)?.ok_or_else(missing)?;
    let (schema, version) = product()?.ok_or_else(|| Error::Internal("the extension is not here".to_owned()))?;
    let template = intent.template.as_deref().map(Template::share).transpose()?;
    let template = template.map(|template| Schema::get(&template.schema)).transpose()?;
    let extensions = template.as_ref().map(needs::of).transpose()?.unwrap_or_default();
    let mut schemas: Vec<&str> =
        extensions.iter().map(|extension| extension.schema.as_str()).chain([schema.as_str()]).collect();
    schemas.sort_unstable();
    schemas.dedup();
    let described: Vec<Value> = schemas.into_iter().map(describe_schema).collect::<Result<_>>()?;
    let levels = query::current_rows(LEVELS, &[], |row| {
        Ok(json!({ "role": row.must::<String>(1)?, "level": row.must::<String>(2)? }))
    })?;
    let args = [
        tenant.into(),
        intent.database.as_str().into(),
        intent.schema.as_str().into(),
        intent.template.as_deref().into(),
    ];
    let (row, plan) = query::current_rows(TENANT, &args, |row| Ok((row.must::<Jsonb>(1)?, row.get::<Jsonb>(2)?)))?
        .pop()
        .ok_or_else(|| Error::unknown_tenant(tenant))?;
    // As texts: what users store in them is theirs to the last digit.
    let request = json!({
        "owner": extension::owner()?.to_u32(),
        "schema": schema,
        "version": version,
        "schemas": described,
        "extensions": extensions.iter().map(needs::Extension::to_json).collect::<Vec<Value>>(),
        "levels": levels,
        "tenant": row.as_str(),
        "plan": plan.as_ref().map(Jsonb::as_str),
    });
    Ok((database, request))
}

/// The schema and the version of the extension here.
fn product() -> Result<Option<(String, String)>> {
    Ok(query::current_rows(PRODUCT, &["pg_tenancy".into()], |row| Ok((row.must(1)?, row.must(2)?)))?.pop())
}

fn describe_schema(name: &str) -> Result<Value> {
    let found = query::current_rows(SCHEMA, &[name.into()], |row| row.must::<Jsonb>(1))?.pop();
    Ok(found.and_then(|found| serde_json::from_str(found.as_str()).ok()).unwrap_or_default())
}

/// In a worker, in the tenant's database.
fn run(request: &Value) -> Result<Value> {
    let owner = fields::oid(request, "owner")?;
    process::transaction(|| true, || role::as_owner(owner, || install_here(request)))?;
    Ok(Value::Null)
}

fn install_here(request: &Value) -> Result<()> {
    for schema in fields::list(request, "schemas")? {
        make_schema(schema)?;
    }
    for extension in fields::list(request, "extensions")? {
        let (name, schema) = (ident(fields::text(extension, "name")?), ident(fields::text(extension, "schema")?));
        let version = literal(fields::text(extension, "version")?);
        query::statement(&format!("CREATE EXTENSION IF NOT EXISTS {name} SCHEMA {schema} VERSION {version}"), &[])?;
    }
    install_product(fields::text(request, "schema")?, fields::text(request, "version")?)?;
    if query::current_rows(HAS_TENANTS, &[], |_| Ok(()))?.pop().is_some() {
        return Err(Error::State(
            format!("template database \"{}\" has tenants", super::settings::template_database()),
            "Set tenancy.template_database to one that has none.",
        ));
    }
    let product = extension::schema()?;
    for level in fields::list(request, "levels")? {
        let (role, level) = (fields::text(level, "role")?, fields::text(level, "level")?);
        // Of these types there is only ours, whatever functions of the name the template database has.
        let grant = format!("SELECT {product}.grant_access($1::pg_catalog.regrole, $2::pg_catalog.text)");
        query::statement(&grant, &[role.into(), level.into()])?;
    }
    if let Some(plan) = request["plan"].as_str() {
        let plan = Jsonb::from_text(plan.to_owned());
        query::run(DELETE_PLAN, &[plan.clone().into()])?;
        query::run(INSERT_PLAN, &[plan.into()])?;
    }
    query::run(INSERT_TENANT, &[Jsonb::from_text(fields::text(request, "tenant")?.to_owned()).into()]).map(drop)
}

/// Makes a schema that is not there, with its owner and privileges.
fn make_schema(schema: &Value) -> Result<()> {
    let name = fields::text(schema, "name")?;
    if Schema::find(name)?.is_some() {
        return Ok(());
    }
    let owner = relation::role_name(fields::oid(schema, "owner")?);
    query::statement(&format!("CREATE SCHEMA {} AUTHORIZATION {owner}", ident(name)), &[])?;
    for grant in fields::texts(schema, "privileges")? {
        query::statement(&grant, &[])?;
    }
    Ok(())
}

/// Installs the extension, or makes one that the template database has what it is in the control database.
fn install_product(schema: &str, version: &str) -> Result<()> {
    let Some((found, is)) = product()? else {
        let sql = format!("CREATE EXTENSION pg_tenancy SCHEMA {} VERSION {}", ident(schema), literal(version));
        return query::statement(&sql, &[]).map(drop);
    };
    if found != schema {
        return Err(Error::State(
            format!("the template database has pg_tenancy in schema \"{found}\", the control database in \"{schema}\""),
            "Install it there in the same schema, or not at all.",
        ));
    }
    if is != version {
        query::statement(&format!("ALTER EXTENSION pg_tenancy UPDATE TO {}", literal(version)), &[])?;
    }
    Ok(())
}
