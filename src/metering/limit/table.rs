//! `limit_table` and `unlimit_table`: the triggers of a table, its partitions and children, and of the copies of a template's table.

use super::{condition, memberships, recount, resources};
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::guard;
use crate::guard::lock::{Mode, Subject};
use crate::isolation::row::registry;
use crate::json::Object;
use crate::label::Use;
use crate::metering::plan::check_name;
use crate::namespace;
use crate::own_ddl;
use crate::query::{self, ident, literal};
use crate::raw;
use crate::sqltype::RegClass;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use std::ffi::CString;

const HIERARCHY: &str = "WITH RECURSIVE members(oid) AS (
        SELECT $1 UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN members m ON i.inhparent = m.oid
    )
    SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner, c.relkind::pg_catalog.text, c.relnamespace
    FROM members JOIN pg_catalog.pg_class c USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    ORDER BY c.oid <> $1, c.oid";
const ROOT: &str = "SELECT root::pg_catalog.oid, root::pg_catalog.text FROM tenancy.protected_tables WHERE table_name::pg_catalog.oid = $1";
const TRIGGERS: &str =
    "SELECT t.tgname::pg_catalog.text, t.tgargs, t.tgenabled = 'A', t.tgtype FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = $1 AND t.tgfoid = 'tenancy.count_rows()'::pg_catalog.regprocedure ORDER BY t.tgname";
/// The tables of this name in the schemas of a template's tenants, and the template itself.
const COPIES: &str = "SELECT r.oid, t.id FROM tenancy.templates p JOIN tenancy.tenants t ON t.template = p.template
        JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema_name
        JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relkind IN ('r', 'p')
        JOIN pg_catalog.pg_class o ON o.oid = $2 AND o.relname = r.relname
    WHERE p.schema_name = $1::pg_catalog.name ORDER BY t.id";
const TEMPLATE: &str =
    "SELECT template::pg_catalog.text FROM tenancy.templates WHERE schema_name = $1::pg_catalog.name";
const ANY_LEFT: &str = "SELECT true FROM pg_catalog.pg_trigger WHERE tgfoid = 'tenancy.count_rows()'::pg_catalog.regprocedure AND tgtype = 4
        AND pg_catalog.substr(tgargs, 1, pg_catalog.length($1)) = $1 LIMIT 1";
const SILENT_PLANS: &str = "SELECT p.plan FROM tenancy.plans p
    WHERE NOT EXISTS (SELECT FROM tenancy.plan_limits l WHERE l.plan = p.plan AND l.resource = $1 AND l.period = 'total') ORDER BY p.plan";

/// What one trigger sees, as its name, its event and its transition tables.
const EVENTS: [(&str, &str, &str); 4] = [
    ("insert", "INSERT", " REFERENCING NEW TABLE AS tenancy_new"),
    ("update", "UPDATE", " REFERENCING OLD TABLE AS tenancy_old NEW TABLE AS tenancy_new"),
    ("delete", "DELETE", " REFERENCING OLD TABLE AS tenancy_old"),
    ("truncate", "TRUNCATE", ""),
];

/// How the names of our triggers begin.
const PREFIX: &str = "tenancy_limit_";
/// Locks that a table and its tenant's schema take.
const LOCKS_PER_TABLE: usize = 4;
/// Bytes of a name.
const MAX_NAME: usize = 63;

/// A table of a hierarchy.
pub struct Member {
    pub oid: pg_sys::Oid,
    pub name: String,
    pub owner: pg_sys::Oid,
    pub namespace: pg_sys::Oid,
    kind: String,
}

impl Member {
    /// A condition on the table, as PostgreSQL prints it.
    pub fn canonical(&self, text: &str) -> Result<String> {
        guard::schema::while_working_on(&[self.namespace], || condition::canonical(self.oid, self.owner, text))
    }
}

/// How a table is limited.
#[derive(Clone, PartialEq, Eq)]
pub struct Limited {
    pub resource: String,
    pub condition: Option<String>,
}

/// The name of a trigger; another for another resource.
pub fn trigger_name(resource: &str, event: &str) -> String {
    let room = MAX_NAME - PREFIX.len() - 1 - event.len();
    if resource.len() <= room {
        return format!("{PREFIX}{resource}_{event}");
    }
    // A resource's name is ASCII.
    let hash = crc32fast::hash(resource.as_bytes());
    format!("{PREFIX}{}_{hash:08x}_{event}", &resource[..room - 9])
}

/// The table and all that inherits from it, itself first.
pub fn hierarchy(root: pg_sys::Oid) -> Result<Vec<Member>> {
    let members = query::as_of_now(|| {
        query::rows(HIERARCHY, &[root.into()], |row| {
            Ok(Member {
                oid: row.must(1)?,
                name: row.must(2)?,
                owner: row.must(3)?,
                kind: row.must(4)?,
                namespace: row.must(5)?,
            })
        })
    })?;
    if let Some(other) = members.iter().find(|member| !matches!(member.kind.as_str(), "r" | "p")) {
        return Err(Error::invalid(format!("{} is not a table whose rows can be counted", other.name), ""));
    }
    if members.is_empty() {
        return Err(Error::Unknown("table", root.to_string()));
    }
    Ok(members)
}

/// The triggers of ours that a table has: of each its name, what it counts, and whether it is as it was made.
fn triggers(table: pg_sys::Oid) -> Result<Vec<(String, Limited, bool)>> {
    query::as_of_now(|| {
        query::rows(TRIGGERS, &[table.into()], |row| {
            let mut arguments = recount::arguments(&row.must::<Vec<u8>>(2)?).into_iter();
            let limited = Limited { resource: arguments.next().unwrap_or_default(), condition: arguments.next() };
            Ok((row.must(1)?, limited, row.must(3)?))
        })
    })
}

/// How a table is limited, by each of its resources.
pub fn limits_of(table: pg_sys::Oid) -> Result<Vec<Limited>> {
    let mut limits: Vec<Limited> = Vec::new();
    for (_, limited, _) in triggers(table)? {
        if !limits.iter().any(|known| known.resource == limited.resource) {
            limits.push(limited);
        }
    }
    Ok(limits)
}

/// Whether the table has all triggers of this limit, as they were made.
pub fn is_limited(table: pg_sys::Oid, limited: &Limited) -> Result<bool> {
    let own = triggers(table)?;
    Ok(own.iter().filter(|(_, known, is_enabled)| known == limited && *is_enabled).count() == EVENTS.len())
}

/// Makes the triggers of one table.
pub fn create(table: &Member, limited: &Limited) -> Result<()> {
    if registry::registered(table.oid)?.is_some_and(|protection| protection.tenant_type.is_key()) {
        return Err(Error::Unsupported(format!(
            "rows of {} cannot be counted for a limit: its tenant column holds keys of the application's own",
            table.name
        )));
    }
    drop_triggers(table, &limited.resource)?;
    let mut arguments = literal(&limited.resource);
    if let Some(condition) = &limited.condition {
        arguments = format!("{arguments}, {}", literal(condition));
    }
    as_own_ddl(table, || {
        EVENTS.into_iter().try_for_each(|(event, keyword, tables)| {
            let (name, table) = (ident(&trigger_name(&limited.resource, event)), &table.name);
            query::statement(
                &format!(
                    "CREATE TRIGGER {name} AFTER {keyword} ON {table}{tables} FOR EACH STATEMENT EXECUTE FUNCTION tenancy.count_rows({arguments})"
                ),
                &[],
            )?;
            query::statement(&format!("ALTER TABLE ONLY {table} ENABLE ALWAYS TRIGGER {name}"), &[]).map(drop)
        })?;
        note_uses(table, limited)
    })
}

/// Has PostgreSQL know what the condition of a limit uses.
pub fn note_uses(table: &Member, limited: &Limited) -> Result<()> {
    let Some(condition) = &limited.condition else { return Ok(()) };
    for (event, ..) in EVENTS {
        let name = CString::new(trigger_name(&limited.resource, event)).unwrap_or_default();
        // SAFETY: a look-up by a C string.
        let trigger = unsafe { pg_sys::get_trigger_oid(table.oid, name.as_ptr(), true) };
        if trigger != pg_sys::InvalidOid {
            condition::depend(table.oid, table.owner, trigger, condition)?;
        }
    }
    Ok(())
}

/// Runs `work`, which is the product's own, on a table that may be in a schema of a template or a tenant.
fn as_own_ddl(table: &Member, work: impl FnOnce() -> Result<()>) -> Result<()> {
    own_ddl::run(|| guard::schema::while_working_on(&[table.namespace], work))
}

fn drop_triggers(table: &Member, resource: &str) -> Result<bool> {
    let own = triggers(table.oid)?;
    let of_resource: Vec<_> = own.into_iter().filter(|(_, limited, _)| limited.resource == resource).collect();
    as_own_ddl(table, || {
        of_resource.iter().try_for_each(|(name, ..)| {
            query::statement(&format!("DROP TRIGGER {} ON {}", ident(name), table.name), &[]).map(drop)
        })
    })?;
    Ok(!of_resource.is_empty())
}

/// Waits for the writers of a table, and keeps others out until the transaction ends.
fn lock(table: pg_sys::Oid) {
    // SAFETY: any oid may be locked.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::ShareRowExclusiveLock as _) };
}

/// The tables that a limit is put on or taken from: each the first of a hierarchy.
fn roots(table: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    let found: Option<(pg_sys::Oid, String)> =
        query::first(ROOT, &[table.into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
    if let Some((root, name)) = found {
        if root != table {
            return Err(Error::invalid(
                format!("the table is limited with the one that it belongs to, {name}"),
                "Name that one.",
            ));
        }
        return Ok(vec![table]);
    }
    let member = hierarchy(table)?.swap_remove(0);
    match namespace::usage(member.namespace) {
        Some(Use::Tenant(_)) => Ok(vec![table]),
        Some(Use::Template) => copies(&member),
        None | Some(Use::Moved(_)) => Err(Error::Unprotectable(
            format!("{} is not protected, so that its rows are no tenant's", member.name),
            format!("SELECT protect_table({});", literal(&member.name)),
        )),
    }
}

/// A template's table, and those of its name in the schemas that were made from the template, none of which comes or goes until the
/// transaction ends.
fn copies(table: &Member) -> Result<Vec<pg_sys::Oid>> {
    let schema = namespace::name(table.namespace);
    if let Some(template) = query::value::<String>(TEMPLATE, &[schema.as_str().into()])? {
        Subject::template(&template).lock(Mode::Exclusive);
    }
    let args = [schema.as_str().into(), table.oid.into()];
    let found: Vec<(pg_sys::Oid, Uuid)> =
        query::as_of_now(|| query::rows(COPIES, &args, |row| Ok((row.must(1)?, row.must(2)?))))?;
    let needed = found.len() * LOCKS_PER_TABLE;
    if needed > lock_room() {
        return Err(Error::TooManyLocks { schema, needed, room: lock_room() });
    }
    for (_, tenant) in &found {
        Subject::schema_of(*tenant).lock(Mode::Exclusive);
    }
    // As they are now.
    let found: Vec<pg_sys::Oid> = query::as_of_now(|| query::rows(COPIES, &args, |row| row.must(1)))?;
    Ok(std::iter::once(table.oid).chain(found).collect())
}

/// The locks that the server has room for.
fn lock_room() -> usize {
    // SAFETY: plain reads of what the server was started with.
    let (per_transaction, slots) =
        unsafe { (pg_sys::max_locks_per_xact, pg_sys::MaxBackends + raw::max_prepared_xacts) };
    usize::try_from(per_transaction).unwrap_or(0).saturating_mul(usize::try_from(slots).unwrap_or(0))
}

struct Asked<'a> {
    table: pg_sys::Oid,
    resource: &'a str,
}

impl<'a> Asked<'a> {
    fn new(table: Option<RegClass>, resource: Option<&'a str>) -> Result<Self> {
        let RegClass(table) = table.ok_or(Error::Null("table_name"))?;
        let resource = check_name("resource", resource.ok_or(Error::Null("resource"))?)?;
        query::refuse_old_snapshot("a limit cannot be put on a table")?;
        Ok(Self { table, resource })
    }

    fn record(&self, action: &'static str, name: &str, condition: Option<&str>) -> Result<()> {
        audit::record(&Entry {
            action,
            target: Some(&format!("{name}/{}", self.resource)),
            after: condition.map(|condition| Object::new().text("condition", condition).finish()),
            ..Entry::default()
        })
    }
}

/// Limits the rows of a table.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn limit_table(
    table_name: Option<RegClass>,
    resource: Option<&str>,
    condition: default!(Option<&str>, "NULL"),
) -> SqlResult<bool> {
    let asked = Asked::new(table_name, resource)?;
    if asked.table == memberships::table() {
        return Ok(limit_members(&asked, condition)?);
    }
    let mut changed = false;
    let roots = roots(asked.table)?;
    for root in &roots {
        hierarchy(*root)?.iter().for_each(|member| lock(member.oid));
    }
    let first = hierarchy(asked.table)?.swap_remove(0);
    let text = condition.map(|text| first.canonical(text)).transpose()?;
    let limited = Limited { resource: asked.resource.to_owned(), condition: text };
    for root in roots {
        for member in hierarchy(root)? {
            if !is_limited(member.oid, &limited)? {
                create(&member, &limited)?;
                changed = true;
            }
        }
    }
    if !changed {
        return Ok(false);
    }
    resources::renew_as(asked.resource, true)?;
    tell_of_plans(asked.resource)?;
    asked.record("table.limit", &first.name, limited.condition.as_deref())?;
    Ok(true)
}

/// Takes a limit off a table.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn unlimit_table(table_name: Option<RegClass>, resource: Option<&str>) -> SqlResult<bool> {
    let asked = Asked::new(table_name, resource)?;
    if asked.table == memberships::table() {
        return Ok(unlimit_members(&asked)?);
    }
    let mut changed = false;
    let roots = roots(asked.table)?;
    for root in &roots {
        hierarchy(*root)?.iter().for_each(|member| lock(member.oid));
    }
    for root in roots {
        for member in hierarchy(root)? {
            changed |= drop_triggers(&member, asked.resource)?;
        }
    }
    if !changed {
        return Ok(false);
    }
    resources::renew_as(asked.resource, is_left(asked.resource)?)?;
    asked.record("table.unlimit", &hierarchy(asked.table)?.swap_remove(0).name, None)?;
    Ok(true)
}

/// Whether a table counts the resource.
fn is_left(resource: &str) -> Result<bool> {
    let mut prefix = resource.as_bytes().to_vec();
    prefix.push(0);
    let in_tables: Option<bool> = query::as_of_now(|| query::value(ANY_LEFT, &[prefix.into()]))?;
    Ok(in_tables.is_some() || memberships::resources()?.iter().any(|known| known == resource))
}

const LIMIT_MEMBERS: &str = "INSERT INTO tenancy.limited_memberships (resource) VALUES ($1) ON CONFLICT DO NOTHING";
const UNLIMIT_MEMBERS: &str = "DELETE FROM tenancy.limited_memberships WHERE resource = $1";
const MEMBERSHIPS: &str = "tenancy.memberships";

fn limit_members(asked: &Asked, condition: Option<&str>) -> Result<bool> {
    if condition.is_some() {
        return Err(Error::Unsupported("members are counted without a condition".to_owned()));
    }
    lock(asked.table);
    if memberships::resources()?.len() >= memberships::MAX_RESOURCES {
        return Err(Error::State(
            format!("members are limited as {} resources already", memberships::MAX_RESOURCES),
            "",
        ));
    }
    if query::run(LIMIT_MEMBERS, &[asked.resource.into()])? == 0 {
        return Ok(false);
    }
    resources::renew_as(asked.resource, true)?;
    tell_of_plans(asked.resource)?;
    asked.record("table.limit", MEMBERSHIPS, None)?;
    Ok(true)
}

fn unlimit_members(asked: &Asked) -> Result<bool> {
    lock(asked.table);
    if query::run(UNLIMIT_MEMBERS, &[asked.resource.into()])? == 0 {
        return Ok(false);
    }
    resources::renew_as(asked.resource, is_left(asked.resource)?)?;
    asked.record("table.unlimit", MEMBERSHIPS, None)?;
    Ok(true)
}

/// Names the plans whose tenants can have none, because nothing is said of it.
fn tell_of_plans(resource: &str) -> Result<()> {
    let plans: Vec<String> = query::rows(SILENT_PLANS, &[resource.into()], |row| row.must(1))?;
    if !plans.is_empty() {
        notice!(
            "plans that say nothing of \"{resource}\", so that their tenants can have none: {}; set_plan_limit() says it",
            plans.join(", ")
        );
    }
    Ok(())
}
