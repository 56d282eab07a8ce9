//! What depends on a schema from outside, and would be dropped with it.

use super::copy::Schema;
use crate::error::{Error, Result};
use crate::query;
use pgrx::pg_sys;

/// How many objects an error names.
const SHOWN: usize = 5;

const DEPENDENTS: &str = "WITH members AS MATERIALIZED (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n' AND d.objsubid = 0
    ), types AS (
        SELECT * FROM members
        UNION ALL
        SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, c.reltype FROM members m
        JOIN pg_catalog.pg_class c ON m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = m.objid AND c.reltype <> 0
    )
    SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM types m JOIN pg_catalog.pg_depend d ON d.refclassid = m.classid AND d.refobjid = m.objid AND d.deptype IN ('n', 'a')
    LEFT JOIN pg_catalog.pg_constraint con ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND con.oid = d.objid
    LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
    LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid
    LEFT JOIN pg_catalog.pg_trigger g ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND g.oid = d.objid
    LEFT JOIN pg_catalog.pg_policy l ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND l.oid = d.objid
    LEFT JOIN pg_catalog.pg_class c ON c.oid = CASE WHEN d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN d.objid
        ELSE coalesce(r.ev_class, a.adrelid, g.tgrelid, l.polrelid) END
    LEFT JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
    LEFT JOIN pg_catalog.pg_type t ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = d.objid
    LEFT JOIN pg_catalog.pg_statistic_ext x ON d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND x.oid = d.objid
    WHERE coalesce(con.connamespace, c.relnamespace, p.pronamespace, t.typnamespace, x.stxnamespace, 0) <> $1
      AND NOT (d.classid = 'pg_catalog.pg_default_acl'::pg_catalog.regclass)
    ORDER BY 1";

const RELATIONS: &str = "SELECT d.objid FROM pg_catalog.pg_depend d
    WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    ORDER BY d.objid";

/// Takes the relations for their removal, so that nothing can come to depend on them any more; waits for those who use them.
pub fn lock(schema: &Schema) -> Result<()> {
    for relation in query::current_rows(RELATIONS, &[schema.oid.into()], |row| row.must::<pg_sys::Oid>(1))? {
        // SAFETY: any oid may be locked; the transaction's end releases it.
        unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessExclusiveLock as _) };
    }
    Ok(())
}

/// Fails when something outside the schema depends on something inside.
pub fn refuse_dependents(schema: &Schema) -> Result<()> {
    let mut found = query::current_rows(DEPENDENTS, &[schema.oid.into()], |row| row.must::<String>(1))?;
    if found.is_empty() {
        return Ok(());
    }
    let more = if found.len() > SHOWN { format!(" and {} more", found.len() - SHOWN) } else { String::new() };
    found.truncate(SHOWN);
    Err(Error::DependentObjects { schema: schema.name.clone(), objects: format!("{}{more}", found.join("; ")) })
}
