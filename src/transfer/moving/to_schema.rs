//! Out of shared tables into a schema of its own: a copy of the template that gets the tenant's rows while it has no triggers, indexes or foreign
//! keys yet, in one transaction.

use super::pairs::{Pair, Pairs};
use super::record::{self, Moved};
use super::references::{self, Event};
use super::rows::{self, Copied};
use super::run::{Order, Switch};
use super::{sequences, tables};
use crate::context;
use crate::error::{Error, Result};
use crate::guard::lock::{Mode, Subject};
use crate::isolation::row::erase;
use crate::isolation::schema::copy::{self, Data, Moment, Schema};
use crate::isolation::schema::{self, Template};
use crate::label;
use crate::query::{self, ident};
use std::cell::RefCell;

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
    let sources: Vec<_> = place.pairs.moved.iter().map(|pair| &pair.source).collect();
    references::refuse_unstoppable(&sources, Event::Delete)?;
    references::refuse_foreign_references(&sources, order.tenant)?;
    sequences::warn_of_keys(&sources)?;
    schema::name::check(&name(order, &place.template))?;
    copy::plan(&place.source, &name(order, &place.template), &Data::All).map(drop)
}

fn name(order: &Order, template: &Template) -> String {
    schema::name::fill(&template.tenant_schema, order.tenant, &order.slug)
}

/// Copies, verifies and switches.
pub fn perform(order: &Order) -> Result<Moved> {
    let Place { template, source, shared, pairs } = find(order)?;
    let tenant = order.tenant;
    Subject::schema_of(tenant).lock(Mode::Exclusive);
    let sources: Vec<_> = pairs.moved.iter().map(|pair| &pair.source).collect();
    references::refuse_foreign_references(&sources, tenant)?;
    let name = name(order, &template);
    schema::name::check(&name)?;
    Subject::name(&name).lock(Mode::Exclusive);
    if query::as_of_now(|| Schema::find(&name))?.is_some() {
        return Err(Error::Duplicate("schema", name));
    }
    let moved = context::while_making_schema(tenant, || {
        // Every table may get rows.
        let plan = copy::plan(&source, &name, &Data::All)?;
        let filled = RefCell::new(Filled { pairs, copied: Vec::new() });
        let mut fill = |moment| {
            if moment == Moment::Defined {
                filled.borrow_mut().begin(&shared, &source, &template, &plan, &name)?;
            }
            filled.borrow_mut().copy(order, moment)
        };
        let label = format!("{}{tenant}", label::TENANT);
        copy::make_with(&plan, &name, &label, Some(source.oid), &[], &mut fill)?;
        let new = query::as_of_now(|| Schema::get(&name))?;
        sequences::follow(&shared.name, &sequences::of_schema(shared.oid)?, &name, &sequences::of_schema(new.oid)?)?;
        filled.into_inner().verify(order)
    })?;
    Switch::ToSchema { schema: &name, template: &template.name, moved: &moved }.perform(order)?;
    schema::version::copy_of_template(&template.name, tenant)?;
    Ok(moved)
}

/// The rows of the new schema.
struct Filled {
    pairs: Pairs,
    copied: Vec<(usize, u64)>,
}

impl Filled {
    /// Finds the new tables, and gives those of no tenant their rows: as tenants share them, or as the template has them.
    fn begin(
        &mut self,
        shared: &Schema,
        source: &Schema,
        template: &Template,
        plan: &copy::Plan,
        name: &str,
    ) -> Result<()> {
        let new = tables::of_schema(query::as_of_now(|| Schema::get(name))?.oid)?;
        for pair in &mut self.pairs.moved {
            let target = new.iter().find(|table| table.name == pair.target.name);
            pair.target = target.cloned().ok_or_else(|| Error::Unknown("table", pair.target.name.clone()))?;
        }
        let (mut current, mut own) = (Vec::new(), Vec::new());
        let reference: Vec<_> =
            tables::of_schema(shared.oid)?.into_iter().filter(|table| table.tenant.is_none()).collect();
        for table in &template.data_tables {
            let original = reference.iter().find(|original| original.name == *table);
            match original.zip(new.iter().find(|target| target.name == *table)) {
                Some((original, target)) if !target.is_partitioned => current.push((original.clone(), target.clone())),
                _ => own.push(table.clone()),
            }
        }
        for (original, target) in current {
            Pair::between(original, target).copy_all()?;
        }
        copy::copy_rows(&source.name, name, plan, &Data::Tables(own))
    }

    /// Copies the tables that can have their rows now.
    fn copy(&mut self, order: &Order, moment: Moment) -> Result<()> {
        let partitioned = moment == Moment::Attached;
        for (index, pair) in self.pairs.moved.iter().enumerate() {
            if pair.target.is_partitioned == partitioned {
                order.note(&pair.source.full_name);
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
