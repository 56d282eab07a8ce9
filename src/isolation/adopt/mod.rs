//! Adoption: a table of a single-tenant application, rows and all, becomes one that tenants share.
//!
//! [`functions`] check the [`request`] and find the [`scope`]; [`plan`] says what is left to do, from what [`index`] and [`foreign_key`] read in
//! the catalogs and unless [`refuse`] finds a reason against it; [`run`] does that, with [`fill`] for rows and [`worker`] for indexes, and keeps
//! [`registry`].

mod fill;
mod foreign_key;
mod functions;
mod index;
mod plan;
mod refuse;
mod registry;
mod request;
mod run;
mod scope;
mod worker;

pub use registry::erase;

use crate::level::Level;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] =
    &[(Level::Admin, "adoption_plan"), (Level::Admin, "adopt_table"), (Level::Admin, "adopt_schema")];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Monitor, "tenancy.adoptions")];

extension_sql_file!(
    "../../../sql/adopt.sql",
    name = "adopt",
    requires = ["isolation", "audit", adoption_plan, adopt_table, adopt_schema]
);

/// The schema and the name of a qualified, quoted name; the name without its quotes.
fn split(qualified: &str) -> (&str, &str) {
    // A quoted schema may have a dot in it: the separator is the first dot outside quotes.
    let mut quoted = false;
    let dot = qualified.find(|character| {
        quoted ^= character == '"';
        character == '.' && !quoted
    });
    let (schema, name) = dot.map_or(("", qualified), |dot| (&qualified[..dot], &qualified[dot + 1..]));
    (schema, name.trim_matches('"'))
}
