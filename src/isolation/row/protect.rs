//! `protect_table` and `unprotect_table`.
//!
//! What could run code of the table's owner (a column rewrite, a scan, constraint and index expressions that the planner folds) runs as
//! that owner; the rest is catalog work.

use super::inspect::{self, Column, Table, TenantType};
use super::registry::{Protection, registered};
use super::{advice, matview, policy, validate};
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{Mode, Subject};
use crate::holder;
use crate::json::Object;
use crate::own_ddl;
use crate::query::{self, ident};
use crate::role;
use crate::sqltype::{Name, RegClass};
use pgrx::pg_sys;
use pgrx::prelude::*;

const MAX_COLUMN_NAME: usize = 63;

const REGISTER: &str = "INSERT INTO tenancy.protected_tables (table_name, root, tenant_column, tenant_type, had_row_security, had_force)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (table_name) DO UPDATE SET root = excluded.root, tenant_column = excluded.tenant_column, tenant_type = excluded.tenant_type";
const MEMBERS: &str = "SELECT table_name::oid, had_row_security, had_force FROM tenancy.protected_tables WHERE root = $1 ORDER BY table_name";
/// Rows of such a tenant would stay where nobody looks for them.
const MOVING: &str = "SELECT slug FROM tenancy.tenants WHERE status = 'moving' OR moved_from = 'row' LIMIT 1";
const UNREGISTER: &str = "DELETE FROM tenancy.protected_tables WHERE root = $1";
const FOREIGN_KEY: &str = "SELECT true FROM pg_catalog.pg_constraint c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
    WHERE c.conrelid = $1 AND c.contype = 'f' AND c.confrelid = 'tenancy.tenants'::pg_catalog.regclass AND a.attname = $2::name";
/// The rights that a role lacks to refer to the registry.
const RIGHTS_TO_LEND: &str = "SELECT r.privilege, pg_catalog.quote_ident(o.rolname) FROM pg_catalog.pg_roles o, LATERAL (VALUES
        ('USAGE ON SCHEMA tenancy', pg_catalog.has_schema_privilege(o.oid, 'tenancy', 'USAGE')),
        ('REFERENCES (id) ON tenancy.tenants', pg_catalog.has_column_privilege(o.oid, 'tenancy.tenants', 'id', 'REFERENCES'))
    ) r (privilege, held) WHERE o.oid = $1 AND NOT r.held";
const COUNTED: &str = "SELECT t.tgrelid::pg_catalog.regclass::text FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = ANY ($1) AND t.tgfoid = 'tenancy.count_rows()'::pg_catalog.regprocedure LIMIT 1";
const BYPASSES: &str = "SELECT true FROM pg_catalog.pg_roles WHERE oid = $1 AND (rolsuper OR rolbypassrls)";

/// Takes a lock that the transaction's end releases, before the table is looked at.
fn lock(table: pg_sys::Oid) {
    // SAFETY: any oid may be locked.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::AccessExclusiveLock as _) };
}

/// Whether the table itself (not its children) has a row.
fn has_rows(table: &Table) -> Result<bool> {
    let sql = format!("SELECT true FROM ONLY {} LIMIT 1", table.name);
    role::as_owner_of_all_rows(table.owner, || Ok(!query::current_column::<bool>(&sql, &[])?.is_empty()))
}

/// The tenant column of the hierarchy's root, added when it is missing and there is no row that it would have to belong to.
fn ensure_column(tables: &[Table], name: &str, by_key: bool) -> Result<Column> {
    let root = &tables[0];
    if let Some(column) = inspect::column(root.oid, name, by_key)? {
        return Ok(column);
    }
    if by_key {
        return Err(Error::Unknown("column", format!("{}.{}", root.name, ident(name))));
    }
    let column = ident(name);
    for table in tables.iter().filter(|table| !table.partitioned) {
        if has_rows(table)? {
            return Err(Error::Unprotectable(
                format!("{} has rows but no column {column}", table.name),
                format!(
                    "ALTER TABLE {0} ADD COLUMN {column} uuid; then say which tenant each row belongs to (UPDATE {0} SET {column} = ...), \
                     and call protect_table() again.",
                    root.name
                ),
            ));
        }
    }
    let sql = format!("ALTER TABLE {} ADD COLUMN {column} pg_catalog.uuid", root.name);
    role::as_owner(root.owner, || query::statement(&sql, &[]))?;
    Ok(Column {
        tenant_type: TenantType::Uuid,
        type_name: "uuid".to_owned(),
        not_null: false,
        default: None,
        is_identity: false,
    })
}

/// Puts the tables of a hierarchy under the guard, parents first. They are locked, and their tenant columns exist.
pub fn protect_all(tables: &[Table], protection: &Protection) -> Result<()> {
    tables.iter().try_for_each(inspect::refuse_unreachable)?;
    if protection.tenant_type.is_key() {
        refuse_counted(tables)?;
        // No tenant's external id changes from here on: what is validated stays so.
        Subject::external_ids().lock(Mode::Exclusive);
    }
    for table in tables.iter().filter(|table| !table.partitioned) {
        validate::rows(table, &protection.column, protection.tenant_type.is_key(), false)?;
    }
    own_ddl::run(|| tables.iter().try_for_each(|table| protect_one(table, protection)))
}

fn protect_one(table: &Table, protection: &Protection) -> Result<()> {
    let Protection { root, column, tenant_type } = protection;
    let own = inspect::column(table.oid, column, tenant_type.is_key())?
        .filter(|own| own.tenant_type == *tenant_type)
        .ok_or_else(|| Error::Internal(format!("{} lacks its tenant column", table.name)))?;
    let name = ident(column);
    if !own.not_null {
        let sql = format!("ALTER TABLE {} ALTER COLUMN {name} SET NOT NULL", table.name);
        role::as_owner(table.owner, || query::statement(&sql, &[]))?;
    }
    if !own.is_identity {
        let default = policy::current_tenant(*tenant_type)?;
        query::statement(&format!("ALTER TABLE ONLY {} ALTER COLUMN {name} SET DEFAULT {default}", table.name), &[])?;
    }
    if !inspect::has_index(table, column)? {
        query::statement(&format!("CREATE INDEX ON {} ({name})", table.name), &[])?;
    }
    policy::create(table, column, *tenant_type)?;
    let args = [
        RegClass(table.oid).into(),
        RegClass(*root).into(),
        column.as_str().into(),
        tenant_type.name().into(),
        table.row_security.into(),
        table.force.into(),
    ];
    query::run(REGISTER, &args).map(std::mem::drop)
}

/// What a protected table's owner should know but may have reasons for.
fn report(tables: &[Table], default: Option<&str>, protection: &Protection) -> Result<()> {
    let root = &tables[0];
    let ours = policy::current_tenant(protection.tenant_type)?;
    if let Some(default) = default
        && !ours.ends_with(default)
    {
        notice!("column {} of {} had the default {default}, which is replaced", ident(&protection.column), root.name);
    }
    if query::value::<bool>(BYPASSES, &[root.owner.into()])?.is_some() {
        notice!(
            "the owner of {} bypasses row security: its triggers and foreign keys see every tenant; prefer an ordinary owner",
            root.name
        );
    }
    for table in tables {
        let policies = inspect::permissive_policies(table)?;
        if !policies.is_empty() {
            notice!(
                "permissive policies of {} restrict nothing any more ({}): create them AS RESTRICTIVE",
                table.name,
                policies.join(", ")
            );
        }
    }
    advice::report(root)
}

/// A limit counts the rows of a tenant by its id.
fn refuse_counted(tables: &[Table]) -> Result<()> {
    let oids: Vec<pg_sys::Oid> = tables.iter().map(|table| table.oid).collect();
    match query::value::<String>(COUNTED, &[oids.into()])? {
        None => Ok(()),
        Some(table) => Err(Error::Unsupported(format!(
            "rows of {table} are counted for a limit, which a table of the application's own keys cannot be"
        ))),
    }
}

/// Puts the table and what inherits from it under the guard; false when it was already.
///
/// `by_key` says that the column holds keys of the application's own, which are tenants' external ids.
pub fn protect(oid: pg_sys::Oid, column: &str, foreign_key: bool, by_key: bool) -> Result<bool> {
    let column = column.to_owned();
    query::refuse_old_snapshot("a table cannot be protected")?;
    for member in inspect::hierarchy(oid)? {
        lock(member.oid);
    }
    let tables = inspect::hierarchy(oid)?;
    let before = registered(oid)?;
    if let Some(before) = &before
        && before.column != column
    {
        return Err(Error::Unprotectable(
            format!("{} is protected by column {}", tables[0].name, ident(&before.column)),
            "Call unprotect_table() first.".to_owned(),
        ));
    }
    inspect::refuse_open_parent(&tables)?;
    tables.iter().try_for_each(inspect::refuse_unreachable)?;
    let by_key = by_key || before.as_ref().is_some_and(|before| before.tenant_type.is_key());
    if let Some(before) = &before
        && before.tenant_type.is_key() != by_key
    {
        return Err(Error::Unprotectable(
            format!("{} is protected by tenants' ids", tables[0].name),
            "Call unprotect_table() first.".to_owned(),
        ));
    }
    let existing = ensure_column(&tables, &column, by_key)?;
    let root = before.as_ref().map_or(oid, |before| before.root);
    let protection = Protection { root, column, tenant_type: existing.tenant_type };
    protect_all(&tables, &protection)?;
    if foreign_key {
        add_foreign_key(&tables[0], &protection)?;
    }
    matview::refuse_all()?;
    holder::refuse_all_unsafe()?;
    report(&tables, existing.default.as_deref(), &protection)?;
    if before.is_none() {
        audit::record(&Entry {
            action: "table.protect",
            target: Some(&tables[0].name),
            after: Some(
                Object::new().text("tenant_column", &protection.column).boolean("foreign_key", foreign_key).finish(),
            ),
            ..Entry::default()
        })?;
    }
    Ok(before.is_none())
}

/// Puts a table under the guard.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn protect_table(
    table_name: Option<RegClass>,
    tenant_column: default!(Option<Name>, "'tenant_id'"),
    foreign_key: default!(Option<bool>, "false"),
    external_id: default!(Option<bool>, "false"),
) -> SqlResult<bool> {
    let RegClass(oid) = table_name.ok_or(Error::Null("table_name"))?;
    let Name(column) = tenant_column.ok_or(Error::Null("tenant_column"))?;
    let foreign_key = foreign_key.ok_or(Error::Null("foreign_key"))?;
    if column.is_empty() || column.len() > MAX_COLUMN_NAME {
        return Err(Error::invalid("the tenant column needs a name", "").into());
    }
    let external_id = external_id.ok_or(Error::Null("external_id"))?;
    Ok(protect(oid, &column, foreign_key, external_id)?)
}

/// References the registry. The table is scanned as its owner, who therefore needs the right to refer to ours for as long as it takes.
fn add_foreign_key(table: &Table, protection: &Protection) -> Result<()> {
    if protection.tenant_type != TenantType::Uuid {
        return Err(Error::invalid("only a uuid column can reference tenancy.tenants", ""));
    }
    if query::value::<bool>(FOREIGN_KEY, &[table.oid.into(), protection.column.as_str().into()])?.is_some() {
        return Ok(());
    }
    let lent: Vec<(String, String)> =
        query::rows(RIGHTS_TO_LEND, &[table.owner.into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
    for (right, owner) in &lent {
        query::statement(&format!("GRANT {right} TO {owner}"), &[])?;
    }
    let sql = format!(
        "ALTER TABLE {} ADD FOREIGN KEY ({}) REFERENCES tenancy.tenants (id)",
        table.name,
        ident(&protection.column)
    );
    role::as_owner(table.owner, || query::statement(&sql, &[]))?;
    for (right, owner) in &lent {
        query::statement(&format!("REVOKE {right} FROM {owner}"), &[])?;
    }
    Ok(())
}

/// Takes a table out of the guard.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn unprotect_table(table_name: Option<RegClass>) -> SqlResult<bool> {
    let RegClass(oid) = table_name.ok_or(Error::Null("table_name"))?;
    for member in inspect::hierarchy(oid)? {
        lock(member.oid);
    }
    let Some(protection) = registered(oid)? else { return Ok(false) };
    let tables = inspect::hierarchy(oid)?;
    if protection.root != oid {
        return Err(Error::Unprotectable(
            format!("{} is protected with the table it belongs to", tables[0].name),
            "Call unprotect_table() for that one, or detach the partition first.".to_owned(),
        )
        .into());
    }
    if let Some(moving) = query::current_rows(MOVING, &[], |row| row.must::<String>(1))?.pop() {
        return Err(Error::Unprotectable(
            format!("tenant \"{moving}\" is being moved out of the protected tables, or into them"),
            "Try again when that is done, the removal of what it leaves included: tenancy.moves says how far it is."
                .to_owned(),
        )
        .into());
    }
    let members: Vec<(pg_sys::Oid, bool, bool)> =
        query::rows(MEMBERS, &[RegClass(oid).into()], |row| Ok((row.must(1)?, row.must(2)?, row.must(3)?)))?;
    let open = |(member, had_row_security, had_force): (pg_sys::Oid, bool, bool)| -> Result<()> {
        lock(member);
        let table = inspect::hierarchy(member)?.swap_remove(0);
        policy::remove(&table)?;
        let column = ident(&protection.column);
        let own = inspect::column(member, &protection.column, protection.tenant_type.is_key())?;
        let mut changes = Vec::new();
        if !own.is_some_and(|own| own.is_identity) {
            changes.push(format!("ALTER COLUMN {column} DROP DEFAULT"));
        }
        changes.extend((!had_force).then(|| "NO FORCE ROW LEVEL SECURITY".to_owned()));
        changes.extend((!had_row_security).then(|| "DISABLE ROW LEVEL SECURITY".to_owned()));
        if !changes.is_empty() {
            query::statement(&format!("ALTER TABLE ONLY {} {}", table.name, changes.join(", ")), &[])?;
        }
        Ok(())
    };
    own_ddl::run(|| members.into_iter().try_for_each(open))?;
    query::run(UNREGISTER, &[RegClass(oid).into()])?;
    audit::record(&Entry {
        action: "table.unprotect",
        target: Some(&tables[0].name),
        before: Some(Object::new().text("tenant_column", &protection.column).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}
