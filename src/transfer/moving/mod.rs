//! Moving a tenant between isolations: shared tables, a schema of its own, a database of its own.
//!
//! A move is an [`order`], of which there is a [`record`] with a phase, under locks that are [`held`] to its end. Its [`start`] makes the
//! tenant `moving` in the registry ([`state`]): writers are refused, readers go on. The rows are then copied from table to [`table`](tables)
//! of the same name ([`pairs`]), through files ([`rows`]), with [`sequences`]; what triggers would have checked is checked by set
//! ([`references`]); both sides are compared, and the registry leads to the new place: in one transaction inside a database ([`to_schema`],
//! [`to_rows`]), and where another one is made or read ([`to_database`], [`from_database`]) in the last of several. What the product keeps
//! where the rows are goes [`along`]. [`switch`] leads to the new place, [`undo`] back to the old one, and [`run`] does one after the other.
//! [`clean`] removes what is left at the old place once nobody reads it any more; [`resume`] ends what an earlier call has left.
//!
//! Whatever ends a move before the registry leads elsewhere leaves the tenant where it was; who works at a move holds its lock, so that one which
//! nobody holds is taken back by the next call, or by a worker.

mod along;
mod clean;
mod from_database;
mod held;
mod order;
mod pairs;
mod record;
mod references;
mod resume;
mod rows;
mod run;
mod sequences;
mod start;
mod state;
mod switch;
mod tables;
mod to_database;
mod to_rows;
mod to_schema;
mod undo;

use crate::level::Level;
use crate::worker::errand::Errand;
use crate::worker::task::{Task, Work};
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Admin, "move_tenant"),
    (Level::Admin, "clean_move"),
    (Level::Admin, "resume_moves"),
    (Level::Internal, "tenancy.forget_moves"),
];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Operator, "tenancy.moves")];
/// What tenants' own databases have done.
pub const ERRANDS: &[Errand] = &[to_database::DIGEST, from_database::UNLOAD, along::TAKE, along::GIVE];
/// What background workers do: an interrupted move is taken back, what is left of one that was done is removed.
pub const TASKS: &[Task] = &[Task { name: "moves", every_s: 5, work: Work::Call("resume_moves()") }];

extension_sql_file!(
    "../../../sql/transfer/move.sql",
    name = "transfer_move",
    requires = ["schema", "isolation", "audit", "database", move_tenant, clean_move, resume_moves]
);
