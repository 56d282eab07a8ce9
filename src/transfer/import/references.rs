//! What PostgreSQL checks by triggers, which do not fire while a tenant's rows are loaded: foreign keys, and unique keys that may be deferred.

use crate::error::{Error, Result};
use crate::query::{self, ident};
use crate::relation;
use crate::role;
use crate::transfer::deferred;
use crate::transfer::tables::{Place, Table};
use pgrx::pg_sys;

/// The foreign keys of some tables or to them; each pair of columns with the operator that compares them, the referenced one first.
const KEYS: &str = "WITH members AS (SELECT r.oid AS root, t.relid::oid AS oid
        FROM pg_catalog.unnest($1) AS r (oid) CROSS JOIN LATERAL (SELECT r.oid AS relid UNION SELECT relid FROM pg_catalog.pg_partition_tree(r.oid)) AS t)
    SELECT con.conname::text, con.conrelid, con.confrelid, con.confmatchtype::text,
        pg_catalog.array_agg(a.attname::text ORDER BY k.place), pg_catalog.array_agg(r.attname::text ORDER BY k.place),
        pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) ORDER BY k.place), c.relowner, f.relowner,
        m.root, fm.root
    FROM pg_catalog.pg_constraint con
    CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(con.conkey), pg_catalog.unnest(con.confkey), pg_catalog.unnest(con.conpfeqop))
        WITH ORDINALITY AS k (attnum, referenced, operator, place)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum
    JOIN pg_catalog.pg_attribute r ON r.attrelid = con.confrelid AND r.attnum = k.referenced
    JOIN pg_catalog.pg_operator o ON o.oid = k.operator JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
    JOIN pg_catalog.pg_class c ON c.oid = con.conrelid JOIN pg_catalog.pg_class f ON f.oid = con.confrelid
    LEFT JOIN members m ON m.oid = con.conrelid LEFT JOIN members fm ON fm.oid = con.confrelid
    WHERE con.contype = 'f' AND con.conparentid = 0 AND (m.oid IS NOT NULL OR fm.oid IS NOT NULL)
    GROUP BY con.oid, con.conname, con.conrelid, con.confrelid, con.confmatchtype, c.relowner, f.relowner, m.root, fm.root ORDER BY con.oid";
const MAY_READ: &str = "SELECT pg_catalog.has_table_privilege($1, $2, 'SELECT')";

struct Key {
    name: String,
    table: pg_sys::Oid,
    referenced: pg_sys::Oid,
    is_full: bool,
    columns: Vec<String>,
    referenced_columns: Vec<String>,
    operators: Vec<String>,
    owner: pg_sys::Oid,
    referenced_owner: pg_sys::Oid,
    /// The table of the tenant's that they belong to, where it is one: they may be partitions.
    root: Option<pg_sys::Oid>,
    referenced_root: Option<pg_sys::Oid>,
}

fn oids(place: &Place) -> Vec<pg_sys::Oid> {
    place.tables.iter().map(|table| table.oid).collect()
}

fn find(place: &Place, oid: pg_sys::Oid) -> Option<&Table> {
    place.tables.iter().find(|table| table.oid == oid)
}

/// Fails when a row of the tenant refers to one that is not there, or is another tenant's; with `from_outside`, also a row of any table that
/// refers to a row of the tenant.
pub fn check(place: &Place, from_outside: bool) -> Result<()> {
    let keys = query::current_rows(KEYS, &[oids(place).into()], |row| {
        Ok(Key {
            name: row.must(1)?,
            table: row.must(2)?,
            referenced: row.must(3)?,
            is_full: row.must::<String>(4)? == "f",
            columns: row.must(5)?,
            referenced_columns: row.must(6)?,
            operators: row.must(7)?,
            owner: row.must(8)?,
            referenced_owner: row.must(9)?,
            root: row.get(10)?,
            referenced_root: row.get(11)?,
        })
    })?;
    for key in keys.iter().filter(|key| from_outside || key.root.is_some()) {
        key.check(place)?;
    }
    Ok(())
}

impl Key {
    fn check(&self, place: &Place) -> Result<()> {
        let find = |root: Option<pg_sys::Oid>| root.and_then(|root| find(place, root));
        let (table, referenced) = (find(self.root), find(self.referenced_root));
        let all = |oid| relation::name(oid);
        let rows = |table: Option<&Table>, oid| match table {
            Some(table) if table.oid == oid => table.rows(),
            _ => all(oid),
        };
        let (rows, referenced_rows) = (rows(table, self.table), rows(referenced, self.referenced));
        let mut matches: Vec<String> = (self.columns.iter().zip(&self.referenced_columns).zip(&self.operators))
            .map(|((column, referenced), operator)| format!("r.{} {operator} c.{}", ident(referenced), ident(column)))
            .collect();
        matches.extend(referenced.and_then(|referenced| referenced.condition("r.")));
        let any_null: Vec<String> = self.columns.iter().map(|column| format!("c.{} IS NULL", ident(column))).collect();
        let all_null = any_null.join(" AND ");
        let exempt = if self.is_full { all_null } else { any_null.join(" OR ") };
        let own = table.and_then(|table| table.condition("c."));
        let own = own.map(|own| format!("{own} AND ")).unwrap_or_default();
        let sql = format!(
            "SELECT true FROM {rows} AS c WHERE {own}NOT ({exempt}) AND NOT EXISTS (SELECT FROM {referenced_rows} AS r WHERE {}) LIMIT 1",
            matches.join(" AND ")
        );
        let found = self.reading(|| place.as_owner(self.owner, || query::current_column::<bool>(&sql, &[])))?;
        match found.is_empty() {
            true => Ok(()),
            false => Err(Error::Dangling { table: all(self.table), constraint: self.name.clone() }),
        }
    }

    /// Runs `work`, for which the table's owner may read the referenced table, too.
    fn reading<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let may_read = query::value::<bool>(MAY_READ, &[self.owner.into(), self.referenced.into()])? == Some(true);
        if self.owner == self.referenced_owner || may_read {
            return work();
        }
        let (name, role) = (relation::name(self.referenced), relation::role_name(self.owner));
        role::as_owner(self.referenced_owner, || query::statement(&format!("GRANT SELECT ON {name} TO {role}"), &[]))?;
        let done = work()?;
        role::as_owner(self.referenced_owner, || {
            query::statement(&format!("REVOKE SELECT ON {name} FROM {role}"), &[])
        })?;
        Ok(done)
    }
}

/// Fails when a row of the tenant has a unique key, one that may be deferred, that another row has.
pub fn check_deferrable(place: &Place) -> Result<()> {
    for key in deferred::keys(oids(place))? {
        let Some(table) = find(place, key.table) else { continue };
        let Some(sql) = key.query(&table.rows(), table.condition("one.")) else {
            let message = format!("deferrable exclusion constraint {} of {}", ident(&key.name), table.qualified());
            return Err(Error::Unsupported(format!("rows cannot be loaded under {message}")));
        };
        if !place.with(table, || query::current_column::<bool>(&sql, &[]))?.is_empty() {
            return Err(Error::Duplicate("key of constraint", key.name));
        }
    }
    Ok(())
}
