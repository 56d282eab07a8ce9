//! New ids for a tenant that comes beside another: where a key is unique over all tenants, it gets another value, and so does every column that
//! refers to it.

use super::people::People;
use super::renew;
use super::unpack::{Packed, refused};
use crate::error::{Error, Result};
use crate::query::{self, literal};
use crate::transfer::tables::{Place, Table};
use crate::uuid;
use pgrx::{Uuid, pg_sys};
use std::collections::HashMap;

/// Keys of one column that are unique over all tenants, with the sequence that they come from.
const KEYS: &str = "SELECT i.indrelid, a.attname::text, a.atttypid = 'pg_catalog.uuid'::pg_catalog.regtype,
        coalesce((SELECT pg_catalog.format('%I.%I', n.nspname, s.relname) FROM pg_catalog.pg_depend d
                  JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                    AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('i', 'a') LIMIT 1),
                 (SELECT pg_catalog.format('%I.%I', n.nspname, s.relname) FROM pg_catalog.pg_attrdef ad
                  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = ad.oid
                    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S' JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
                  WHERE ad.adrelid = i.indrelid AND ad.adnum = a.attnum LIMIT 1))
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = ANY ($1) AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL AND i.indkey[0] <> 0
      AND a.atttypid IN ('pg_catalog.uuid'::pg_catalog.regtype, 'pg_catalog.int2'::pg_catalog.regtype, 'pg_catalog.int4'::pg_catalog.regtype,
                         'pg_catalog.int8'::pg_catalog.regtype)";
const REFERENCES: &str = "SELECT con.conrelid, a.attname::text, con.confrelid, r.attname::text, con.confrelid = 'tenancy.users'::pg_catalog.regclass
            AND r.attname = 'id' OR con.confrelid = 'tenancy.memberships'::pg_catalog.regclass AND r.attname = 'user_id'
    FROM pg_catalog.pg_constraint con
    CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(con.conkey), pg_catalog.unnest(con.confkey)) AS k (attnum, referenced)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum
    JOIN pg_catalog.pg_attribute r ON r.attrelid = con.confrelid AND r.attnum = k.referenced
    WHERE con.contype = 'f' AND con.conparentid = 0 AND con.conrelid = ANY ($1)";
/// Numbers that are fetched at a time.
const BATCH: usize = 10_000;

type Column = (u32, String);

/// Old numbers in ascending order, as runs that are new ones at a distance.
#[derive(Default)]
struct Numbers(Vec<(i64, i64, i64)>);

impl Numbers {
    fn add(&mut self, old: i64, new: i64) {
        match self.0.last_mut() {
            Some((first, length, to)) if *first + *length == old && *to + *length == new => *length += 1,
            _ => self.0.push((old, 1, new)),
        }
    }

    fn find(&self, old: i64) -> Option<i64> {
        let at = self.0.partition_point(|(first, ..)| *first <= old).checked_sub(1)?;
        let (first, length, to) = self.0.get(at)?;
        (old - first < *length).then(|| to + (old - first))
    }
}

enum Values {
    Uuids,
    Numbers(Numbers),
    Users,
}

/// What becomes of the values of columns.
pub struct Ids {
    tenant: Uuid,
    /// What a column's values are new values of.
    columns: HashMap<Column, Column>,
    values: HashMap<Column, Values>,
    sequences: HashMap<Column, String>,
    users: HashMap<[u8; 16], Uuid>,
}

impl Ids {
    /// What is to become of the values of the tenant's columns; `renew` says whether keys that are unique over all
    /// tenants get new ones.
    pub fn plan(place: &Place, renew: bool, people: &People) -> Result<Self> {
        let mut ids = Self {
            tenant: place.tenant,
            columns: HashMap::new(),
            values: HashMap::new(),
            sequences: HashMap::new(),
            users: people.changed.iter().map(|(old, new)| (*old.as_bytes(), *new)).collect(),
        };
        let is_tenants = |(oid, column): &Column| {
            let table = place.tables.iter().find(|table| table.oid.to_u32() == *oid);
            table.and_then(|table| table.tenant.as_ref()).is_some_and(|owned| owned.column == *column)
        };
        // In a schema of its own, a tenant's keys are its own.
        let shared = place.tables.iter().filter(|table| renew && table.tenant.is_some());
        let shared: Vec<pg_sys::Oid> = shared.map(|table| table.oid).collect();
        let keys = query::current_rows(KEYS, &[shared.into()], |row| {
            let key = (row.must::<pg_sys::Oid>(1)?.to_u32(), row.must::<String>(2)?);
            Ok((key, row.must::<bool>(3)?, row.get::<String>(4)?))
        })?;
        for (key, is_uuid, sequence) in keys.into_iter().filter(|(key, ..)| !is_tenants(key)) {
            let values = if is_uuid { Values::Uuids } else { Values::Numbers(Numbers::default()) };
            ids.values.insert(key.clone(), values);
            ids.sequences.extend(sequence.map(|sequence| (key.clone(), sequence)));
        }
        let all: Vec<pg_sys::Oid> = place.tables.iter().map(|table| table.oid).collect();
        let references = query::current_rows(REFERENCES, &[all.into()], |row| {
            let from = (row.must::<pg_sys::Oid>(1)?.to_u32(), row.must::<String>(2)?);
            Ok((from, (row.must::<pg_sys::Oid>(3)?.to_u32(), row.must::<String>(4)?), row.must::<bool>(5)?))
        })?;
        let references: Vec<_> =
            references.into_iter().filter(|(from, to, _)| !is_tenants(from) && from != to).collect();
        for (_, to, is_users) in &references {
            if *is_users && !ids.users.is_empty() {
                ids.values.insert(to.clone(), Values::Users);
            }
        }
        // A column has the values of the key that it refers to, directly or by way of others; no way is longer than there are references.
        let mut known: HashMap<Column, Column> = HashMap::new();
        for _ in 0..references.len() {
            let before = known.len();
            for (from, to, _) in &references {
                let key = known.get(to).or_else(|| ids.values.contains_key(to).then_some(to)).cloned();
                if let Some(key) = key {
                    known.entry(from.clone()).or_insert(key);
                }
            }
            if known.len() == before {
                break;
            }
        }
        for key in ids.values.keys() {
            known.entry(key.clone()).or_insert_with(|| key.clone());
        }
        ids.columns = known;
        Ok(ids)
    }

    /// Whether a column's values change.
    pub fn changes(&self, table: &Table, column: &str) -> bool {
        self.columns.contains_key(&(table.oid.to_u32(), column.to_owned()))
    }

    /// Gives each of a table's rows its new numbers, for the key that counts them.
    pub fn number(&mut self, place: &Place, table: &Table, packed: &Packed) -> Result<()> {
        for (index, column) in packed.columns.iter().enumerate() {
            let key = (table.oid.to_u32(), column.clone());
            let is_key = self.columns.get(&key) == Some(&key);
            if !is_key || !matches!(self.values.get(&key), Some(Values::Numbers(_))) {
                continue;
            }
            let Some(sequence) = self.sequences.get(&key) else {
                return Err(Error::State(
                    format!(
                        "column {} of {} is unique over all tenants, and has no sequence that gives it new values",
                        query::ident(column),
                        table.qualified()
                    ),
                    "Make its key unique for each tenant, or give it a default from a sequence.",
                ));
            };
            let mut old = Vec::new();
            packed.rows.read(|line| {
                let field = line.split(|byte| *byte == b'\t').nth(index).unwrap_or_default();
                let number = std::str::from_utf8(field).ok().and_then(|field| field.parse::<i64>().ok());
                old.push(number.ok_or_else(|| refused(format!("a key of {} is no number", packed.name)))?);
                Ok(())
            })?;
            old.sort_unstable();
            let mut numbers = Numbers::default();
            let next =
                format!("SELECT pg_catalog.nextval({}) FROM pg_catalog.generate_series(1, $1)", literal(sequence));
            for batch in old.chunks(BATCH) {
                let count = batch.len() as i64;
                let new = place.with(table, || query::current_column::<i64>(&next, &[count.into()]))?;
                batch.iter().zip(new.into_iter().flatten()).for_each(|(old, new)| numbers.add(*old, new));
            }
            self.values.insert(key, Values::Numbers(numbers));
        }
        Ok(())
    }

    /// The new value of a column, as it is written in a file of rows.
    pub fn renew(&self, table: &Table, column: &str, value: &str) -> Result<String> {
        let key = (table.oid.to_u32(), column.to_owned());
        let values = self.columns.get(&key).and_then(|key| self.values.get(key));
        let strange = || {
            refused(format!("column {} of {} refers to something that is not in it", query::ident(column), table.name))
        };
        let id = || uuid::parse(value.as_bytes()).ok_or_else(strange);
        Ok(match values {
            None => value.to_owned(),
            Some(Values::Uuids) => renew::uuid(self.tenant, Uuid::from_bytes(id()?)).to_string(),
            Some(Values::Users) => self.users.get(&id()?).map_or_else(|| value.to_owned(), Uuid::to_string),
            Some(Values::Numbers(numbers)) => {
                let new = value.parse().ok().and_then(|old| numbers.find(old));
                new.ok_or_else(strange)?.to_string()
            }
        })
    }
}
