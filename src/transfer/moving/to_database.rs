//! Into a database of its own, which is made with the tenant's rows, compared, and opened with the switch.

use super::along;
use super::order::Order;
use super::pairs::{Pair, Pairs};
use super::record::{self, Isolation, Moved};
use super::rows;
use super::switch::Switch;
use super::tables::{self, Digest, Table};
use super::{sequences, to_rows, to_schema};
use crate::context;
use crate::database::{self, Contents, Given};
use crate::error::{Error, Result};
use crate::fields;
use crate::isolation::schema::{self, Data, File, Schema, Template};
use crate::procedure::{self, Procedure};
use crate::role;
use crate::scratch::Scratch;
use crate::transfer::remote::refuse_elsewhere;
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use pgrx::Uuid;
use serde_json::{Value, json};

pub const DIGEST: Errand = Errand { name: "move.digest", run: digest };

/// What a database is made of, and what its tables must then be.
struct Cargo {
    given: Given,
    schema: String,
    expected: Vec<Expected>,
}

/// A table as it was here.
struct Expected {
    table: String,
    full_name: String,
    columns: Vec<String>,
    digest: Digest,
}

/// Fails when the tenant cannot be moved, as far as that can be seen before.
pub fn check(order: &Order) -> Result<()> {
    match order.from {
        Isolation::Row => {
            to_schema::check(order)?;
            let template = Template::share(&order.template)?;
            database::check(&Schema::get(&template.schema)?)
        }
        _ => {
            let own = Schema::get(&order.schema)?;
            to_rows::working(order, &own, || schema::outside::refuse_dependents(&own))?;
            database::check(&own)
        }
    }
}

/// Makes the database, compares it, and switches. Commits as it goes.
pub fn perform(procedure: &Procedure, order: &Order) -> Result<Moved> {
    let tenant = order.tenant;
    let Cargo { given, schema, expected } = procedure::caught_all(|| role::as_extension_owner(|| load(order)))?;
    procedure.commit();
    database::build(procedure, tenant, Contents::Rows(given))?;
    let copied_at = procedure::caught_all(record::now)?;
    let database = procedure::caught_all(|| role::as_extension_owner(|| database::oid_of(tenant)))?;
    let database = database.ok_or_else(|| Error::Unknown("database of tenant", tenant.to_string()))?;
    along::send(procedure, tenant, database)?;
    let tables: Vec<Value> =
        expected.iter().map(|table| json!({ "name": table.table, "columns": table.columns })).collect();
    let request = json!({ "tenant": tenant.to_string(), "schema": schema, "tables": tables });
    let found = errand::send(database, DIGEST.name, &request)?.wait_in(procedure)?;
    procedure::caught_all(|| {
        let moved = Moved { rows: compare(&expected, &found)?, copied_at, verified_at: record::now()? };
        role::as_extension_owner(|| {
            Switch { to: Isolation::Database, schema: Some(&schema), template: Some(&order.template), moved: &moved }
                .perform(order)
        })?;
        Ok(moved)
    })
}

fn compare(expected: &[Expected], found: &Value) -> Result<Vec<(String, u64)>> {
    let mut rows = Vec::new();
    for (before, after) in expected.iter().zip(fields::list(found, "tables")?) {
        let after = Digest::from_json(after)?;
        if before.digest != after {
            return Err(rows::differ(&before.full_name, "the database", before.digest.rows, after.rows));
        }
        rows.push((before.table.clone(), after.rows));
    }
    Ok(rows)
}

/// Writes the tenant's rows to files, and says that it is to have a database.
fn load(order: &Order) -> Result<Cargo> {
    let template = Template::share(&order.template)?;
    let cargo = match order.from {
        Isolation::Row => of_shared(order, &template)?,
        _ => of_schema(order)?,
    };
    database::register(order.tenant, Some(&template.name), &cargo.schema)?;
    Ok(cargo)
}

fn of_shared(order: &Order, template: &Template) -> Result<Cargo> {
    let (source, shared) = (Schema::get(&template.schema)?, Schema::get(&order.shared)?);
    let targets = tables::of_schema(source.oid)?;
    let pairs = Pairs::to_schema(tables::protected()?, &targets, order.tenant, &shared.name)?;
    to_schema::check_sources(order, &pairs)?;
    let (reference, own) = to_schema::reference_pairs(&shared, template, &targets)?;
    let (mut files, mut expected) = (Vec::new(), Vec::new());
    for pair in pairs.moved.iter().chain(&reference) {
        order.note(pair.source.full_name());
        files.push(unload(pair, order.tenant)?);
        if pair.source.table().is_some_and(|table| table.tenant.is_some()) {
            expected.push(expect(pair, order.tenant)?);
        }
    }
    order.note("");
    let schema = schema::name_for(&template.tenant_schema, order.tenant, &order.slug);
    let data = Data::Tables(own);
    let (more, mut places) = schema::unload(&source, &schema::plan(&source, &schema, &data)?, &data)?;
    files.extend(more);
    // Those of no tenant go on where the template has them, the others where tenants share them.
    let is_known = |name: &str| places.iter().any(|place| place.sequence == name);
    let current = sequences::places(&shared.name, &sequences::of_schema(shared.oid)?)?;
    let current: Vec<_> = current.into_iter().filter(|place| !is_known(&place.sequence)).collect();
    let names = sequences::names(source.oid)?;
    places.extend(current.into_iter().filter(|place| names.contains(&place.sequence)));
    let versions = schema::applied_versions(&template.name, None)?;
    Ok(Cargo { given: Given { source, files, places, versions }, schema, expected })
}

fn of_schema(order: &Order) -> Result<Cargo> {
    let own = Schema::get(&order.schema)?;
    to_rows::working(order, &own, || {
        schema::outside::refuse_dependents(&own)?;
        let plan = schema::plan(&own, &own.name, &Data::All)?;
        let (files, places) = schema::unload(&own, &plan, &Data::All)?;
        let mut expected = Vec::new();
        for table in tables::of_schema(own.oid)? {
            let columns: Vec<String> = plain_columns(&table);
            let digest = table.digest(order.tenant, &columns)?;
            expected.push(Expected { table: table.name, full_name: table.full_name, columns, digest });
        }
        let versions = schema::applied_versions(&order.template, Some(order.tenant))?;
        let schema = own.name.clone();
        Ok(Cargo { given: Given { source: own.clone(), files, places, versions }, schema, expected })
    })
}

fn plain_columns(table: &Table) -> Vec<String> {
    table.columns.iter().filter(|column| !column.is_generated).map(|column| column.name.clone()).collect()
}

fn unload(pair: &Pair, tenant: Uuid) -> Result<File> {
    let file = Scratch::new()?;
    if let Some(source) = pair.source.table() {
        pair.unload(source, tenant, file.path())?;
    }
    Ok(File { table: pair.target.name.clone(), columns: pair.names(), rows: file })
}

fn expect(pair: &Pair, tenant: Uuid) -> Result<Expected> {
    Ok(Expected {
        table: pair.target.name.clone(),
        full_name: pair.source.full_name().to_owned(),
        columns: pair.columns.clone(),
        digest: pair.source.digest(tenant, &pair.columns)?,
    })
}

/// In the tenant's database: what its tables are.
fn digest(request: &Value) -> Result<Value> {
    let tenant = fields::tenant(request, "tenant")?;
    let digest = || {
        refuse_elsewhere(tenant)?;
        let own = Schema::get(fields::text(request, "schema")?)?;
        let tables = tables::of_schema(own.oid)?;
        let digest = |wanted: &Value| {
            let name = fields::text(wanted, "name")?;
            let table = tables.iter().find(|table| table.name == name);
            let table = table.ok_or_else(|| Error::Unknown("table", name.to_owned()))?;
            Ok(table.digest(tenant, &fields::texts(wanted, "columns")?)?.to_json())
        };
        let digests = || fields::list(request, "tables")?.iter().map(digest).collect::<Result<Vec<Value>>>();
        context::while_making_schema(tenant, || crate::guard::schema::while_working_on(&[own.oid], digests))
    };
    let digests = process::transaction(|| true, || role::as_extension_owner(digest))?;
    Ok(json!({ "tables": digests.unwrap_or_default() }))
}
