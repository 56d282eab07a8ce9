//! Who is asking: the tenant that a transaction is bound to, how it is bound, and what SQL can ask about it.
//!
//! The context is one GUC, `tenancy.context`, that only this module can set ([`setting`]); PostgreSQL gives it the life of a
//! transaction, undoes it with a savepoint and hands it to parallel workers. Its parsed form is a static ([`state`]) that the
//! guard function `current_tenant()` reads ([`functions`]). Binding a tenant that has a schema also sets [`path`], and one whose
//! plan says something of its transactions sets that ([`plan`]).

mod bind;
mod cursors;
mod functions;
pub mod key;
mod path;
pub mod plan;
pub mod registry;
mod sequences;
mod setting;
mod state;
mod statement;

pub use bind::{Principal, bind, for_maintenance, for_migration, refuse_moved, set_by_id, while_making_schema};
pub use cursors::see_statement;
pub use sequences::forget_unbound as forget_unbound_sequences;
pub use state::{Context, Grants, Source, bound, generation, grants, in_maintenance, in_migration, refuse_elsewhere};

use crate::level::Level;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::App, "set_tenant"),
    (Level::App, "set_tenant_by_slug"),
    (Level::Admin, "rebind_tenant"),
    (Level::Client, "clear_tenant"),
    (Level::Public, "current_tenant"),
    (Level::Public, "current_tenant_text"),
    (Level::Public, "current_tenant_key_text"),
    (Level::Public, "current_tenant_key_bigint"),
    (Level::Public, "current_tenant_or_null"),
    (Level::Public, "current_user_id"),
    (Level::Public, "current_principal"),
    (Level::Public, "assert_tenant"),
];

/// Registers the settings.
pub fn init() {
    setting::init();
}
