//! Materialised views: they store rows outside the guard, so none may read a protected table unless an administrator exempts it.

use crate::error::{Error, Result};
use crate::query;
use pgrx::pg_sys;

/// What a view reads, directly or through other views, and which of it is protected.
const PROTECTED_SOURCE: &str = "WITH RECURSIVE reads(oid) AS (
        SELECT $1
        UNION SELECT d.refobjid FROM reads r
            JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid
            JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    )
    SELECT p.table_name::text, pg_catalog.format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, reads
    JOIN tenancy.protected_tables p ON p.table_name::oid = reads.oid
    WHERE c.oid = $1 AND c.relkind = 'm'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_seclabel s
                      WHERE s.provider = 'pg_tenancy' AND s.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.objoid = c.oid
                        AND s.label LIKE 'exempt: %')
    LIMIT 1";
/// A materialised view that is not exempt and reads one of these tables, directly or through other views.
const READER: &str = "WITH RECURSIVE readers(oid, source) AS (
        SELECT w.ev_class, d.refobjid FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
            WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY ($1)
        UNION SELECT w.ev_class, r.source FROM readers r
            JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = r.oid
            JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
    )
    SELECT readers.source::pg_catalog.regclass::text, pg_catalog.format('%I.%I', n.nspname, c.relname)
    FROM readers JOIN pg_catalog.pg_class c ON c.oid = readers.oid AND c.relkind = 'm' JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_seclabel s
                      WHERE s.provider = 'pg_tenancy' AND s.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.objoid = c.oid
                        AND s.label LIKE 'exempt: %')
    ORDER BY 2 LIMIT 1";
const ALL: &str = "SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'm' ORDER BY oid";

/// Fails when `view` is a materialised view that reads a protected table and is not exempt.
pub fn refuse(view: pg_sys::Oid) -> Result<()> {
    match query::first(PROTECTED_SOURCE, &[view.into()], |row| Ok((row.must::<String>(1)?, row.must::<String>(2)?)))? {
        Some((table, view)) => Err(Error::MaterializedView { view, table }),
        None => Ok(()),
    }
}

/// Fails when any materialised view does.
pub fn refuse_all() -> Result<()> {
    let views: Vec<pg_sys::Oid> = query::rows(ALL, &[], |row| row.must(1))?;
    views.into_iter().try_for_each(refuse)
}

/// Fails when a materialised view reads one of these tables, which are to be protected.
pub fn refuse_readers(tables: Vec<pg_sys::Oid>) -> Result<()> {
    match query::first(READER, &[tables.into()], |row| Ok((row.must::<String>(1)?, row.must::<String>(2)?)))? {
        Some((table, view)) => Err(Error::MaterializedView { view, table }),
        None => Ok(()),
    }
}
