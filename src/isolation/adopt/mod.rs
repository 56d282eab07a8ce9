//! Adoption: a table of a single-tenant application, rows and all, becomes one that tenants share.
//!
//! [`functions`] check the [`request`] and find the [`scope`]; [`plan`] says what is left to do, from what
//! [`keys`](super::keys) finds in the catalogs and unless [`refuse`] finds a reason against it; [`run`] does that, with [`fill`] for rows and [`worker`] for indexes, and keeps
//! [`registry`].

mod fill;
mod functions;
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
