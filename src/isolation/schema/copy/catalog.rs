//! What a schema consists of, read from the catalogs.
//!
//! The queries run with the schema first in `search_path`, so that PostgreSQL's own deparsing leaves the schema's name out wherever it is
//! looked up: the same text then means the copy's objects, once the copy comes first. They run as the schema's owner, and the schema
//! has no operators ([`super::unclonable`]), so nothing in it can stand in for what they use.
//!
//! pg_class has no index on the schema: objects are found by what depends on it, at a cost that other schemas do not add to.

use crate::error::Result;
use crate::query;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

const MEMBERS: &str = "SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
    WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n' AND d.objsubid = 0";

const RELATIONS: &str =
    "SELECT c.oid, c.relname::pg_catalog.text, c.relkind::pg_catalog.text, c.relowner, c.relpersistence = 'u', c.relispartition,
        CASE c.relkind WHEN 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END, pg_catalog.pg_get_expr(c.relpartbound, c.oid),
        (SELECT pg_catalog.string_agg(pg_catalog.format('%s%I=%L', o.prefix, pg_catalog.split_part(o.option, '=', 1),
                    pg_catalog.substr(o.option, pg_catalog.strpos(o.option, '=') + 1)), ', ')
         FROM (SELECT '' AS prefix, pg_catalog.unnest(c.reloptions) AS option
               UNION ALL SELECT 'toast.', pg_catalog.unnest(t.reloptions)) o),
        (SELECT pg_catalog.quote_ident(a.amname) FROM pg_catalog.pg_am a WHERE a.oid = c.relam AND a.amname <> 'heap' AND c.relkind IN ('r', 'p', 'm')),
        (SELECT pg_catalog.quote_ident(s.spcname) FROM pg_catalog.pg_tablespace s WHERE s.oid = c.reltablespace),
        c.relrowsecurity, c.relforcerowsecurity, c.relreplident::pg_catalog.text,
        CASE WHEN c.reloftype <> 0 THEN pg_catalog.format_type(c.reloftype, NULL) END, c.relispopulated,
        CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END, c.reltype, y.typarray
    FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid LEFT JOIN pg_catalog.pg_type y ON y.oid = c.reltype
    WHERE c.oid = ANY ($1)";

/// Options that begin with `pg_` are marks of PostgreSQL's own, which nobody can set.
const COLUMNS: &str = "SELECT a.attrelid, a.attnum::pg_catalog.int4, a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, a.atttypmod),
        a.attnotnull, a.attislocal, a.attidentity::pg_catalog.text, a.attgenerated::pg_catalog.text, d.oid, pg_catalog.pg_get_expr(d.adbin, d.adrelid),
        (SELECT pg_catalog.format('%I.%I', n.nspname, l.collname) FROM pg_catalog.pg_collation l
            JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation AND a.attcollation <> t.typcollation),
        CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
        CASE WHEN a.attstorage <> t.typstorage
             THEN CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END,
        nullif(a.attstattarget, -1)::pg_catalog.int4,
        (SELECT pg_catalog.string_agg(pg_catalog.format('%I=%L', pg_catalog.split_part(o.option, '=', 1),
            pg_catalog.substr(o.option, pg_catalog.strpos(o.option, '=') + 1)), ', ') FROM pg_catalog.unnest(a.attoptions) o (option) WHERE NOT pg_catalog.starts_with(o.option, 'pg_')),
        a.atttypid
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

const SEQUENCES: &str = "SELECT s.seqrelid, pg_catalog.format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s %s',
            pg_catalog.format_type(s.seqtypid, NULL), s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache,
            CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END),
        d.refobjid, d.refobjsubid, d.deptype = 'i'
    FROM pg_catalog.pg_sequence s LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.objid = s.seqrelid AND d.objsubid = 0 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0
        AND d.deptype IN ('a', 'i')
    WHERE s.seqrelid = ANY ($1)";

const CONSTRAINTS: &str =
    "SELECT con.oid, con.conrelid, con.contypid, con.conname::pg_catalog.text, con.contype::pg_catalog.text, pg_catalog.pg_get_constraintdef(con.oid),
        con.convalidated, con.conislocal, con.conparentid <> 0, nullif(con.confrelid, 0), con.conindid,
        (SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a
         WHERE con.contype = 'n' AND a.attrelid = con.conrelid AND a.attnum = con.conkey[1])
    FROM (SELECT * FROM pg_catalog.pg_constraint WHERE conrelid = ANY ($1) AND contype IN ('c', 'p', 'u', 'x', 'f', 'n')
          UNION ALL SELECT * FROM pg_catalog.pg_constraint WHERE contypid = ANY ($2)) con
    ORDER BY con.conrelid, con.conname";

const INDEXES: &str = "SELECT x.indexrelid, x.indrelid, i.relname::pg_catalog.text, pg_catalog.pg_get_indexdef(x.indexrelid), con.oid IS NOT NULL,
        x.indisclustered, x.indisreplident, x.indisvalid,
        (SELECT pg_catalog.quote_ident(s.spcname) FROM pg_catalog.pg_tablespace s WHERE s.oid = i.reltablespace),
        CASE WHEN con.contype IN ('p', 'u') THEN (SELECT pg_catalog.string_agg(pg_catalog.format('%I=%L', pg_catalog.split_part(o.option, '=', 1),
            pg_catalog.substr(o.option, pg_catalog.strpos(o.option, '=') + 1)), ', ') FROM pg_catalog.unnest(i.reloptions) o (option)) END,
        (SELECT pg_catalog.string_agg(pg_catalog.format('ALTER COLUMN %s SET STATISTICS %s', a.attnum, a.attstattarget), ', ')
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = x.indexrelid AND nullif(a.attstattarget, -1) IS NOT NULL),
        (SELECT h.inhparent FROM pg_catalog.pg_inherits h WHERE h.inhrelid = x.indexrelid AND i.relispartition)
    FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    LEFT JOIN pg_catalog.pg_constraint con ON con.conrelid = x.indrelid AND con.conindid = x.indexrelid AND con.contype IN ('p', 'u', 'x')
    WHERE x.indrelid = ANY ($1) ORDER BY i.relname";

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

const TRIGGERS: &str = "SELECT t.oid, t.tgrelid, t.tgname::pg_catalog.text, pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled::pg_catalog.text, t.tgparentid <> 0,
        EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                WHERE p.oid = t.tgfoid AND p.proname = 'count_rows' AND n.nspname = 'tenancy')
    FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = ANY ($1) AND (NOT t.tgisinternal AND t.tgparentid = 0
        OR t.tgparentid <> 0 AND t.tgenabled <> (SELECT u.tgenabled FROM pg_catalog.pg_trigger u WHERE u.oid = t.tgparentid))
    ORDER BY t.tgparentid <> 0, t.tgrelid, t.tgname";

const RULES: &str = "SELECT r.oid, r.ev_class, r.rulename::pg_catalog.text, pg_catalog.pg_get_ruledef(r.oid), r.ev_enabled::pg_catalog.text
    FROM pg_catalog.pg_rewrite r WHERE r.ev_class = ANY ($1) AND r.rulename <> '_RETURN' ORDER BY r.ev_class, r.rulename";

const VIEW_RULES: &str =
    "SELECT r.oid, r.ev_class FROM pg_catalog.pg_rewrite r WHERE r.ev_class = ANY ($1) AND r.rulename = '_RETURN'";

const POLICIES: &str = "SELECT l.oid, l.polrelid, l.polname::pg_catalog.text, pg_catalog.concat_ws(' ',
            CASE WHEN l.polpermissive THEN 'AS PERMISSIVE' ELSE 'AS RESTRICTIVE' END,
            'FOR ' || CASE l.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
            'TO ' || coalesce((SELECT pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ' ORDER BY r.rolname)
                FROM pg_catalog.pg_roles r WHERE r.oid = ANY (l.polroles)), 'PUBLIC'),
            'USING (' || pg_catalog.pg_get_expr(l.polqual, l.polrelid) || ')',
            'WITH CHECK (' || pg_catalog.pg_get_expr(l.polwithcheck, l.polrelid) || ')')
    FROM pg_catalog.pg_policy l WHERE l.polrelid = ANY ($1) ORDER BY l.polrelid, l.polname";

const STATISTICS: &str = "SELECT s.oid, s.stxname::pg_catalog.text, s.stxowner, pg_catalog.pg_get_statisticsobjdef(s.oid), nullif(s.stxstattarget, -1)::pg_catalog.int4, s.stxrelid
    FROM pg_catalog.pg_statistic_ext s WHERE s.oid = ANY ($1) ORDER BY s.stxname";

const PARENTS: &str = "SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = ANY ($1) ORDER BY i.inhrelid, i.inhseqno";

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

/// The catalogs that objects are found in; their oids are PostgreSQL's for good.
pub mod class {
    use pgrx::pg_sys::{self, Oid};

    pub const RELATION: Oid = pg_sys::RelationRelationId;
    pub const TYPE: Oid = pg_sys::TypeRelationId;
    pub const FUNCTION: Oid = pg_sys::ProcedureRelationId;
    pub const CONSTRAINT: Oid = Oid::from_u32(2606);
    pub const DEFAULT: Oid = Oid::from_u32(2604);
    pub const RULE: Oid = Oid::from_u32(2618);
    pub const TRIGGER: Oid = pg_sys::TriggerRelationId;
    pub const POLICY: Oid = Oid::from_u32(3256);
    pub const STATISTICS: Oid = pg_sys::StatisticExtRelationId;
    pub const SCHEMA: Oid = pg_sys::NamespaceRelationId;
}

/// An object: its catalog, and its oid there.
pub type Object = (Oid, Oid);

pub struct Relation {
    pub oid: Oid,
    pub name: String,
    pub kind: Kind,
    pub owner: Oid,
    pub unlogged: bool,
    pub is_partition: bool,
    pub partition_key: Option<String>,
    pub bound: Option<String>,
    pub options: Option<String>,
    pub access_method: Option<String>,
    pub tablespace: Option<String>,
    pub row_security: bool,
    pub force: bool,
    pub replica_identity: String,
    pub of_type: Option<String>,
    pub populated: bool,
    pub query: Option<String>,
    /// Its row type and the array type of that.
    pub types: [Option<Oid>; 2],
    pub columns: Vec<Column>,
    pub parents: Vec<Oid>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Table,
    Partitioned,
    View,
    Materialized,
    Sequence,
    /// Foreign tables, which are refused before they are looked at.
    Other,
}

pub struct Column {
    pub number: i32,
    pub name: String,
    pub type_name: String,
    pub type_oid: Oid,
    pub not_null: bool,
    pub is_local: bool,
    pub identity: String,
    /// STORED or VIRTUAL.
    pub generated: Option<&'static str>,
    /// The oid of the default, and its expression.
    pub default: Option<(Oid, String)>,
    pub collation: Option<String>,
    pub compression: Option<String>,
    pub storage: Option<String>,
    pub statistics: Option<i32>,
    pub options: Option<String>,
}

pub struct Sequence {
    pub oid: Oid,
    pub parameters: String,
    /// The table and column that it belongs to.
    pub owned_by: Option<(Oid, i32)>,
    pub is_identity: bool,
}

pub struct Constraint {
    pub oid: Oid,
    pub table: Oid,
    pub domain: Oid,
    pub name: String,
    pub kind: String,
    pub definition: String,
    pub validated: bool,
    pub is_local: bool,
    pub has_parent: bool,
    /// The table that a foreign key refers to.
    pub references: Option<Oid>,
    /// The index of a key, or that of the key that a foreign key refers to.
    pub index: Oid,
    /// The column of a NOT NULL constraint.
    pub column: Option<String>,
}

pub struct Index {
    pub oid: Oid,
    pub table: Oid,
    pub name: String,
    pub definition: String,
    pub of_constraint: bool,
    pub clustered: bool,
    pub replica_identity: bool,
    pub valid: bool,
    pub tablespace: Option<String>,
    pub options: Option<String>,
    pub statistics: Option<String>,
    /// The index of the partitioned table above that it is attached to.
    pub parent: Option<Oid>,
}

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

pub struct Trigger {
    pub oid: Oid,
    pub table: Oid,
    pub name: String,
    pub definition: String,
    pub enabled: String,
    /// Made by PostgreSQL for a partition: only its state may differ.
    pub has_parent: bool,
    /// Made by the product, to count rows: nobody else may.
    pub is_limit: bool,
}

/// A rule, or a policy without a state.
pub struct Attached {
    pub oid: Oid,
    pub table: Oid,
    pub name: String,
    pub definition: String,
    pub enabled: Option<String>,
}

pub struct Statistics {
    pub oid: Oid,
    pub name: String,
    pub owner: Oid,
    pub definition: String,
    pub target: Option<i32>,
    pub table: Oid,
}

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

/// Everything in one schema.
pub struct Catalog {
    pub relations: Vec<Relation>,
    pub sequences: HashMap<Oid, Sequence>,
    pub constraints: Vec<Constraint>,
    pub indexes: Vec<Index>,
    pub types: Vec<Type>,
    pub functions: Vec<Function>,
    pub triggers: Vec<Trigger>,
    pub rules: Vec<Attached>,
    pub policies: Vec<Attached>,
    pub statistics: Vec<Statistics>,
    pub dependencies: Vec<Dependency>,
    /// The rule behind each view.
    pub view_rules: Vec<(Oid, Oid)>,
    pub comments: Vec<Note>,
    pub labels: Vec<Note>,
}

impl Catalog {
    pub fn read(schema: Oid) -> Result<Self> {
        let members: Vec<Object> = query::rows(MEMBERS, &[schema.into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
        let of = |class: Oid| -> Vec<Oid> {
            members.iter().filter(|(known, _)| *known == class).map(|(_, object)| *object).collect()
        };
        let (relation_oids, type_oids, function_oids, statistics_oids) =
            (of(class::RELATION), of(class::TYPE), of(class::FUNCTION), of(class::STATISTICS));
        lock(&relation_oids);

        let mut relations = read_relations(&relation_oids)?;
        let mut types = read_types(&type_oids, schema)?;
        relations.sort_by(|one, other| one.name.cmp(&other.name));
        types.sort_by(|one, other| one.name.cmp(&other.name));
        read_columns(&mut relations, &mut types)?;
        let mut functions = read_functions(&function_oids)?;
        functions.sort_by(|one, other| (&one.name, &one.arguments).cmp(&(&other.name, &other.arguments)));
        let constraints = read_constraints(&relation_oids, &type_oids)?;
        let indexes = read_indexes(&relation_oids)?;
        let view_rules =
            query::rows(VIEW_RULES, &[relation_oids.clone().into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
        let attached = |sql, has_state: bool| {
            query::rows(sql, &[relation_oids.clone().into()], |row| {
                let enabled = if has_state { row.get(5)? } else { None };
                Ok(Attached {
                    oid: row.must(1)?,
                    table: row.must(2)?,
                    name: row.must(3)?,
                    definition: row.must(4)?,
                    enabled,
                })
            })
        };
        let (rules, policies) = (attached(RULES, true)?, attached(POLICIES, false)?);
        let triggers = read_triggers(&relation_oids)?;
        let statistics = read_statistics(&statistics_oids)?;

        let mut dependents: Vec<Object> = members.clone();
        dependents.extend(
            types.iter().filter(|found| found.relation != Oid::INVALID).map(|found| (class::RELATION, found.relation)),
        );
        dependents.extend(view_rules.iter().map(|(rule, _): &(Oid, Oid)| (class::RULE, *rule)));
        dependents.extend(constraints.iter().map(|constraint| (class::CONSTRAINT, constraint.oid)));
        let defaults =
            relations.iter().flat_map(|relation| &relation.columns).filter_map(|column| column.default.as_ref());
        dependents.extend(defaults.map(|(oid, _)| (class::DEFAULT, *oid)));
        let dependencies = read_dependencies(&dependents)?;

        let mut noted = dependents;
        noted.push((class::SCHEMA, schema));
        noted.extend(indexes.iter().map(|index| (class::RELATION, index.oid)));
        noted.extend(triggers.iter().map(|trigger| (class::TRIGGER, trigger.oid)));
        noted.extend(rules.iter().map(|rule| (class::RULE, rule.oid)));
        noted.extend(policies.iter().map(|policy| (class::POLICY, policy.oid)));
        Ok(Self {
            sequences: read_sequences(&relation_oids)?,
            comments: read_comments(&noted)?,
            labels: read_labels(&noted)?,
            relations,
            constraints,
            indexes,
            types,
            functions,
            triggers,
            rules,
            policies,
            statistics,
            dependencies,
            view_rules,
        })
    }

    pub fn relation(&self, oid: Oid) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.oid == oid)
    }
}

/// Keeps the definitions as they are until the transaction ends.
fn lock(relations: &[Oid]) {
    for relation in relations {
        // SAFETY: any oid may be locked; the transaction's end releases it.
        unsafe { pgrx::pg_sys::LockRelationOid(*relation, pgrx::pg_sys::AccessShareLock as _) };
    }
}

fn read_relations(oids: &[Oid]) -> Result<Vec<Relation>> {
    let mut relations: Vec<Relation> = query::rows(RELATIONS, &[oids.to_vec().into()], |row| {
        let kind = match row.must::<String>(3)?.as_str() {
            "r" => Kind::Table,
            "p" => Kind::Partitioned,
            "v" => Kind::View,
            "m" => Kind::Materialized,
            "S" => Kind::Sequence,
            _ => Kind::Other,
        };
        Ok(Relation {
            oid: row.must(1)?,
            name: row.must(2)?,
            kind,
            owner: row.must(4)?,
            unlogged: row.must(5)?,
            is_partition: row.must(6)?,
            partition_key: row.get(7)?,
            bound: row.get(8)?,
            options: row.get(9)?,
            access_method: row.get(10)?,
            tablespace: row.get(11)?,
            row_security: row.must(12)?,
            force: row.must(13)?,
            replica_identity: row.must(14)?,
            of_type: row.get(15)?,
            populated: row.must(16)?,
            query: row.get(17)?,
            types: [row.get(18)?, row.get(19)?],
            columns: Vec::new(),
            parents: Vec::new(),
        })
    })?;
    let parents: Vec<Object> = query::rows(PARENTS, &[oids.to_vec().into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
    for (child, parent) in parents {
        if let Some(relation) = relations.iter_mut().find(|relation| relation.oid == child) {
            relation.parents.push(parent);
        }
    }
    Ok(relations)
}

/// Reads the columns of relations and of composite types.
fn read_columns(relations: &mut [Relation], types: &mut [Type]) -> Result<()> {
    let mut places: HashMap<Oid, &mut Vec<Column>> = HashMap::new();
    let tables = relations.iter_mut().filter(|relation| relation.kind != Kind::Sequence);
    places.extend(tables.map(|relation| (relation.oid, &mut relation.columns)));
    places.extend(
        types
            .iter_mut()
            .filter(|found| found.relation != Oid::INVALID)
            .map(|found| (found.relation, &mut found.columns)),
    );
    let oids: Vec<Oid> = places.keys().copied().collect();
    let columns = query::rows(COLUMNS, &[oids.into()], |row| {
        let default = row.get::<Oid>(9)?.zip(row.get::<String>(10)?);
        let column = Column {
            number: row.must(2)?,
            name: row.must(3)?,
            type_name: row.must(4)?,
            not_null: row.must(5)?,
            is_local: row.must(6)?,
            identity: row.must(7)?,
            generated: match row.must::<String>(8)?.as_str() {
                "s" => Some("STORED"),
                "v" => Some("VIRTUAL"),
                _ => None,
            },
            default,
            collation: row.get(11)?,
            compression: row.get(12)?,
            storage: row.get(13)?,
            statistics: row.get(14)?,
            options: row.get(15)?,
            type_oid: row.must(16)?,
        };
        Ok((row.must::<Oid>(1)?, column))
    })?;
    for (relation, column) in columns {
        if let Some(place) = places.get_mut(&relation) {
            place.push(column);
        }
    }
    Ok(())
}

fn read_sequences(oids: &[Oid]) -> Result<HashMap<Oid, Sequence>> {
    let sequences = query::rows(SEQUENCES, &[oids.to_vec().into()], |row| {
        let owned_by = row.get::<Oid>(3)?.zip(row.get::<i32>(4)?);
        let oid = row.must(1)?;
        Ok((oid, Sequence { oid, parameters: row.must(2)?, owned_by, is_identity: row.get(5)?.unwrap_or(false) }))
    })?;
    Ok(sequences.into_iter().collect())
}

fn read_constraints(relations: &[Oid], types: &[Oid]) -> Result<Vec<Constraint>> {
    query::rows(CONSTRAINTS, &[relations.to_vec().into(), types.to_vec().into()], |row| {
        Ok(Constraint {
            oid: row.must(1)?,
            table: row.must(2)?,
            domain: row.must(3)?,
            name: row.must(4)?,
            kind: row.must(5)?,
            definition: row.must(6)?,
            validated: row.must(7)?,
            is_local: row.must(8)?,
            has_parent: row.must(9)?,
            references: row.get(10)?,
            index: row.must(11)?,
            column: row.get(12)?,
        })
    })
}

fn read_indexes(oids: &[Oid]) -> Result<Vec<Index>> {
    query::rows(INDEXES, &[oids.to_vec().into()], |row| {
        Ok(Index {
            oid: row.must(1)?,
            table: row.must(2)?,
            name: row.must(3)?,
            definition: row.must(4)?,
            of_constraint: row.must(5)?,
            clustered: row.must(6)?,
            replica_identity: row.must(7)?,
            valid: row.must(8)?,
            tablespace: row.get(9)?,
            options: row.get(10)?,
            statistics: row.get(11)?,
            parent: row.get(12)?,
        })
    })
}

fn read_types(oids: &[Oid], schema: Oid) -> Result<Vec<Type>> {
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

fn read_functions(oids: &[Oid]) -> Result<Vec<Function>> {
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

fn read_triggers(oids: &[Oid]) -> Result<Vec<Trigger>> {
    query::rows(TRIGGERS, &[oids.to_vec().into()], |row| {
        Ok(Trigger {
            oid: row.must(1)?,
            table: row.must(2)?,
            name: row.must(3)?,
            definition: row.must(4)?,
            enabled: row.must(5)?,
            has_parent: row.must(6)?,
            is_limit: row.must(7)?,
        })
    })
}

fn read_statistics(oids: &[Oid]) -> Result<Vec<Statistics>> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    query::rows(STATISTICS, &[oids.to_vec().into()], |row| {
        Ok(Statistics {
            oid: row.must(1)?,
            name: row.must(2)?,
            owner: row.must(3)?,
            definition: row.must(4)?,
            target: row.get(5)?,
            table: row.must(6)?,
        })
    })
}

fn read_dependencies(dependents: &[Object]) -> Result<Vec<Dependency>> {
    let (classes, objects): (Vec<Oid>, Vec<Oid>) = dependents.iter().copied().unzip();
    query::rows(DEPENDENCIES, &[classes.into(), objects.into()], |row| {
        Ok(Dependency {
            object: (row.must(1)?, row.must(2)?),
            on: (row.must(3)?, row.must(4)?),
            on_column: row.must(5)?,
        })
    })
}

fn read_comments(noted: &[Object]) -> Result<Vec<Note>> {
    let (classes, objects): (Vec<Oid>, Vec<Oid>) = noted.iter().copied().unzip();
    query::rows(COMMENTS, &[classes.into(), objects.into()], |row| {
        Ok(Note { object: (row.must(1)?, row.must(2)?), column: row.must(3)?, provider: None, text: row.must(4)? })
    })
}

fn read_labels(noted: &[Object]) -> Result<Vec<Note>> {
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
