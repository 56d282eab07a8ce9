//! Out of shared tables into a schema of its own: a copy of the template that gets the tenant's rows while it has no triggers, indexes or foreign
//! keys yet, in one transaction.

use super::order::Order;
use super::pairs::{Pair, Pairs};
use super::record::{self, Isolation, Moved};
use super::references::{self, Event};
use super::rows::{self, Copied};
use super::switch::Switch;
use super::{sequences, tables};
use crate::context;
use crate::error::{Error, Result};
use crate::guard::lock::{Mode, Subject};
use crate::isolation::row::erase;
use crate::isolation::schema::copy::{self, Data, Moment, Schema};
use crate::isolation::schema::{self, Template};
use crate::label;
use crate::query::{self, ident};

/// What the move takes.
struct Place {
    template: Template,
    source: Schema,
    shared: Schema,
    pairs: Pairs,
}

fn find(order: &Order) -> Result<Place> {
    let template = Template::share(&order.template)?;
    let source = Schema::get(&template.schema)?;
    let shared = Schema::get(&order.shared)?;
    let own = tables::of_schema(source.oid)?;
    let pairs = Pairs::to_schema(tables::protected()?, &own, order.tenant, &shared.name)?;
    Ok(Place { template, source, shared, pairs })
}

/// Fails when the tenant cannot be moved, as far as that can be seen before.
pub fn check(order: &Order) -> Result<()> {
    let place = find(order)?;
    check_sources(order, &place.pairs)?;
    schema::name::check(&name(order, &place.template))?;
    copy::plan(&place.source, &name(order, &place.template), &Data::All).map(drop)
}

/// Fails when the rows of the shared tables cannot go.
pub fn check_sources(order: &Order, pairs: &Pairs) -> Result<()> {
    let sources = pairs.sources();
    references::refuse_unstoppable(&sources, Event::Delete)?;
    references::refuse_foreign_references(&sources, order.tenant)?;
    sequences::warn_of_keys(&sources)
}

fn name(order: &Order, template: &Template) -> String {
    schema::name::fill(&template.tenant_schema, order.tenant, &order.slug)
}

/// Copies out of the shared tables, verifies and switches.
pub fn perform(order: &Order) -> Result<Moved> {
    let place = find(order)?;
    Subject::schema_of(order.tenant).lock(Mode::Exclusive);
    references::refuse_foreign_references(&place.pairs.sources(), order.tenant)?;
    arrive(order, place, None)
}

/// The same with rows that come from the tenant's own database.
pub fn receive(order: &Order, pairs: Pairs, places: &[schema::Place]) -> Result<Moved> {
    let template = Template::share(&order.template)?;
    let (source, shared) = (Schema::get(&template.schema)?, Schema::get(&order.shared)?);
    arrive(order, Place { template, source, shared, pairs }, Some(places))
}

/// Where rows that come from a database are to go.
pub fn targets(order: &Order) -> Result<Vec<tables::Table>> {
    let template = Template::share(&order.template)?;
    tables::of_schema(Schema::get(&template.schema)?.oid)
}

fn arrive(order: &Order, place: Place, places: Option<&[schema::Place]>) -> Result<Moved> {
    let Place { template, source, shared, pairs } = place;
    let tenant = order.tenant;
    let name = name(order, &template);
    schema::name::check(&name)?;
    Subject::name(&name).lock(Mode::Exclusive);
    if query::as_of_now(|| Schema::find(&name))?.is_some() {
        return Err(Error::Duplicate("schema", name));
    }
    let moved = context::while_making_schema(tenant, || {
        // Every table may get rows.
        let plan = copy::plan(&source, &name, &Data::All)?;
        let mut filled = Filled { pairs, copied: Vec::new() };
        let mut fill = |moment| {
            if moment == Moment::Defined {
                filled.begin(&name)?;
                if places.is_none() {
                    filled.add_reference_rows(&shared, &source, &template, &plan, &name)?;
                }
            }
            filled.copy(order, moment)
        };
        let label = format!("{}{tenant}", label::TENANT);
        copy::make_with(&plan, &name, &label, Some(source.oid), &[], &mut fill)?;
        let new = sequences::of_schema(query::as_of_now(|| Schema::get(&name))?.oid)?;
        match places {
            Some(places) => sequences::follow(places, &name, &new)?,
            None => {
                let places = sequences::places(&shared.name, &sequences::of_schema(shared.oid)?)?;
                sequences::follow(&places, &name, &new)?;
            }
        }
        filled.verify(order)
    })?;
    Switch { to: Isolation::Schema, schema: Some(&name), template: Some(&template.name), moved: &moved }
        .perform(order)?;
    schema::version::copy_of_template(&template.name, tenant)?;
    Ok(moved)
}

/// The rows of the new schema.
struct Filled {
    pairs: Pairs,
    copied: Vec<(usize, u64)>,
}

impl Filled {
    /// Finds the new tables.
    fn begin(&mut self, name: &str) -> Result<()> {
        let new = tables::of_schema(query::as_of_now(|| Schema::get(name))?.oid)?;
        for pair in &mut self.pairs.moved {
            let target = new.iter().find(|table| table.name == pair.target.name);
            pair.target = target.cloned().ok_or_else(|| Error::Unknown("table", pair.target.name.clone()))?;
        }
        Ok(())
    }

    /// Gives the tables of no tenant their rows: as tenants share them, or else as the template has them.
    fn add_reference_rows(
        &self,
        shared: &Schema,
        source: &Schema,
        template: &Template,
        plan: &copy::Plan,
        name: &str,
    ) -> Result<()> {
        let new = tables::of_schema(query::as_of_now(|| Schema::get(name))?.oid)?;
        let (pairs, own) = reference_pairs(shared, template, &new)?;
        pairs.iter().try_for_each(|pair| pair.copy_all().map(drop))?;
        copy::copy_rows(&source.name, name, plan, &Data::Tables(own))
    }

    /// Copies the tables that can have their rows now.
    fn copy(&mut self, order: &Order, moment: Moment) -> Result<()> {
        let partitioned = moment == Moment::Attached;
        for (index, pair) in self.pairs.moved.iter().enumerate() {
            if pair.target.is_partitioned == partitioned {
                order.note(pair.source.full_name());
                self.copied.push((index, pair.copy(order.tenant)?));
            }
        }
        order.note("");
        Ok(())
    }

    fn verify(mut self, order: &Order) -> Result<Moved> {
        self.copied.sort_unstable();
        let copied = Copied { rows: self.copied.iter().map(|(_, rows)| *rows).collect(), at: record::now()? };
        rows::verify(&self.pairs.moved, &copied, order.tenant)
    }
}

/// The tables of no tenant that a template has and that tenants share, and the names of the others.
pub fn reference_pairs(
    shared: &Schema,
    template: &Template,
    new: &[tables::Table],
) -> Result<(Vec<Pair>, Vec<String>)> {
    let (mut pairs, mut own) = (Vec::new(), Vec::new());
    let tables = tables::of_schema(shared.oid)?;
    for name in &template.data_tables {
        let original = tables.iter().find(|table| table.tenant.is_none() && table.name == *name);
        let target = new.iter().find(|table| table.name == *name && !table.is_partitioned);
        match original.zip(target) {
            Some((original, target)) => pairs.push(Pair::between(original.clone(), target.clone())),
            None => own.push(name.clone()),
        }
    }
    Ok((pairs, own))
}

/// Fails when a shared table has rows of the tenant already.
pub fn refuse_rows(order: &Order) -> Result<()> {
    match erase::table_with_rows(order.tenant)? {
        Some(table) => Err(Error::Unprotectable(
            format!("{table} has rows of the tenant already"),
            format!(
                "Remove them, or copy them to schema {} by hand: a move would mix them with its own.",
                ident(&order.schema)
            ),
        )),
        None => Ok(()),
    }
}
