//! Loading a tenant's rows into its tables, with nothing fired: every table as its owner, and what was promised checked afterwards.

use super::ids::Ids;
use super::lines::Lines;
use super::unpack::{Package, Packed, refused};
use super::{people::People, references};
use crate::error::{Error, Result};
use crate::query::{self, ident, literal};
use crate::relation;
use crate::role;
use crate::row_file;
use crate::transfer::tables::{Place, Table};
use pgrx::pg_sys;
use pgrx::{Uuid, notice};

const SEQUENCE: &str = "SELECT c.oid, c.relowner FROM pg_catalog.pg_class c WHERE c.relnamespace = $1 AND c.relname = $2::name AND c.relkind = 'S'";
/// The numbers of some tables that come from sequences.
const NUMBERED: &str = "SELECT DISTINCT a.attrelid, a.attname::text, s.oid, s.relowner, q.seqincrement > 0
    FROM pg_catalog.pg_attribute a
    LEFT JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
    JOIN pg_catalog.pg_depend d ON
        d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('i', 'a')
        OR d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = ad.oid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    JOIN pg_catalog.pg_class s ON s.relkind = 'S'
        AND s.oid = CASE WHEN d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN d.objid ELSE d.refobjid END
    JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
    WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
      AND a.atttypid IN ('pg_catalog.int2'::pg_catalog.regtype, 'pg_catalog.int4'::pg_catalog.regtype, 'pg_catalog.int8'::pg_catalog.regtype)";
const KEPT_VIEWS: &str = "SELECT c.oid, c.relowner FROM pg_catalog.pg_class c
    WHERE c.relnamespace = $1 AND c.relkind = 'm' AND c.relispopulated ORDER BY c.oid";
/// How far a sequence that others draw from at the same time is moved number by number, which never takes it back.
const STEPS: i64 = 10_000;

/// A table of the file, and the one here that its rows go to.
struct Match<'a> {
    packed: &'a Packed,
    table: &'a Table,
    fields: Vec<Field>,
}

/// What becomes of a column of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Keep,
    Renew,
    /// It says whose the row is: the tenant's of the file, and nobody else's.
    Tenant,
}

/// Finds the table of the place that has the name and, where there are several, the schema.
fn find<'a>(place: &'a Place, packed: &Packed, taken: &[Match]) -> Result<&'a Table> {
    let is_free = |table: &&Table| !taken.iter().any(|other| other.table.oid == table.oid);
    let named = |table: &&Table| table.name == packed.name;
    let own = || place.tables.iter().filter(named).filter(is_free).find(|table| table.tenant.is_none());
    let mut shared = place.tables.iter().filter(named).filter(is_free).filter(|table| table.tenant.is_some());
    let there = shared.clone().find(|table| packed.schema.as_deref() == Some(&table.schema));
    let only = match (shared.next(), shared.next()) {
        (Some(table), None) => Some(table),
        _ => None,
    };
    let missing = || refused(format!("there is no table {} here for its rows", ident(&packed.name)));
    own().or(there).or(only).ok_or_else(missing)
}

fn matches<'a>(place: &'a Place, package: &'a Package, ids: &Ids) -> Result<Vec<Match<'a>>> {
    let mut matches: Vec<Match> = Vec::new();
    for packed in &package.tables {
        let table = find(place, packed, &matches)?;
        let mut fields = Vec::new();
        for (index, name) in packed.columns.iter().enumerate() {
            if packed.columns[..index].contains(name) || !table.columns.iter().any(|column| column.name == *name) {
                let column = format!("{}.{}", ident(&packed.name), ident(name));
                return Err(refused(format!("there is no column {column} here for its values")));
            }
            fields.push(match &table.tenant {
                Some(owned) if owned.column == *name => Field::Tenant,
                _ if ids.changes(table, name) => Field::Renew,
                _ => Field::Keep,
            });
        }
        matches.push(Match { packed, table, fields });
    }
    Ok(matches)
}

/// Removes what the tenant has.
fn clear(place: &Place) -> Result<()> {
    for table in place.tables.iter().rev() {
        let sql = format!("DELETE FROM {}{}", table.rows(), table.where_clause());
        place.with(table, || role::without_triggers(|| query::statement(&sql, &[])))?;
    }
    Ok(())
}

impl Match<'_> {
    /// The column of a schema of the tenant's own that says whose its rows are, and that the file leaves out.
    fn added(&self) -> Option<&str> {
        let name = self.packed.tenant_column.as_deref()?;
        let column = self.table.columns.iter().find(|column| column.name == name && self.table.tenant.is_none())?;
        (!column.defaults_to_tenant && !self.packed.columns.iter().any(|known| known == name)).then_some(name)
    }

    /// The rows as they are to be here; None where the file has them so.
    fn rewrite(&self, tenant: Uuid, from: Uuid, ids: &Ids) -> Result<Option<Lines>> {
        if self.added().is_none() && self.fields.iter().all(|field| *field == Field::Keep) {
            return Ok(None);
        }
        let (from, tenant) = (from.to_string(), tenant.to_string());
        let key = self.table.tenant.as_ref().filter(|owned| owned.is_key).and_then(|owned| owned.value.as_ref());
        let from = key.unwrap_or(&from);
        let mut lines = Lines::new()?;
        self.packed.rows.read(|line| {
            let values: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
            if values.len() != self.fields.len() {
                return Err(refused(format!("a row of {} has not as many values as columns", self.packed.name)));
            }
            let mut new: Vec<Vec<u8>> = Vec::with_capacity(values.len() + 1);
            for ((field, value), column) in self.fields.iter().zip(values).zip(&self.packed.columns) {
                match field {
                    Field::Tenant if value == from.as_bytes() => {}
                    Field::Tenant => return Err(refused(format!("a row of {} is another tenant's", self.packed.name))),
                    Field::Renew if value != b"\\N" => {
                        let value = std::str::from_utf8(value).map_err(|_| Error::Encoding)?;
                        new.push(ids.renew(self.table, column, value)?.into_bytes());
                    }
                    _ => new.push(value.to_vec()),
                }
            }
            new.extend(self.added().map(|_| tenant.clone().into_bytes()));
            lines.add(&new.join(&b'\t'))?;
            lines.add(b"\n")
        })?;
        lines.finish()?;
        Ok(Some(lines))
    }

    fn load(&self, place: &Place, from: Uuid, ids: &Ids) -> Result<u64> {
        let rewritten = self.rewrite(place.tenant, from, ids)?;
        let kept = self.packed.columns.iter().zip(&self.fields).filter(|(_, field)| **field != Field::Tenant);
        let mut columns: Vec<String> = kept.map(|(name, _)| name.clone()).collect();
        columns.extend(self.added().map(str::to_owned));
        let lines = rewritten.as_ref().unwrap_or(&self.packed.rows);
        let load = || row_file::load(self.table.oid, &columns, lines.path());
        let rows = place.with(self.table, || role::without_triggers(load))?;
        // The end of the data can be written in a line of it.
        if rows != self.packed.rows.count {
            return Err(refused(format!("{} has other rows than lines", self.packed.name)));
        }
        self.check_owner(place, rows)?;
        Ok(rows)
    }

    /// Fails unless all of these rows are the tenant's: the default of a column is what its owner made it.
    fn check_owner(&self, place: &Place, rows: u64) -> Result<()> {
        if self.table.tenant.is_none() {
            return Ok(());
        }
        let sql = format!("SELECT pg_catalog.count(*) FROM {}{}", self.table.rows(), self.table.where_clause());
        let found = place.with(self.table, || query::current_column::<i64>(&sql, &[]))?;
        match found.as_slice() {
            [Some(found)] if found.cast_unsigned() == rows => Ok(()),
            _ => Err(Error::Unprotectable(
                format!("rows that were loaded into {} are not the tenant's", self.table.qualified()),
                "SELECT * FROM tenancy.protection_status; the default of its tenant column must be current_tenant()."
                    .to_owned(),
            )),
        }
    }
}

/// Sets the positions of the tenant's own sequences, and moves those that others draw from beyond the rows.
fn move_sequences(place: &Place, package: &Package) -> Result<()> {
    for (name, value, is_called) in package.sequences.iter().filter(|_| place.schema.is_some()) {
        let found = query::current_rows(SEQUENCE, &[place.schema.into(), name.as_str().into()], |row| {
            Ok((row.must::<pg_sys::Oid>(1)?, row.must::<pg_sys::Oid>(2)?))
        })?;
        let Some((sequence, owner)) = found.first() else {
            notice!("there is no sequence {} here", ident(name));
            continue;
        };
        let sql = format!("SELECT pg_catalog.setval({}, $1, $2)", literal(&relation::name(*sequence)));
        place.as_owner(*owner, || query::current_column::<i64>(&sql, &[(*value).into(), (*is_called).into()]))?;
    }
    let oids: Vec<pg_sys::Oid> = place.tables.iter().map(|table| table.oid).collect();
    let numbered = query::current_rows(NUMBERED, &[oids.into()], |row| {
        Ok((
            row.must::<pg_sys::Oid>(1)?,
            row.must::<String>(2)?,
            row.must::<pg_sys::Oid>(3)?,
            row.must::<pg_sys::Oid>(4)?,
            row.must::<bool>(5)?,
        ))
    })?;
    for (table, column, sequence, owner, ascends) in numbered {
        let Some(table) = place.tables.iter().find(|known| known.oid == table && ascends) else { continue };
        let highest =
            format!("SELECT pg_catalog.max({}::bigint) FROM {}{}", ident(&column), table.rows(), table.where_clause());
        let highest = place.with(table, || query::current_column::<i64>(&highest, &[]))?;
        if let Some(highest) = highest.into_iter().flatten().next() {
            place.as_owner(owner, || move_beyond(sequence, highest))?;
        }
    }
    Ok(())
}

/// Moves a sequence so far that it gives none of the numbers up to this one; never back.
fn move_beyond(sequence: pg_sys::Oid, highest: i64) -> Result<()> {
    let name = relation::name(sequence);
    let position = format!("SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {name}");
    let at = query::current_column::<i64>(&position, &[])?.into_iter().flatten().next().unwrap_or_default();
    if at >= highest {
        return Ok(());
    }
    let quoted = literal(&name);
    if highest.saturating_sub(at) > STEPS {
        query::current_column::<i64>(&format!("SELECT pg_catalog.setval({quoted}, $1)"), &[highest.into()])?;
        return Ok(());
    }
    loop {
        let next = query::current_column::<i64>(&format!("SELECT pg_catalog.nextval({quoted})"), &[])?;
        if next.into_iter().flatten().next().is_none_or(|next| next >= highest) {
            return Ok(());
        }
    }
}

fn refresh_kept_views(place: &Place) -> Result<()> {
    let Some(schema) = place.schema else { return Ok(()) };
    let views = query::current_rows(KEPT_VIEWS, &[schema.into()], |row| {
        Ok((row.must::<pg_sys::Oid>(1)?, row.must::<pg_sys::Oid>(2)?))
    })?;
    for (view, owner) in views {
        let sql = format!("REFRESH MATERIALIZED VIEW {}", relation::name(view));
        place.as_owner(owner, || query::statement(&sql, &[]))?;
    }
    Ok(())
}

/// What is done with ids, and with rows that are there.
pub struct Way {
    /// Keys that are unique over all tenants get new values.
    pub new_ids: bool,
    /// The tenant has been here, and its rows are replaced.
    pub replaces: bool,
}

/// Loads the rows into the place; how many.
pub fn load(place: &Place, package: &Package, people: &People, way: &Way) -> Result<u64> {
    let mut ids = Ids::plan(place, way.new_ids, people)?;
    let matches = matches(place, package, &ids)?;
    if way.replaces || place.schema.is_some() {
        clear(place)?;
    }
    for matched in &matches {
        ids.number(place, matched.table, matched.packed)?;
    }
    let mut rows = 0;
    for matched in &matches {
        pgrx::check_for_interrupts!();
        rows += matched.load(place, package.header.tenant, &ids)?;
    }
    references::check(place, way.replaces)?;
    references::check_deferrable(place)?;
    move_sequences(place, package)?;
    refresh_kept_views(place)?;
    Ok(rows)
}
