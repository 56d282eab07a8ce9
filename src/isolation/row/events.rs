//! Event triggers: a partition or child of a protected table is protected in the statement that makes it one; a materialised view over
//! a protected table fails; what is dropped is forgotten.

use super::inspect;
use super::matview;
use super::protect;
use crate::error::{Result, SqlResult};
use crate::query;
use pgrx::pg_sys;
use pgrx::prelude::*;

const ANY_PROTECTED: &str = "SELECT true FROM tenancy.protected_tables LIMIT 1";
const CHANGED: &str = "SELECT DISTINCT objid FROM pg_catalog.pg_event_trigger_ddl_commands()
    WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND object_type IN ('table', 'foreign table', 'materialized view')";
/// Children without protection of a table that has it, where one of the two was just changed.
const NEW_CHILDREN: &str = "SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i
    JOIN tenancy.protected_tables p ON p.table_name = i.inhparent
    WHERE (i.inhrelid = $1 OR i.inhparent = $1)
      AND NOT EXISTS (SELECT FROM tenancy.protected_tables c WHERE c.table_name = i.inhrelid)";
const FORGET_TABLES: &str =
    "DELETE FROM tenancy.protected_tables p USING pg_catalog.pg_event_trigger_dropped_objects() d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0 AND p.table_name::oid = d.objid";
const FORGET_EXEMPTIONS: &str =
    "DELETE FROM tenancy.definer_exemptions e USING pg_catalog.pg_event_trigger_dropped_objects() d
    WHERE d.object_type = e.kind AND d.object_identity = e.object";

/// Protects every unprotected child that `changed` is or has, level by level.
fn protect_children(changed: pg_sys::Oid) -> Result<()> {
    let children: Vec<(pg_sys::Oid, pg_sys::Oid)> =
        query::rows(NEW_CHILDREN, &[changed.into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
    for (child, parent) in children {
        let Some(protection) = protect::registered(parent)? else { continue };
        protect::protect_all(&inspect::hierarchy(child)?, &protection)?;
    }
    Ok(())
}

#[pg_extern(sql = "CREATE FUNCTION tenancy.on_ddl_command_end() RETURNS event_trigger
    LANGUAGE c SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn on_ddl_command_end() -> SqlResult<()> {
    if protect::is_protecting() || query::value::<bool>(ANY_PROTECTED, &[])?.is_none() {
        return Ok(());
    }
    let changed: Vec<pg_sys::Oid> = query::rows(CHANGED, &[], |row| row.must(1))?;
    for relation in changed {
        protect_children(relation)?;
        matview::refuse(relation)?;
    }
    Ok(())
}

#[pg_extern(sql = "CREATE FUNCTION tenancy.on_sql_drop() RETURNS event_trigger
    LANGUAGE c SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn on_sql_drop() -> SqlResult<()> {
    query::run(FORGET_TABLES, &[])?;
    query::run(FORGET_EXEMPTIONS, &[])?;
    Ok(())
}
