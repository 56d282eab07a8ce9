//! Isolation by rows: tables that tenants share, guarded by row security.
//!
//! [`protect`] puts a table and all its partitions and inheritance children under the policies of [`policy`], after [`inspect`] found
//! that it can be, and notes it in [`registry`]; [`advice`] says which of its keys reach across tenants, which of its indexes serve none of them, and what mends both; [`events`] keeps new partitions protected and
//! materialised views out; [`erase`] removes a tenant's rows.

mod advice;
pub mod erase;
mod events;
pub mod inspect;
pub mod matview;
mod policy;
pub mod protect;
pub mod registry;
mod status;
pub mod validate;

pub use events::{command_tag, verify_protection};
pub use inspect::TenantType;

use crate::level::Level;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Admin, "protect_table"),
    (Level::Admin, "unprotect_table"),
    (Level::Admin, "protection_advice"),
    (Level::Monitor, "tenancy.is_intact"),
    (Level::Internal, "tenancy.on_ddl_command_end"),
    (Level::Internal, "tenancy.on_sql_drop"),
];
pub const RELATIONS: &[(Level, &str)] =
    &[(Level::Monitor, "tenancy.protected_tables"), (Level::Monitor, "tenancy.protection_status")];

extension_sql_file!(
    "../../../sql/isolation.sql",
    name = "isolation",
    requires = [
        "tenant",
        "guard",
        protect_table,
        unprotect_table,
        protection_advice,
        is_intact,
        on_ddl_command_end,
        on_sql_drop
    ]
);
