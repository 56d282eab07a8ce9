//! Into the tables that tenants share, in one transaction: out of a schema of this database, or with rows that come from another.

use super::order::Order;
use super::pairs::Pairs;
use super::record::{self, Isolation, Moved};
use super::references::{self, Event};
use super::rows::{self, Copied};
use super::switch::Switch;
use super::{sequences, tables, to_schema};
use crate::context;
use crate::error::Result;
use crate::guard;
use crate::guard::lock::{Mode, Subject};
use crate::isolation::schema::copy::Schema;
use crate::isolation::schema::{self, outside, version};
use crate::role;

fn pairs(order: &Order, own: &Schema) -> Result<Pairs> {
    Pairs::of_own(tables::of_schema(own.oid)?, &targets(order)?, order.tenant, true)
}

/// The shared tables.
pub fn targets(order: &Order) -> Result<Vec<tables::Table>> {
    tables::of_schema(Schema::get(&order.shared)?.oid)
}

/// Works on the tenant's schema, where users' code may run.
pub fn working<T>(order: &Order, own: &Schema, work: impl FnOnce() -> Result<T>) -> Result<T> {
    context::while_making_schema(order.tenant, || guard::schema::while_working_on(&[own.oid], work))
}

/// Fails when the tenant cannot be moved, as far as that can be seen before.
pub fn check(order: &Order) -> Result<()> {
    to_schema::refuse_rows(order)?;
    let own = Schema::get(&order.schema)?;
    working(order, &own, || {
        references::refuse_unstoppable(&pairs(order, &own)?.targets(), Event::Insert)?;
        outside::refuse_dependents(&own)
    })
}

/// Copies out of the tenant's schema, verifies and switches.
pub fn perform(order: &Order) -> Result<Moved> {
    Subject::schema_of(order.tenant).lock(Mode::Exclusive);
    let own = Schema::get(&order.schema)?;
    let moved = working(order, &own, || {
        outside::refuse_dependents(&own)?;
        let pairs = pairs(order, &own)?;
        let places = sequences::places(&own.name, &sequences::of_schema(own.oid)?)?;
        arrive(order, &pairs, &places)
    })?;
    Switch { to: Isolation::Row, schema: None, template: None, moved: &moved }.perform(order)?;
    version::remove(order.tenant)?;
    Ok(moved)
}

/// The same with rows that come from the tenant's own database.
pub fn receive(order: &Order, pairs: &Pairs, places: &[schema::Place]) -> Result<Moved> {
    let moved = context::while_making_schema(order.tenant, || arrive(order, pairs, places))?;
    Switch { to: Isolation::Row, schema: None, template: None, moved: &moved }.perform(order)?;
    version::remove(order.tenant)?;
    Ok(moved)
}

fn arrive(order: &Order, pairs: &Pairs, places: &[schema::Place]) -> Result<Moved> {
    to_schema::refuse_rows(order)?;
    references::refuse_unstoppable(&pairs.targets(), Event::Insert)?;
    pairs.compare()?;
    let mut counts = Vec::new();
    for pair in &pairs.moved {
        order.note(&pair.target.full_name);
        counts.push(role::without_triggers(|| pair.copy(order.tenant))?);
    }
    order.note("");
    let copied = Copied { rows: counts, at: record::now()? };
    references::check_keys(&pairs.targets(), order.tenant)?;
    references::check_deferred(&pairs.targets(), order.tenant)?;
    let moved = rows::verify(&pairs.moved, &copied, order.tenant)?;
    let shared = Schema::get(&order.shared)?;
    sequences::bring_forward(places, &shared.name, &sequences::of_schema(shared.oid)?)?;
    Ok(moved)
}
