//! What a template needs from outside its schema: extensions, which the tenant's database gets as well, and nothing else that is not PostgreSQL's own.

use crate::error::{Error, Result};
use crate::isolation::schema::Schema;
use crate::query;
use serde_json::{Value, json};

/// How many objects an error names.
const SHOWN: usize = 5;

/// The schema's objects with what belongs to them, and what those depend on. The extension that an object of another schema comes with, or else the two.
const OUTSIDE: &str = "WITH RECURSIVE members (class, object) AS (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype IN ('n', 'a')
        UNION
        SELECT d.classid, d.objid FROM members m
        JOIN pg_catalog.pg_depend d ON d.refclassid = m.class AND d.refobjid = m.object AND d.deptype IN ('a', 'i', 'P', 'S')
    )
    SELECT DISTINCT e.extname::pg_catalog.text,
           CASE WHEN e.oid IS NULL THEN pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) END,
           CASE WHEN e.oid IS NULL THEN pg_catalog.pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) END
    FROM members m
    JOIN pg_catalog.pg_depend d ON d.classid = m.class AND d.objid = m.object
    LEFT JOIN pg_catalog.pg_depend x ON x.classid = d.refclassid AND x.objid = d.refobjid AND x.objsubid = 0 AND x.deptype = 'e'
    LEFT JOIN pg_catalog.pg_extension e ON (x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = x.refobjid)
         OR (d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = d.refobjid)
    WHERE d.refobjid >= 16384 -- FirstNormalObjectId: the rest every database has
      AND d.refclassid <> 'pg_catalog.pg_publication'::pg_catalog.regclass
      AND NOT (d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1)
      AND NOT EXISTS (SELECT FROM members o WHERE o.class = d.refclassid AND o.object = d.refobjid)
    ORDER BY 1, 3, 2";

/// Extensions with those that they require, which are older.
const EXTENSIONS: &str = "WITH RECURSIVE needed (oid) AS (
        SELECT oid FROM pg_catalog.pg_extension WHERE extname = ANY ($1)
        UNION
        SELECT d.refobjid FROM needed n JOIN pg_catalog.pg_depend d
          ON d.classid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.objid = n.oid
         AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'n'
    )
    SELECT e.extname::pg_catalog.text, s.nspname::pg_catalog.text, e.extversion FROM needed n
    JOIN pg_catalog.pg_extension e USING (oid) JOIN pg_catalog.pg_namespace s ON s.oid = e.extnamespace
    WHERE e.extname <> 'pg_tenancy' ORDER BY e.oid";

/// An extension that the database needs.
pub struct Extension {
    pub name: String,
    pub schema: String,
    pub version: String,
}

impl Extension {
    pub fn to_json(&self) -> Value {
        json!({ "name": self.name, "schema": self.schema, "version": self.version })
    }
}

/// The extensions that a schema needs, each after those that it requires. Fails when it needs something else, naming it.
pub fn of(schema: &Schema) -> Result<Vec<Extension>> {
    let outside = query::current_rows(OUTSIDE, &[schema.oid.into()], |row| {
        Ok((row.get::<String>(1)?, row.get::<String>(2)?, row.get::<String>(3)?))
    })?;
    let mut extensions = Vec::new();
    let mut objects = Vec::new();
    for found in outside {
        match found {
            (Some(extension), ..) => extensions.push(extension),
            (None, object, needed) => {
                objects.push(format!("{} needs {}", object.unwrap_or_default(), needed.unwrap_or_default()));
            }
        }
    }
    if !objects.is_empty() {
        let more = if objects.len() > SHOWN { format!("; and {} more", objects.len() - SHOWN) } else { String::new() };
        objects.truncate(SHOWN);
        return Err(Error::NeedsOutside {
            schema: schema.name.clone(),
            objects: format!("{}{more}", objects.join("; ")),
        });
    }
    query::current_rows(EXTENSIONS, &[extensions.into()], |row| {
        Ok(Extension { name: row.must(1)?, schema: row.must(2)?, version: row.must(3)? })
    })
}
