//! Unique keys that PostgreSQL checks by a trigger, at the end of a transaction where that is asked for: triggers do not fire for rows that are
//! loaded, so that their keys are checked by set.

use crate::error::Result;
use crate::query;
use pgrx::pg_sys::Oid;

/// Each column with the operator of its index that says equal; nulls are equal where the index says so.
const KEYS: &str = "SELECT con.conname::pg_catalog.text, con.conrelid, con.contype = 'x',
        (SELECT pg_catalog.string_agg(pg_catalog.format(CASE WHEN i.indnullsnotdistinct THEN '(one.%1$I OPERATOR(%2$I.%3$s) other.%1$I OR one.%1$I IS NULL AND other.%1$I IS NULL)'
                ELSE 'one.%1$I OPERATOR(%2$I.%3$s) other.%1$I' END, a.attname, n.nspname, o.oprname), ' AND ')
         FROM ROWS FROM (pg_catalog.unnest(con.conkey), pg_catalog.unnest(i.indclass)) u (number, class)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = u.number
         JOIN pg_catalog.pg_opclass k ON k.oid = u.class
         JOIN pg_catalog.pg_amop m ON m.amopfamily = k.opcfamily AND m.amoplefttype = k.opcintype AND m.amoprighttype = k.opcintype AND m.amopstrategy = 3
         JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace)
    FROM pg_catalog.pg_constraint con JOIN pg_catalog.pg_index i ON i.indexrelid = con.conindid
    WHERE con.contype IN ('p', 'u', 'x') AND con.condeferrable AND con.conparentid = 0 AND con.conrelid = ANY ($1) ORDER BY 1";

/// A constraint that may be deferred.
pub struct Deferred {
    pub name: String,
    pub table: Oid,
    /// What says that two rows are equal in it; None for an exclusion, which cannot be checked by set.
    equal: Option<String>,
}

/// Those of the tables.
pub fn keys(tables: Vec<Oid>) -> Result<Vec<Deferred>> {
    query::current_rows(KEYS, &[tables.into()], |row| {
        let is_exclusion: bool = row.must(3)?;
        let equal = if is_exclusion { None } else { row.get(4)? };
        Ok(Deferred { name: row.must(1)?, table: row.must(2)?, equal })
    })
}

impl Deferred {
    /// The query that finds a row, of those that `own` says, with the key of another row; None for an exclusion.
    pub fn query(&self, rows: &str, own: Option<String>) -> Option<String> {
        let equal = self.equal.as_ref()?;
        let own = own.map(|own| format!("{own} AND ")).unwrap_or_default();
        Some(format!(
            "SELECT true FROM {rows} AS one WHERE {own}EXISTS (SELECT FROM {rows} AS other WHERE {equal}
                AND (one.tableoid, one.ctid) OPERATOR(pg_catalog.<>) (other.tableoid, other.ctid)) LIMIT 1"
        ))
    }
}
