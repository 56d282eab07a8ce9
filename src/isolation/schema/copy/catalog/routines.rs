//! Types and functions.

use super::relations::Column;
use crate::error::Result;
use crate::query;
use pgrx::pg_sys::Oid;

const TYPES: &str = "SELECT t.oid, t.typname::pg_catalog.text, t.typtype::pg_catalog.text, t.typowner, t.typrelid, t.typarray,
        ARRAY(SELECT e.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
        pg_catalog.format_type(nullif(t.typbasetype, 0), t.typtypmod), t.typnotnull,
        coalesce(pg_catalog.pg_get_expr(t.typdefaultbin, 0), pg_catalog.quote_literal(t.typdefault)),
        (SELECT pg_catalog.format('%I.%I', n.nspname, l.collname) FROM pg_catalog.pg_collation l
            JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
            WHERE l.oid = t.typcollation AND t.typcollation <> coalesce(b.typcollation, 0)),
        CASE WHEN r.rngtypid IS NOT NULL THEN pg_catalog.concat_ws(', ', 'SUBTYPE = ' || pg_catalog.format_type(r.rngsubtype, NULL),
            (SELECT pg_catalog.format('SUBTYPE_OPCLASS = %I.%I', n.nspname, o.opcname) FROM pg_catalog.pg_opclass o
                JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace WHERE o.oid = r.rngsubopc),
            (SELECT pg_catalog.format('COLLATION = %I.%I', n.nspname, l.collname) FROM pg_catalog.pg_collation l
                JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = r.rngcollation),
            (SELECT CASE WHEN p.pronamespace = $2 THEN pg_catalog.format('SUBTYPE_DIFF = %I', p.proname)
                         ELSE pg_catalog.format('SUBTYPE_DIFF = %I.%I', n.nspname, p.proname) END
             FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = r.rngsubdiff),
            (SELECT pg_catalog.format('MULTIRANGE_TYPE_NAME = %I', m.typname) FROM pg_catalog.pg_type m WHERE m.oid = r.rngmultitypid)) END,
        r.rngmultitypid, (SELECT m.typarray FROM pg_catalog.pg_type m WHERE m.oid = r.rngmultitypid)
    FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
    WHERE t.oid = ANY ($1) AND t.typtype <> 'm'";

const FUNCTIONS: &str = "SELECT p.oid, p.proname::pg_catalog.text, p.prokind::pg_catalog.text, p.proowner,
        CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid) END, pg_catalog.pg_get_function_identity_arguments(p.oid),
        p.prosrc, p.prosqlbody IS NOT NULL, l.lanname::pg_catalog.text,
        NOT o.rolsuper AND (p.proleakproof OR NOT l.lanpltrusted AND p.prokind <> 'a'
            OR EXISTS (SELECT FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid
                AND 'pg_catalog.internal'::pg_catalog.regtype IN (a.aggtranstype, a.aggmtranstype))),
        pg_catalog.oidvectortypes(p.proargtypes)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
    WHERE p.oid = ANY ($1) AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'i')";

const AGGREGATES: &str = "SELECT p.oid, pg_catalog.format('%I(%s) (%s)', p.proname, coalesce(nullif(pg_catalog.pg_get_function_arguments(p.oid), ''), '*'),
        pg_catalog.concat_ws(', ',
            'SFUNC = ' || f.transfn, 'STYPE = ' || pg_catalog.format_type(a.aggtranstype, NULL),
            CASE WHEN a.aggtransspace <> 0 THEN 'SSPACE = ' || a.aggtransspace END,
            'FINALFUNC = ' || f.finalfn, CASE WHEN a.aggfinalextra THEN 'FINALFUNC_EXTRA' END,
            CASE WHEN a.aggfinalmodify <> CASE a.aggkind WHEN 'n' THEN 'r' ELSE 'w' END::pg_catalog.\"char\" THEN 'FINALFUNC_MODIFY = '
                || CASE a.aggfinalmodify WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
            'COMBINEFUNC = ' || f.combinefn, 'SERIALFUNC = ' || f.serialfn, 'DESERIALFUNC = ' || f.deserialfn,
            'INITCOND = ' || pg_catalog.quote_literal(a.agginitval),
            'MSFUNC = ' || f.mtransfn, 'MINVFUNC = ' || f.minvtransfn,
            CASE WHEN a.aggmtranstype <> 0 THEN 'MSTYPE = ' || pg_catalog.format_type(a.aggmtranstype, NULL) END,
            CASE WHEN a.aggmtransspace <> 0 THEN 'MSSPACE = ' || a.aggmtransspace END,
            'MFINALFUNC = ' || f.mfinalfn, CASE WHEN a.aggmfinalextra THEN 'MFINALFUNC_EXTRA' END,
            CASE WHEN a.aggmtransfn <> 0 AND a.aggmfinalmodify <> CASE a.aggkind WHEN 'n' THEN 'r' ELSE 'w' END::pg_catalog.\"char\" THEN 'MFINALFUNC_MODIFY = '
                || CASE a.aggmfinalmodify WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
            'MINITCOND = ' || pg_catalog.quote_literal(a.aggminitval),
            (SELECT pg_catalog.format('SORTOP = OPERATOR(%I.%s)', n.nspname, o.oprname) FROM pg_catalog.pg_operator o
                JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid = a.aggsortop),
            CASE p.proparallel WHEN 's' THEN 'PARALLEL = SAFE' WHEN 'r' THEN 'PARALLEL = RESTRICTED' END,
            CASE a.aggkind WHEN 'h' THEN 'HYPOTHETICAL' END))
    FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc p ON p.oid = a.aggfnoid
    CROSS JOIN LATERAL (
        SELECT pg_catalog.max(name) FILTER (WHERE what = 1) AS transfn, pg_catalog.max(name) FILTER (WHERE what = 2) AS finalfn,
               pg_catalog.max(name) FILTER (WHERE what = 3) AS combinefn, pg_catalog.max(name) FILTER (WHERE what = 4) AS serialfn,
               pg_catalog.max(name) FILTER (WHERE what = 5) AS deserialfn, pg_catalog.max(name) FILTER (WHERE what = 6) AS mtransfn,
               pg_catalog.max(name) FILTER (WHERE what = 7) AS minvtransfn, pg_catalog.max(name) FILTER (WHERE what = 8) AS mfinalfn
        FROM (SELECT v.what, CASE WHEN q.pronamespace = p.pronamespace THEN pg_catalog.quote_ident(q.proname)
                                  ELSE pg_catalog.format('%I.%I', n.nspname, q.proname) END AS name
              FROM (VALUES (1, a.aggtransfn::pg_catalog.oid), (2, a.aggfinalfn::pg_catalog.oid), (3, a.aggcombinefn::pg_catalog.oid), (4, a.aggserialfn::pg_catalog.oid),
                           (5, a.aggdeserialfn::pg_catalog.oid), (6, a.aggmtransfn::pg_catalog.oid), (7, a.aggminvtransfn::pg_catalog.oid), (8, a.aggmfinalfn::pg_catalog.oid)) v (what, fn)
              JOIN pg_catalog.pg_proc q ON q.oid = v.fn JOIN pg_catalog.pg_namespace n ON n.oid = q.pronamespace) names) f
    WHERE a.aggfnoid = ANY ($1)";

pub struct Type {
    pub oid: Oid,
    pub name: String,
    pub kind: String,
    pub owner: Oid,
    pub relation: Oid,
    pub labels: Vec<String>,
    pub base: Option<String>,
    pub not_null: bool,
    pub default: Option<String>,
    pub collation: Option<String>,
    pub range: Option<String>,
    /// Array and multirange types that come with it.
    pub companions: Vec<Oid>,
    pub columns: Vec<Column>,
}

pub struct Function {
    pub oid: Oid,
    pub name: String,
    pub kind: String,
    pub owner: Oid,
    /// CREATE OR REPLACE …, or for an aggregate what follows CREATE AGGREGATE.
    pub definition: String,
    pub arguments: String,
    pub source: String,
    pub parsed: bool,
    pub language: String,
    /// Whether it takes a superuser to make it, and its owner is none.
    pub is_beyond_owner: bool,
    /// The input types, by which a function is found.
    pub types: String,
}

pub fn read_types(oids: &[Oid], schema: Oid) -> Result<Vec<Type>> {
    query::rows(TYPES, &[oids.to_vec().into(), schema.into()], |row| {
        let companions = [row.get::<Oid>(6)?, row.get(13)?, row.get(14)?];
        Ok(Type {
            oid: row.must(1)?,
            name: row.must(2)?,
            kind: row.must(3)?,
            owner: row.must(4)?,
            relation: row.must(5)?,
            labels: row.must(7)?,
            base: row.get(8)?,
            not_null: row.must(9)?,
            default: row.get(10)?,
            collation: row.get(11)?,
            range: row.get(12)?,
            companions: companions.into_iter().flatten().filter(|oid| *oid != Oid::INVALID).collect(),
            columns: Vec::new(),
        })
    })
}

pub fn read_functions(oids: &[Oid]) -> Result<Vec<Function>> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let mut functions = query::rows(FUNCTIONS, &[oids.to_vec().into()], |row| {
        Ok(Function {
            oid: row.must(1)?,
            name: row.must(2)?,
            kind: row.must(3)?,
            owner: row.must(4)?,
            definition: row.get(5)?.unwrap_or_default(),
            arguments: row.must(6)?,
            source: row.must(7)?,
            parsed: row.must(8)?,
            language: row.must(9)?,
            is_beyond_owner: row.must(10)?,
            types: row.must(11)?,
        })
    })?;
    if functions.iter().any(|function| function.kind == "a") {
        let aggregates: Vec<(Oid, String)> =
            query::rows(AGGREGATES, &[oids.to_vec().into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
        for (oid, definition) in aggregates {
            if let Some(function) = functions.iter_mut().find(|function| function.oid == oid) {
                function.definition = definition;
            }
        }
    }
    Ok(functions)
}
