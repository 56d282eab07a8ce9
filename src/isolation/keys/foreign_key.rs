//! Foreign keys between tables of tenants: each becomes one that a row of another tenant cannot satisfy.

use super::change::{ACCESS_EXCLUSIVE, Change, MOMENT, READS, SHARE_ROW_EXCLUSIVE, SHARE_UPDATE_EXCLUSIVE, Way};
use crate::error::Result;
use crate::query::{self, Row, ident, literal};
use pgrx::pg_sys;

const FOREIGN_KEYS: &str = "SELECT con.conname::text, con.conrelid, con.confrelid, con.conindid,
        (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.position) FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY k (attnum, position)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum),
        (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.position) FROM pg_catalog.unnest(con.confkey) WITH ORDINALITY k (attnum, position)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.attnum),
        con.confupdtype::text, con.confdeltype::text, con.confmatchtype::text, con.condeferrable, con.condeferred, con.convalidated,
        (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.position)
            FROM pg_catalog.unnest(con.confdelsetcols) WITH ORDINALITY k (attnum, position)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum),
        (SELECT pg_catalog.bool_and(a.attnotnull) FROM pg_catalog.pg_attribute a WHERE a.attrelid = con.conrelid AND a.attnum = ANY (con.conkey)),
        c.relkind = 'p', pg_catalog.format('%I.%I', cn.nspname, c.relname), pg_catalog.format('%I.%I', pn.nspname, p.relname), c.relowner,
        pg_catalog.has_table_privilege(c.relowner, p.oid, 'REFERENCES'), pg_catalog.pg_get_userbyid(c.relowner)::text,
        pg_catalog.obj_description(con.oid, 'pg_constraint'), o.rolsuper OR o.rolbypassrls, pg_catalog.pg_get_userbyid(p.relowner)::text,
        (SELECT pg_catalog.array_agg(x.conname::text) FROM pg_catalog.pg_constraint x WHERE x.conrelid = con.conrelid)
    FROM pg_catalog.pg_constraint con
    JOIN pg_catalog.pg_class c ON c.oid = con.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
    JOIN pg_catalog.pg_class p ON p.oid = con.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
    JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
    WHERE con.contype = 'f' AND con.conparentid = 0 AND (con.conrelid = ANY ($1) OR con.confrelid = ANY ($1))
    ORDER BY cn.nspname, c.relname, con.conname";

pub struct ForeignKey {
    pub name: String,
    pub child: pg_sys::Oid,
    pub parent: pg_sys::Oid,
    /// The parent's index that it depends on.
    pub index: pg_sys::Oid,
    pub child_columns: Vec<String>,
    pub parent_columns: Vec<String>,
    on_update: String,
    on_delete: String,
    match_type: String,
    deferrable: bool,
    deferred: bool,
    validated: bool,
    set_columns: Option<Vec<String>>,
    all_not_null: bool,
    pub child_is_partitioned: bool,
    pub child_name: String,
    pub parent_name: String,
    pub child_owner: pg_sys::Oid,
    pub may_refer: bool,
    pub child_owner_name: String,
    comment: Option<String>,
    /// Whether the child's owner sees every row.
    owner_bypasses: bool,
    pub parent_owner_name: String,
    /// The names of the child's constraints.
    taken: Vec<String>,
}

/// A partition of the child, qualified and quoted.
pub type Partition = (pg_sys::Oid, String);

/// The foreign keys of and to these tables.
pub fn of_tables(tables: Vec<pg_sys::Oid>) -> Result<Vec<ForeignKey>> {
    query::rows(FOREIGN_KEYS, &[tables.into()], read)
}

fn read(row: &Row) -> Result<ForeignKey> {
    Ok(ForeignKey {
        name: row.must(1)?,
        child: row.must(2)?,
        parent: row.must(3)?,
        index: row.must(4)?,
        child_columns: row.must(5)?,
        parent_columns: row.must(6)?,
        on_update: row.must(7)?,
        on_delete: row.must(8)?,
        match_type: row.must(9)?,
        deferrable: row.must(10)?,
        deferred: row.must(11)?,
        validated: row.must(12)?,
        set_columns: row.get(13)?,
        all_not_null: row.must(14)?,
        child_is_partitioned: row.must(15)?,
        child_name: row.must(16)?,
        parent_name: row.must(17)?,
        child_owner: row.must(18)?,
        may_refer: row.must(19)?,
        child_owner_name: row.must(20)?,
        comment: row.get(21)?,
        owner_bypasses: row.must(22)?,
        parent_owner_name: row.must(23)?,
        taken: row.must(24)?,
    })
}

fn list<'a>(columns: impl IntoIterator<Item = &'a String>) -> String {
    columns.into_iter().map(|column| ident(column)).collect::<Vec<_>>().join(", ")
}

impl ForeignKey {
    /// The tenant columns of both ends, where both tables are tenants' and the key leaves the tenant out.
    pub fn reaches_across<'a>(&self, column: impl Fn(pg_sys::Oid) -> Option<&'a str>) -> Option<(&'a str, &'a str)> {
        let (child, parent) = (column(self.child)?, column(self.parent)?);
        (!self.has_child_column(child)).then_some((child, parent))
    }

    pub fn has_child_column(&self, column: &str) -> bool {
        self.child_columns.iter().any(|own| own == column)
    }

    /// Whether the key compares these two columns.
    pub fn compares(&self, child: &str, parent: &str) -> bool {
        self.child_columns.iter().zip(&self.parent_columns).any(|(own, other)| own == child && other == parent)
    }

    /// Why there can be no such key with the tenant in it, and the way out; `alike` says that the tenant columns are of one type.
    pub fn obstacle(&self, alike: bool) -> Option<(String, &'static str)> {
        let name = format!("foreign key {} of {}", ident(&self.name), self.child_name);
        if !alike {
            return Some((
                format!("{name} is between tables whose tenant columns differ in type"),
                "Give both the same type.",
            ));
        }
        if matches!(self.on_update.as_str(), "n" | "d") {
            return Some((
                format!("{name} would take the tenant from a row: ON UPDATE SET NULL or SET DEFAULT sets every column"),
                "Make it ON UPDATE CASCADE or NO ACTION.",
            ));
        }
        if self.match_type == "f" && self.child_columns.len() > 1 && !self.all_not_null {
            return Some((
                format!("{name} is MATCH FULL of columns that can be null, which a key with the tenant cannot be"),
                "Make it MATCH SIMPLE, with a check that the columns are null together.",
            ));
        }
        None
    }

    /// The child's owner may not refer to the parent without this.
    pub fn grant(&self) -> String {
        format!("GRANT REFERENCES ON {} TO {};", self.parent_name, ident(&self.child_owner_name))
    }

    /// Makes it one that a row of another tenant cannot satisfy, of the same name. Of a partitioned table the `partitions` go one after another;
    /// without them all rows are checked at once, and writers wait.
    pub fn changes(&self, tenant: (&str, &str), all: &[ForeignKey], partitions: &[Partition]) -> Vec<Change> {
        let successor = self.successor(self.child, tenant, all);
        let name = successor.map_or_else(|| self.successor_name(), |successor| successor.name.clone());
        let mut changes = Vec::new();
        if !self.child_is_partitioned {
            self.add(&mut changes, &self.child_name, &name, tenant, successor);
        } else if successor.is_none() {
            for (partition, partition_name) in partitions {
                let there = self.successor(*partition, tenant, all);
                let name = there.map_or(&name, |there| &there.name);
                self.add(&mut changes, partition_name, name, tenant, there);
            }
            let statement = format!(
                "ALTER TABLE {} ADD CONSTRAINT {} {}",
                self.child_name,
                ident(&name),
                self.successor_definition(tenant)
            );
            let (cost, note) = match partitions {
                [] => ((SHARE_ROW_EXCLUSIVE, READS), "of a partitioned table: writers wait"),
                _ => ((ACCESS_EXCLUSIVE, MOMENT), "of the partitioned table: what its partitions have is taken"),
            };
            changes.push(Change::new(Way::Together, vec![statement], cost, note));
        }
        changes.push(self.succession(&name));
        changes
    }

    /// The successor on a table, checked for rows to come, then for those that are there.
    fn add(
        &self,
        changes: &mut Vec<Change>,
        child: &str,
        name: &str,
        tenant: (&str, &str),
        there: Option<&ForeignKey>,
    ) {
        let name = ident(name);
        if there.is_none() {
            let definition = self.successor_definition(tenant);
            let statement = format!("ALTER TABLE {child} ADD CONSTRAINT {name} {definition} NOT VALID");
            let note = format!("for new rows; locks {}, too", self.parent_name);
            changes.push(Change::new(Way::Together, vec![statement], (SHARE_ROW_EXCLUSIVE, MOMENT), note));
        }
        if self.validated && there.is_none_or(|there| !there.validated) {
            let statement = format!("ALTER TABLE {child} VALIDATE CONSTRAINT {name}");
            let way = if self.owner_bypasses { Way::Together } else { Way::SeeingAllRows };
            let cost = (SHARE_UPDATE_EXCLUSIVE, READS);
            changes.push(Change::new(way, vec![statement], cost, "for the rows that are there; writers go on"));
        }
    }

    /// The successor takes its place.
    fn succession(&self, successor: &str) -> Change {
        let (name, child) = (ident(&self.name), &self.child_name);
        let mut statements = vec![
            format!("ALTER TABLE {child} DROP CONSTRAINT {name}"),
            format!("ALTER TABLE {child} RENAME CONSTRAINT {} TO {name}", ident(successor)),
        ];
        if let Some(comment) = &self.comment {
            statements.push(format!("COMMENT ON CONSTRAINT {name} ON {child} IS {}", literal(comment)));
        }
        let note = format!("a row of another tenant cannot be referred to any more; locks {}, too", self.parent_name);
        Change::new(Way::Together, statements, (ACCESS_EXCLUSIVE, MOMENT), note)
    }

    /// The key of `child` among `others` that takes the place of this one, or of its part there.
    fn successor<'a>(
        &self,
        child: pg_sys::Oid,
        tenant: (&str, &str),
        others: &'a [ForeignKey],
    ) -> Option<&'a ForeignKey> {
        let leads = |columns: &[String], tenant: &str, rest: &[String]| {
            columns.split_first().is_some_and(|(first, others)| first == tenant && others == rest)
        };
        others.iter().find(|other| {
            other.child == child
                && other.parent == self.parent
                && leads(&other.child_columns, tenant.0, &self.child_columns)
                && leads(&other.parent_columns, tenant.1, &self.parent_columns)
        })
    }

    /// The name of the successor until it takes this one's.
    fn successor_name(&self) -> String {
        let named = |number| super::successor_name(&self.name, number);
        (0..=self.taken.len()).map(named).find(|name| !self.taken.contains(name)).unwrap_or_else(|| named(0))
    }

    /// The successor's definition. With one column, MATCH FULL says what MATCH SIMPLE does; the tenant is never NULL, so that FULL cannot stay.
    fn successor_definition(&self, tenant: (&str, &str)) -> String {
        let set = list(self.set_columns.as_ref().unwrap_or(&self.child_columns));
        let on_delete = match self.on_delete.as_str() {
            "c" => " ON DELETE CASCADE".to_owned(),
            "r" => " ON DELETE RESTRICT".to_owned(),
            "n" => format!(" ON DELETE SET NULL ({set})"),
            "d" => format!(" ON DELETE SET DEFAULT ({set})"),
            _ => String::new(),
        };
        let on_update = match self.on_update.as_str() {
            "c" => " ON UPDATE CASCADE",
            "r" => " ON UPDATE RESTRICT",
            _ => "",
        };
        format!(
            "FOREIGN KEY ({}, {}) REFERENCES {} ({}, {}){on_update}{on_delete}{}{}",
            ident(tenant.0),
            list(&self.child_columns),
            self.parent_name,
            ident(tenant.1),
            list(&self.parent_columns),
            if self.deferrable { " DEFERRABLE" } else { "" },
            if self.deferred { " INITIALLY DEFERRED" } else { "" },
        )
    }
}
