//! A tenant's tables in its own database: a copy of a schema of the control database, with rows that travel in files.

use super::intent::{Intent, Phase};
use crate::context;
use crate::error::{Error, Result};
use crate::fields;
use crate::isolation::schema::copy::{self, Moment};
use crate::isolation::schema::{self, Data, File, Place, Plan, Schema, Template};
use crate::label;
use crate::procedure::{self, Procedure};
use crate::query;
use crate::role;
use crate::row_file;
use crate::scratch;
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};

pub const ERRAND: Errand = Errand { name: "database.fill", run };

const TABLE: &str = "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p') AND c.relowner = $3";

/// What a tenant's database gets.
pub enum Contents {
    /// What the tenant's template has, and its reference rows.
    Template,
    /// What this schema has, and these rows.
    Rows(Given),
}

/// Rows for a copy of a schema.
pub struct Given {
    /// The schema of the control database that is copied.
    pub source: Schema,
    pub files: Vec<File>,
    /// Where its sequences go on.
    pub places: Vec<Place>,
    /// The migrations that the rows and the schema have.
    pub versions: Vec<String>,
}

/// What is sent.
struct Load {
    database: pg_sys::Oid,
    schema: String,
    template: Option<String>,
    plan: Plan,
    files: Vec<File>,
    places: Vec<Place>,
    versions: Vec<String>,
}

/// Makes the tenant's tables in a database that has the extension. Commits.
pub fn fill(procedure: &Procedure, tenant: Uuid, contents: Contents) -> Result<()> {
    let load = procedure::caught(|| role::as_extension_owner(|| prepare(tenant, contents)))?;
    errand::send(load.database, ERRAND.name, &load.to_json(tenant))?.wait_in(procedure)?;
    procedure::caught(|| {
        role::as_extension_owner(|| {
            let intent = Intent::get_in(tenant, &[Phase::Filling])?;
            if let Some(template) = &load.template {
                schema::record_versions(template, tenant, load.versions.clone())?;
            }
            intent.advance(Phase::Filled)
        })
    })?;
    procedure.commit();
    Ok(())
}

fn prepare(tenant: Uuid, contents: Contents) -> Result<Load> {
    let intent = Intent::get_in(tenant, &[Phase::Filling])?;
    let missing = || Error::Unknown("database", intent.database.clone());
    let database = super::oid_of(tenant)?.ok_or_else(missing)?;
    let (plan, files, places, versions) = match contents {
        Contents::Template => {
            let name =
                intent.template.as_deref().ok_or_else(|| Error::Unknown("template of tenant", tenant.to_string()))?;
            // Nobody migrates it while its tables and its migrations are read.
            let template = Template::share(name)?;
            let source = Schema::get(&template.schema)?;
            let data = Data::Tables(template.data_tables);
            let plan = schema::plan(&source, &intent.schema, &data)?;
            let (files, places) = schema::unload(&source, &plan, &data)?;
            (plan, files, places, schema::applied_versions(name, None)?)
        }
        Contents::Rows(given) => {
            let plan = schema::plan(&given.source, &intent.schema, &Data::All)?;
            (plan, given.files, given.places, given.versions)
        }
    };
    Ok(Load { database, schema: intent.schema, template: intent.template, plan, files, places, versions })
}

impl Load {
    fn to_json(&self, tenant: Uuid) -> Value {
        let file = |file: &File| json!({ "table": file.table, "columns": file.columns, "rows": file.rows.name() });
        let place = |place: &Place| json!({ "sequence": place.sequence, "owner": place.owner.to_u32(), "value": place.value, "is_called": place.is_called });
        json!({
            "tenant": tenant.to_string(),
            "schema": self.schema,
            "template": self.template,
            "plan": self.plan.to_json(),
            "files": self.files.iter().map(file).collect::<Vec<Value>>(),
            "places": self.places.iter().map(place).collect::<Vec<Value>>(),
            "versions": self.versions,
        })
    }
}

/// In a worker, in the tenant's database.
fn run(request: &Value) -> Result<Value> {
    process::transaction(|| true, || role::as_extension_owner(|| fill_here(request)))?;
    Ok(Value::Null)
}

fn fill_here(request: &Value) -> Result<()> {
    let (tenant, schema) = (fields::tenant(request, "tenant")?, fields::text(request, "schema")?);
    let plan = Plan::from_json(&request["plan"])?;
    let label = format!("{}{tenant}", label::TENANT);
    let mut load = |moment| {
        let files = fields::list(request, "files")?.iter();
        // Rows of a partitioned table find their partitions once these belong to it.
        let due =
            |file: &&Value| (plan.rows.iter().any(|rows| file["table"] == rows.name)) == (moment == Moment::Defined);
        files.filter(due).try_for_each(|file| load_file(&plan, schema, file))?;
        if moment == Moment::Attached {
            fields::list(request, "places")?.iter().try_for_each(|place| take_place(schema, place))?;
        }
        Ok(())
    };
    context::while_making_schema(tenant, || copy::make_with(&plan, schema, &label, None, &[], &mut load))?;
    match request["template"].as_str() {
        Some(template) => schema::record_versions(template, tenant, fields::texts(request, "versions")?),
        None => Ok(()),
    }
}

fn load_file(plan: &Plan, schema: &str, file: &Value) -> Result<()> {
    let name = fields::text(file, "table")?;
    let unknown = || Error::Unknown("table", format!("{schema}.{name}"));
    let rows = plan.rows.iter().find(|rows| rows.is_of(name)).ok_or_else(unknown)?;
    let args = [schema.into(), name.into(), rows.owner.into()];
    let table: pg_sys::Oid = query::current_rows(TABLE, &args, |row| row.must(1))?.pop().ok_or_else(unknown)?;
    let (columns, path) = (fields::texts(file, "columns")?, scratch::path(fields::text(file, "rows")?)?);
    role::as_owner_of_all_rows(rows.owner, || row_file::load(table, &columns, &path)).map(drop)
}

fn take_place(schema: &str, place: &Value) -> Result<()> {
    let place = Place {
        sequence: fields::text(place, "sequence")?.to_owned(),
        owner: fields::oid(place, "owner")?,
        value: fields::number(place, "value")?,
        is_called: fields::boolean(place, "is_called")?,
    };
    place.take(schema)
}
