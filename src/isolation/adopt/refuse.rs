//! What an adoption cannot keep as it is, found before anything is changed.

use super::fill;
use super::request::Request;
use super::scope::{Root, Scope};
use crate::error::{Error, Result};
use crate::isolation::keys::Keys;
use crate::isolation::keys::foreign_key::ForeignKey;
use crate::isolation::keys::index::{self, Index};
use crate::isolation::row::{inspect, matview, validate};
use crate::query::{self, ident};
use pgrx::pg_sys;

/// A column of another relation that has the row type of one of these tables: PostgreSQL adds no column with a default then.
const ROW_TYPES: &str =
    "SELECT t.oid::pg_catalog.regclass::text, pg_catalog.format('%s.%I', a.attrelid::pg_catalog.regclass, a.attname)
    FROM pg_catalog.pg_class t JOIN pg_catalog.pg_type y ON y.oid = t.reltype
    JOIN pg_catalog.pg_attribute a ON a.atttypid IN (y.oid, y.typarray) AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'm', 'i')
    WHERE t.oid = ANY ($1) ORDER BY 2 LIMIT 1";
const TYPED: &str =
    "SELECT oid::pg_catalog.regclass::text FROM pg_catalog.pg_class WHERE oid = ANY ($1) AND reloftype <> 0 LIMIT 1";
const SEVERAL_PARENTS: &str = "SELECT inhrelid::pg_catalog.regclass::text FROM pg_catalog.pg_inherits
    WHERE inhrelid = ANY ($1) GROUP BY inhrelid HAVING pg_catalog.count(*) > 1 LIMIT 1";
const OF_EXTENSION: &str = "SELECT d.objid::pg_catalog.regclass::text, e.extname::text FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = ANY ($1) AND d.deptype = 'e' LIMIT 1";
const EXCLUSIONS: &str = "SELECT con.conname::text, con.conrelid::pg_catalog.regclass::text FROM pg_catalog.pg_constraint con
    WHERE con.contype = 'x' AND con.conparentid = 0 AND con.conrelid = ANY ($1)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = con.conrelid AND a.attnum = ANY (con.conkey) AND a.attname = $2::name)
    ORDER BY 2, 1 LIMIT 1";
/// Owners who may not create an index in the table's schema, as PostgreSQL asks of who creates one.
const POWERLESS: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.quote_ident(n.nspname),
        pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner))
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY ($1) AND NOT pg_catalog.has_schema_privilege(c.relowner, n.oid, 'CREATE') ORDER BY 1 LIMIT 1";
/// Roles of level client or app that own one of these tables, or could become its owner.
const OWNING_HOLDERS: &str = "SELECT pg_catalog.quote_ident(a.role), a.level, pg_catalog.format('%I.%I', n.nspname, c.relname)
    FROM tenancy.access a JOIN pg_catalog.pg_class c ON c.oid = ANY ($1) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE a.level IN ('client', 'app') AND a.role_oid <> 0 AND pg_catalog.pg_has_role(a.role_oid, c.relowner, 'MEMBER') ORDER BY 1, 3 LIMIT 1";

fn pair(sql: &'static str, tables: &[pg_sys::Oid]) -> Result<Option<(String, String)>> {
    query::first(sql, &[tables.to_vec().into()], |row| Ok((row.must(1)?, row.must(2)?)))
}

fn single(sql: &'static str, tables: &[pg_sys::Oid]) -> Result<Option<String>> {
    query::value(sql, &[tables.to_vec().into()])
}

fn state(message: String, hint: impl Into<String>) -> Result<()> {
    Err(Error::Unprotectable(message, hint.into()))
}

pub fn check(scope: &Scope, request: &Request, indexes: &[Vec<Index>], keys: &[ForeignKey]) -> Result<()> {
    let tables = scope.oids();
    if let Some((table, extension)) = pair(OF_EXTENSION, &tables)? {
        return state(format!("{table} belongs to extension {extension}"), "");
    }
    if let Some(table) = single(SEVERAL_PARENTS, &tables)? {
        return state(format!("{table} inherits from several tables"), "Let it inherit from one, or from none.");
    }
    scope.members().try_for_each(inspect::refuse_unreachable)?;
    if let Some((table, schema, owner)) = query::first(POWERLESS, &[tables.clone().into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<String>(2)?, row.must::<String>(3)?))
    })? {
        return state(
            format!("{owner}, the owner of {table}, may not create indexes in schema {schema}"),
            format!("GRANT CREATE ON SCHEMA {schema} TO {owner}; take it back afterwards."),
        );
    }
    if request.protect {
        matview::refuse_readers(tables.clone())?;
        refuse_owners(&tables)?;
    }
    for root in scope.roots.iter().filter(|root| !root.is_protected) {
        check_column(root)?;
    }
    check_keys(scope, request, indexes, keys)?;
    keys.iter().try_for_each(|key| check_foreign_key(scope, key))
}

/// A role that owns a protected table could take the protection off, so that neither client nor app may.
fn refuse_owners(tables: &[pg_sys::Oid]) -> Result<()> {
    match query::first(OWNING_HOLDERS, &[tables.to_vec().into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<String>(2)?, row.must::<String>(3)?))
    })? {
        None => Ok(()),
        Some((role, level, table)) => Err(Error::UnsafeRole {
            role,
            level,
            reasons: vec![format!("it owns {table}, which is to be protected, or is a member of its owner")],
            remedies: vec![format!("ALTER TABLE {table} OWNER TO another_role;")],
        }),
    }
}

fn check_column(root: &Root) -> Result<()> {
    let tables: Vec<pg_sys::Oid> = root.members.iter().map(|table| table.oid).collect();
    if root.column.is_none() {
        if let Some((table, column)) = pair(ROW_TYPES, &tables)? {
            return state(
                format!("{table} cannot get a column, because {column} has its row type"),
                "Drop that column, or give it a type of its own.",
            );
        }
        if let Some(table) = single(TYPED, &tables)? {
            return state(
                format!("{table} cannot get a column, because it is a typed table"),
                "ALTER TABLE ... NOT OF;",
            );
        }
        return Ok(());
    }
    for table in root.members.iter().filter(|table| !table.partitioned) {
        validate::rows(table, &root.column_name, false, true)?;
        if fill::has_rows_to_fill(table, &root.column_name)? {
            fill::refuse_interference(table, &root.column_name)?;
        }
    }
    Ok(())
}

fn check_keys(scope: &Scope, request: &Request, indexes: &[Vec<Index>], keys: &[ForeignKey]) -> Result<()> {
    if request.keys == Keys::None {
        return Ok(());
    }
    let tables = scope.oids();
    let found = query::first(EXCLUSIONS, &[tables.into(), request.column.as_str().into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<String>(2)?))
    })?;
    if let Some((constraint, table)) = found {
        return state(
            format!("exclusion constraint {} of {table} would hold among all tenants", ident(&constraint)),
            format!(
                "Drop it, and make it again with {} WITH = in front once the table has that column (extension btree_gist); \
                 or say keys => 'none' to keep it.",
                ident(&request.column)
            ),
        );
    }
    let replaced: Vec<&Index> =
        indexes.iter().flatten().filter(|index| index.is_to_be_replaced(request.keys)).collect();
    let oids: Vec<pg_sys::Oid> = replaced.iter().map(|index| index.oid).collect();
    if let Some((constraint, object)) = index::dependent(oids)? {
        return state(
            format!("{object} depends on key {}, which is to become one of each tenant", ident(&constraint)),
            "A view that groups by a primary key does: name the other columns in its GROUP BY, too.",
        );
    }
    for key in keys {
        let Some(index) = replaced.iter().find(|index| index.oid == key.index) else { continue };
        if !scope.columns.contains_key(&key.child.to_u32()) {
            return state(
                format!(
                    "foreign key {} of {} refers to key {}, which is to become one of each tenant",
                    ident(&key.name),
                    key.child_name,
                    ident(&index.name)
                ),
                format!("Adopt {} first or with it, or keep such keys: keys => 'natural' or 'none'.", key.child_name),
            );
        }
        if key.has_child_column(&request.column) {
            return state(
                format!(
                    "foreign key {} of {} has the tenant column, but key {} of {} does not",
                    ident(&key.name),
                    key.child_name,
                    ident(&index.name),
                    key.parent_name
                ),
                "Drop the foreign key, and make it again afterwards.",
            );
        }
    }
    Ok(())
}

fn check_foreign_key(scope: &Scope, key: &ForeignKey) -> Result<()> {
    if key.reaches_across(|table| scope.column_of(table)).is_none() {
        return Ok(());
    }
    let [child, parent] =
        [key.child, key.parent].map(|table| scope.columns.get(&table.to_u32()).map(|(_, kind)| *kind));
    if let Some((message, hint)) = key.obstacle(child == parent) {
        return state(message, hint);
    }
    if !key.may_refer {
        return state(
            format!("{}, the owner of {}, may not refer to {}", key.child_owner_name, key.child_name, key.parent_name),
            key.grant(),
        );
    }
    Ok(())
}
