//! Event triggers: the registry follows what DBAs do with schemas by hand. Which tenant a schema belongs to is its label, so a schema that is renamed
//! stays the tenant's, and one that is restored becomes it again.

use crate::error::SqlResult;
use crate::isolation::row;
use crate::own_ddl;
use crate::query;
use pgrx::pg_sys;
use pgrx::prelude::*;

const RENAME_TENANTS: &str = "UPDATE tenancy.tenants t SET schema_name = n.nspname
    FROM pg_catalog.pg_event_trigger_ddl_commands() d
    JOIN pg_catalog.pg_namespace n ON d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.oid = d.objid
    JOIN pg_catalog.pg_seclabel s ON s.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND s.objoid = n.oid AND s.provider = 'pg_tenancy'
    WHERE s.label = 'tenant: ' || t.id::pg_catalog.text AND t.isolation = 'schema' AND t.schema_name IS DISTINCT FROM n.nspname
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace o WHERE o.nspname = t.schema_name)";
const RENAME_TEMPLATES: &str = "UPDATE tenancy.templates t SET schema_name = n.nspname
    FROM pg_catalog.pg_event_trigger_ddl_commands() d
    JOIN pg_catalog.pg_namespace n ON d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.oid = d.objid
    JOIN pg_catalog.pg_seclabel s ON s.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND s.objoid = n.oid AND s.provider = 'pg_tenancy'
    WHERE s.label = 'template: ' || t.template AND t.schema_name <> n.nspname
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace o WHERE o.nspname = t.schema_name)";
const DROP: &str =
    "UPDATE tenancy.tenants t SET schema_name = NULL FROM pg_catalog.pg_event_trigger_dropped_objects() d
    WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND t.schema_name = d.object_name AND t.isolation = 'schema'";

#[pg_extern(sql = "CREATE FUNCTION tenancy.on_schema_change() RETURNS event_trigger
    LANGUAGE c SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn on_schema_change(fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this function with this record.
    let tag = unsafe { row::command_tag(fcinfo) };
    // The label of a schema that is being made.
    if own_ddl::is_running() && tag == Some(pg_sys::CommandTag::CMDTAG_SECURITY_LABEL) {
        return Ok(());
    }
    query::run(RENAME_TENANTS, &[])?;
    query::run(RENAME_TEMPLATES, &[])?;
    Ok(())
}

#[pg_extern(sql = "CREATE FUNCTION tenancy.on_schema_drop() RETURNS event_trigger
    LANGUAGE c SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn on_schema_drop() -> SqlResult<()> {
    query::run(DROP, &[])?;
    Ok(())
}
