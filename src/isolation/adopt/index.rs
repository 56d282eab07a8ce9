//! The indexes of a table, and those that its tenants need in their place or beside them.

use super::request::Keys;
use crate::error::{Error, Result};
use crate::query::{self, Row, ident};
use pgrx::pg_sys;

/// An index as the catalogs have it. What follows `(` in its definition is compared and copied as a whole: columns, operator classes, INCLUDE,
/// NULLS NOT DISTINCT, storage parameters and WHERE.
const INDEXES: &str = "SELECT x.indrelid, x.indexrelid, i.relname::text, x.indisunique, x.indisvalid AND x.indisready, m.amname::text,
        CASE WHEN pg_catalog.starts_with(d.definition, d.prefix)
             THEN pg_catalog.substr(d.definition, pg_catalog.length(d.prefix) + 1) END,
        x.indisreplident, x.indisclustered, coalesce(key.has_tenant, false), coalesce(key.is_led, false), coalesce(key.is_generated, false),
        x.indpred IS NOT NULL, i.relispartition, pg_catalog.quote_ident(n.nspname),
        con.conname::text, con.contype::text, con.condeferrable, con.condeferred, pg_catalog.pg_get_constraintdef(con.oid),
        CASE WHEN con.oid IS NULL THEN pg_catalog.obj_description(i.oid, 'pg_class')
             ELSE pg_catalog.obj_description(con.oid, 'pg_constraint') END
    FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    JOIN pg_catalog.pg_am m ON m.oid = i.relam
    JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
    LEFT JOIN pg_catalog.pg_constraint con ON con.conindid = x.indexrelid AND con.conrelid = x.indrelid AND con.contype IN ('p', 'u', 'x')
    CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_indexdef(i.oid) AS definition,
            pg_catalog.format('CREATE %sINDEX %I ON %s%I.%I USING %I (', CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END, i.relname,
                CASE WHEN i.relkind = 'I' THEN 'ONLY ' ELSE '' END, n.nspname, t.relname, m.amname) AS prefix) d
    CROSS JOIN LATERAL (SELECT pg_catalog.bool_or(a.attname = $2::name) AS has_tenant,
            pg_catalog.bool_or(k.position = 1 AND a.attname = $2::name) AS is_led,
            pg_catalog.bool_or(a.attidentity <> '' OR coalesce(pg_catalog.pg_get_expr(f.adbin, f.adrelid), '')
                ~ '^([^(]*\\.)?(nextval|gen_random_uuid|uuid_generate|uuidv)') AS is_generated
        FROM pg_catalog.unnest(x.indkey::int2[]) WITH ORDINALITY k (attnum, position)
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
        LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum AND a.attgenerated = ''
        WHERE k.position <= x.indnkeyatts) key
    WHERE x.indrelid = ANY ($1) ORDER BY x.indrelid, i.relname";
const IS_TAKEN: &str = "SELECT true FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE pg_catalog.quote_ident(n.nspname) = $1 AND c.relname = $2::name";
const MAX_NAME: usize = 63;

/// The constraint that an index serves.
pub struct Constraint {
    pub name: String,
    /// As pg_constraint has it: `p`, `u` or `x`.
    pub kind: String,
    pub deferrable: bool,
    pub deferred: bool,
    pub definition: String,
}

pub struct Index {
    pub table: pg_sys::Oid,
    pub oid: pg_sys::Oid,
    pub name: String,
    /// The schema, quoted.
    pub schema: String,
    pub unique: bool,
    pub valid: bool,
    method: String,
    rest: String,
    pub is_replica_identity: bool,
    pub is_clustered: bool,
    pub has_tenant: bool,
    is_led: bool,
    is_generated: bool,
    is_partial: bool,
    /// Whether it is a part of a partitioned index.
    is_attached: bool,
    pub constraint: Option<Constraint>,
    pub comment: Option<String>,
}

/// The indexes of these tables, where `column` is or will be the tenant column.
pub fn of_tables(tables: Vec<pg_sys::Oid>, column: &str) -> Result<Vec<Index>> {
    query::rows(INDEXES, &[tables.into(), column.into()], read)
}

fn read(row: &Row) -> Result<Index> {
    let name: String = row.must(3)?;
    let constraint = match row.get(16)? {
        None => None,
        Some(name) => Some(Constraint {
            name,
            kind: row.must(17)?,
            deferrable: row.must(18)?,
            deferred: row.must(19)?,
            definition: row.must(20)?,
        }),
    };
    Ok(Index {
        table: row.must(1)?,
        oid: row.must(2)?,
        unique: row.must(4)?,
        valid: row.must(5)?,
        method: row.must(6)?,
        rest: row
            .get(7)?
            .ok_or_else(|| Error::Internal(format!("the definition of index {name} is not understood")))?,
        is_replica_identity: row.must(8)?,
        is_clustered: row.must(9)?,
        has_tenant: row.must(10)?,
        is_led: row.must(11)?,
        is_generated: row.must(12)?,
        is_partial: row.must(13)?,
        is_attached: row.must(14)?,
        schema: row.must(15)?,
        name,
        constraint,
        comment: row.get(21)?,
    })
}

impl Index {
    /// Whether it is a key that is to become a key of each tenant by itself.
    pub fn is_to_be_replaced(&self, keys: Keys) -> bool {
        let asked = match keys {
            Keys::All => true,
            Keys::Natural => !self.is_generated,
            Keys::None => false,
        };
        asked && self.unique && self.valid && !self.has_tenant && !self.is_attached
    }

    /// Whether tenants need an index like it that is led by their column.
    fn wants_counterpart(&self) -> bool {
        self.valid && !self.has_tenant && !self.is_attached && self.method == "btree"
    }

    fn is_like(&self, unique: bool, rest: &str) -> bool {
        self.method == "btree" && self.unique == unique && self.rest == rest
    }

    /// Whether every look-up by the tenant column can use it.
    fn serves_tenant(&self) -> bool {
        self.is_led && self.valid && !self.is_partial && self.method == "btree"
    }

    /// Qualified and quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.schema, ident(&self.name))
    }
}

/// An index that tenants need.
pub struct Wanted<'a> {
    pub name: String,
    pub unique: bool,
    /// The index that it is made after; None for the one on the tenant column alone.
    pub like: Option<&'a Index>,
    /// The index that is there already.
    pub present: Option<&'a Index>,
    rest: String,
}

impl Wanted<'_> {
    pub fn definition(&self, table: &str, concurrently: bool) -> String {
        format!(
            "CREATE {}INDEX {}{} ON {table} USING btree ({}",
            if self.unique { "UNIQUE " } else { "" },
            if concurrently { "CONCURRENTLY " } else { "" },
            ident(&self.name),
            self.rest
        )
    }
}

/// What the tenants of `table` need of its indexes.
pub fn wanted<'a>(
    table: pg_sys::Oid,
    column: &str,
    schema: &str,
    table_name: &str,
    indexes: &'a [Index],
) -> Result<Vec<Wanted<'a>>> {
    let own: Vec<&Index> = indexes.iter().filter(|index| index.table == table).collect();
    let mut found: Vec<Wanted> = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    for index in own.iter().filter(|index| index.wants_counterpart()) {
        let rest = format!("{}, {}", ident(column), index.rest);
        // Two indexes of the same definition need one counterpart, unless each is a constraint's.
        if !index.unique && found.iter().any(|other| !other.unique && other.rest == rest) {
            continue;
        }
        let is_used = |name: &str| found.iter().any(|other| other.present.is_some_and(|present| present.name == name));
        let present = own.iter().copied().find(|other| other.is_like(index.unique, &rest) && !is_used(&other.name));
        let name = match present {
            Some(present) => present.name.clone(),
            None => free_name(&index.name, schema, &mut taken)?,
        };
        found.push(Wanted { name, unique: index.unique, like: Some(index), present, rest });
    }
    let is_partial = |wanted: &Wanted| wanted.like.is_some_and(|like| like.is_partial);
    let is_served = own.iter().any(|index| index.serves_tenant()) || found.iter().any(|wanted| !is_partial(wanted));
    if !is_served {
        let rest = format!("{})", ident(column));
        let present = own.iter().copied().find(|other| other.is_like(false, &rest));
        let name = match present {
            Some(present) => present.name.clone(),
            None => free_name(table_name, schema, &mut taken)?,
        };
        found.push(Wanted { name, unique: false, like: None, present, rest });
    }
    Ok(found)
}

/// A name made of another one that nothing in the schema has.
fn free_name(base: &str, schema: &str, taken: &mut Vec<String>) -> Result<String> {
    for number in 0.. {
        let suffix = if number == 0 { "_tenant".to_owned() } else { format!("_tenant{number}") };
        let mut end = base.len().min(MAX_NAME - suffix.len());
        while !base.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{suffix}", &base[..end]);
        if !taken.contains(&name) && query::value::<bool>(IS_TAKEN, &[schema.into(), name.as_str().into()])?.is_none() {
            taken.push(name.clone());
            return Ok(name);
        }
    }
    Err(Error::Internal(format!("no name is left for an index like {base}")))
}
