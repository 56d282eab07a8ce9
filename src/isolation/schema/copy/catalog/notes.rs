//! What depends on what, comments and labels.

use super::Object;
use crate::error::Result;
use crate::query;
use pgrx::pg_sys::Oid;

/// OFFSET 0 keeps PostgreSQL to looking each object up, here and below: what other schemas have must not cost time.
const DEPENDENCIES: &str = "SELECT d.classid, d.objid, d.refclassid, d.refobjid, d.refobjsubid
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.oid[])) o (class, object)
    CROSS JOIN LATERAL (SELECT * FROM pg_catalog.pg_depend WHERE classid = o.class AND objid = o.object OFFSET 0) d
    WHERE d.refclassid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
                           'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass) AND d.refobjid >= 16384";

const COMMENTS: &str = "SELECT d.classoid, d.objoid, d.objsubid, d.description
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.oid[])) o (class, object)
    CROSS JOIN LATERAL (SELECT * FROM pg_catalog.pg_description WHERE objoid = o.object AND classoid = o.class OFFSET 0) d
    ORDER BY d.classoid, d.objoid, d.objsubid";

const LABELS: &str =
    "SELECT s.classoid, s.objoid, s.objsubid, pg_catalog.quote_ident(s.provider), pg_catalog.quote_literal(s.label)
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.oid[])) o (class, object)
    CROSS JOIN LATERAL (SELECT * FROM pg_catalog.pg_seclabel WHERE objoid = o.object AND classoid = o.class OFFSET 0) s
    WHERE s.provider <> 'pg_tenancy'
    ORDER BY s.classoid, s.objoid, s.objsubid";

/// That `object` depends on `on`, as pg_depend has it.
pub struct Dependency {
    pub object: Object,
    pub on: Object,
    pub on_column: i32,
}

/// A comment or a label of an object or, where the number is not 0, of its column.
pub struct Note {
    pub object: Object,
    pub column: i32,
    pub provider: Option<String>,
    pub text: String,
}

pub fn read_dependencies(dependents: &[Object]) -> Result<Vec<Dependency>> {
    let (classes, objects): (Vec<Oid>, Vec<Oid>) = dependents.iter().copied().unzip();
    query::rows(DEPENDENCIES, &[classes.into(), objects.into()], |row| {
        Ok(Dependency {
            object: (row.must(1)?, row.must(2)?),
            on: (row.must(3)?, row.must(4)?),
            on_column: row.must(5)?,
        })
    })
}

pub fn read_comments(noted: &[Object]) -> Result<Vec<Note>> {
    let (classes, objects): (Vec<Oid>, Vec<Oid>) = noted.iter().copied().unzip();
    query::rows(COMMENTS, &[classes.into(), objects.into()], |row| {
        Ok(Note { object: (row.must(1)?, row.must(2)?), column: row.must(3)?, provider: None, text: row.must(4)? })
    })
}

pub fn read_labels(noted: &[Object]) -> Result<Vec<Note>> {
    let (classes, objects): (Vec<Oid>, Vec<Oid>) = noted.iter().copied().unzip();
    query::rows(LABELS, &[classes.into(), objects.into()], |row| {
        Ok(Note {
            object: (row.must(1)?, row.must(2)?),
            column: row.must(3)?,
            provider: row.get(4)?,
            text: row.must(5)?,
        })
    })
}
