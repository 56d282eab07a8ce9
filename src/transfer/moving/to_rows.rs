//! Out of a schema of its own into the tables that tenants share, in one transaction.

use super::pairs::Pairs;
use super::record::{self, Moved};
use super::references::{self, Event};
use super::rows::{self, Copied};
use super::run::{Order, Switch};
use super::tables::Table;
use super::{sequences, tables, to_schema};
use crate::context;
use crate::error::Result;
use crate::guard;
use crate::guard::lock::{Mode, Subject};
use crate::isolation::schema::copy::Schema;
use crate::isolation::schema::{outside, version};
use crate::label::{MOVED, PROVIDER};
use crate::query::{self, ident, literal};
use crate::{own_ddl, role};

struct Place {
    own: Schema,
    shared: Schema,
    pairs: Pairs,
}

impl Place {
    fn targets(&self) -> Vec<&Table> {
        self.pairs.moved.iter().map(|pair| &pair.target).collect()
    }
}

fn find(order: &Order) -> Result<Place> {
    let (own, shared) = (Schema::get(&order.schema)?, Schema::get(&order.shared)?);
    let pairs = Pairs::to_rows(tables::of_schema(own.oid)?, &tables::of_schema(shared.oid)?, order.tenant)?;
    Ok(Place { own, shared, pairs })
}

/// Works on the tenant's schema, where users' code may run.
fn working<T>(order: &Order, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let own = Schema::get(&order.schema)?;
    context::while_making_schema(order.tenant, || guard::schema::while_working_on(&[own.oid], work))
}

/// Fails when the tenant cannot be moved, as far as that can be seen before.
pub fn check(order: &Order) -> Result<()> {
    to_schema::refuse_rows(order)?;
    working(order, || {
        let place = find(order)?;
        references::refuse_unstoppable(&place.targets(), Event::Insert)?;
        outside::refuse_dependents(&place.own)
    })
}

/// Copies, verifies and switches.
pub fn perform(order: &Order) -> Result<Moved> {
    let tenant = order.tenant;
    Subject::schema_of(tenant).lock(Mode::Exclusive);
    to_schema::refuse_rows(order)?;
    let moved = working(order, || {
        let place = find(order)?;
        let Place { own, shared, pairs } = &place;
        references::refuse_unstoppable(&place.targets(), Event::Insert)?;
        outside::refuse_dependents(own)?;
        pairs.compare()?;
        let mut counts = Vec::new();
        for pair in &pairs.moved {
            order.note(&pair.target.full_name);
            counts.push(role::without_triggers(|| pair.copy(tenant))?);
        }
        order.note("");
        let copied = Copied { rows: counts, at: record::now()? };
        references::check_keys(&place.targets(), tenant)?;
        references::check_deferred(&place.targets(), tenant)?;
        let moved = rows::verify(&pairs.moved, &copied, tenant)?;
        let places = sequences::places(&own.name, &sequences::of_schema(own.oid)?)?;
        sequences::bring_forward(&places, &shared.name, &sequences::of_schema(shared.oid)?)?;
        Ok(moved)
    })?;
    Switch::ToRows { moved: &moved }.perform(order)?;
    let label = literal(&format!("{MOVED}{tenant}"));
    own_ddl::run(|| {
        query::statement(&format!("SECURITY LABEL FOR {PROVIDER} ON SCHEMA {} IS {label}", ident(&order.schema)), &[])
    })?;
    version::remove(tenant)?;
    Ok(moved)
}
