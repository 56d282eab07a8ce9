//! What belongs to tables: constraints, indexes, triggers, rules, policies and statistics.

use crate::error::Result;
use crate::query::{self, Row};
use pgrx::pg_sys::Oid;

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

pub fn read_constraints(relations: &[Oid], types: &[Oid]) -> Result<Vec<Constraint>> {
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

pub fn read_indexes(oids: &[Oid]) -> Result<Vec<Index>> {
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

/// The rule behind each view.
pub fn read_view_rules(oids: &[Oid]) -> Result<Vec<(Oid, Oid)>> {
    query::rows(VIEW_RULES, &[oids.to_vec().into()], |row| Ok((row.must(1)?, row.must(2)?)))
}

pub fn read_rules(oids: &[Oid]) -> Result<Vec<Attached>> {
    read_attached(RULES, oids, |row| row.get(5))
}

pub fn read_policies(oids: &[Oid]) -> Result<Vec<Attached>> {
    read_attached(POLICIES, oids, |_| Ok(None))
}

fn read_attached(
    sql: &'static str,
    oids: &[Oid],
    enabled: fn(&Row) -> Result<Option<String>>,
) -> Result<Vec<Attached>> {
    query::rows(sql, &[oids.to_vec().into()], |row| {
        Ok(Attached {
            oid: row.must(1)?,
            table: row.must(2)?,
            name: row.must(3)?,
            definition: row.must(4)?,
            enabled: enabled(row)?,
        })
    })
}

pub fn read_triggers(oids: &[Oid]) -> Result<Vec<Trigger>> {
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

pub fn read_statistics(oids: &[Oid]) -> Result<Vec<Statistics>> {
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
