//! What a copy could not be exact about. Each such object is an error that names it.

use super::Schema;
use crate::error::{Error, Result};
use crate::query;
use pgrx::pg_sys::Oid;

/// How many objects an error names.
const SHOWN: usize = 5;

/// `$1` is the schema, `$2` its owner, `$3` whether its guard is taken off. Runs with `search_path` pinned: the schema's own operators are among what it looks for.
///
/// Making an object runs code of whoever owns what it uses, with the rights of its owner. So an owner must be someone whom the schema's owner
/// may become anyway, unless nobody else owns anything; and what takes a superuser to make needs one as its owner or the schema's.
const OBJECTS: &str = "WITH members AS (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n' AND d.objsubid = 0
          AND NOT ($3 AND (d.classid = 'pg_catalog.pg_extension'::pg_catalog.regclass
            OR EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')))
    ), owned (class, object, owner) AS (
        SELECT m.classid, m.objid, c.relowner FROM members m
            JOIN pg_catalog.pg_class c ON m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = m.objid
        UNION ALL SELECT m.classid, m.objid, p.proowner FROM members m
            JOIN pg_catalog.pg_proc p ON m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = m.objid
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = m.classid AND d.objid = m.objid AND d.deptype = 'i')
        UNION ALL SELECT m.classid, m.objid, t.typowner FROM members m
            JOIN pg_catalog.pg_type t ON m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = m.objid AND t.typtype <> 'm'
        UNION ALL SELECT m.classid, m.objid, s.stxowner FROM members m
            JOIN pg_catalog.pg_statistic_ext s ON m.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND s.oid = m.objid
    )
    SELECT pg_catalog.pg_describe_object(m.classid, m.objid, 0) FROM members m
    WHERE m.classid NOT IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
        'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass)
    UNION ALL
    SELECT pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0) || ' (' || pg_catalog.pg_describe_object(m.classid, m.objid, 0) || ')'
    FROM members m JOIN pg_catalog.pg_depend d ON d.classid = m.classid AND d.objid = m.objid AND d.objsubid = 0 AND d.deptype = 'e'
    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0)
    FROM members m JOIN pg_catalog.pg_class c ON m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = m.objid
    WHERE c.relkind NOT IN ('r', 'p', 'v', 'm', 'S')
    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 0)
    FROM members m JOIN pg_catalog.pg_type t ON m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = m.objid
    LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
    WHERE t.typtype NOT IN ('e', 'c', 'd', 'r', 'm') AND t.typelem = 0 OR r.rngcanonical <> 0
    UNION ALL
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0)
    FROM members m JOIN pg_catalog.pg_depend d ON d.refclassid = m.classid AND d.refobjid = m.objid AND d.deptype = 'n'
        AND d.classid IN ('pg_catalog.pg_cast'::pg_catalog.regclass, 'pg_catalog.pg_transform'::pg_catalog.regclass)
    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, i.inhrelid, 0) || ', which belongs to '
        || pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, i.inhparent, 0)
    FROM members m JOIN pg_catalog.pg_inherits i ON i.inhrelid = m.objid
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
    WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.relnamespace <> $1
    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, i.inhrelid, 0) || ', a partition of '
        || pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, i.inhparent, 0)
    FROM members m JOIN pg_catalog.pg_inherits i ON i.inhparent = m.objid
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relispartition AND c.relnamespace <> $1
    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0) || ', whose owner is not that of '
        || pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, p.oid, 0)
    FROM members m JOIN pg_catalog.pg_inherits i ON i.inhrelid = m.objid
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.relowner <> c.relowner
    UNION ALL
    SELECT pg_catalog.pg_describe_object(s.classoid, s.objoid, 0) || CASE s.label WHEN 'protected' THEN ', which is protected' ELSE ', which is exempt' END
    FROM members m JOIN pg_catalog.pg_seclabel s ON s.classoid = m.classid AND s.objoid = m.objid AND s.provider = 'pg_tenancy' AND NOT $3
    UNION ALL
    SELECT pg_catalog.pg_describe_object(o.class, o.object, 0) || ', whose owner is neither the schema''s nor a role that the schema''s owner is a member of'
    FROM owned o
    WHERE o.owner <> $2 AND NOT pg_catalog.pg_has_role($2, o.owner, 'USAGE')
      AND EXISTS (SELECT FROM owned r WHERE NOT pg_catalog.pg_has_role(r.owner, o.owner, 'USAGE'))
    UNION ALL
    SELECT pg_catalog.pg_describe_object(o.class, o.object, 0) || ', which takes a superuser to make'
    FROM owned o JOIN pg_catalog.pg_proc p ON o.class = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = o.object
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid IN ($2, p.proowner) AND r.rolsuper)
      AND (p.proleakproof OR NOT l.lanpltrusted AND p.prokind <> 'a'
            OR EXISTS (SELECT FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid
                AND 'pg_catalog.internal'::pg_catalog.regtype IN (a.aggtranstype, a.aggmtranstype)))
    UNION ALL
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) || ', which depends on ' || pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0)
    FROM members m JOIN pg_catalog.pg_depend d ON d.classid = m.classid AND d.objid = m.objid AND d.deptype = 'x'";

const OPERATORS: &str = "SELECT true FROM pg_catalog.pg_depend d
    WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1
      AND d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass LIMIT 1";

/// Whether the schema has operators.
pub fn has_operators(schema: Oid) -> Result<bool> {
    Ok(query::value::<bool>(OPERATORS, &[schema.into()])?.is_some())
}

/// What the schema has that cannot be copied. Where its guard is taken off (`unguarded`), neither that nor what extensions have there counts.
pub fn find(schema: &Schema, unguarded: bool) -> Result<Vec<String>> {
    let args = [schema.oid.into(), schema.owner.into(), unguarded.into()];
    let mut found = query::rows(OBJECTS, &args, |row| row.must::<String>(1))?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Fails when the schema has something that cannot be copied.
pub fn refuse(schema: &Schema, unguarded: bool) -> Result<()> {
    refuse_these(find(schema, unguarded)?)
}

/// Fails unless there is nothing among these.
pub fn refuse_these(mut found: Vec<String>) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let more = if found.len() > SHOWN { format!(" and {} more", found.len() - SHOWN) } else { String::new() };
    found.truncate(SHOWN);
    Err(Error::Unclonable(format!("{}{more}", found.join("; "))))
}
