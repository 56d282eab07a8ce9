//! A tenant on its way: out of the database and into another.
//!
//! [`export`] writes everything of one tenant as records in the [`format`] that [`import`] reads. What belongs to a tenant is its tables
//! ([`tables`]), wherever they are, and rows of the product's own ([`own`]).

mod export;
mod format;
mod import;
mod own;
mod tables;

use crate::level::Level;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[(Level::Admin, "export_tenant"), (Level::Admin, "import_tenant")];

extension_sql_file!(
    "../../sql/transfer/export.sql",
    name = "transfer_export",
    requires = ["tenant", "schema", "metering_billing", export_tenant, import_tenant]
);
