//! What there is to know of a table before it is protected.

use crate::context::registry;
use crate::error::{Error, Result};
use crate::query;
use pgrx::datum::DatumWithOid;
use pgrx::{Uuid, pg_sys};

/// A table of a hierarchy: the one named, a partition or an inheritance child.
#[derive(Clone)]
pub struct Table {
    pub oid: pg_sys::Oid,
    /// Schema-qualified and quoted.
    pub name: String,
    pub owner: pg_sys::Oid,
    pub row_security: bool,
    pub force: bool,
    pub partitioned: bool,
}

impl Table {
    /// The schema, quoted, and the name without its quotes.
    pub fn schema_and_name(&self) -> (&str, &str) {
        // A quoted schema may have a dot in it: the separator is the first dot outside quotes.
        let mut quoted = false;
        let dot = self.name.find(|character| {
            quoted ^= character == '"';
            character == '.' && !quoted
        });
        let (schema, name) = dot.map_or(("", self.name.as_str()), |dot| (&self.name[..dot], &self.name[dot + 1..]));
        (schema, name.trim_matches('"'))
    }
}

/// The tenant column's type, and so the function that its policies compare it with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TenantType {
    /// The tenant's id.
    Uuid,
    /// The tenant's id as text.
    Text,
    /// The application's own key, which is the tenant's external id.
    KeyText,
    /// The same as a number.
    KeyBigint,
}

impl TenantType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Text => "text",
            Self::KeyText => "key_text",
            Self::KeyBigint => "key_bigint",
        }
    }

    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "uuid" => Ok(Self::Uuid),
            "text" => Ok(Self::Text),
            "key_text" => Ok(Self::KeyText),
            "key_bigint" => Ok(Self::KeyBigint),
            _ => Err(Error::Internal(format!("unknown tenant type {name}"))),
        }
    }
}

impl TenantType {
    /// Whether the column holds keys of the application's own.
    pub const fn is_key(self) -> bool {
        matches!(self, Self::KeyText | Self::KeyBigint)
    }

    /// What a column of this type holds for the tenant, as an argument of a query; None where the tenant has no such key, and so no rows.
    pub fn argument(self, tenant: Uuid) -> Result<Option<DatumWithOid<'static>>> {
        Ok(match self {
            Self::Uuid => Some(tenant.into()),
            Self::Text => Some(tenant.to_string().into()),
            Self::KeyText => registry::key_of(tenant)?.map(|key| key.as_str().to_owned().into()),
            Self::KeyBigint => registry::key_of(tenant)?.and_then(|key| number(key.as_str())).map(Into::into),
        })
    }
}

impl TenantType {
    /// The same as text.
    pub fn text(self, tenant: Uuid) -> Result<Option<String>> {
        Ok(match self {
            Self::Uuid | Self::Text => Some(tenant.to_string()),
            Self::KeyText => registry::key_of(tenant)?.map(|key| key.as_str().to_owned()),
            Self::KeyBigint => {
                registry::key_of(tenant)?.and_then(|key| number(key.as_str())).map(|number| number.to_string())
            }
        })
    }

    /// The same as a literal, to be compared with the column.
    pub fn literal(self, tenant: Uuid) -> Result<Option<String>> {
        // Of its own type it would be out of range in a narrower column.
        let cast = if self == Self::KeyBigint { "::pg_catalog.int8" } else { "" };
        Ok(self.text(tenant)?.map(|text| format!("{}{cast}", query::literal(&text))))
    }
}

/// The number that a key spells, where it spells it as PostgreSQL would.
fn number(key: &str) -> Option<i64> {
    key.parse().ok().filter(|number: &i64| number.to_string() == key)
}

/// The tenant column as it stands.
pub struct Column {
    pub tenant_type: TenantType,
    /// The type without its length.
    pub type_name: String,
    pub not_null: bool,
    /// Its default, as SQL.
    pub default: Option<String>,
    /// Whether its values are numbered, so that it keeps its own default.
    pub is_identity: bool,
}

/// The modifier of varchar(36), the shortest that holds a tenant: length and header.
const SHORTEST_VARCHAR: i32 = 36 + 4;

const HIERARCHY: &str = "WITH RECURSIVE members(oid) AS (
        SELECT $1 UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN members m ON i.inhparent = m.oid
    )
    SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner, c.relrowsecurity, c.relforcerowsecurity,
           c.relkind::text, c.relpersistence::text, n.nspname::text
    FROM members JOIN pg_catalog.pg_class c USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    ORDER BY c.oid <> $1, c.oid";
const PARTITIONS: &str = "SELECT p.relid::oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_partition_tree($1::oid::pg_catalog.regclass) p
    JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE p.isleaf ORDER BY 1";
const PARENT: &str = "SELECT i.inhrelid, pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid = i.inhparent JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE i.inhrelid = ANY ($1) AND c.oid <> ALL ($1) AND NOT EXISTS (SELECT FROM tenancy.protected_tables p WHERE p.table_name = c.oid)
    LIMIT 1";
const COLUMN: &str = "SELECT a.atttypid::oid, a.attnotnull, pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attgenerated <> '',
        pg_catalog.format_type(a.atttypid, NULL), a.atttypmod, a.attnum < 0, a.attrelid::pg_catalog.regclass::text,
        EXISTS (SELECT FROM pg_catalog.pg_collation c WHERE c.oid = a.attcollation AND NOT c.collisdeterministic), a.attidentity <> ''
    FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = $1 AND a.attname = $2::name AND NOT a.attisdropped";
const HAS_INDEX: &str = "SELECT true FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam
    WHERE i.indrelid = $1 AND a.attname = $2::name AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'";
const UNREACHABLE: &str =
    "SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner))
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1 AND NOT pg_catalog.has_schema_privilege(c.relowner, n.oid, 'USAGE')";
const IS_STILL: &str = "SELECT true FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1 AND pg_catalog.format('%I.%I', n.nspname, c.relname) = $2 AND c.relowner = $3";
const PERMISSIVE_POLICIES: &str = "SELECT pg_catalog.quote_ident(polname) FROM pg_catalog.pg_policy
    WHERE polrelid = $1 AND polpermissive AND polname <> 'tenancy_guard' ORDER BY polname";

/// The table and everything that inherits from it, itself first. Fails on what row security cannot guard.
pub fn hierarchy(root: pg_sys::Oid) -> Result<Vec<Table>> {
    let found: Vec<(Table, String, String, String)> = query::rows(HIERARCHY, &[root.into()], |row| {
        let kind: String = row.must(6)?;
        let table = Table {
            oid: row.must(1)?,
            name: row.must(2)?,
            owner: row.must(3)?,
            row_security: row.must(4)?,
            force: row.must(5)?,
            partitioned: kind == "p",
        };
        Ok((table, kind, row.must(7)?, row.must(8)?))
    })?;
    for (table, kind, persistence, schema) in &found {
        if !matches!(kind.as_str(), "r" | "p") {
            return Err(Error::invalid(
                format!("{} is not a table that row security can guard", table.name),
                "Protect the tables that a view reads; a foreign table cannot be guarded here.",
            ));
        }
        if persistence == "t"
            || schema.starts_with("pg_")
            || matches!(schema.as_str(), "information_schema" | "tenancy")
        {
            return Err(Error::invalid(format!("{} is a temporary or system table", table.name), ""));
        }
    }
    if found.is_empty() {
        return Err(Error::Unknown("table", root.to_string()));
    }
    Ok(found.into_iter().map(|(table, ..)| table).collect())
}

/// The partitions of a partitioned table that have rows, qualified and quoted.
pub fn partitions(table: pg_sys::Oid) -> Result<Vec<(pg_sys::Oid, String)>> {
    query::rows(PARTITIONS, &[table.into()], |row| Ok((row.must(1)?, row.must(2)?)))
}

/// Fails when a table and what inherits from it have another parent, which is not protected: rows would be open through it.
pub fn refuse_open_parent(tables: &[Table]) -> Result<()> {
    let oids: Vec<pg_sys::Oid> = tables.iter().map(|table| table.oid).collect();
    let found = query::first(PARENT, &[oids.into()], |row| Ok((row.must::<pg_sys::Oid>(1)?, row.must::<String>(2)?)))?;
    let Some((child, parent)) = found else { return Ok(()) };
    match tables.iter().find(|table| table.oid == child) {
        // Neither of two parents can be protected before the other.
        Some(table) if child != tables[0].oid => Err(Error::Unprotectable(
            format!("{} is a child of {parent}, too, which is not protected", table.name),
            format!("ALTER TABLE {} NO INHERIT {parent};", table.name),
        )),
        _ => Err(open_parent(&tables[0].name, &parent)),
    }
}

/// That the rows of a table would be open through its parent.
pub fn open_parent(table: &str, parent: &str) -> Error {
    Error::Unprotectable(
        format!("{table} is a partition or child of {parent}, which is not protected"),
        format!("SELECT protect_table('{}');", parent.replace('\'', "''")),
    )
}

/// The tenant column of `table`, None when there is no such column; `by_key` where a text is the application's own key. Fails on a column
/// that cannot be one.
pub fn column(table: pg_sys::Oid, name: &str, by_key: bool) -> Result<Option<Column>> {
    struct Found {
        type_oid: pg_sys::Oid,
        not_null: bool,
        default: Option<String>,
        generated: bool,
        type_name: String,
        length: i32,
        system: bool,
        table: String,
        is_loose: bool,
        identity: bool,
    }
    let found = query::first(COLUMN, &[table.into(), name.into()], |row| {
        Ok(Found {
            type_oid: row.must(1)?,
            not_null: row.must(2)?,
            default: row.get(3)?,
            generated: row.must(4)?,
            type_name: row.must(5)?,
            length: row.must(6)?,
            system: row.must(7)?,
            table: row.must(8)?,
            is_loose: row.must(9)?,
            identity: row.must(10)?,
        })
    })?;
    let Some(found) = found else { return Ok(None) };
    let name = format!("column {} of {}", query::ident(name), found.table);
    let is_number = matches!(found.type_oid, pg_sys::INT8OID | pg_sys::INT4OID | pg_sys::INT2OID);
    if found.system || found.generated || found.identity && !(by_key && is_number) {
        return Err(Error::invalid(
            format!("{name} is a {} column", if found.system { "system" } else { "generated" }),
            "A tenant column is an ordinary column.",
        ));
    }
    if found.is_loose {
        return Err(Error::invalid(
            format!("{name} has a collation by which different texts are equal"),
            "A tenant column of type text compares bytewise: give it COLLATE \"C\".",
        ));
    }
    let tenant_type = match found.type_oid {
        pg_sys::INT8OID | pg_sys::INT4OID | pg_sys::INT2OID if by_key => TenantType::KeyBigint,
        pg_sys::TEXTOID | pg_sys::VARCHAROID if by_key => TenantType::KeyText,
        pg_sys::UUIDOID if !by_key => TenantType::Uuid,
        pg_sys::TEXTOID => TenantType::Text,
        pg_sys::VARCHAROID if found.length < 0 || found.length >= SHORTEST_VARCHAR => TenantType::Text,
        _ => {
            return Err(Error::invalid(
                format!("{name} has type {}", found.type_name),
                "A tenant column is uuid, or text that holds one (36 characters). Keys of the application's own are text, bigint, integer or \
                 smallint: external_id => true.",
            ));
        }
    };
    Ok(Some(Column {
        tenant_type,
        type_name: found.type_name,
        not_null: found.not_null,
        default: found.default,
        is_identity: found.identity,
    }))
}

/// Fails when the table's owner could not name it: all work on its rows is done as its owner.
pub fn refuse_unreachable(table: &Table) -> Result<()> {
    match query::first(UNREACHABLE, &[table.oid.into()], |row| Ok((row.must::<String>(1)?, row.must::<String>(2)?)))? {
        None => Ok(()),
        Some((schema, owner)) => Err(Error::Unprotectable(
            format!("{owner}, the owner of {}, has no right to use schema {schema}", table.name),
            format!("GRANT USAGE ON SCHEMA {schema} TO {owner};"),
        )),
    }
}

/// Fails unless the table still has this name and owner. The owner of its schema may have put another in its place, whose code must not run as the
/// first one's owner. The caller has locked the table.
pub fn refuse_other(table: pg_sys::Oid, name: &str, owner: pg_sys::Oid) -> Result<()> {
    let is_still = query::current_rows(IS_STILL, &[table.into(), name.into(), owner.into()], |_| Ok(()))?;
    match is_still.is_empty() {
        false => Ok(()),
        true => Err(Error::Unprotectable(
            format!("{name} is not the table that it was, or not its owner's"),
            "Find out who has renamed, replaced or given it away, and call again.".to_owned(),
        )),
    }
}

/// Whether an index led by the column serves every row.
pub fn has_index(table: &Table, column: &str) -> Result<bool> {
    Ok(query::value::<bool>(HAS_INDEX, &[table.oid.into(), column.into()])?.is_some())
}

/// Policies of the table's own that ours makes ineffective, since permissive policies are joined by OR.
pub fn permissive_policies(table: &Table) -> Result<Vec<String>> {
    query::rows(PERMISSIVE_POLICIES, &[table.oid.into()], |row| row.must(1))
}
