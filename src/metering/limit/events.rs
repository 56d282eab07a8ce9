//! Event triggers: new partitions and children are limited as their parents are, conditions stay readable, and what changes a table as a whole
//! makes its counters void.

use super::resources;
use super::table::{self, Member};
use super::{counter, known, recount};
use crate::error::{Error, Result, SqlResult};
use crate::label::Use;
use crate::namespace;
use crate::own_ddl;
use crate::query;
use crate::raw::fallible_function;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{PgTryBuilder, Uuid, pg_sys};

const CHANGED: &str = "SELECT DISTINCT objid FROM pg_catalog.pg_event_trigger_ddl_commands()
    WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND object_type IN ('table', 'table column')";
/// Children that lack a trigger of their limited parent, where one of the two was just changed.
const CHILDREN: &str = "SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i
    WHERE (i.inhrelid = $1 OR i.inhparent = $1) AND EXISTS (SELECT FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = i.inhparent AND t.tgfoid = 'tenancy.count_rows()'::pg_catalog.regprocedure
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger c WHERE c.tgrelid = i.inhrelid AND c.tgfoid = t.tgfoid
                            AND c.tgtype = t.tgtype AND c.tgargs = t.tgargs))
    ORDER BY i.inhrelid";
/// Triggers of ours that were made by hand, which is by a restore, each with its arguments and its table's schema.
const MADE: &str = "SELECT t.tgargs, c.relnamespace FROM pg_catalog.pg_event_trigger_ddl_commands() d
    JOIN pg_catalog.pg_trigger t ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid
    JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    WHERE t.tgfoid = 'tenancy.count_rows()'::pg_catalog.regprocedure AND t.tgtype = 4 AND t.tgnargs > 0";
/// Tables with a condition that uses what was just changed.
const USERS: &str = "SELECT DISTINCT t.tgrelid FROM pg_catalog.pg_event_trigger_ddl_commands() d
    JOIN pg_catalog.pg_depend p ON p.refclassid = d.classid AND p.refobjid = d.objid
        AND p.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
    JOIN pg_catalog.pg_trigger t ON t.oid = p.objid AND t.tgfoid = 'tenancy.count_rows()'::pg_catalog.regprocedure
    WHERE t.tgrelid <> d.objid";
/// Tables whose triggers of ours were made by hand, which is by a restore.
const TABLES_MADE: &str = "SELECT DISTINCT t.tgrelid FROM pg_catalog.pg_event_trigger_ddl_commands() d
    JOIN pg_catalog.pg_trigger t ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid
    WHERE t.tgfoid = 'tenancy.count_rows()'::pg_catalog.regprocedure AND t.tgnargs > 1";
/// A trigger of ours that would go with what its condition uses, while its table stays.
const TAKEN_ALONG: &str = "SELECT d.address_names[1] || '.' || d.address_names[2], d.address_names[3]
    FROM pg_catalog.pg_event_trigger_dropped_objects() d
    WHERE d.object_type = 'trigger' AND d.address_names[3] LIKE 'tenancy\\_limit\\_%' AND NOT d.original AND d.normal
      AND EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = d.address_names[1] AND c.relname = d.address_names[2])
    LIMIT 1";
/// Triggers of ours that are gone, with the schema of their table and its tenant.
const DROPPED: &str = "SELECT d.address_names[3], t.id FROM pg_catalog.pg_event_trigger_dropped_objects() d
    LEFT JOIN tenancy.tenants t ON t.schema_name = d.address_names[1]::pg_catalog.name
    WHERE d.object_type = 'trigger' AND d.address_names[3] LIKE 'tenancy\\_limit\\_%\\_insert' ORDER BY t.id";

/// Puts a parent's limits on a child and all that inherits from it.
fn limit_child(child: pg_sys::Oid, parent: pg_sys::Oid) -> Result<()> {
    let limits = table::limits_of(parent)?;
    for member in table::hierarchy(child)? {
        for limited in &limits {
            if !table::is_limited(member.oid, limited)? {
                table::create(&member, limited)?;
            }
        }
    }
    Ok(())
}

/// Fails when a condition on the table means nothing any more; its counters are void.
fn look_again(changed: &Member) -> Result<()> {
    for limited in table::limits_of(changed.oid)? {
        if let Some(text) = &limited.condition {
            let read = || changed.canonical(text).map(drop);
            PgTryBuilder::new(read)
                .catch_others(|error| Err(unreadable(changed, &limited.resource, &error)))
                .execute()?;
        }
        match namespace::usage(changed.namespace) {
            Some(Use::Template | Use::Moved(_)) => {}
            Some(Use::Tenant(tenant)) => counter::forget(&limited.resource, &[tenant])?,
            None => counter::forget_all(&limited.resource)?,
        }
    }
    Ok(())
}

fn unreadable(table: &Member, resource: &str, error: &CaughtError) -> Error {
    let why = match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.message().to_owned(),
        CaughtError::RustPanic { ereport, .. } => ereport.message().to_owned(),
    };
    Error::Unprotectable(
        format!("the condition by which {} is limited by \"{resource}\" cannot be read any more: {why}", table.name),
        "Call unlimit_table() first, then limit_table() with another condition.".to_owned(),
    )
}

/// Rows that were there before the trigger count from now on.
fn note_restored() -> Result<()> {
    let made: Vec<(Vec<u8>, pg_sys::Oid)> = query::rows(MADE, &[], |row| Ok((row.must(1)?, row.must(2)?)))?;
    for (arguments, schema) in made {
        let Some(resource) = recount::arguments(&arguments).into_iter().next() else { continue };
        let is_known = resources::counted()?.contains(&resource);
        match namespace::usage(schema) {
            Some(Use::Tenant(tenant)) => counter::forget(&resource, &[tenant])?,
            Some(Use::Template | Use::Moved(_)) => {}
            None if is_known => resources::renew(&resource)?,
            None => {}
        }
        if !is_known {
            resources::renew_as(&resource, true)?;
        }
    }
    for table in query::rows(TABLES_MADE, &[], |row| row.must::<pg_sys::Oid>(1))? {
        let member = table::hierarchy(table)?.swap_remove(0);
        for limited in table::limits_of(table)? {
            table::note_uses(&member, &limited)?;
        }
    }
    Ok(())
}

#[pg_extern(sql = "CREATE FUNCTION tenancy.on_limited_change() RETURNS event_trigger
    LANGUAGE c SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn on_limited_change() -> SqlResult<()> {
    if own_ddl::is_running() {
        return Ok(());
    }
    note_restored()?;
    if resources::counted()?.is_empty() {
        return Ok(());
    }
    let changed: Vec<pg_sys::Oid> = query::rows(CHANGED, &[], |row| row.must(1))?;
    for relation in changed {
        let children: Vec<(pg_sys::Oid, pg_sys::Oid)> =
            query::rows(CHILDREN, &[relation.into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
        for (child, parent) in children {
            limit_child(child, parent)?;
        }
        if table::limits_of(relation)?.is_empty() {
            continue;
        }
        look_again(&table::hierarchy(relation)?.swap_remove(0))?;
    }
    for table in query::rows(USERS, &[], |row| row.must::<pg_sys::Oid>(1))? {
        look_again(&table::hierarchy(table)?.swap_remove(0))?;
    }
    Ok(())
}

#[pg_extern(sql = "CREATE FUNCTION tenancy.on_limited_drop() RETURNS event_trigger
    LANGUAGE c SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn on_limited_drop() -> SqlResult<()> {
    if own_ddl::is_running() {
        return Ok(());
    }
    let along = query::first(TAKEN_ALONG, &[], |row| Ok((row.must::<String>(1)?, row.must::<String>(2)?)))?;
    if let Some((table, trigger)) = along {
        return Err(Error::Unprotectable(
            format!(
                "the condition by which {table} is limited uses what is dropped: trigger \"{trigger}\" would go with it"
            ),
            "Call unlimit_table() first, then limit_table() with another condition.".to_owned(),
        )
        .into());
    }
    let dropped: Vec<(String, Option<Uuid>)> = query::rows(DROPPED, &[], |row| Ok((row.must(1)?, row.get(2)?)))?;
    for (trigger, tenant) in dropped {
        match tenant {
            Some(tenant) => counter::erase(tenant).map(drop)?,
            None => {
                let counted = resources::counted()?;
                let of_trigger = counted.iter().filter(|resource| table::trigger_name(resource, "insert") == trigger);
                of_trigger.into_iter().try_for_each(|resource| counter::forget_all(resource))?;
            }
        }
    }
    Ok(())
}

fallible_function! {
    /// The trigger of tenancy.tenants and tenancy.protected_tables: another schema has other rows, and a table that is protected from now on, or
    /// no more, has rows of tenants, or none.
    pg_tenancy_forget_counts, pg_finfo_pg_tenancy_forget_counts, forget_counts
}

/// # Safety
/// `fcinfo` is the record of the running call.
unsafe fn forget_counts(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: a trigger for each row is called with a TriggerData that has one; the first column is the tenant's id, or the table.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return Err(Error::Unsupported("tenancy.forget_counts() is a trigger".to_owned()));
        }
        let trigger = context.cast::<pg_sys::TriggerData>();
        let row = (*trigger).tg_trigtuple;
        let mut is_null = false;
        let key = pg_sys::heap_getattr(row, 1, (*(*trigger).tg_relation).rd_att, &mut is_null);
        if known::argument(trigger, 0).is_none() {
            let id = Uuid::from_datum(key, is_null).ok_or_else(|| Error::Internal("a tenant has no id".to_owned()))?;
            counter::erase(id)?;
        } else {
            let table = pg_sys::Oid::from_datum(key, is_null).unwrap_or(pg_sys::InvalidOid);
            table::limits_of(table)?.iter().try_for_each(|limited| counter::forget_all(&limited.resource))?;
        }
        Ok(pg_sys::Datum::from(row))
    }
}
