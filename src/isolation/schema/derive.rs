//! Templates made of shared tables, for tenants that are moved out of them or begin in a schema of their own.

use super::copy::{self, Data, Schema};
use super::name;
use super::template::{self, TENANT_SCHEMA, Template};
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{Mode, Subject};
use crate::label;
use crate::query::{self, ident};
use crate::sqltype::Name;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// Ordinary tables of the schema that are no partitions, and whether tenants share them.
const TABLES: &str = "SELECT c.relname::pg_catalog.text, p.table_name IS NOT NULL
    FROM pg_catalog.pg_class c LEFT JOIN tenancy.protected_tables p ON p.table_name = c.oid
    WHERE c.relnamespace = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY c.relname";
/// Who is to own the copy: nobody can be made a member of pg_database_owner, which owns schema public. The owner of the shared tables then, if
/// they have one, or else of the database.
const OWNER: &str = "SELECT CASE WHEN n.nspowner <> 'pg_database_owner'::pg_catalog.regrole THEN n.nspowner
        ELSE coalesce((SELECT pg_catalog.max(c.relowner) FROM tenancy.protected_tables p JOIN pg_catalog.pg_class c ON c.oid = p.table_name
                WHERE c.relnamespace = n.oid HAVING pg_catalog.count(DISTINCT c.relowner) = 1),
            (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())) END
    FROM pg_catalog.pg_namespace n WHERE n.oid = $1";

/// Makes a template of the tables that tenants share in a schema.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn derive_template(
    template: Option<Name>,
    shared_schema: Option<Name>,
    template_schema: default!(Option<Name>, "NULL"),
) -> SqlResult<String> {
    let Name(template) = template.ok_or(Error::Null("template"))?;
    let Name(shared) = shared_schema.ok_or(Error::Null("shared_schema"))?;
    let schema = template_schema.map_or_else(|| format!("{template}_template"), |Name(name)| name);
    template::check_template(&template)?;
    name::check(&schema)?;
    query::refuse_old_snapshot("a template cannot be made")?;
    Subject::template(&template).lock(Mode::Exclusive);
    if Template::find(&template)?.is_some() {
        return Err(Error::Duplicate("template", template).into());
    }
    Subject::name(&schema).lock(Mode::Exclusive);
    if query::as_of_now(|| Schema::find(&schema))?.is_some() {
        return Err(Error::Duplicate("schema", schema).into());
    }
    Ok(derive(template, &shared, schema)?)
}

fn derive(template: String, shared: &str, schema: String) -> Result<String> {
    let mut source = template::check_shared(shared)?;
    source.owner = query::value::<pg_sys::Oid>(OWNER, &[source.oid.into()])?.unwrap_or(source.owner);
    let tables: Vec<(String, bool)> =
        query::rows(TABLES, &[source.oid.into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
    let (protected, reference): (Vec<_>, Vec<_>) = tables.into_iter().partition(|(_, is_protected)| *is_protected);
    if protected.is_empty() {
        return Err(Error::State(
            format!("schema \"{shared}\" has no protected table"),
            "Name the schema of the tables that tenants share; protect_table() makes one of a table.",
        ));
    }
    let data_tables: Vec<String> = reference.into_iter().map(|(name, _)| name).collect();
    let label = format!("{}{template}", label::TEMPLATE);
    copy::copy_unguarded(&source, &schema, &label, &Data::Tables(data_tables.clone()))?;
    if !data_tables.is_empty() {
        let names: Vec<String> = data_tables.iter().map(|name| ident(name)).collect();
        notice!("these tables are no tenant's, and come with their rows: {}", names.join(", "));
    }
    let made = query::as_of_now(|| Schema::get(&schema))?;
    let new = Template {
        name: template,
        schema,
        data_tables,
        tenant_schema: TENANT_SCHEMA.to_owned(),
        shared_schema: Some(shared.to_owned()),
    };
    query::as_of_now(|| copy::plan(&made, TENANT_SCHEMA, &Data::Tables(Vec::new())))?;
    template::register(&new, &made)?;
    Ok(new.schema)
}
