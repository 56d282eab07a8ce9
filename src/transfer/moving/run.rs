//! `move_tenant`: from the order to the switch.

use super::record::{self, Isolation, Move, Moved, New};
use super::{clean, from_database, to_database, to_rows, to_schema};
use crate::audit::{self, Entry};
use crate::context::registry::Status;
use crate::database;
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{self, Mode, Subject};
use crate::isolation::schema::{Template, version};
use crate::json::Object;
use crate::label::{MOVED, PROVIDER};
use crate::metering;
use crate::monitor;
use crate::own_ddl;
use crate::procedure::{self, Procedure};
use crate::query::{self, ident, literal};
use crate::role;
use crate::sqltype::Name;
use crate::worker::task;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use std::cell::RefCell;

const LOCK_ROW: &str = "SELECT slug, status, isolation, schema_name::pg_catalog.text, template::pg_catalog.text, purge_started_at IS NOT NULL,
        database_name::pg_catalog.text FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const SET_STATUS: &str = "UPDATE tenancy.tenants SET status = $2, status_since = pg_catalog.now(), updated_at = pg_catalog.now() WHERE id = $1";
const SWITCH: &str =
    "UPDATE tenancy.tenants SET status = $2, isolation = $3, schema_name = $4, template = $5, moved_from = $6, database_name = $7,
        status_since = pg_catalog.now(), updated_at = pg_catalog.now() WHERE id = $1";
const SHARED: &str = "SELECT template::pg_catalog.text FROM tenancy.templates WHERE shared_schema IS NOT NULL
    ORDER BY template = 'default' DESC, template LIMIT 2";

/// What there is to do about a key that another tenant has, too.
const KEY_OF_ALL: &str = "Each place gives numbers by itself: a key that rows are moved under is one of the tenant column and the number, or a uuid.";

/// The tenant's row in the registry, locked until the transaction ends.
pub struct Registry {
    slug: String,
    status: Status,
    isolation: Isolation,
    schema: Option<String>,
    template: Option<String>,
    purge_begun: bool,
    database: Option<String>,
}

/// Where the registry leads from now on.
pub enum Switch<'a> {
    Schema { schema: &'a str, template: &'a str, moved: &'a Moved },
    Rows { moved: &'a Moved },
    Database { schema: &'a str, template: Option<&'a str>, moved: &'a Moved },
}

impl Registry {
    fn read(tenant: Uuid) -> Result<Self> {
        query::returning(LOCK_ROW, &[tenant.into()], |row| {
            let isolation: String = row.must(3)?;
            Ok(Self {
                slug: row.must(1)?,
                status: Status::from_name(&row.must::<String>(2)?)?,
                isolation: Isolation::from_name(&isolation)
                    .ok_or_else(|| Error::Internal(format!("unknown isolation {isolation}")))?,
                schema: row.get(4)?,
                template: row.get(5)?,
                purge_begun: row.must(6)?,
                database: row.get(7)?,
            })
        })?
        .ok_or_else(|| Error::unknown_tenant(tenant))
    }
}

impl Switch<'_> {
    /// Leads to the new place, and tells everyone. Nobody has written since the tenant is moving: writers are refused by that alone.
    pub fn perform(&self, order: &Order) -> Result<()> {
        let before = Registry::read(order.tenant)?;
        if before.status != Status::Moving {
            return Err(Error::IllegalChange { state: before.status.name(), change: "be moved any more".to_owned() });
        }
        let (to, schema, template, moved) = match self {
            Switch::Schema { schema, template, moved } => (Isolation::Schema, Some(*schema), Some(*template), *moved),
            Switch::Rows { moved } => (Isolation::Row, None, None, *moved),
            Switch::Database { schema, template, moved } => (Isolation::Database, Some(*schema), *template, *moved),
        };
        let database = match to {
            Isolation::Database => Some(database::name_of(order.tenant)?),
            _ => None,
        };
        let args = [
            order.tenant.into(),
            order.former.name().into(),
            to.name().into(),
            schema.into(),
            template.into(),
            order.from.name().into(),
            database.as_deref().into(),
        ];
        query::run(SWITCH, &args)?;
        match to {
            Isolation::Database => database::open(order.tenant, order.former.name())?,
            _ => database::close(order.tenant, Status::Moved.name())?,
        }
        if order.from == Isolation::Schema {
            let label = literal(&format!("{MOVED}{}", order.tenant));
            let schema = ident(&order.schema);
            own_ddl::run(|| {
                query::statement(&format!("SECURITY LABEL FOR {PROVIDER} ON SCHEMA {schema} IS {label}"), &[])
            })?;
        }
        metering::limit::erase(order.tenant)?;
        record::switched(order.id, schema, database.as_deref(), moved)?;
        let place = |isolation: Isolation, schema: Option<&str>, database: Option<&str>| {
            let place = Object::new().text("isolation", isolation.name()).optional("schema_name", schema);
            place.optional("database_name", database)
        };
        let rows = moved.rows.iter().map(|(_, rows)| rows).sum();
        audit::record(&Entry {
            action: "tenant.move",
            tenant: Some(order.tenant),
            target: Some(&before.slug),
            before: Some(place(order.from, before.schema.as_deref(), before.database.as_deref()).finish()),
            after: Some(place(to, schema, database.as_deref()).number("rows", rows).finish()),
        })
    }
}

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

    fn name_table(&self, error: Error) -> Error {
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
fn hold(tenant: Uuid) -> Result<Held> {
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
fn start(tenant: Uuid, to: Isolation, template: Option<String>, clean: bool) -> Result<Order> {
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

/// Changes the tenant's state, here and where its own database reads it.
fn set_status(tenant: Uuid, status: Status) -> Result<()> {
    query::run(SET_STATUS, &[tenant.into(), status.name().into()])?;
    database::set_state(tenant, status.name())
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

/// Does what a move is for. Inside a database that is all of it or nothing; where another is made or read, what was made is removed by
/// [`undo`] when it fails.
fn perform(procedure: &Procedure, order: &Order) -> Result<Moved> {
    match (order.from, order.to) {
        (_, Isolation::Database) => to_database::perform(procedure, order),
        (Isolation::Database, _) => from_database::perform(procedure, order),
        (_, Isolation::Schema) => procedure::caught_all(|| role::as_extension_owner(|| to_schema::perform(order))),
        (_, Isolation::Row) => procedure::caught_all(|| role::as_extension_owner(|| to_rows::perform(order))),
    }
}

/// Puts a tenant back whose move has not come to the switch.
fn take_back(unfinished: &Move, sqlstate: &str, message: &str) -> Result<()> {
    let registry = Registry::read(unfinished.tenant)?;
    if registry.status == Status::Moving {
        set_status(unfinished.tenant, unfinished.former)?;
    }
    record::failed(unfinished.id, sqlstate, message)?;
    if unfinished.to != Isolation::Database {
        record::finished(unfinished.id)?;
    }
    audit::record(&Entry {
        action: "tenant.move_failed",
        tenant: Some(unfinished.tenant),
        target: Some(&registry.slug),
        after: Some(Object::new().text("to", unfinished.to.name()).text("sqlstate", sqlstate).finish()),
        ..Entry::default()
    })
}

/// Takes back a move that has not come to the switch: the tenant is where it was at once, and what was made of a database is removed then. Commits.
pub fn undo(procedure: &Procedure, unfinished: &Move, sqlstate: &str, message: &str) -> Result<()> {
    if !unfinished.has_failed {
        procedure::caught(|| role::as_extension_owner(|| take_back(unfinished, sqlstate, message)))?;
        procedure.commit();
    }
    if unfinished.to == Isolation::Database {
        database::demolish(procedure, unfinished.tenant)?;
        procedure::caught(|| {
            role::as_extension_owner(|| {
                if unfinished.from == Isolation::Row {
                    version::remove(unfinished.tenant)?;
                }
                record::finished(unfinished.id)
            })
        })?;
        procedure.commit();
    }
    Ok(())
}

/// What stands in the record of a move whose session has ended.
pub const INTERRUPTED: (&str, &str) = ("57P01", "interrupted");

/// Ends what an earlier call has left: takes a move back that was interrupted, or finishes one. The caller holds its lock.
fn settle(procedure: &Procedure, tenant: Uuid) -> Result<()> {
    let Some(unfinished) = role::as_extension_owner(|| record::unfinished(tenant))? else { return Ok(()) };
    if unfinished.is_switched {
        return clean::finish(procedure, &unfinished);
    }
    let (sqlstate, message) = INTERRUPTED;
    undo(procedure, &unfinished, sqlstate, message)?;
    notice!("took back an interrupted move of tenant \"{tenant}\"");
    Ok(())
}

/// Moves a tenant, committing as it goes.
fn run(procedure: &Procedure, tenant: Uuid, to: Isolation, template: Option<String>, clean: bool) -> Result<()> {
    let _held = hold(tenant)?;
    settle(procedure, tenant)?;
    let order = role::as_extension_owner(|| start(tenant, to, template, clean))?;
    procedure.commit();
    let moved = match perform(procedure, &order) {
        Ok(moved) => moved,
        Err(error) => {
            let error = order.name_table(error.into_raised());
            let Error::Elsewhere { sqlstate, message, .. } = &error else { return Err(error) };
            if let Some(unfinished) = role::as_extension_owner(|| record::unfinished(tenant))? {
                undo(procedure, &unfinished, sqlstate, message)?;
            }
            return Err(error);
        }
    };
    procedure.commit();
    for (table, rows) in moved.rows.iter().filter(|(_, rows)| *rows > 0) {
        notice!("moved {rows} rows of {table}");
    }
    notice!("tenant \"{tenant}\" has isolation {} now", to.name());
    if to == Isolation::Database {
        // Where it is now it knows already; what else has changed it is told now, or by a worker.
        if let Err(message) = procedure::attempt(|| role::as_extension_owner(|| database::state::tell(tenant, false))) {
            warning!("{message}");
        }
        procedure.commit();
    }
    match role::as_extension_owner(|| record::unfinished(tenant))? {
        Some(unfinished) if clean => clean::finish(procedure, &unfinished),
        _ => Ok(()),
    }
}

/// Moves a tenant to another isolation.
#[pg_extern(
    sql = "CREATE PROCEDURE move_tenant(tenant uuid, to_isolation text, template name DEFAULT NULL, clean boolean DEFAULT true)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn move_tenant(
    tenant: Option<Uuid>,
    to_isolation: Option<&str>,
    template: Option<Name>,
    clean: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "move_tenant") }?;
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let to = to_isolation.ok_or(Error::Null("to_isolation"))?;
    let clean = clean.ok_or(Error::Null("clean"))?;
    let to = Isolation::from_name(to).ok_or_else(|| {
        let given: String = to.chars().take(63).collect();
        Error::invalid(format!("\"{given}\" is no isolation"), "Isolations are row, schema and database.")
    })?;
    Ok(run(&procedure, tenant, to, template.map(|Name(name)| name), clean)?)
}

/// Removes what a move has left at the old place.
#[pg_extern(sql = "CREATE PROCEDURE clean_move(tenant uuid)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn clean_move(tenant: Option<Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "clean_move") }?;
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let _held = hold(tenant)?;
    let unfinished = role::as_extension_owner(|| record::unfinished(tenant))?;
    let Some(unfinished) = unfinished.filter(|found| found.is_switched) else {
        return Err(Error::State(format!("no move of tenant \"{tenant}\" has left anything"), "").into());
    };
    Ok(clean::finish(&procedure, &unfinished)?)
}

/// Does what is left of all moves that nobody works at.
#[pg_extern(sql = "CREATE PROCEDURE resume_moves()
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn resume_moves(fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "resume_moves") }?;
    let tenants = role::as_extension_owner(record::tenants_to_resume)?;
    if !tenants.is_empty() {
        // Whoever works at one may end, and who is waited for.
        monitor::announce();
    }
    for tenant in tenants {
        let Some(_held) = Held::take(tenant) else { continue };
        match clean::resume(&procedure, tenant) {
            Ok(()) => task::note_done(1),
            Err(message) => {
                let message = format!("what is left of the move of tenant \"{tenant}\" was not done: {message}");
                task::note_failure(&message);
                warning!("{message}");
            }
        }
        if task::time_is_up() {
            break;
        }
    }
    Ok(())
}
