//! What is to be moved where: checked, written down, and begun.

use super::record::{self, Isolation, New};
use super::switch::{Registry, set_status};
use super::{from_database, to_database, to_rows, to_schema};
use crate::context::registry::Status;
use crate::database;
use crate::error::{Error, Result};
use crate::guard::lock::{self, Mode, Subject};
use crate::isolation::schema::Template;
use crate::monitor;
use crate::query;
use pgrx::Uuid;
use std::cell::RefCell;

const SHARED: &str = "SELECT template::pg_catalog.text FROM tenancy.templates WHERE shared_schema IS NOT NULL
    ORDER BY template = 'default' DESC, template LIMIT 2";

/// What there is to do about a key that another tenant has, too.
const KEY_OF_ALL: &str = "Each place gives numbers by itself: a key that rows are moved under is one of the tenant column and the number, or a uuid.";

/// A move that was written down and is to be performed.
pub struct Order {
    pub id: Uuid,
    pub tenant: Uuid,
    pub slug: String,
    pub from: Isolation,
    pub to: Isolation,
    /// The tenant's schema where it has one.
    pub schema: String,
    /// The template of the schema that it has or gets, and the schema of the shared tables that this corresponds to.
    pub template: String,
    pub shared: String,
    pub former: Status,
    /// The table that is being copied, for an error to name.
    at: RefCell<String>,
}

impl Order {
    /// Remembers which table is being copied.
    pub fn note(&self, table: &str) {
        table.clone_into(&mut self.at.borrow_mut());
    }

    /// The error with the table that was being copied.
    pub fn name_table(&self, error: Error) -> Error {
        let table = self.at.borrow();
        match error {
            Error::Elsewhere { sqlstate, message, detail, hint } if !table.is_empty() => {
                let detail =
                    detail.map_or_else(|| format!("Table {table}."), |detail| format!("Table {table}: {detail}"));
                let hint = if sqlstate == "23505" { Some(KEY_OF_ALL.to_owned()) } else { hint };
                Error::Elsewhere { sqlstate, message, detail: Some(detail), hint }
            }
            error => error,
        }
    }
}

/// The locks of a move, which its worker holds in its session as long as this lives: nobody else moves the tenant, nor works on its schema.
pub struct Held([Subject; 2]);

impl Held {
    /// None when someone else works at a move of the tenant.
    pub fn take(tenant: Uuid) -> Option<Self> {
        let [own, schema] = [Subject::move_of(tenant), Subject::schema_of(tenant)];
        if !own.try_lock_session(Mode::Exclusive) {
            return None;
        }
        if !schema.try_lock_session(Mode::Exclusive) {
            own.unlock_session(Mode::Exclusive);
            return None;
        }
        Some(Self([schema, own]))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().for_each(|lock| lock.unlock_session(Mode::Exclusive));
    }
}

/// Takes the move's lock, or says that someone else has it.
pub fn hold(tenant: Uuid) -> Result<Held> {
    Held::take(tenant).ok_or_else(|| {
        Error::State(
            format!("tenant \"{tenant}\" is being moved by another session"),
            "tenancy.moves says how far that is.",
        )
    })
}

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
