//! What a schema consists of, read from the catalogs.
//!
//! The queries run with the schema first in `search_path`, so that PostgreSQL's own deparsing leaves the schema's name out wherever it is
//! looked up: the same text then means the copy's objects, once the copy comes first. They run as the schema's owner, and the schema
//! has no operators ([`super::unclonable`]), so nothing in it can stand in for what they use.
//!
//! pg_class has no index on the schema: objects are found by what depends on it, at a cost that other schemas do not add to.

mod notes;
mod parts;
mod relations;
mod routines;

pub use notes::{Dependency, Note};
pub use parts::{Attached, Constraint, Index, Statistics, Trigger};
pub use relations::{Column, Kind, Relation, Sequence};
pub use routines::{Function, Type};

use crate::error::Result;
use crate::query;
use pgrx::pg_sys::Oid;
use std::collections::{HashMap, HashSet};

const MEMBERS: &str = "SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
    WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n' AND d.objsubid = 0";

const MEMBERS_OF_EXTENSIONS: &str = "SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_depend e ON e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e'
    WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n' AND d.objsubid = 0";

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
    /// Reads all of it, or all but what belongs to extensions.
    pub fn read(schema: Oid, with_extensions: bool) -> Result<Self> {
        let object = |row: &query::Row| Ok((row.must(1)?, row.must(2)?));
        let mut members: Vec<Object> = query::rows(MEMBERS, &[schema.into()], object)?;
        if !with_extensions {
            let theirs: HashSet<Object> =
                query::rows(MEMBERS_OF_EXTENSIONS, &[schema.into()], object)?.into_iter().collect();
            members.retain(|member| !theirs.contains(member));
        }
        let of = |class: Oid| -> Vec<Oid> {
            members.iter().filter(|(known, _)| *known == class).map(|(_, object)| *object).collect()
        };
        let (relation_oids, type_oids, function_oids, statistics_oids) =
            (of(class::RELATION), of(class::TYPE), of(class::FUNCTION), of(class::STATISTICS));
        lock(&relation_oids);

        let mut relations = relations::read_relations(&relation_oids)?;
        let mut types = routines::read_types(&type_oids, schema)?;
        relations.sort_by(|one, other| one.name.cmp(&other.name));
        types.sort_by(|one, other| one.name.cmp(&other.name));
        let tables = relations.iter_mut().filter(|relation| relation.kind != Kind::Sequence);
        let composites = types.iter_mut().filter(|found| found.relation != Oid::INVALID);
        relations::read_columns(
            tables
                .map(|table| (table.oid, &mut table.columns))
                .chain(composites.map(|found| (found.relation, &mut found.columns))),
        )?;
        let mut functions = routines::read_functions(&function_oids)?;
        functions.sort_by(|one, other| (&one.name, &one.arguments).cmp(&(&other.name, &other.arguments)));
        let constraints = parts::read_constraints(&relation_oids, &type_oids)?;
        let indexes = parts::read_indexes(&relation_oids)?;
        let view_rules = parts::read_view_rules(&relation_oids)?;
        let (rules, policies) = (parts::read_rules(&relation_oids)?, parts::read_policies(&relation_oids)?);
        let triggers = parts::read_triggers(&relation_oids)?;
        let statistics = parts::read_statistics(&statistics_oids)?;

        let mut dependents: Vec<Object> = members.clone();
        dependents.extend(
            types.iter().filter(|found| found.relation != Oid::INVALID).map(|found| (class::RELATION, found.relation)),
        );
        dependents.extend(view_rules.iter().map(|(rule, _): &(Oid, Oid)| (class::RULE, *rule)));
        dependents.extend(constraints.iter().map(|constraint| (class::CONSTRAINT, constraint.oid)));
        let defaults =
            relations.iter().flat_map(|relation| &relation.columns).filter_map(|column| column.default.as_ref());
        dependents.extend(defaults.map(|(oid, _)| (class::DEFAULT, *oid)));
        let dependencies = notes::read_dependencies(&dependents)?;

        let mut noted = dependents;
        noted.push((class::SCHEMA, schema));
        noted.extend(indexes.iter().map(|index| (class::RELATION, index.oid)));
        noted.extend(triggers.iter().map(|trigger| (class::TRIGGER, trigger.oid)));
        noted.extend(rules.iter().map(|rule| (class::RULE, rule.oid)));
        noted.extend(policies.iter().map(|policy| (class::POLICY, policy.oid)));
        Ok(Self {
            sequences: relations::read_sequences(&relation_oids)?,
            comments: notes::read_comments(&noted)?,
            labels: notes::read_labels(&noted)?,
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
