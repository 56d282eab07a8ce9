//! Sealing: what ends every install and upgrade script. PostgreSQL lets everyone execute a new function; ours are for the roles
//! that hold its level.

use super::{functions, marker};
use crate::error::{Error, SqlResult};
use crate::extension;
use crate::level::Level;
use crate::query;
use crate::role;
use pgrx::pg_sys;
use pgrx::prelude::*;

const OPEN_SCHEMA: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) acl
    WHERE e.extname = 'pg_tenancy' AND acl.grantee = 0 AND acl.privilege_type = 'CREATE'";
const MAY_EXECUTE: &str = "SELECT pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE') FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_proc p ON p.oid = pg_catalog.to_regprocedure(CASE WHEN $2 LIKE 'tenancy.%' THEN $2
        ELSE pg_catalog.format('%I.%s', (SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = e.extnamespace), $2) END)
    WHERE e.extname = 'pg_tenancy'";

/// Refuses an open schema, then revokes EXECUTE on every member function from PUBLIC but for the allow-list, which is granted whatever
/// the default privileges are. Fails when a function has no level, so that none is forgotten.
#[pg_extern(schema = "tenancy", volatile)]
fn seal() -> SqlResult<bool> {
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
    Ok(true)
}

/// Whether the session's role holds operator or admin, and so sees the product's tables whole.
#[pg_extern(schema = "tenancy", stable, parallel_restricted)]
fn sees_all_tenants() -> SqlResult<bool> {
    // SAFETY: reads the current role.
    let caller = unsafe { pg_sys::GetUserId() };
    let held =
        role::as_extension_owner(|| query::value(MAY_EXECUTE, &[caller.into(), marker(Level::Operator).into()]))?;
    Ok(held.unwrap_or(false))
}
