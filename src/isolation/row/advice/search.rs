//! What the catalogs say of how an index is searched.

use crate::error::Result;
use crate::guard::operator_class;
use crate::query;
use pgrx::pg_sys;

/// How each index of a table is searched: the access method, whether every column of the key is a plain one with leakproof operators and not there for
/// LIKE, the operator families and key types of the columns, and whether the access method takes the tenant column as it is.
const SEARCHED: &str = "SELECT x.indexrelid, i.relam, pg_catalog.bool_and(k.attnum > 0 AND NOT (f.oid < 16384 AND f.opfname LIKE '%pattern\\_ops') AND
        coalesce((SELECT pg_catalog.bool_and(p.proleakproof) FROM pg_catalog.pg_amop o
                  JOIN pg_catalog.pg_operator r ON r.oid = o.amopopr JOIN pg_catalog.pg_proc p ON p.oid = r.oprcode
                  WHERE o.amopfamily = f.oid AND o.amoplefttype = c.opcintype AND o.amoprighttype = c.opcintype AND o.amoppurpose = 's'), false)),
        pg_catalog.array_agg(f.oid ORDER BY k.position),
        pg_catalog.array_agg(CASE WHEN k.attnum > 0 THEN a.atttypid WHEN t.typtype = 'p' THEN ia.atttypid ELSE c.opcintype END ORDER BY k.position),
        EXISTS (SELECT FROM pg_catalog.pg_opclass d JOIN pg_catalog.pg_attribute own ON own.attrelid = x.indrelid AND own.attname = $2::name
                WHERE d.opcmethod = i.relam AND d.opcdefault
                  AND d.opcintype = CASE own.atttypid WHEN 'varchar'::pg_catalog.regtype THEN 'text'::pg_catalog.regtype ELSE own.atttypid END),
        x.indrelid
    FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(x.indkey::int2[]), pg_catalog.unnest(x.indclass::oid[])) WITH ORDINALITY k (attnum, class, position)
    JOIN pg_catalog.pg_opclass c ON c.oid = k.class
    JOIN pg_catalog.pg_opfamily f ON f.oid = c.opcfamily
    JOIN pg_catalog.pg_type t ON t.oid = c.opcintype
    JOIN pg_catalog.pg_attribute ia ON ia.attrelid = x.indexrelid AND ia.attnum = k.position
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
    WHERE x.indrelid = ANY ($1) AND k.position <= x.indnkeyatts GROUP BY x.indexrelid, x.indrelid, i.relam";

pub struct Search {
    pub table: pg_sys::Oid,
    pub index: pg_sys::Oid,
    method: pg_sys::Oid,
    pub serves: bool,
    families: Vec<pg_sys::Oid>,
    types: Vec<pg_sys::Oid>,
    pub takes_tenant: bool,
}

impl Search {
    /// Those of the indexes of these tables, where `column` is the tenant's.
    pub fn of_tables(tables: Vec<pg_sys::Oid>, column: &str) -> Result<Vec<Self>> {
        query::rows(SEARCHED, &[tables.into(), column.into()], |row| {
            Ok(Self {
                index: row.must(1)?,
                method: row.must(2)?,
                serves: row.must(3)?,
                families: row.must(4)?,
                types: row.must(5)?,
                takes_tenant: row.must(6)?,
                table: row.must(7)?,
            })
        })
    }

    /// Whether the guard's planner searches such an index where it begins with the tenant column.
    pub fn is_known(&self) -> bool {
        self.families.iter().zip(&self.types).all(|(family, key)| operator_class::is_known(self.method, *family, *key))
    }
}
