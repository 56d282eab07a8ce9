//! The guard: hooks that close what row security leaves open.
//!
//! - [`permissions`]: an object of a role that bypasses row security opens no protected table to one that does not; a write takes
//!   the tenant's lock and checks its state again.
//! - [`schema`]: which schemas of tenants the session may use now.
//! - [`objects`]: TRUNCATE, which row security does not see, and what else reaches into a schema.
//! - [`sequences`]: sequences that are named by oid.
//! - [`function`]: functions that run inside a referential action see their tenant only.
//! - [`index_paths`]: which indexes serve conditions that row security makes wait.
//! - [`operator_class`]: which of them keep other tenants' keys to themselves.
//! - [`fuzzy_search`]: results of a search do not depend on how many rows others have.
//! - [`statistics`]: planning tells nothing of other tenants' values.
//! - [`explain`]: counts of rows that were passed over.
//! - [`lock`]: the lock that a writer shares and a change of state takes alone.
//! - [`exemption`]: what an administrator has exempted by name.
//!
//! Roles that bypass row security themselves bypass these hooks, so that pg_dump and restores work; owners do not.

mod exemption;
mod explain;
mod function;
mod fuzzy_search;
mod index_paths;
pub mod lock;
mod objects;
pub mod operator_class;
mod permissions;
pub mod schema;
mod sequences;
mod statistics;

use crate::context;
use crate::error::{Error, raise};
use crate::level::Level;
use crate::monitor::{self, Refusal};
use pgrx::pg_sys;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Public, "tenancy_guard"),
    (Level::Public, "tenancy.refuse_row"),
    (Level::Public, "tenancy.nextval"),
    (Level::Public, "tenancy.setval"),
    (Level::Admin, "allow_definer"),
    (Level::Admin, "disallow_definer"),
];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Admin, "tenancy.definer_exemptions")];

/// Registers the hooks.
pub fn init() {
    exemption::init();
    explain::init();
    permissions::init();
    objects::init();
    function::init();
    fuzzy_search::init();
    index_paths::init();
    statistics::init();
    sequences::init();
}

/// Counts a refusal for the bound tenant and raises it.
#[cold]
fn refuse(error: Error) -> ! {
    monitor::count(context::bound().map(|context| context.tenant).as_ref(), Refusal::Guard);
    raise(error)
}

/// Whether the session's role is bound by row security; what it runs as inside a definer function does not count.
pub fn session_is_guarded() -> bool {
    // SAFETY: reads the session's role and looks up its attributes.
    unsafe { !pg_sys::has_bypassrls_privilege(pg_sys::GetOuterUserId()) }
}
