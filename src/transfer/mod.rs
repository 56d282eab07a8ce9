//! A tenant on its way: from one place to another on this server ([`moving`]), out of the database and into another.
//!
//! [`export`] writes everything of one tenant as records in the [`format`] that [`import`] reads. What belongs to a tenant is its tables
//! ([`tables`]), wherever they are ([`remote`]: in a database of its own), and rows of the product's own ([`own`]); [`dump`] reads both, and
//! [`writer`] writes them; [`deferred`] is what is checked of keys where triggers do not fire.

mod deferred;
mod dump;
mod export;
mod format;
mod import;
pub mod moving;
mod own;
mod remote;
mod tables;
mod writer;

use crate::level::Level;
use crate::worker::errand::Errand;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[(Level::Admin, "export_tenant"), (Level::Admin, "import_tenant")];

/// What tenants' own databases have done.
pub const ERRANDS: &[Errand] = &[remote::DUMP, import::LOAD];

extension_sql_file!(
    "../../sql/transfer/export.sql",
    name = "transfer_export",
    requires = ["tenant", "schema", "metering_billing", "database", export_tenant, import_tenant]
);
