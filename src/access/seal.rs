//! Sealing: what ends every install and upgrade script. PostgreSQL lets everyone execute a new function; ours are for the roles
//! that hold its level.

use super::{functions, marker};
use crate::error::{Error, SqlResult};
use crate::level::Level;
use crate::query;
use crate::role;
use pgrx::pg_sys;
use pgrx::prelude::*;

const OPEN_SCHEMA: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) acl
    WHERE e.extname = 'pg_tenancy' AND acl.grantee = 0 AND acl.privilege_type = 'CREATE'";
const MEMBERS: &str = "SELECT CASE WHEN n.nspname = 'tenancy' THEN 'tenancy.' || p.proname ELSE p.proname::text END,
        pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)), p.prokind::text
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_tenancy'
    JOIN pg_catalog.pg_proc p ON p.oid = d.objid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
      AND d.deptype = 'e'";
const MAY_EXECUTE: &str = "SELECT pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE') FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_proc p ON p.oid = pg_catalog.to_regprocedure(CASE WHEN $2 LIKE 'tenancy.%' THEN $2
        ELSE pg_catalog.format('%I.%s', (SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = e.extnamespace), $2) END)
    WHERE e.extname = 'pg_tenancy'";

/// Refuses an open schema, then revokes EXECUTE on every member function from PUBLIC but for the allow-list. Fails when a
/// function has no level, so that none is forgotten.
#[pg_extern(schema = "tenancy", volatile)]
fn seal() -> SqlResult<bool> {
    if let Some(schema) = query::value::<String>(OPEN_SCHEMA, &[])? {
        return Err(Error::OpenSchema(schema).into());
    }
    let members: Vec<(String, String, String)> =
        query::rows(MEMBERS, &[], |row| Ok((row.must(1)?, row.must(2)?, row.must(3)?)))?;
    for (name, signature, kind) in members {
        let (level, _) = functions()
            .find(|(_, known)| *known == name)
            .ok_or_else(|| Error::Internal(format!("function {name} has no level")))?;
        if level != Level::Public {
            let kind = if kind == "p" { "PROCEDURE" } else { "FUNCTION" };
            query::statement(&format!("REVOKE ALL ON {kind} {signature} FROM PUBLIC"), &[])?;
        }
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
