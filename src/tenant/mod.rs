//! The registry: tenants, their states and plans, and their end.
//!
//! `provisioning → active ⇄ read_only | suspended → cancelled → deleted → (purged)`; restore leads back from cancelled and deleted.

mod adopt;
mod create;
mod each;
mod lifecycle;
mod lookup;
mod purge;
mod slug;
mod subscription;

pub use create::{Wanted, create};

use crate::level::Level;
use crate::worker::task::Task;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Operator, "create_tenant"),
    (Level::Operator, "update_tenant"),
    (Level::App, "find_tenant"),
    (Level::Operator, "find_tenant"),
    (Level::App, "slug_available"),
    (Level::Operator, "slug_available"),
    (Level::Operator, "suspend_tenant"),
    (Level::Operator, "resume_tenant"),
    (Level::Operator, "cancel_tenant"),
    (Level::Operator, "delete_tenant"),
    (Level::Operator, "restore_tenant"),
    (Level::Operator, "change_plan"),
    (Level::Operator, "set_subscription"),
    (Level::Operator, "apply_subscription_grace"),
    (Level::Internal, "tenancy.announce_change"),
    (Level::Admin, "adopt_tenants"),
    (Level::Admin, "for_each_tenant"),
    (Level::Admin, "purge_tenant"),
    (Level::Admin, "purge_expired_tenants"),
];
/// What background workers do of this domain.
pub const TASKS: [&[Task]; 2] = [purge::TASKS, subscription::TASKS];
pub const RELATIONS: &[(Level, &str)] = &[
    (Level::Client, "tenancy.tenants"),
    (Level::Operator, "tenancy.tenants"),
    (Level::Operator, "tenancy.tenant_overview"),
];

extension_sql_file!(
    "../../sql/tenant.sql",
    name = "tenant",
    requires = [
        "bootstrap",
        "context",
        "authority",
        "monitor",
        create_tenant,
        update_tenant,
        find_tenant,
        slug_available,
        suspend_tenant,
        resume_tenant,
        cancel_tenant,
        delete_tenant,
        restore_tenant,
        change_plan,
        adopt_tenants,
        for_each_tenant,
        purge_tenant,
        purge_expired_tenants
    ]
);
