//! Shared tables without their guard: what a template gets that is made of them.
//!
//! Off come the policies of protected tables, the row security that they were given, and foreign keys to the registry; what extensions have in the
//! schema stays there. The tenant column stays, with its default: statements are the same everywhere.

use super::catalog::Catalog;
use super::{Schema, unclonable};
use crate::error::Result;
use crate::query;
use crate::relation::{GUARD_POLICY, ISOLATION_POLICY};
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

/// Tables of the schema that are protected, and the row security that they had before.
const PROTECTED: &str =
    "SELECT p.table_name::pg_catalog.oid, p.had_row_security, p.had_force FROM tenancy.protected_tables p
    JOIN pg_catalog.pg_class c ON c.oid = p.table_name WHERE c.relnamespace = $1";
const REGISTRY: &str = "SELECT 'tenancy.tenants'::pg_catalog.regclass::pg_catalog.oid";

/// What the copy depends on in the schema that it was made of, but for what extensions have there.
const DEPENDENCE: &str = "WITH members AS (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_namespace n ON n.oid = d.refobjid
        WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.nspname = $2 AND d.deptype = 'n'
    ), parts AS (
        SELECT * FROM members
        UNION SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN members m ON d.refclassid = m.classid AND d.refobjid = m.objid
        WHERE d.classid IN ('pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass,
            'pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass)
    ), originals AS (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n'
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
    )
    SELECT DISTINCT pg_catalog.pg_describe_object(p.classid, p.objid, 0) || ', which would depend on ' || pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0)
    FROM parts p JOIN pg_catalog.pg_depend d ON d.classid = p.classid AND d.objid = p.objid
    JOIN originals o ON o.classid = d.refclassid AND o.objid = d.refobjid
    ORDER BY 1";

/// The guard of the tables of a schema.
pub struct Guard {
    protected: HashMap<Oid, (bool, bool)>,
    registry: Option<Oid>,
}

impl Guard {
    /// Reads the product's own tables: as their owner.
    pub fn read(schema: &Schema) -> Result<Self> {
        let protected =
            query::rows(PROTECTED, &[schema.oid.into()], |row| Ok((row.must(1)?, (row.must(2)?, row.must(3)?))))?;
        Ok(Self { protected: protected.into_iter().collect(), registry: query::value(REGISTRY, &[])? })
    }

    pub fn take_off(&self, catalog: &mut Catalog) -> Result<()> {
        let ours = |name: &str| name == GUARD_POLICY || name == ISOLATION_POLICY;
        catalog.policies.retain(|policy| !(ours(&policy.name) && self.protected.contains_key(&policy.table)));
        catalog.constraints.retain(|constraint| constraint.kind != "f" || constraint.references != self.registry);
        for table in &mut catalog.relations {
            if let Some((row_security, force)) = self.protected.get(&table.oid) {
                (table.row_security, table.force) = (*row_security, *force);
            }
        }
        Ok(())
    }
}

/// Fails when the copy uses something of its original, as an SQL function or a view may that names the schema.
pub fn refuse_dependence(source: &Schema, destination: &str) -> Result<()> {
    unclonable::refuse_these(query::current_rows(DEPENDENCE, &[source.oid.into(), destination.into()], |row| {
        row.must::<String>(1)
    })?)
}
