//! Positions of sequences: a new place goes on where the old one was, and a sequence that tenants share goes forward only.

use super::tables::Table;
use crate::error::{Error, Result};
use crate::isolation::schema::copy::Position;
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
    position: Position,
    is_ascending: bool,
    half: i64,
    /// The table, its owner and the column.
    column: Option<(String, pg_sys::Oid, String)>,
}

pub fn of_schema(schema: pg_sys::Oid) -> Result<Vec<Sequence>> {
    query::current_rows(SEQUENCES, &[schema.into()], |row| {
        let position = Position { name: row.must(1)?, owner: row.must(2)?, table: None };
        let column = row.get::<String>(5)?.zip(row.get::<pg_sys::Oid>(6)?).zip(row.get::<String>(7)?);
        let column = column.map(|((table, owner), column)| (table, owner, column));
        Ok(Sequence { position, is_ascending: row.must(3)?, half: row.must(4)?, column })
    })
}

fn number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::Internal("the position of a sequence is no number".to_owned()))
}

/// Lets the sequences of a new schema go on where those of the same names are that tenants share; one that has none there, behind the numbers that
/// its column has.
pub fn follow(shared: &str, shared_sequences: &[Sequence], new: &str, new_sequences: &[Sequence]) -> Result<()> {
    for sequence in new_sequences {
        let source = shared_sequences.iter().find(|source| source.position.name == sequence.position.name);
        let position = match (source, &sequence.column) {
            (Some(source), _) => source.position.read(shared)?,
            (None, Some((table, owner, column))) => {
                let last = if sequence.is_ascending { "max" } else { "min" };
                let sql = format!(
                    "SELECT pg_catalog.{last}({})::pg_catalog.text FROM {}.{}",
                    ident(column),
                    ident(new),
                    ident(table)
                );
                let found: Vec<Option<String>> =
                    role::as_owner_of_all_rows(*owner, || query::current_column(&sql, &[]))?;
                found.into_iter().flatten().next().map(|value| (value, true))
            }
            (None, None) => None,
        };
        if let Some((value, is_called)) = position {
            sequence.position.set(new, &value, is_called)?;
        }
    }
    Ok(())
}

/// Brings the sequences that tenants share forward to those of a schema, so that none gives a number that a moved row has. One that stands beyond
/// half of its range does not take the others along: a tenant must not use up what is everybody's.
pub fn bring_forward(own: &str, own_sequences: &[Sequence], shared: &str, shared_sequences: &[Sequence]) -> Result<()> {
    for target in shared_sequences {
        let name = &target.position.name;
        let Some(source) = own_sequences.iter().find(|source| source.position.name == *name) else { continue };
        let (Some((from, is_called)), Some((to, _))) = (source.position.read(own)?, target.position.read(shared)?)
        else {
            continue;
        };
        let (from, to) = (number(&from)?, number(&to)?);
        let is_ahead = if target.is_ascending { from > to } else { from < to };
        if !is_ahead {
            continue;
        }
        if if target.is_ascending { from > target.half } else { from < target.half } {
            warning!(
                "sequence {}.{} stays at {to}: the tenant's is at {from}, beyond half of its range",
                ident(shared),
                ident(name)
            );
            continue;
        }
        target.position.set(shared, &from.to_string(), is_called)?;
    }
    Ok(())
}
