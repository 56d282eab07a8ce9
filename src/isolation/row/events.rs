//! Event triggers: a partition or child of a protected table is protected in the statement that makes it one, and stays so when it is
//! detached; row security and the policies stay as they were made, and no parent opens it; a materialised view over a protected table fails; an exempt view that is defined anew is exempt no more; what is dropped is forgotten.

use super::inspect;
use super::matview;
use super::protect;
use super::registry;
use super::status;
use crate::context;
use crate::error::{Error, Result, SqlResult};
use crate::guard;
use crate::label::PROVIDER;
use crate::own_ddl;
use crate::query;
use crate::raw;
use crate::relation;
use pgrx::pg_sys;
use pgrx::prelude::*;

const ANY_PROTECTED: &str = "SELECT true FROM tenancy.protected_tables LIMIT 1";
const CHANGED: &str = "SELECT DISTINCT objid FROM pg_catalog.pg_event_trigger_ddl_commands()
    WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND object_type IN ('table', 'table column', 'foreign table', 'materialized view')
      AND command_tag <> 'SECURITY LABEL'";
const GUARDS_CHANGED: &str = "SELECT DISTINCT p.table_name::oid FROM pg_catalog.pg_event_trigger_ddl_commands() c
    LEFT JOIN pg_catalog.pg_policy l ON c.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND l.oid = c.objid
    JOIN tenancy.protected_tables p ON p.table_name::oid = coalesce(l.polrelid, c.objid)
    WHERE c.command_tag IN ('ALTER TABLE', 'ALTER POLICY')";
const GUARDS_DROPPED: &str = "SELECT DISTINCT p.table_name::oid FROM pg_catalog.pg_event_trigger_dropped_objects() d
    JOIN pg_catalog.pg_namespace n ON n.nspname = d.address_names[1]
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = d.address_names[2]
    JOIN tenancy.protected_tables p ON p.table_name::oid = c.oid
    WHERE d.object_type = 'policy'";
/// Children without protection of a table that has it, where one of the two was just changed.
const NEW_CHILDREN: &str = "SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i
    JOIN tenancy.protected_tables p ON p.table_name = i.inhparent
    WHERE (i.inhrelid = $1 OR i.inhparent = $1)
      AND NOT EXISTS (SELECT FROM tenancy.protected_tables c WHERE c.table_name = i.inhrelid)";
/// A protected table's parent that is not protected, where one of the two was just changed.
const OPEN_PARENT: &str =
    "SELECT i.inhrelid::pg_catalog.regclass::pg_catalog.text, i.inhparent::pg_catalog.regclass::pg_catalog.text
    FROM pg_catalog.pg_inherits i JOIN tenancy.protected_tables p ON p.table_name = i.inhrelid
    WHERE (i.inhrelid = $1 OR i.inhparent = $1)
      AND NOT EXISTS (SELECT FROM tenancy.protected_tables q WHERE q.table_name = i.inhparent) LIMIT 1";
/// The tenant column may have been renamed: the policy knows which one it is.
const UPDATE_COLUMN: &str = "UPDATE tenancy.protected_tables p SET tenant_column = a.attname
    FROM pg_catalog.pg_policy l
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = l.oid
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = l.polrelid AND d.refobjsubid > 0
    JOIN pg_catalog.pg_attribute a ON a.attrelid = l.polrelid AND a.attnum = d.refobjsubid
    WHERE l.polname = 'tenancy_isolation' AND p.table_name::oid = l.polrelid AND p.tenant_column <> a.attname
      AND p.root = (SELECT root FROM tenancy.protected_tables WHERE table_name = $1)";
const WAS_ALTERED: &str = "SELECT true FROM pg_catalog.pg_event_trigger_ddl_commands() c
    JOIN tenancy.protected_tables p ON p.table_name::oid = c.objid
    WHERE c.objid = $1 AND c.command_tag = 'ALTER TABLE'";
/// What was detached is a root of its own from now on, with all that is below it.
const UPDATE_ROOTS: &str = "WITH RECURSIVE ancestors(member, ancestor) AS (
        SELECT p.table_name::oid, p.table_name::oid FROM tenancy.protected_tables p
        WHERE p.root = (SELECT root FROM tenancy.protected_tables WHERE table_name = $1)
        UNION SELECT a.member, i.inhparent FROM ancestors a
            JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.ancestor
            JOIN tenancy.protected_tables q ON q.table_name = i.inhparent
    ), roots AS (
        SELECT DISTINCT ON (member) member, ancestor FROM ancestors
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN tenancy.protected_tables q ON q.table_name = i.inhparent
                          WHERE i.inhrelid = ancestor)
        ORDER BY member, ancestor
    )
    UPDATE tenancy.protected_tables p SET root = roots.ancestor FROM roots
    WHERE p.table_name::oid = roots.member AND p.root::oid <> roots.ancestor";
const FORGET_TABLES: &str =
    "DELETE FROM tenancy.protected_tables p USING pg_catalog.pg_event_trigger_dropped_objects() d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0 AND p.table_name::oid = d.objid";
const FORGET_ADOPTIONS: &str = "DELETE FROM tenancy.adoptions a USING pg_catalog.pg_event_trigger_dropped_objects() d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0 AND a.table_name::oid = d.objid";
const OPEN_CHILDREN: &str = "SELECT i.inhrelid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_inherits i
    JOIN tenancy.protected_tables p ON p.table_name = i.inhparent
    WHERE NOT EXISTS (SELECT FROM tenancy.protected_tables c WHERE c.table_name = i.inhrelid) LIMIT 1";
/// Tables that were just labelled as protected and are not closed yet: a restore labels a table before it loads its rows, and makes its
/// policies last. Should it stop in between, the table is closed.
const LABELLED: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_event_trigger_ddl_commands() d
    JOIN pg_catalog.pg_class c ON c.oid = d.objid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind IN ('r', 'p')
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_seclabel s ON s.provider = 'pg_tenancy' AND s.objoid = c.oid AND s.label = 'protected'
        AND s.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
    WHERE d.command_tag = 'SECURITY LABEL' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)";
/// Exempt views that were just defined anew: replaced, or given a rule. A superuser's rule may be a restore's, which comes after the label.
const DEFINED_VIEWS: &str = "SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_event_trigger_ddl_commands() d
    LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
    JOIN pg_catalog.pg_class c ON c.oid = CASE WHEN r.oid IS NULL THEN d.objid ELSE r.ev_class END AND c.relkind = 'v'
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_seclabel s ON s.provider = 'pg_tenancy' AND s.objoid = c.oid
        AND s.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
    WHERE d.command_tag = 'CREATE VIEW'
       OR r.rulename = '_RETURN' OR r.oid IS NOT NULL AND NOT $1";

/// Protects every unprotected child that `changed` is or has, level by level.
fn protect_children(changed: pg_sys::Oid) -> Result<()> {
    let children: Vec<(pg_sys::Oid, pg_sys::Oid)> =
        query::rows(NEW_CHILDREN, &[changed.into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
    for (child, parent) in children {
        let Some(protection) = registry::registered(parent)? else { continue };
        protect::protect_all(&inspect::hierarchy(child)?, &protection)?;
        matview::refuse_all()?;
    }
    Ok(())
}

/// A check of existing rows (a new constraint's, a foreign key's) would see the bound tenant's only, and hold for all from then on.
fn refuse_while_bound(relation: pg_sys::Oid) -> Result<()> {
    if context::bound().is_some()
        && guard::session_is_guarded()
        && query::value::<bool>(WAS_ALTERED, &[relation.into()])?.is_some()
    {
        return Err(Error::Unprotectable(
            "a protected table cannot be altered while a tenant is bound".to_owned(),
            "What the statement checks would be checked for that tenant only. Alter it in a transaction of its own."
                .to_owned(),
        ));
    }
    Ok(())
}

/// Fails when a protected table has become a partition or child of one that is not: the policies of the table that a statement names are those that
/// hold, and so its rows would be everybody's through that. Superusers make such mistakes too; a restore attaches before it protects.
fn refuse_open_parent(changed: pg_sys::Oid) -> Result<()> {
    let found = query::current_rows(OPEN_PARENT, &[changed.into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<String>(2)?))
    })?;
    match found.into_iter().next() {
        None => Ok(()),
        Some((child, parent)) => Err(inspect::open_parent(&child, &parent)),
    }
}

/// Fails when the statement has opened a protected table. Owners' tools that compare models with the database would do that without a word; a
/// superuser may, as a restore does that begins by removing what is there. Our own DDL changes row security of tables that it does not make only to protect
/// them or to take that off; in what makes a schema, users' code runs.
fn refuse_opened(changed: &'static str) -> Result<()> {
    let may = if own_ddl::is_running() {
        !guard::schema::is_worked_on()
    } else {
        // SAFETY: reads the role's attributes.
        unsafe { pg_sys::superuser_arg(raw::GetOuterUserId()) }
    };
    if may {
        return Ok(());
    }
    for table in query::rows(changed, &[], |row| row.must::<pg_sys::Oid>(1))? {
        if let Some(protection) = registry::registered(table)?
            && !status::is_closed(table, &protection)?
        {
            return Err(Error::Opened(relation::name(table)));
        }
    }
    Ok(())
}

/// Fails when a child of a protected table is not protected, or a materialised view copies rows out of one: after DDL that the triggers did not look
/// at, in which users' code may have run.
pub fn verify_protection() -> Result<()> {
    if query::value::<bool>(ANY_PROTECTED, &[])?.is_none() {
        return Ok(());
    }
    if let Some(child) = query::current_rows(OPEN_CHILDREN, &[], |row| row.must::<String>(1))?.into_iter().next() {
        return Err(Error::Unprotectable(
            format!("{child} has become a child of a protected table meanwhile"),
            "A function of the schema does that: a check, a default or an index calls it.".to_owned(),
        ));
    }
    matview::refuse_all()
}

/// The statement that the running event trigger was called for.
///
/// # Safety
/// `fcinfo` is the record of a call by the event trigger's machinery.
pub unsafe fn command_tag(fcinfo: pg_sys::FunctionCallInfo) -> Option<pg_sys::CommandTag::Type> {
    // SAFETY: the caller's promise; the context of such a call is an EventTriggerData.
    unsafe {
        let context = (*fcinfo).context;
        let is_ours = !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_EventTriggerData;
        is_ours.then(|| (*context.cast::<pg_sys::EventTriggerData>()).tag)
    }
}

#[pg_extern(sql = "CREATE FUNCTION tenancy.on_ddl_command_end() RETURNS event_trigger
    LANGUAGE c SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn on_ddl_command_end(fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    use pg_sys::CommandTag::{CMDTAG_ALTER_POLICY, CMDTAG_ALTER_TABLE, CMDTAG_CREATE_RULE, CMDTAG_CREATE_VIEW};
    // SAFETY: PostgreSQL is calling this function with this record.
    let tag = unsafe { command_tag(fcinfo) };
    // Users' code may run within our own DDL. What it does to views and to row security is looked at here, the rest by verify_protection().
    if own_ddl::is_running() && !matches!(tag, Some(CMDTAG_CREATE_RULE | CMDTAG_CREATE_VIEW)) {
        if matches!(tag, Some(CMDTAG_ALTER_TABLE | CMDTAG_ALTER_POLICY)) {
            refuse_opened(GUARDS_CHANGED)?;
        }
        return Ok(());
    }
    for table in query::rows(LABELLED, &[], |row| row.must::<String>(1))? {
        query::statement(
            &format!("ALTER TABLE ONLY {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"),
            &[],
        )?;
    }
    if query::value::<bool>(ANY_PROTECTED, &[])?.is_none() {
        return Ok(());
    }
    // SAFETY: reads the role's attributes.
    let by_superuser = unsafe { pg_sys::superuser_arg(raw::GetOuterUserId()) };
    for view in query::rows(DEFINED_VIEWS, &[by_superuser.into()], |row| row.must::<String>(1))? {
        query::statement(&format!("SECURITY LABEL FOR {PROVIDER} ON VIEW {view} IS NULL"), &[])?;
    }
    let changed: Vec<pg_sys::Oid> = query::rows(CHANGED, &[], |row| row.must(1))?;
    for relation in changed {
        refuse_while_bound(relation)?;
        query::run(UPDATE_COLUMN, &[relation.into()])?;
        protect_children(relation)?;
        refuse_open_parent(relation)?;
        query::run(UPDATE_ROOTS, &[relation.into()])?;
        matview::refuse(relation)?;
    }
    refuse_opened(GUARDS_CHANGED)?;
    Ok(())
}

#[pg_extern(sql = "CREATE FUNCTION tenancy.on_sql_drop() RETURNS event_trigger
    LANGUAGE c SECURITY DEFINER SET search_path TO pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn on_sql_drop() -> SqlResult<()> {
    query::run(FORGET_TABLES, &[])?;
    query::run(FORGET_ADOPTIONS, &[])?;
    refuse_opened(GUARDS_DROPPED)?;
    Ok(())
}
