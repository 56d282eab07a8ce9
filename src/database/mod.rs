//! A database per tenant: made by a worker after the tenant was registered, closed to all until it is whole, and dropped with the tenant.
//!
//! [`intent`] is what is to be done and how far it is, [`found`] what there is. A database is [`create`]d, [`install`]ed, [`fill`]ed and
//! [`open`]ed, each a step that [`provision`] takes one after the other and that a move takes with rows of its own; [`remove`] takes it away again,
//! whole or in parts. What the template needs from outside its schema is found by [`needs`]; [`dress`] gives the database the privileges and settings
//! of the one that keeps the registry, the control database. [`wait`], [`location`] and [`pgbouncer`] tell the rest of the world.
//!
//! [`state`] is what a tenant's database is told of people, keys, plans and limits, within seconds of a change; [`report`] what it tells of usage,
//! counts and last uses, within a minute.

mod create;
mod dress;
mod fill;
mod found;
mod install;
mod intent;
mod location;
mod needs;
mod open;
mod pgbouncer;
mod provision;
mod remove;
pub mod report;
mod settings;
pub mod state;
mod wait;

pub use create::create;
pub use fill::{Contents, Given, fill};
pub use found::{of as oid_of, terminate_sessions};
pub use install::install;
pub use intent::{register, request};
pub use open::{close, is_unfinished, name_of, open, set_state, wait_for_writers};
pub use provision::build;
pub use remove::demolish;
pub use settings::init;

use crate::erased::Erased;
use crate::error::Result;
use crate::isolation::schema::Schema;
use crate::level::Level;
use crate::worker::errand::Errand;
use crate::worker::task::{Task, Work};
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Admin, "provision_tenants"),
    (Level::Operator, "wait_for_tenant"),
    (Level::App, "tenant_location"),
    (Level::Operator, "tenant_location"),
    (Level::Monitor, "pgbouncer_databases"),
];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Operator, "tenancy.provisioning")];

/// What background workers do in a database that has tenants.
pub const TASKS: &[&[Task]] = &[PROVISION, state::TASKS];
/// What they do in one that is a tenant's own.
pub const TASKS_AT_HOME: &[Task] = report::TASKS;

const PROVISION: &[Task] = &[Task { name: "tenant databases", every_s: 5, work: Work::Call("provision_tenants()") }];

/// What other databases, and this one's procedures, have done by a worker.
pub const ERRANDS: &[&[Errand]] =
    &[&[create::ERRAND, remove::ERRAND, install::ERRAND, fill::ERRAND], state::ERRANDS, report::ERRANDS];

/// Fails when tables of the schema need something that a tenant's own database could not have.
pub fn check(schema: &Schema) -> Result<()> {
    needs::of(schema).map(drop)
}

/// Forgets what is kept of a purged tenant's database.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    state::erase(tenant, erased)?;
    report::erase(tenant, erased)
}

extension_sql_file!(
    "../../sql/database.sql",
    name = "database",
    requires = ["tenant", "schema", provision_tenants, wait_for_tenant, tenant_location, pgbouncer_databases]
);
