//! The beginning of a move: checked, and written down.

use super::held::Kept;
use super::order::Order;
use super::record::{self, Isolation, New};
use super::state::{Registry, set_status};
use super::{from_database, to_database, to_rows, to_schema};
use crate::context::registry::Status;
use crate::database;
use crate::error::{Error, Result};
use crate::guard::lock;
use crate::isolation::schema::Template;
use crate::monitor;
use crate::query;
use pgrx::Uuid;
use std::cell::RefCell;

const SHARED: &str = "SELECT template::pg_catalog.text FROM tenancy.templates WHERE shared_schema IS NOT NULL
    ORDER BY template = 'default' DESC, template LIMIT 2";

/// The template that shared tables correspond to where none is named.
fn unnamed_template() -> Result<String> {
    let mut names: Vec<String> = query::current_rows(SHARED, &[], |row| row.must(1))?;
    match names.len() {
        1 => Ok(names.swap_remove(0)),
        2 if names[0] == "default" => Ok(names.swap_remove(0)),
        0 => Err(Error::State(
            "no template corresponds to shared tables".to_owned(),
            "Make one with derive_template(), or say it of one with register_template(..., shared_schema => '...').",
        )),
        _ => Err(Error::invalid("several templates correspond to shared tables", "Name one with template => '...'.")),
    }
}

/// Makes the tenant `moving`, in the transaction that is committed next. Its writers have ended then.
pub fn start(tenant: Uuid, to: Isolation, template: Option<String>, clean: bool) -> Result<Order> {
    query::refuse_old_snapshot("a tenant cannot be moved")?;
    lock::wait_for_writers(tenant);
    database::wait_for_writers(tenant)?;
    let registry = Registry::read(tenant)?;
    if !matches!(registry.status, Status::Active | Status::ReadOnly) || registry.purge_begun {
        return Err(Error::IllegalChange { state: registry.status.name(), change: "be moved".to_owned() });
    }
    if registry.isolation == to {
        return Err(Error::State(
            format!("tenant \"{tenant}\" has isolation {} already", to.name()),
            "Name another one: row, schema or database.",
        ));
    }
    let from_template = registry.template.clone();
    let name = match to {
        Isolation::Row => match (template, &from_template) {
            (Some(named), _) => named,
            (None, Some(own)) => own.clone(),
            (None, None) => unnamed_template()?,
        },
        Isolation::Schema | Isolation::Database => template.map_or_else(unnamed_template, Ok)?,
    };
    let kept = Kept::share(&name);
    let found = Template::find(&name)?.ok_or_else(|| Error::Unknown("template", name.clone()))?;
    let shared = found.shared_schema.ok_or_else(|| {
        Error::Unprotectable(
            format!("template \"{name}\" corresponds to no shared tables"),
            "Name their schema: SELECT register_template(..., shared_schema => '...');".to_owned(),
        )
    })?;
    if registry.isolation == Isolation::Schema && registry.schema.is_none() {
        return Err(Error::NoSchema(tenant.to_string()));
    }
    let mut order = Order {
        id: Uuid::from_bytes([0; 16]),
        tenant,
        slug: registry.slug.clone(),
        from: registry.isolation,
        to,
        schema: registry.schema.clone().unwrap_or_default(),
        template: name,
        shared,
        former: registry.status,
        at: RefCell::default(),
        _template: kept,
    };
    check(&order)?;
    order.id = record::insert(&New {
        tenant,
        from: order.from,
        to,
        schema: registry.schema.as_deref(),
        database: registry.database.as_deref(),
        from_template: from_template.as_deref(),
        to_template: Some(&order.template),
        former: order.former,
        clean,
    })?;
    set_status(tenant, Status::Moving)?;
    monitor::announce();
    Ok(order)
}

/// Fails on what can be seen to stand against the move, before anything is changed.
fn check(order: &Order) -> Result<()> {
    match (order.from, order.to) {
        (_, Isolation::Database) => to_database::check(order),
        (Isolation::Database, _) => from_database::check(order),
        (_, Isolation::Schema) => to_schema::check(order),
        (_, Isolation::Row) => to_rows::check(order),
    }
}
