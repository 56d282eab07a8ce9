//! Tables, views and sequences, with their columns.

use super::Object;
use crate::error::Result;
use crate::query;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

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

const PARENTS: &str = "SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = ANY ($1) ORDER BY i.inhrelid, i.inhseqno";

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

pub fn read_relations(oids: &[Oid]) -> Result<Vec<Relation>> {
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

/// Reads the columns of relations and of composite types into their places.
pub fn read_columns<'a>(places: impl Iterator<Item = (Oid, &'a mut Vec<Column>)>) -> Result<()> {
    let mut places: HashMap<Oid, &mut Vec<Column>> = places.collect();
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

pub fn read_sequences(oids: &[Oid]) -> Result<HashMap<Oid, Sequence>> {
    let sequences = query::rows(SEQUENCES, &[oids.to_vec().into()], |row| {
        let owned_by = row.get::<Oid>(3)?.zip(row.get::<i32>(4)?);
        let oid = row.must(1)?;
        Ok((oid, Sequence { oid, parameters: row.must(2)?, owned_by, is_identity: row.get(5)?.unwrap_or(false) }))
    })?;
    Ok(sequences.into_iter().collect())
}
