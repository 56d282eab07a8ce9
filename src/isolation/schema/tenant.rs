//! The schemas of tenants: made from a template or from another tenant's, and dropped.

use super::copy::{self, Data, Schema};
use super::template::Template;
use super::{drift, name, outside, version};
use crate::audit::{self, Entry};
use crate::context::{self, registry::Status};
use crate::error::{Error, Result, SqlResult};
use crate::guard;
use crate::guard::lock::{self, Mode, Subject};
use crate::isolation::row::erase;
use crate::json::Object;
use crate::label;
use crate::query::{self, ident};
use crate::role;
use crate::sqltype::Name;
use pgrx::Uuid;
use pgrx::prelude::*;

const LOCK_ROW: &str =
    "SELECT slug, status, schema_name::pg_catalog.text, template::pg_catalog.text, isolation = 'database'
    FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const ATTACH: &str = "UPDATE tenancy.tenants SET isolation = 'schema', schema_name = $2, template = $3, updated_at = pg_catalog.now() WHERE id = $1";
const DETACH: &str =
    "UPDATE tenancy.tenants SET schema_name = NULL, template = NULL, updated_at = pg_catalog.now() WHERE id = $1";

/// A tenant's row, locked until the transaction ends.
struct Row {
    slug: String,
    status: Status,
    schema: Option<String>,
    template: Option<String>,
    /// Whether its schema is in a database of its own.
    has_database: bool,
}

impl Row {
    fn lock(tenant: Uuid) -> Result<Self> {
        query::returning(LOCK_ROW, &[tenant.into()], |row| {
            Ok(Self {
                slug: row.must(1)?,
                status: Status::from_name(&row.must::<String>(2)?)?,
                schema: row.get(3)?,
                template: row.get(4)?,
                has_database: row.must(5)?,
            })
        })?
        .ok_or_else(|| Error::unknown_tenant(tenant))
    }

    /// Fails unless the tenant can get a schema.
    fn check_vacant(&self) -> Result<()> {
        if let Some(schema) = &self.schema {
            return Err(Error::Duplicate("schema of this tenant", schema.clone()));
        }
        if self.status == Status::Deleted {
            return Err(Error::IllegalChange { state: self.status.name(), change: "get a schema".to_owned() });
        }
        Ok(())
    }
}

/// Fails when the tenant has rows in shared tables, which its schema would leave behind. Its writers have ended.
fn refuse_rows(tenant: Uuid) -> Result<()> {
    lock::take_alone(tenant);
    match erase::table_with_rows(tenant)? {
        Some(table) => Err(Error::State(
            format!("tenant \"{tenant}\" has rows in protected table {table}"),
            "Make another tenant with a schema, copy the rows into that as a role that bypasses row security, and delete this one.",
        )),
        None => Ok(()),
    }
}

/// Makes a schema of this name for the tenant, and tells the registry and the audit log. Returns its name.
fn make(
    tenant: Uuid,
    row: &Row,
    source: &Schema,
    schema: String,
    data: &Data,
    template: Option<&str>,
    action: &'static str,
) -> Result<String> {
    name::check(&schema)?;
    Subject::name(&schema).lock(Mode::Exclusive);
    if query::as_of_now(|| Schema::find(&schema))?.is_some() {
        return Err(Error::Duplicate("schema", schema));
    }
    let label = format!("{}{tenant}", label::TENANT);
    context::while_making_schema(tenant, || copy::copy(source, &schema, &label, data))?;
    query::run(ATTACH, &[tenant.into(), schema.as_str().into(), template.into()])?;
    audit::record(&Entry {
        action,
        tenant: Some(tenant),
        target: Some(&row.slug),
        after: Some(
            Object::new()
                .text("schema_name", &schema)
                .text("source", &source.name)
                .optional("template", template)
                .finish(),
        ),
        ..Entry::default()
    })?;
    Ok(schema)
}

/// Gives a tenant that was just registered, or that has none, a schema of its own. Returns its name.
pub fn create(tenant: Uuid, template: &str, schema_name: Option<&str>, is_new: bool) -> Result<String> {
    query::refuse_old_snapshot("a schema cannot be made")?;
    let template = Template::share(template)?;
    Subject::schema_of(tenant).lock(Mode::Exclusive);
    let row = Row::lock(tenant)?;
    row.check_vacant()?;
    if !is_new {
        refuse_rows(tenant)?;
    }
    let schema = name::fill(schema_name.unwrap_or(&template.tenant_schema), tenant, &row.slug);
    let data = Data::Tables(template.data_tables);
    let schema = make(
        tenant,
        &row,
        &Schema::get(&template.schema)?,
        schema,
        &data,
        Some(&template.name),
        "tenant.create_schema",
    )?;
    version::copy_of_template(&template.name, tenant)?;
    Ok(schema)
}

/// Makes a tenant's schema from a template.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn create_tenant_schema(
    tenant: Option<Uuid>,
    template: default!(Option<Name>, "'default'"),
    schema_name: default!(Option<Name>, "NULL"),
) -> SqlResult<String> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let Name(template) = template.ok_or(Error::Null("template"))?;
    let schema_name = schema_name.map(|Name(name)| name);
    Ok(create(tenant, &template, schema_name.as_deref(), false)?)
}

/// Makes a tenant's schema from another tenant's.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn clone_tenant_schema(
    source: Option<Uuid>,
    destination: Option<Uuid>,
    with_data: default!(Option<bool>, "true"),
) -> SqlResult<String> {
    let (source, destination) = (source.ok_or(Error::Null("source"))?, destination.ok_or(Error::Null("destination"))?);
    let with_data = with_data.ok_or(Error::Null("with_data"))?;
    if source == destination {
        return Err(Error::invalid("source and destination are the same tenant", "").into());
    }
    query::refuse_old_snapshot("a schema cannot be cloned")?;
    let found = query::as_of_now(|| Source::find(source))?;
    let template = found.template.as_deref().map(Template::share).transpose()?;
    let mut locks = [(source, Mode::Share), (destination, Mode::Exclusive)];
    locks.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    for (tenant, mode) in locks {
        Subject::schema_of(tenant).lock(mode);
    }
    let found = query::as_of_now(|| Source::find(source))?;
    let row = Row::lock(destination)?;
    row.check_vacant()?;
    refuse_rows(destination)?;
    let pattern = template.as_ref().map_or("tenant_{id}", |template| template.tenant_schema.as_str());
    let schema = name::fill(pattern, destination, &row.slug);
    let data = match template {
        _ if with_data => Data::All,
        Some(template) => Data::Tables(template.data_tables),
        None => Data::Tables(Vec::new()),
    };
    let schema = make(
        destination,
        &row,
        &Schema::get(&found.schema)?,
        schema,
        &data,
        found.template.as_deref(),
        "tenant.clone_schema",
    )?;
    version::copy_of_tenant(source, destination)?;
    Ok(schema)
}

const SOURCE: &str =
    "SELECT CASE WHEN isolation <> 'database' THEN schema_name::pg_catalog.text END, template::pg_catalog.text
    FROM tenancy.tenants WHERE id = $1";

/// A tenant's schema as something to copy.
struct Source {
    schema: String,
    template: Option<String>,
}

impl Source {
    fn find(tenant: Uuid) -> Result<Self> {
        let (schema, template) = query::first(SOURCE, &[tenant.into()], |row| Ok((row.get(1)?, row.get(2)?)))?
            .ok_or_else(|| Error::unknown_tenant(tenant))?;
        match schema {
            Some(schema) => Ok(Self { schema, template }),
            None => {
                Err(Error::State(format!("tenant \"{tenant}\" has no schema"), "Make one with create_tenant_schema()."))
            }
        }
    }
}

/// Drops a tenant's schema with everything in it; false when it has none. The caller is the extension's owner.
pub fn drop_schema(tenant: Uuid) -> Result<bool> {
    Subject::schema_of(tenant).lock(Mode::Exclusive);
    lock::wait_for_writers(tenant);
    let row = Row::lock(tenant)?;
    let Some(schema) = row.schema.filter(|_| !row.has_database) else { return Ok(false) };
    if let Some(found) = query::as_of_now(|| Schema::find(&schema))? {
        drop_all_of(&found)?;
    }
    query::run(DETACH, &[tenant.into()])?;
    version::remove(tenant)?;
    drift::forget(tenant)?;
    audit::record(&Entry {
        action: "tenant.delete_schema",
        tenant: Some(tenant),
        target: Some(&row.slug),
        before: Some(Object::new().text("schema_name", &schema).optional("template", row.template.as_deref()).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}

/// Drops a schema with everything in it.
fn drop_all_of(schema: &Schema) -> Result<()> {
    outside::lock(schema)?;
    outside::refuse_dependents(schema)?;
    // What goes with the schema is what was to go.
    let drop = || query::statement(&format!("DROP SCHEMA {} CASCADE", ident(&schema.name)), &[]);
    guard::schema::while_working_on(&[schema.oid], || role::with_settings([("client_min_messages", "warning")], drop))
        .map(std::mem::drop)
}

const LEFT: &str = "SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_seclabel s JOIN pg_catalog.pg_namespace n ON n.oid = s.objoid
    WHERE s.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND s.provider = 'pg_tenancy' AND s.label = $1 ORDER BY n.nspname";

/// Drops the schemas that the tenant was moved out of; their names. The caller is the extension's owner.
pub fn drop_left(tenant: Uuid) -> Result<Vec<String>> {
    Subject::schema_of(tenant).lock(Mode::Exclusive);
    let left: Vec<String> =
        query::current_rows(LEFT, &[format!("{}{tenant}", label::MOVED).into()], |row| row.must(1))?;
    for name in &left {
        if let Some(found) = query::as_of_now(|| Schema::find(name))? {
            drop_all_of(&found)?;
        }
    }
    Ok(left)
}

/// Drops a tenant's schema at once.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn delete_tenant_schema(tenant: Option<Uuid>) -> SqlResult<bool> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    query::refuse_old_snapshot("a schema cannot be dropped")?;
    Ok(drop_schema(tenant)?)
}
