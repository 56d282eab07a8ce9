//! Isolation by schemas: each tenant has one of its own, an exact copy of a template.
//!
//! [`template`] registers what schemas are made from, [`derive`](self) makes such a thing of shared tables; [`tenant`] makes and drops them, under the names of [`name`]; [`copy`] is the copying;
//! [`version`] says which migrations a schema has; [`outside`] finds what would be dropped with one; [`drift`] compares them with their templates; [`statistics`] is for those who run them; [`events`] keeps the registry true when
//! schemas are renamed, dropped or restored by hand.

pub mod copy;
mod derive;
mod drift;
mod events;
pub mod name;
pub mod outside;
mod statistics;
mod template;
mod tenant;
pub mod version;

pub use copy::{Data, File, Place, Plan, Schema, plan, unload};
pub use name::{check as check_name, fill as name_for};
pub use template::{Template, unnamed as unnamed_template, unregister as unregister_template};
pub use tenant::{create, drop_left, drop_schema};
pub use version::{applied as applied_versions, record as record_versions};

use crate::erased::{self, Erased};
use crate::error::Result;
use crate::level::Level;
use pgrx::Uuid;
use pgrx::prelude::*;

/// Where a database of the tenant's own was dropped, or a schema by hand, its records here are left.
const ERASE: [&str; 2] = [
    "DELETE FROM tenancy.applied_migrations WHERE tenant_id = $1",
    "DELETE FROM tenancy.allowed_drift WHERE tenant_id = $1",
];

/// Removes what is kept of the schema of a purged tenant.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    erased::run(&ERASE, tenant, erased)
}

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Admin, "register_template"),
    (Level::Admin, "derive_template"),
    (Level::Operator, "create_tenant_schema"),
    (Level::Admin, "clone_tenant_schema"),
    (Level::Admin, "delete_tenant_schema"),
    (Level::Monitor, "tenant_statistics"),
    (Level::Monitor, "maintenance_commands"),
    (Level::Operator, "tenancy.differences"),
    (Level::Admin, "allow_schema_drift"),
    (Level::Admin, "disallow_schema_drift"),
    (Level::Internal, "tenancy.on_schema_change"),
    (Level::Internal, "tenancy.on_schema_drop"),
];
pub const RELATIONS: &[(Level, &str)] = &[
    (Level::Operator, "tenancy.templates"),
    (Level::Operator, "tenancy.applied_migrations"),
    (Level::Operator, "tenancy.allowed_drift"),
    (Level::Operator, "tenancy.schema_drift"),
];

extension_sql_file!(
    "../../../sql/schema.sql",
    name = "schema",
    requires = [
        "tenant",
        "guard",
        register_template,
        derive_template,
        create_tenant_schema,
        clone_tenant_schema,
        delete_tenant_schema,
        tenant_statistics,
        maintenance_commands,
        differences,
        allow_schema_drift,
        disallow_schema_drift,
        on_schema_change,
        on_schema_drop
    ]
);
