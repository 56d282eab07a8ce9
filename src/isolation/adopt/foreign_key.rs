//! Foreign keys between tables of tenants: each becomes one that a row of another tenant cannot satisfy.

use super::scope::Scope;
use crate::error::Result;
use crate::query::{self, Row, ident};
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
        pg_catalog.obj_description(con.oid, 'pg_constraint')
    FROM pg_catalog.pg_constraint con
    JOIN pg_catalog.pg_class c ON c.oid = con.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
    JOIN pg_catalog.pg_class p ON p.oid = con.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
    WHERE con.contype = 'f' AND con.conparentid = 0 AND (con.conrelid = ANY ($1) OR con.confrelid = ANY ($1))
    ORDER BY cn.nspname, c.relname, con.conname";
const MAX_NAME: usize = 63;

pub struct ForeignKey {
    pub name: String,
    pub child: pg_sys::Oid,
    pub parent: pg_sys::Oid,
    /// The parent's index that it depends on.
    pub index: pg_sys::Oid,
    pub child_columns: Vec<String>,
    pub parent_columns: Vec<String>,
    pub on_update: String,
    on_delete: String,
    pub match_type: String,
    deferrable: bool,
    deferred: bool,
    pub validated: bool,
    set_columns: Option<Vec<String>>,
    pub all_not_null: bool,
    pub child_is_partitioned: bool,
    pub child_name: String,
    pub parent_name: String,
    pub child_owner: pg_sys::Oid,
    pub may_refer: bool,
    pub child_owner_name: String,
    pub comment: Option<String>,
}

/// The foreign keys of and to the tables of the scope.
pub fn of_scope(scope: &Scope) -> Result<Vec<ForeignKey>> {
    query::rows(FOREIGN_KEYS, &[scope.oids().into()], read)
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
    })
}

fn list<'a>(columns: impl IntoIterator<Item = &'a String>) -> String {
    columns.into_iter().map(|column| ident(column)).collect::<Vec<_>>().join(", ")
}

impl ForeignKey {
    /// The tenant columns of both ends, where both tables are tenants' and the key leaves the tenant out.
    pub fn reaches_across<'a>(&self, scope: &'a Scope) -> Option<(&'a str, &'a str)> {
        let (child, _) = scope.columns.get(&self.child.to_u32())?;
        let (parent, _) = scope.columns.get(&self.parent.to_u32())?;
        (!self.child_columns.contains(child)).then_some((child.as_str(), parent.as_str()))
    }

    /// The key among `others` that takes the place of this one.
    pub fn successor<'a>(&self, tenant: (&str, &str), others: &'a [ForeignKey]) -> Option<&'a ForeignKey> {
        let leads = |columns: &[String], tenant: &str, rest: &[String]| {
            columns.split_first().is_some_and(|(first, others)| first == tenant && others == rest)
        };
        others.iter().find(|other| {
            other.child == self.child
                && other.parent == self.parent
                && leads(&other.child_columns, tenant.0, &self.child_columns)
                && leads(&other.parent_columns, tenant.1, &self.parent_columns)
        })
    }

    /// The name of the successor until it takes this one's.
    pub fn successor_name(&self, others: &[ForeignKey]) -> String {
        let is_free = |name: &str| !others.iter().any(|other| other.child == self.child && other.name == name);
        let named = |number: usize| {
            let suffix = if number == 0 { "_tenant".to_owned() } else { format!("_tenant{number}") };
            let mut end = self.name.len().min(MAX_NAME - suffix.len());
            while !self.name.is_char_boundary(end) {
                end -= 1;
            }
            format!("{}{suffix}", &self.name[..end])
        };
        (0..=others.len()).map(named).find(|name| is_free(name)).unwrap_or_else(|| named(0))
    }

    /// The successor's definition. With one column, MATCH FULL says what MATCH SIMPLE does; the tenant is never NULL, so that FULL cannot stay.
    pub fn successor_definition(&self, tenant: (&str, &str)) -> String {
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
