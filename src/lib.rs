//! pg_tenancy: multi-tenancy as a property of the database.
//!
//! The tour, from the floor up: [`error`] and the small modules beside it, which know nothing of tenants being bound; [`monitor`], the
//! shared memory; [`context`], who is asking; [`audit`]; [`guard`], the hooks; then the domains: [`access`], people and their credentials;
//! [`isolation`]; [`fleet`], migrations by background workers ([`worker`]); [`metering`], what a tenant may have and what it used;
//! [`database`], databases of tenants' own; [`tenant`] on all of these; [`transfer`], a tenant on its way; [`maintenance`], the workers that do by
//! themselves what is due; and [`authority`], which knows the functions of all.
//! Each domain has its SQL in `sql/<name>.sql`, metering in `sql/metering/`, and its tests in `tests/<name>.rs`.

mod backend;
mod changes;
mod erased;
mod error;
mod extension;
mod fields;
mod holder;
mod home;
mod json;
mod label;
mod level;
mod lock_tag;
mod namespace;
mod one_row;
mod own_ddl;
mod procedure;
mod query;
mod raw;
mod relation;
mod role;
mod routine;
mod row_file;
mod scan;
mod scratch;
mod secrecy;
mod sqltype;
mod store;
mod text;
mod uuid;
mod version;

mod monitor;

mod context;

mod audit;
mod guard;

mod access;
mod isolation;

mod worker;

mod fleet;
mod metering;

mod database;
mod tenant;
mod transfer;

mod maintenance;

mod authority;

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name = c"pg_tenancy", version = c"0.1.0");

extension_sql_file!("../sql/bootstrap.sql", name = "bootstrap", bootstrap);

/// Tells pgrx of the schema that bootstrap.sql creates.
#[pg_schema]
mod tenancy {}

/// Runs when the server loads the library at its start.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: plain reads of the server's state.
    let (starting, upgrading) =
        unsafe { (pg_sys::process_shared_preload_libraries_in_progress, pg_sys::IsBinaryUpgrade) };
    if upgrading {
        // pg_upgrade only moves the catalogs, labels among them: no hooks, no settings, no shared memory.
        label::init();
        return;
    }
    if !starting {
        error::raise(error::Error::NotPreloaded);
    }
    monitor::init();
    context::init();
    secrecy::init();
    access::init();
    metering::init();
    database::init();
    guard::init();
    label::init();
    maintenance::init();
    // SAFETY: a constant C string; from here on nobody can invent settings with our prefix.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"tenancy".as_ptr()) };
}
