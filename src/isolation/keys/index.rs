//! The indexes of tables.

use super::Keys;
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
             ELSE pg_catalog.obj_description(con.oid, 'pg_constraint') END,
        coalesce(key.is_surrogate, false), CASE WHEN key.is_plain THEN key.columns END, x.indimmediate
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
            pg_catalog.bool_or(g.is_generated) AS is_generated, pg_catalog.bool_and(g.is_generated) AS is_surrogate,
            pg_catalog.bool_and(k.attnum > 0) AS is_plain, pg_catalog.array_agg(a.attname::text ORDER BY k.position) AS columns
        FROM pg_catalog.unnest(x.indkey::int2[]) WITH ORDINALITY k (attnum, position)
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
        LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum AND a.attgenerated = ''
        CROSS JOIN LATERAL (SELECT coalesce(a.attidentity <> '' OR coalesce(pg_catalog.pg_get_expr(f.adbin, f.adrelid), '')
            ~ '^([^(]*\\.)?(nextval|gen_random_uuid|uuid_generate|uuidv)', false) AS is_generated) g
        WHERE k.position <= x.indnkeyatts) key
    WHERE x.indrelid = ANY ($1) ORDER BY x.indrelid, i.relname";
/// Something other than a foreign key that depends on a key: a view that groups by it.
const DEPENDENT: &str = "SELECT con.conname::text, pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_catalog.pg_constraint con
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.refobjid = con.oid AND d.deptype = 'n'
    WHERE con.conindid = ANY ($1) AND con.contype IN ('p', 'u') LIMIT 1";

/// The constraint that an index serves.
pub struct Constraint {
    pub name: String,
    /// As pg_constraint has it: `p`, `u` or `x`.
    pub kind: String,
    pub deferrable: bool,
    pub deferred: bool,
    pub definition: String,
}

impl Constraint {
    pub fn keyword(&self) -> &'static str {
        if self.kind == "p" { "PRIMARY KEY" } else { "UNIQUE" }
    }

    pub fn deferral(&self) -> &'static str {
        match (self.deferrable, self.deferred) {
            (_, true) => " DEFERRABLE INITIALLY DEFERRED",
            (true, false) => " DEFERRABLE",
            (false, false) => "",
        }
    }
}

pub struct Index {
    pub table: pg_sys::Oid,
    pub oid: pg_sys::Oid,
    pub name: String,
    /// The schema, quoted.
    pub schema: String,
    pub unique: bool,
    pub valid: bool,
    pub method: String,
    pub rest: String,
    pub is_replica_identity: bool,
    pub is_clustered: bool,
    pub has_tenant: bool,
    pub is_led: bool,
    /// Whether some column's values are generated.
    is_generated: bool,
    /// Whether every column's are.
    is_surrogate: bool,
    pub is_partial: bool,
    /// Whether it is a part of a partitioned index.
    pub is_attached: bool,
    /// The columns of the key; None where it has expressions.
    pub columns: Option<Vec<String>>,
    /// Whether it is checked at each row, and not at the end of a statement or transaction.
    is_immediate: bool,
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
        is_surrogate: row.must(22)?,
        columns: row.get(23)?,
        is_immediate: row.must(24)?,
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
        asked && self.is_key_of_all()
    }

    /// Whether a value of one tenant keeps the others from it.
    fn is_key_of_all(&self) -> bool {
        self.unique && self.valid && !self.has_tenant && !self.is_attached
    }

    /// Whether it is such a key, and tells by that what the other tenants hold: of values that are generated there is nothing to tell.
    pub fn reaches_across(&self) -> bool {
        self.is_key_of_all() && !self.is_surrogate
    }

    /// Whether tenants need an index like it that is led by their column.
    pub fn wants_counterpart(&self) -> bool {
        self.valid && !self.has_tenant && !self.is_attached && self.method == "btree"
    }

    pub fn is_like(&self, method: &str, unique: bool, rest: &str) -> bool {
        self.method == method && self.unique == unique && self.rest == rest
    }

    /// Whether it can be the counterpart of `other` as far as constraints go: it becomes the constraint's, or lets it go.
    pub fn can_stand_for(&self, other: &Self) -> bool {
        match (&self.constraint, &other.constraint) {
            (None, _) => true,
            (Some(own), None) => !own.deferrable,
            (Some(own), Some(other)) => {
                other.kind != "p" && own.deferrable == other.deferrable && own.deferred == other.deferred
            }
        }
    }

    /// Whether a foreign key can refer to exactly these columns by it.
    pub fn can_be_referred_to(&self, columns: &[&str]) -> bool {
        self.unique
            && self.valid
            && self.is_immediate
            && !self.is_partial
            && self.columns.as_ref().is_some_and(|own| {
                own.len() == columns.len() && own.iter().all(|column| columns.contains(&column.as_str()))
            })
    }

    /// Whether it keeps rows apart by more than equality.
    pub fn is_exclusion(&self) -> bool {
        self.constraint.as_ref().is_some_and(|constraint| constraint.kind == "x")
    }

    /// Whether, led by `column`, it finds all that `other` would find: it has its columns, or begins with them.
    pub fn serves_in_place_of(&self, other: &Self, column: &str) -> bool {
        if !self.valid || !self.is_led || self.method != other.method_led_by_tenant() || self.oid == other.oid {
            return false;
        }
        let wanted = other.rest_led_by(column);
        if self.rest == wanted {
            return true;
        }
        // Columns alone: nothing behind the list, and no second list.
        let list = wanted.strip_suffix(')').filter(|list| !other.is_partial && !list.contains(") "));
        !self.is_partial
            && list.and_then(|list| self.rest.strip_prefix(list)).is_some_and(|rest| rest.starts_with([',', ')']))
    }

    /// Whether every look-up by the tenant column can use it.
    pub fn serves_tenant(&self) -> bool {
        self.is_led && self.valid && !self.is_partial && self.method == "btree"
    }

    /// What follows `(` in the definition of an index like it that is led by `column`.
    pub fn rest_led_by(&self, column: &str) -> String {
        let column = ident(column);
        let mut rest = self.rest.clone();
        if self.has_tenant {
            // It is one of the other columns of the key: the only one that is printed like this, or it stays where it is, too.
            for end in [",", ")"] {
                let there = format!(", {column}{end}");
                if rest.matches(&there).count() == 1 {
                    rest = rest.replacen(&there, end, 1);
                    break;
                }
            }
        }
        format!("{column}, {rest}")
    }

    /// An index of several columns is no hash index.
    pub fn method_led_by_tenant(&self) -> &str {
        if self.method == "hash" { "btree" } else { &self.method }
    }

    /// Qualified and quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.schema, ident(&self.name))
    }
}

/// A constraint of one of these indexes, and what depends on it.
pub fn dependent(indexes: Vec<pg_sys::Oid>) -> Result<Option<(String, String)>> {
    query::first(DEPENDENT, &[indexes.into()], |row| Ok((row.must(1)?, row.must(2)?)))
}
