//! An exact copy of a schema: everything that `pg_dump` would write of it, under another name.
//!
//! [`catalog`] reads what there is, after [`unclonable`] has found nothing that a copy could not be exact about; [`plan`] makes the statements
//! of it ([`objects`], [`constraints`], [`tables`], [`notes`]), by dependency ([`order`]), with the names in function bodies that are kept as
//! text replaced ([`body`]); [`rows`] copies rows; a plan that another database is to carry out travels as [`portable`] says; [`grants`] the
//! privileges; [`describe`] writes a schema down so that two can be compared; [`unguard`] takes the guard off what is copied from shared tables.
//!
//! Each statement runs as the owner of what it makes, so that users' code (a domain's check runs when a default is merely parsed) never has other rights; nothing of theirs runs as the product.

mod body;
mod catalog;
mod constraints;
mod describe;
mod grants;
mod notes;
mod objects;
mod order;
mod plan;
mod portable;
mod rows;
mod tables;
mod unclonable;
mod unguard;

pub use describe::Part;
pub use plan::Plan;
pub use rows::{Data, File, Place, copy as copy_rows, unload};

use crate::error::{Error, Result};
use crate::extension;
use crate::guard;
use crate::isolation::row;
use crate::label::PROVIDER;
use crate::own_ddl;
use crate::query::{self, ident, literal};
use crate::raw;
use crate::relation;
use crate::role;
use catalog::Catalog;
use pgrx::pg_sys::{self, Oid};
use plan::{Planner, Step};
use std::collections::{BTreeSet, HashSet};

const FIND: &str = "SELECT oid, nspowner FROM pg_catalog.pg_namespace WHERE nspname = $1";

/// A schema that exists.
#[derive(Clone)]
pub struct Schema {
    pub oid: Oid,
    pub name: String,
    pub owner: Oid,
}

impl Schema {
    pub fn find(name: &str) -> Result<Option<Self>> {
        query::first(FIND, &[name.into()], |row| {
            Ok(Self { oid: row.must(1)?, name: name.to_owned(), owner: row.must(2)? })
        })
    }

    pub fn get(name: &str) -> Result<Self> {
        Self::find(name)?.ok_or_else(|| Error::Unknown("schema", name.to_owned()))
    }
}

/// What PostgreSQL's deparsing and parsing go by; both sides of the copy use the same.
const SETTINGS: [(&str, &str); 11] = [
    ("quote_all_identifiers", "off"),
    ("extra_float_digits", "3"),
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("bytea_output", "hex"),
    ("check_function_bodies", "off"),
    ("transform_null_equals", "off"),
    ("default_tablespace", ""),
    ("default_table_access_method", "heap"),
    // Parallel workers would not know which schemas the work is on.
    ("max_parallel_workers_per_gather", "0"),
    ("max_parallel_maintenance_workers", "0"),
];

/// How the catalogs are read: whatever PostgreSQL believes of their size, by index, since a schema is a small part of them.
const LOOK_UP: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// Runs `work` with the schema first in `search_path` and settings that every text is read and written by. Names that are not found there are
/// looked for in `others`.
fn in_schema<T>(schema: &str, others: &[&str], work: impl FnOnce() -> Result<T>) -> Result<T> {
    let schemas = [schema].into_iter().chain(others.iter().copied()).chain(["pg_catalog", "pg_temp"]);
    let path = schemas.map(ident).collect::<Vec<_>>().join(", ");
    role::with_settings(SETTINGS.into_iter().chain([("search_path", path.as_str())]), work)
}

/// What is taken off a catalog before a plan is made of it, so that the copy has it not.
type Adjust<'a> = &'a dyn Fn(&mut Catalog) -> Result<()>;

/// Reads a schema as its owner, for `work` to make something of it: a plan for a copy of this name, or a description.
fn read<T>(
    source: &Schema,
    destination: &str,
    adjust: Option<Adjust>,
    work: impl FnOnce(&Catalog, &Planner) -> Result<T>,
) -> Result<T> {
    let read = || {
        let mut catalog = Catalog::read(source.oid, adjust.is_none())?;
        adjust.map_or(Ok(()), |adjust| adjust(&mut catalog))?;
        let names = names(&catalog);
        work(&catalog, &Planner::new(&catalog, source, destination, &names))
    };
    guard::schema::while_working_on(&[source.oid], || {
        let look_up = || role::with_settings(LOOK_UP, || query::as_of_now(read));
        role::as_owner(source.owner, || in_schema(&source.name, &[], look_up))
    })
}

/// What a copy of `source` under the name `destination` takes. Fails when it could not be exact.
pub fn plan(source: &Schema, destination: &str, data: &Data) -> Result<Plan> {
    plan_of(source, destination, data, None)
}

/// The same of a schema that shared tables are in, less its guard.
pub fn plan_unguarded(source: &Schema, destination: &str, data: &Data) -> Result<Plan> {
    let guard = unguard::Guard::read(source)?;
    plan_of(source, destination, data, Some(&|catalog| guard.take_off(catalog)))
}

fn plan_of(source: &Schema, destination: &str, data: &Data, adjust: Option<Adjust>) -> Result<Plan> {
    unclonable::refuse(source, adjust.is_some())?;
    read(source, destination, adjust, |catalog, planner| {
        let mut plan = planner.plan(data)?;
        let mut grants = grants::steps(source, catalog, destination)?;
        plan.close = grants::defaults(source.oid, destination)?;
        plan.leave = grants.schema;
        // A view is filled with what its owner may read.
        grants.objects.append(&mut plan.finish);
        plan.finish = grants.objects;
        Ok(plan)
    })
}

/// What `schema` consists of, written as if it were called `name`.
pub fn describe(schema: &Schema, name: &str) -> Result<Vec<Part>> {
    let foreign = unclonable::find(schema, false)?;
    // Its operators would stand in for those that the catalogs are read with.
    let is_readable = !unclonable::has_operators(schema.oid)?;
    let foreign =
        foreign.into_iter().map(|name| Part { kind: "object", name, definition: "cannot be cloned".to_owned() });
    if !is_readable {
        return Ok(foreign.collect());
    }
    let mut parts = read(schema, name, None, |catalog, planner| {
        let mut parts = planner.parts()?;
        parts.extend(planner.comments());
        parts.extend(grants::parts(schema, catalog, name)?);
        Ok(parts)
    })?;
    parts.extend(foreign);
    Ok(parts)
}

/// The names that a function's body may put behind the schema's.
fn names(catalog: &Catalog) -> HashSet<&str> {
    let relations = catalog.relations.iter().map(|relation| relation.name.as_str());
    let types = catalog.types.iter().map(|found| found.name.as_str());
    let functions = catalog.functions.iter().map(|function| function.name.as_str());
    let others = catalog.indexes.iter().map(|index| index.name.as_str());
    let others = others.chain(catalog.constraints.iter().map(|constraint| constraint.name.as_str()));
    let others = others.chain(catalog.statistics.iter().map(|statistics| statistics.name.as_str()));
    relations.chain(types).chain(functions).chain(others).collect()
}

/// Copies `source` to a new schema of this name, labelled as given.
pub fn copy(source: &Schema, destination: &str, label: &str, data: &Data) -> Result<()> {
    let plan = plan(source, destination, data)?;
    make(&plan, destination, label, Some(source.oid), || rows::copy(&source.name, destination, &plan, data))
}

/// Copies a schema of shared tables, less their guard.
pub fn copy_unguarded(source: &Schema, destination: &str, label: &str, data: &Data) -> Result<()> {
    let plan = plan_unguarded(source, destination, data)?;
    let fill = || rows::copy(&source.name, destination, &plan, data);
    // What extensions have in the schema is named there without it.
    make_with(&plan, destination, label, Some(source.oid), &[&source.name], &mut once(fill))?;
    unguard::refuse_dependence(source, destination)
}

/// When rows can come into a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Its tables are there, without indexes, triggers and foreign keys; partitions are on their own.
    Defined,
    /// Partitions belong to their tables.
    Attached,
}

/// Puts rows into a copy's tables.
type Fill<'a> = &'a mut dyn FnMut(Moment) -> Result<()>;

/// What fills tables as soon as they are there.
fn once(fill: impl FnOnce() -> Result<()>) -> impl FnMut(Moment) -> Result<()> {
    let mut fill = Some(fill);
    move |_| fill.take().map_or(Ok(()), |fill| fill())
}

/// Makes what a plan says as a new schema of this name, which is the plan's own, labelled as given. `fill` is called once the tables are there, before
/// they have indexes, triggers or foreign keys, and may read the schema `from` as well.
pub fn make(
    plan: &Plan,
    destination: &str,
    label: &str,
    from: Option<Oid>,
    fill: impl FnOnce() -> Result<()>,
) -> Result<()> {
    make_with(plan, destination, label, from, &[], &mut once(fill))
}

/// The same, with names looked for in `others` that are not in the copy, and `fill` called at both moments.
pub fn make_with(
    plan: &Plan,
    destination: &str,
    label: &str,
    from: Option<Oid>,
    others: &[&str],
    fill: Fill,
) -> Result<()> {
    refuse_too_many_locks(plan)?;
    own_ddl::run(|| {
        let new = create(plan.owner, destination, label)?;
        let guests = guests(plan, extension::owner()?);
        let lend = |verb, preposition| lend(plan.owner, destination, &guests, verb, preposition);
        let (attach, complete) = plan.complete.split_at(plan.attached);
        let make = || {
            lend("GRANT", "TO")?;
            run(&plan.define)?;
            fill(Moment::Defined)?;
            run(attach)?;
            fill(Moment::Attached)?;
            run(complete)?;
            run(&plan.finish)?;
            run(&plan.close)?;
            lend("REVOKE", "FROM")?;
            run(&plan.leave)
        };
        let schemas: Vec<Oid> = from.into_iter().chain([new]).collect();
        guard::schema::while_working_on(&schemas, || in_schema(destination, others, make))?;
        // The owner's code has run, while nobody looked: it could have put another schema in its place, or changed shared tables.
        row::verify_protection()?;
        match query::as_of_now(|| Schema::find(destination))? {
            Some(found) if found.oid == new => Ok(()),
            _ => Err(Error::State(format!("schema \"{destination}\" was replaced while it was made"), "")),
        }
    })
}

/// Makes the schema, closed to other tenants from the start.
fn create(owner: Oid, destination: &str, label: &str) -> Result<Oid> {
    let name = ident(destination);
    let owner = relation::role_name(owner);
    query::statement(&format!("CREATE SCHEMA {name} AUTHORIZATION {owner}"), &[])?;
    query::statement(&format!("SECURITY LABEL FOR {PROVIDER} ON SCHEMA {name} IS {}", literal(label)), &[])?;
    Ok(query::as_of_now(|| Schema::get(destination))?.oid)
}

/// Roles that have a part in the copy without owning it, and need the right to create in it as long as it is made. The product has it.
fn guests(plan: &Plan, product: Oid) -> BTreeSet<u32> {
    plan.actors().filter(|role| *role != plan.owner && *role != product).map(|role| role.to_u32()).collect()
}

fn lend(owner: Oid, destination: &str, guests: &BTreeSet<u32>, verb: &str, preposition: &str) -> Result<()> {
    for guest in guests {
        let role = relation::role_name(Oid::from_u32(*guest));
        let sql = format!("{verb} CREATE, USAGE ON SCHEMA {} {preposition} {role}", ident(destination));
        role::as_owner(owner, || query::statement(&sql, &[]))?;
    }
    Ok(())
}

/// Runs the statements, each as its role, with whose settings it ends.
fn run(steps: &[Step]) -> Result<()> {
    steps.iter().try_for_each(|step| {
        pgrx::debug2!("pg_tenancy makes {}: {}", step.object, step.sql);
        role::as_owner(step.role, || query::statement(&step.sql, &[])).map(drop)
    })
}

/// Fails when the server could not hold the locks of what is made, whatever else it does.
fn refuse_too_many_locks(plan: &Plan) -> Result<()> {
    // SAFETY: plain reads of what the server was started with.
    let (per_transaction, slots) =
        unsafe { (pg_sys::max_locks_per_xact, pg_sys::MaxBackends + raw::max_prepared_xacts) };
    let room = usize::try_from(per_transaction).unwrap_or(0).saturating_mul(usize::try_from(slots).unwrap_or(0));
    if plan.locks > room {
        return Err(Error::TooManyLocks { schema: plan.source.clone(), needed: plan.locks, room });
    }
    Ok(())
}
