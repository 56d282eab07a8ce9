//! Positions of sequences: a new place goes on where the old one was, and a sequence that tenants share goes forward only.

use super::tables::Table;
use crate::error::Result;
use crate::isolation::schema::Place;
use crate::query::{self, ident};
use crate::role;
use pgrx::prelude::*;

/// The sequences of a schema, with their owners, their direction and half of their range, and the columns that draw from them.
const SEQUENCES: &str = "SELECT c.relname::pg_catalog.text, c.relowner, s.seqincrement > 0,
        CASE WHEN s.seqincrement > 0 THEN s.seqmax / 2 ELSE s.seqmin / 2 END, t.relname::pg_catalog.text, t.relowner, a.attname::pg_catalog.text
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
    LEFT JOIN (pg_catalog.pg_depend d JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
        JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid)
        ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
    WHERE c.relnamespace = $1 AND c.relkind = 'S' ORDER BY c.relname";

/// Unique keys of shared tables that hold a number from a sequence and not the tenant.
const KEYS_OF_ALL: &str = "SELECT DISTINCT i.indexrelid::pg_catalog.regclass::pg_catalog.text FROM tenancy.protected_tables p
    JOIN pg_catalog.pg_attribute t ON t.attrelid = p.table_name AND t.attname = p.tenant_column
    JOIN pg_catalog.pg_index i ON i.indrelid = p.table_name AND i.indisunique AND NOT t.attnum = ANY (i.indkey::pg_catalog.int2[])
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = i.indrelid
        AND d.refobjsubid = ANY (i.indkey::pg_catalog.int2[]) AND d.deptype IN ('a', 'i') AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    JOIN pg_catalog.pg_sequence s ON s.seqrelid = d.objid
    WHERE p.table_name::pg_catalog.oid = ANY ($1) ORDER BY 1";

/// Says which keys may stand against a way back, once both places have given the same numbers.
pub fn warn_of_keys(tables: &[&Table]) -> Result<()> {
    let oids: Vec<pg_sys::Oid> = tables.iter().map(|table| table.oid).collect();
    let keys: Vec<String> = query::current_rows(KEYS_OF_ALL, &[oids.into()], |row| row.must(1))?;
    if !keys.is_empty() {
        notice!(
            "unique keys of numbers without the tenant column: {}; rows that get such numbers from now on may not be moved back",
            keys.join(", ")
        );
    }
    Ok(())
}

/// A sequence of a schema.
pub struct Sequence {
    name: String,
    owner: pg_sys::Oid,
    is_ascending: bool,
    half: i64,
    /// The table, its owner and the column.
    column: Option<(String, pg_sys::Oid, String)>,
}

pub fn of_schema(schema: pg_sys::Oid) -> Result<Vec<Sequence>> {
    query::current_rows(SEQUENCES, &[schema.into()], |row| {
        let column = row.get::<String>(5)?.zip(row.get::<pg_sys::Oid>(6)?).zip(row.get::<String>(7)?);
        let column = column.map(|((table, owner), column)| (table, owner, column));
        Ok(Sequence { name: row.must(1)?, owner: row.must(2)?, is_ascending: row.must(3)?, half: row.must(4)?, column })
    })
}

/// Lets the sequences of a new schema go on where those of the same names are; one that has none there, behind the numbers that its column has.
pub fn follow(places: &[Place], new: &str, new_sequences: &[Sequence]) -> Result<()> {
    for sequence in new_sequences {
        let place = match places.iter().find(|place| place.sequence == sequence.name) {
            Some(place) => Some((place.value, place.is_called)),
            None => sequence.last_in_column(new)?.map(|last| (last, true)),
        };
        if let Some((value, is_called)) = place {
            let Sequence { name, owner, .. } = sequence;
            Place { sequence: name.clone(), owner: *owner, value, is_called }.take(new)?;
        }
    }
    Ok(())
}

impl Sequence {
    /// The last number that the rows of its column have.
    fn last_in_column(&self, schema: &str) -> Result<Option<i64>> {
        let Some((table, owner, column)) = &self.column else { return Ok(None) };
        let last = if self.is_ascending { "max" } else { "min" };
        let (schema, table, column) = (ident(schema), ident(table), ident(column));
        let sql = format!("SELECT pg_catalog.{last}({column})::pg_catalog.int8 FROM {schema}.{table}");
        let found: Vec<Option<i64>> = role::as_owner_of_all_rows(*owner, || query::current_column(&sql, &[]))?;
        Ok(found.into_iter().flatten().next())
    }

    /// Brings the sequence, which tenants share, to where one of a tenant is that is ahead. One that is beyond half of its range does not take
    /// it along: a tenant must not use up what is everybody's.
    pub fn bring_forward(&self, schema: &str, own: &Place) -> Result<()> {
        let Some(place) = Place::of(schema, &self.name, self.owner)? else { return Ok(()) };
        let (from, to) = (own.value, place.value);
        if if self.is_ascending { from <= to } else { from >= to } {
            return Ok(());
        }
        if if self.is_ascending { from > self.half } else { from < self.half } {
            warning!(
                "sequence {}.{} stays at {to}: the tenant's is at {from}, beyond half of its range",
                ident(schema),
                ident(&self.name)
            );
            return Ok(());
        }
        Place { value: from, is_called: own.is_called, ..place }.take(schema)
    }
}

/// What the sequences of a schema are called.
pub fn names(schema: pg_sys::Oid) -> Result<Vec<String>> {
    Ok(of_schema(schema)?.into_iter().map(|sequence| sequence.name).collect())
}

/// Where the sequences of a schema are.
pub fn places(schema: &str, sequences: &[Sequence]) -> Result<Vec<Place>> {
    let place = |sequence: &Sequence| Place::of(schema, &sequence.name, sequence.owner).transpose();
    sequences.iter().filter_map(place).collect()
}

/// Brings the sequences that tenants share forward, so that none gives a number that a moved row has.
pub fn bring_forward(own: &[Place], shared: &str, shared_sequences: &[Sequence]) -> Result<()> {
    for place in own {
        if let Some(sequence) = shared_sequences.iter().find(|sequence| sequence.name == place.sequence) {
            sequence.bring_forward(shared, place)?;
        }
    }
    Ok(())
}
