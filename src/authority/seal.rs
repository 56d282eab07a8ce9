//! Sealing: what ends every install and upgrade script. PostgreSQL lets everyone execute a new function; ours are for the roles
//! that hold its level.

use super::{functions, marker};
use crate::context;
use crate::error::{Error, Result, SqlResult};
use crate::extension;
use crate::level::Level;
use crate::monitor;
use crate::query;
use crate::role;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

const OPEN_SCHEMA: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) acl
    WHERE e.extname = 'pg_tenancy' AND acl.grantee = 0 AND acl.privilege_type = 'CREATE'";
const MAY_EXECUTE: &str = "SELECT pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE') FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_proc p ON p.oid = pg_catalog.to_regprocedure(CASE WHEN $2 LIKE 'tenancy.%' THEN $2
        ELSE pg_catalog.format('%I.%s', (SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = e.extnamespace), $2) END)
    WHERE e.extname = 'pg_tenancy'";

/// The session that makes the extension, which may go on to restore a dump (see [`crate::maintenance`]).
const FORGET_MAKER: &str = "DELETE FROM tenancy.installation";
const NOTE_MAKER: &str = "INSERT INTO tenancy.installation (pid, backend_start)
    SELECT pid, backend_start FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())";

/// Refuses an open schema, then revokes EXECUTE on every member function from PUBLIC but for the allow-list, which is granted whatever
/// the default privileges are. Fails when a function has no level, so that none is forgotten.
#[pg_extern(schema = "tenancy", volatile)]
fn seal() -> SqlResult<bool> {
    // SAFETY: a plain read.
    if unsafe { pg_sys::GetDatabaseEncoding() } != pg_sys::pg_enc::PG_UTF8 as i32 {
        return Err(Error::Encoding.into());
    }
    if let Some(schema) = query::value::<String>(OPEN_SCHEMA, &[])? {
        return Err(Error::OpenSchema(schema).into());
    }
    for function in extension::functions()? {
        let (level, _) = functions()
            .find(|(_, known)| *known == function.name)
            .ok_or_else(|| Error::Internal(format!("function {} has no level", function.name)))?;
        let (change, preposition) =
            if level == Level::Public { ("GRANT EXECUTE ON", "TO") } else { ("REVOKE ALL ON", "FROM") };
        query::statement(&format!("{change} {} {preposition} PUBLIC", function.object), &[])?;
    }
    query::run(FORGET_MAKER, &[])?;
    query::run(NOTE_MAKER, &[])?;
    // Once everyone sees the extension, its workers come.
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, monitor::announce);
    Ok(true)
}

/// The tenants whose rows in the product's tables the session's role sees, as a range, which an index finds: all for operator and admin, the
/// bound one for others, none (None) when there is none.
fn visible_tenants() -> Result<Option<(Uuid, Uuid)>> {
    if holds_operator()? {
        return Ok(Some((Uuid::from_bytes([0; 16]), Uuid::from_bytes([0xff; 16]))));
    }
    Ok(context::bound().map(|bound| Uuid::from_bytes(bound.tenant)).map(|tenant| (tenant, tenant)))
}

/// The lowest tenant that the role sees.
#[pg_extern(schema = "tenancy", stable, parallel_restricted)]
fn first_visible_tenant() -> SqlResult<Option<Uuid>> {
    Ok(visible_tenants()?.map(|(first, _)| first))
}

/// The highest tenant that the role sees.
#[pg_extern(schema = "tenancy", stable, parallel_restricted)]
fn last_visible_tenant() -> SqlResult<Option<Uuid>> {
    Ok(visible_tenants()?.map(|(_, last)| last))
}

/// Whether the session's role holds operator or admin, and so sees the product's tables whole.
#[pg_extern(schema = "tenancy", stable, parallel_restricted)]
fn sees_all_tenants() -> SqlResult<bool> {
    Ok(holds_operator()?)
}

fn holds_operator() -> Result<bool> {
    // SAFETY: reads the current role.
    let caller = unsafe { pg_sys::GetUserId() };
    let held =
        role::as_extension_owner(|| query::value(MAY_EXECUTE, &[caller.into(), marker(Level::Operator).into()]))?;
    Ok(held.unwrap_or(false))
}
