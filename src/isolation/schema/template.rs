//! Templates: schemas that tenants' schemas are made from.

use super::copy::{self, Data, Schema};
use super::name;
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{Mode, Subject};
use crate::holder;
use crate::json::Object;
use crate::label::{self, PROVIDER};
use crate::query::{self, ident, literal};
use crate::sqltype::Name;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// How tenants' schemas are named where nobody says otherwise.
pub const TENANT_SCHEMA: &str = "tenant_{id}";

const FIND: &str = "SELECT template::pg_catalog.text, schema_name::pg_catalog.text, data_tables, tenant_schema, shared_schema::pg_catalog.text
    FROM tenancy.templates WHERE template = $1";
const OF_SCHEMA: &str =
    "SELECT template::pg_catalog.text FROM tenancy.templates WHERE schema_name = $1 AND template <> $2";
const ALL: &str =
    "SELECT template::pg_catalog.text FROM tenancy.templates ORDER BY template = 'default' DESC, template LIMIT 2";
const UPSERT: &str = "INSERT INTO tenancy.templates (template, schema_name, data_tables, tenant_schema, shared_schema) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (template) DO UPDATE SET schema_name = excluded.schema_name, data_tables = excluded.data_tables, tenant_schema = excluded.tenant_schema,
        shared_schema = excluded.shared_schema";
const DELETE: &str = "DELETE FROM tenancy.templates WHERE template = $1";
const IN_USE: &str = "SELECT slug FROM tenancy.tenants WHERE template = $1 LIMIT 1";

/// The template that needs no naming.
const DEFAULT: &str = "default";

/// A registered template.
pub struct Template {
    pub name: String,
    pub schema: String,
    pub data_tables: Vec<String>,
    pub tenant_schema: String,
    /// Where the shared tables are that its own correspond to.
    pub shared_schema: Option<String>,
}

impl Template {
    pub fn find(name: &str) -> Result<Option<Self>> {
        query::as_of_now(|| {
            query::first(FIND, &[name.into()], |row| {
                Ok(Self {
                    name: row.must(1)?,
                    schema: row.must(2)?,
                    data_tables: row.must(3)?,
                    tenant_schema: row.must(4)?,
                    shared_schema: row.get(5)?,
                })
            })
        })
    }

    /// The template of this name, which nobody changes until the transaction ends.
    pub fn share(name: &str) -> Result<Self> {
        Subject::template(name).lock(Mode::Share);
        Self::find(name)?.ok_or_else(|| Error::Unknown("template", name.to_owned()))
    }
}

/// The template that is meant where none is named: `default`, or the only one there is.
pub fn unnamed() -> Result<String> {
    let mut names: Vec<String> = query::as_of_now(|| query::rows(ALL, &[], |row| row.must(1)))?;
    match names.len() {
        1 => Ok(names.swap_remove(0)),
        2 if names[0] == DEFAULT => Ok(names.swap_remove(0)),
        0 => Err(Error::State("there is no template yet".to_owned(), "Register one with register_template().")),
        _ => Err(Error::invalid(
            "there are several templates, and none is called default",
            "Name one with template => '...'.",
        )),
    }
}

/// The tables named, without their schema.
fn check_tables(schema: &Schema, tables: Vec<Option<String>>, known: &copy::Plan) -> Result<Vec<String>> {
    let tables: Vec<String> = tables.into_iter().collect::<Option<_>>().ok_or(Error::Null("data_tables"))?;
    let prefix = format!("{}.", schema.name);
    tables
        .into_iter()
        .map(|given| {
            let is_known = |name: &str| known.rows.iter().any(|table| table.is_of(name));
            let bare =
                given.strip_prefix(&prefix).filter(|bare| !is_known(&given) && is_known(bare)).map(str::to_owned);
            let name = bare.unwrap_or(given);
            if is_known(&name) {
                Ok(name)
            } else {
                Err(Error::Unknown("table", format!("{}.{}", ident(&schema.name), ident(&name))))
            }
        })
        .collect()
}

/// Registers a schema as what tenants' schemas are made from.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn register_template(
    template: Option<Name>,
    template_schema: Option<Name>,
    data_tables: default!(Option<Vec<Option<String>>>, "'{}'"),
    tenant_schema: default!(Option<&str>, "'tenant_{id}'"),
    shared_schema: default!(Option<Name>, "NULL"),
) -> SqlResult<String> {
    let Name(template) = template.ok_or(Error::Null("template"))?;
    let Name(schema) = template_schema.ok_or(Error::Null("template_schema"))?;
    let data_tables = data_tables.ok_or(Error::Null("data_tables"))?;
    let tenant_schema = tenant_schema.ok_or(Error::Null("tenant_schema"))?.to_owned();
    let shared_schema = shared_schema.map(|Name(schema)| schema);
    check_template(&template)?;
    name::check_pattern(&tenant_schema)?;
    query::refuse_old_snapshot("a template cannot be registered")?;
    Subject::template(&template).lock(Mode::Exclusive);
    let found = Schema::get(&schema)?;
    // Whatever stands against a copy is better said now than when the first tenant comes.
    let plan = || copy::plan(&found, TENANT_SCHEMA, &Data::Tables(Vec::new()));
    name::check_ordinary(&found)?;
    let data_tables = check_tables(&found, data_tables, &plan()?)?;
    let new = Template { name: template, schema, data_tables, tenant_schema, shared_schema };
    register(&new, &found)?;
    Ok(new.name)
}

/// Fails on a name that no template can have.
pub fn check_template(template: &str) -> Result<()> {
    if template.trim().is_empty() { Err(Error::invalid("a template needs a name", "")) } else { Ok(()) }
}

/// Fails unless there is a schema of this name that tables can be shared in.
pub fn check_shared(name: &str) -> Result<Schema> {
    let schema = Schema::get(name)?;
    name::check_ordinary(&schema)?;
    match label::of_schema(schema.oid) {
        None => Ok(schema),
        Some(_) => Err(Error::invalid(
            format!("schema \"{name}\" is a tenant's or a template's"),
            "Name the schema of the tables that tenants share.",
        )),
    }
}

/// Writes down a template, which is locked, and what it is made from. Nothing stands against a copy of that.
pub fn register(new: &Template, schema: &Schema) -> Result<()> {
    let Template { name: template, schema: schema_name, data_tables, tenant_schema: pattern, shared_schema } = new;
    if let Some(label::Use::Tenant(_) | label::Use::Moved(_)) = label::of_schema(schema.oid) {
        return Err(Error::invalid(
            format!("schema \"{schema_name}\" belongs to a tenant"),
            "Copy it with clone_tenant_schema(), or register a schema of its own.",
        ));
    }
    shared_schema.as_deref().map(check_shared).transpose()?;
    if let Some(other) = query::value::<String>(OF_SCHEMA, &[schema_name.as_str().into(), template.as_str().into()])? {
        return Err(Error::Duplicate("template of this schema", other));
    }
    let before = Template::find(template)?;
    if let Some(before) = before.as_ref().filter(|before| before.schema != *schema_name) {
        refuse_in_use(template)?;
        if Schema::find(&before.schema)?.is_some() {
            query::statement(
                &format!("SECURITY LABEL FOR {PROVIDER} ON SCHEMA {} IS NULL", ident(&before.schema)),
                &[],
            )?;
        }
    }
    let label = literal(&format!("{}{template}", label::TEMPLATE));
    query::statement(&format!("SECURITY LABEL FOR {PROVIDER} ON SCHEMA {} IS {label}", ident(schema_name)), &[])?;
    let args = [
        template.as_str().into(),
        schema_name.as_str().into(),
        data_tables.clone().into(),
        pattern.as_str().into(),
        shared_schema.as_deref().into(),
    ];
    query::run(UPSERT, &args)?;
    holder::refuse_all_unsafe()?;
    // SAFETY: reads the role's attributes.
    if unsafe { pg_sys::has_bypassrls_privilege(schema.owner) } {
        warning!(
            "the owner of schema {} bypasses row security: what tenants' triggers do while their schemas are migrated, they would do with its rights; prefer an ordinary owner",
            ident(schema_name)
        );
    }
    let describe = |template: &Template| {
        let tables = template.data_tables.iter().map(String::as_str);
        let object = Object::new().text("schema_name", &template.schema).texts("data_tables", tables);
        let object = object.text("tenant_schema", &template.tenant_schema);
        match &template.shared_schema {
            Some(shared) => object.text("shared_schema", shared).finish(),
            None => object.finish(),
        }
    };
    audit::record(&Entry {
        action: "template.register",
        target: Some(template),
        before: before.as_ref().map(describe),
        after: Some(describe(new)),
        ..Entry::default()
    })
}

fn refuse_in_use(template: &str) -> Result<()> {
    match query::value::<String>(IN_USE, &[template.into()])? {
        Some(slug) => Err(Error::State(
            format!("template \"{template}\" has tenants, \"{slug}\" among them"),
            "Register another template; tenants keep the one that they were made from.",
        )),
        None => Ok(()),
    }
}

/// Forgets a template; its schema stays, as an ordinary one. False when there is none.
pub fn unregister(template: &str) -> Result<bool> {
    Subject::template(template).lock(Mode::Exclusive);
    let Some(before) = Template::find(template)? else { return Ok(false) };
    refuse_in_use(template)?;
    if Schema::find(&before.schema)?.is_some() {
        query::statement(&format!("SECURITY LABEL FOR {PROVIDER} ON SCHEMA {} IS NULL", ident(&before.schema)), &[])?;
    }
    super::version::forget(template)?;
    query::run(DELETE, &[template.into()])?;
    audit::record(&Entry { action: "template.unregister", target: Some(template), ..Entry::default() })?;
    Ok(true)
}
