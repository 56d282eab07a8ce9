//! The statements that make a copy of a schema, in an order in which each finds what it needs.
//!
//! They name the schema's own objects without the schema, since they run with the copy first in `search_path`. Types, functions, sequences,
//! tables and views are ordered by what they depend on; the rest follows in one order that always works: rows, indexes, partitions,
//! what is attached to tables, foreign keys, comments.

use super::body::Renaming;
use super::catalog::{Catalog, Column, Constraint, Function, Kind, Object, Relation, Type, class};
use super::objects::{create_materialized_view, create_view, function_name};
use super::order;
use super::{Data, Schema};
use crate::error::{Error, Result};
use crate::query::ident;
use pgrx::pg_sys::Oid;
use std::collections::{HashMap, HashSet};

/// One statement.
pub struct Step {
    /// Who runs it: the owner of what it makes, whose code it may run.
    pub role: Oid,
    pub sql: String,
    /// The object that it is part of, in words: `table contacts`.
    pub object: String,
    /// The table that the object is attached to.
    pub on: Option<String>,
}

impl Step {
    pub fn new(role: Oid, sql: impl Into<String>, object: impl Into<String>) -> Self {
        Self { role, sql: sql.into(), object: object.into(), on: None }
    }

    pub(super) fn on(self, table: &Relation) -> Self {
        Self { on: Some(ident(&table.name)), ..self }
    }
}

/// A table that holds rows itself.
pub struct Rows {
    pub oid: Oid,
    pub name: String,
    /// The partitioned tables that it is a part of.
    pub part_of: Vec<String>,
    pub owner: Oid,
    /// What is copied, all columns but generated ones: each with what it is read as.
    pub columns: Vec<(String, String)>,
    /// The same, as they are named.
    pub names: Vec<String>,
}

impl Rows {
    /// Whether the table is called so, or belongs to one that is.
    pub fn is_of(&self, name: &str) -> bool {
        self.name == name || self.part_of.iter().any(|above| above == name)
    }
}

/// A sequence whose position can be copied.
pub struct Position {
    pub name: String,
    pub owner: Oid,
    /// The table that draws from it, where one owns it.
    pub table: Option<String>,
}

/// What makes a copy.
pub struct Plan {
    /// The schema that it copies.
    pub source: String,
    /// Who owns that, and then the copy.
    pub owner: Oid,
    /// Types, functions, tables, views.
    pub define: Vec<Step>,
    pub rows: Vec<Rows>,
    pub positions: Vec<Position>,
    /// What comes once the rows are there.
    pub complete: Vec<Step>,
    /// How many steps of that it takes until partitions belong to their tables, with their indexes.
    pub attached: usize,
    /// Privileges of the objects, and what needs them.
    pub finish: Vec<Step>,
    /// Default privileges, once nothing is left to be made.
    pub close: Vec<Step>,
    /// Privileges of the schema, once nobody needs more.
    pub leave: Vec<Step>,
    /// The relations that it makes, each of which takes a lock.
    pub locks: usize,
}

impl Plan {
    /// The roles that have a part in it.
    pub fn actors(&self) -> impl Iterator<Item = Oid> {
        let steps = self.define.iter().chain(&self.complete).chain(&self.finish).chain(&self.close);
        steps.map(|step| step.role).chain(self.rows.iter().map(|table| table.owner))
    }
}

/// What is copied, and under which name.
pub struct Planner<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) source: &'a str,
    /// Who owns the schema, and may become whoever owns something in it.
    pub(super) schema_owner: Oid,
    pub(super) renaming: Renaming<'a>,
    pub(super) destination: &'a str,
    pub(super) relations: HashMap<Oid, &'a Relation>,
}

/// Something that others depend on.
#[derive(Clone, Copy)]
enum Node<'a> {
    Type(&'a Type),
    Function(&'a Function),
    Relation(&'a Relation),
    Default(&'a Relation, &'a Column),
    Check(&'a Constraint),
}

pub(super) fn named(kind: &str, name: &str) -> String {
    format!("{kind} {}", ident(name))
}

pub(super) fn comma(parts: &[String]) -> String {
    parts.join(", ")
}

impl<'a> Planner<'a> {
    pub fn new(catalog: &'a Catalog, source: &'a Schema, destination: &'a str, names: &'a HashSet<&'a str>) -> Self {
        Self {
            catalog,
            source: &source.name,
            schema_owner: source.owner,
            renaming: Renaming { from: &source.name, to: destination, objects: names },
            destination,
            relations: catalog.relations.iter().map(|relation| (relation.oid, relation)).collect(),
        }
    }

    /// The plan of a copy that gets these rows.
    pub fn plan(&self, data: &Data) -> Result<Plan> {
        let catalog = self.catalog;
        let (mut define, order, early) = self.definitions(data)?;
        let mut complete = Vec::new();
        complete.extend(self.late_checks());
        complete.extend(self.indexes(false)?);
        complete.extend(self.attachments());
        complete.extend(self.indexes(true)?);
        complete.extend(self.index_attachments());
        let attached = complete.len();
        complete.extend(self.statistics()?);
        complete.extend(self.table_states());
        complete.extend(self.rules()?);
        complete.extend(self.policies());
        complete.extend(self.triggers()?);
        complete.extend(self.foreign_keys(&early));
        complete.extend(self.ownerships());
        complete.extend(self.notes());
        for step in define.iter_mut().chain(&mut complete) {
            step.sql = self.renaming.apply_to_late_names(&step.sql);
        }
        Ok(Plan {
            source: self.source.to_owned(),
            owner: self.schema_owner,
            define,
            rows: self.rows(),
            positions: self.positions(),
            complete,
            attached,
            finish: self.refreshes(&order),
            close: Vec::new(),
            leave: Vec::new(),
            // A table may have a TOAST table with its index.
            locks: 3 * catalog.relations.len() + catalog.indexes.len(),
        })
    }

    // What others depend on.

    /// The statements, the relations in the order in which they are made, and the foreign keys that come with their tables.
    fn definitions(&self, data: &Data) -> Result<(Vec<Step>, Vec<Oid>, HashSet<Oid>)> {
        // Tables come after those that they refer to, and defaults and checks with their tables, unless that makes a circle: a table's check
        // may call a function that takes its row.
        for (keys, apart) in [(true, false), (false, false), (false, true)] {
            let nodes = self.nodes(apart);
            match order::sort(nodes.len(), &self.edges(&nodes, keys)) {
                Ok(ordered) => {
                    let (mut steps, mut relations, mut early) = (Vec::new(), Vec::new(), HashSet::new());
                    for node in ordered {
                        if let Node::Relation(relation) = nodes[node] {
                            relations.push(relation.oid);
                            early.extend(self.early_keys(relation, &relations, data));
                        }
                        self.define(nodes[node], apart, &early, &mut steps)?;
                    }
                    return Ok((steps, relations, early));
                }
                Err(circle) if apart => {
                    let names: Vec<String> = circle.into_iter().map(|node| self.name_of(nodes[node])).collect();
                    let names = comma(&names);
                    return Err(Error::Unclonable(format!("{names}, which depend on each other in a circle")));
                }
                Err(_) => {}
            }
        }
        Ok((Vec::new(), Vec::new(), HashSet::new()))
    }

    /// Foreign keys that a table without rows can be made with, which spares PostgreSQL the look for rows that violate them: to itself, and to
    /// tables that are there.
    fn early_keys(&self, table: &Relation, made: &[Oid], data: &Data) -> Vec<Oid> {
        let is_plain = |table: &Relation| table.kind == Kind::Table && !table.is_partition && table.parents.is_empty();
        let fits = |key: &&Constraint| {
            let is_there = key.references.and_then(|oid| self.relations.get(&oid)).is_some_and(|referred| {
                made.contains(&referred.oid) && referred.owner == table.owner && is_plain(referred)
            });
            let of_key = self.catalog.indexes.iter().any(|index| index.oid == key.index && index.of_constraint);
            key.table == table.oid && key.kind == "f" && key.validated && !key.has_parent && is_there && of_key
        };
        if !is_plain(table) || data.includes(&table.name, &[]) {
            return Vec::new();
        }
        self.catalog.constraints.iter().filter(fits).map(|key| key.oid).collect()
    }

    fn nodes(&self, apart: bool) -> Vec<Node<'a>> {
        let catalog = self.catalog;
        let mut nodes: Vec<Node> = catalog.types.iter().map(Node::Type).collect();
        nodes.extend(catalog.functions.iter().map(Node::Function));
        for kind in [Kind::Sequence, Kind::Partitioned, Kind::Table, Kind::View, Kind::Materialized] {
            nodes.extend(
                catalog
                    .relations
                    .iter()
                    .filter(|relation| relation.kind == kind && !self.is_identity(relation.oid))
                    .map(Node::Relation),
            );
        }
        if apart {
            let tables = catalog.relations.iter().filter(|relation| relation.kind != Kind::View);
            nodes.extend(tables.flat_map(|table| {
                table
                    .columns
                    .iter()
                    .filter(|column| column.default.is_some() && column.generated.is_none())
                    .map(move |column| Node::Default(table, column))
            }));
            nodes.extend(
                catalog.constraints.iter().filter(|constraint| self.is_early_check(constraint)).map(Node::Check),
            );
        }
        nodes
    }

    /// Which comes after which; with `keys`, also what refers to something after that.
    fn edges(&self, nodes: &[Node<'a>], keys: bool) -> Vec<(usize, usize)> {
        let catalog = self.catalog;
        let mut places: HashMap<Object, usize> = HashMap::new();
        for (place, node) in nodes.iter().enumerate() {
            match node {
                Node::Type(found) => {
                    places.extend(found.companions.iter().chain([&found.oid]).map(|oid| ((class::TYPE, *oid), place)));
                    places.insert((class::RELATION, found.relation), place);
                }
                Node::Function(function) => {
                    places.insert((class::FUNCTION, function.oid), place);
                }
                Node::Relation(relation) => {
                    places.insert((class::RELATION, relation.oid), place);
                    places.extend(relation.types.iter().flatten().map(|oid| ((class::TYPE, *oid), place)));
                    let defaults = relation.columns.iter().filter_map(|column| column.default.as_ref());
                    places.extend(defaults.map(|(oid, _)| ((class::DEFAULT, *oid), place)));
                }
                Node::Default(..) | Node::Check(_) => {}
            }
        }
        places.remove(&(class::RELATION, Oid::INVALID));
        places.remove(&(class::TYPE, Oid::INVALID));
        let tables: HashMap<Oid, usize> = places
            .iter()
            .filter(|((class, _), _)| *class == class::RELATION)
            .map(|((_, oid), place)| (*oid, *place))
            .collect();
        let behind = |relation: &Oid| tables.get(relation).copied();
        let rules: Vec<(Object, usize)> =
            catalog.view_rules.iter().filter_map(|(rule, view)| Some(((class::RULE, *rule), behind(view)?))).collect();
        places.extend(rules);
        let constraints: Vec<(Object, usize)> = catalog
            .constraints
            .iter()
            .filter(|constraint| constraint.kind != "f" && !self.is_late_check(constraint))
            .filter_map(|constraint| {
                let owner = if constraint.table == Oid::INVALID {
                    (class::TYPE, constraint.domain)
                } else {
                    (class::RELATION, constraint.table)
                };
                Some(((class::CONSTRAINT, constraint.oid), *places.get(&owner)?))
            })
            .collect();
        places.extend(constraints);
        let indexes: Vec<(Object, usize)> = catalog
            .indexes
            .iter()
            .filter_map(|index| Some(((class::RELATION, index.oid), behind(&index.table)?)))
            .collect();
        places.extend(indexes);
        // In their own right where they are apart.
        for (place, node) in nodes.iter().enumerate() {
            match node {
                Node::Default(_, column) => {
                    places.extend(column.default.iter().map(|(oid, _)| ((class::DEFAULT, *oid), place)))
                }
                Node::Check(check) => places.extend([((class::CONSTRAINT, check.oid), place)]),
                _ => {}
            }
        }
        let owned = |object: &Object, column: i32| {
            // A sequence that belongs to a column is made before it, and given to it afterwards.
            object.0 == class::RELATION && column > 0 && catalog.sequences.contains_key(&object.1)
        };
        let mut edges = Vec::new();
        for key in catalog.constraints.iter().filter(|constraint| keys && constraint.kind == "f") {
            edges.extend(behind(&key.table).zip(key.references.and_then(|referred| behind(&referred))));
        }
        for dependency in &catalog.dependencies {
            if owned(&dependency.object, dependency.on_column)
                || self.is_partition_of(&dependency.object, &dependency.on)
            {
                continue;
            }
            if let (Some(one), Some(on)) = (places.get(&dependency.object), places.get(&dependency.on)) {
                edges.push((*one, *on));
            }
        }
        edges
    }

    /// Partitions are attached once both exist.
    fn is_partition_of(&self, object: &Object, parent: &Object) -> bool {
        self.relations
            .get(&object.1)
            .is_some_and(|relation| relation.is_partition && relation.parents.contains(&parent.1))
    }

    pub(super) fn is_identity(&self, sequence: Oid) -> bool {
        self.catalog.sequences.get(&sequence).is_some_and(|sequence| sequence.is_identity)
    }

    fn name_of(&self, node: Node) -> String {
        match node {
            Node::Type(found) => named("type", &found.name),
            Node::Function(function) => function_name(function),
            Node::Relation(relation) => named("relation", &relation.name),
            Node::Default(table, column) => format!("default of {}.{}", ident(&table.name), ident(&column.name)),
            Node::Check(constraint) => named("constraint", &constraint.name),
        }
    }

    fn define(&self, node: Node, apart: bool, early: &HashSet<Oid>, steps: &mut Vec<Step>) -> Result<()> {
        let (owner, sql) = match node {
            Node::Type(found) => (found.owner, self.create_type(found, apart)),
            Node::Function(function) => return self.create_function(function, steps),
            Node::Relation(relation) => match relation.kind {
                Kind::Sequence => (relation.owner, self.create_sequence(relation)),
                Kind::View => (relation.owner, create_view(relation)),
                Kind::Materialized => (relation.owner, create_materialized_view(relation)),
                _ => (relation.owner, self.create_table(relation, apart, early)),
            },
            Node::Default(table, column) => {
                let Some((_, default)) = &column.default else { return Ok(()) };
                (
                    table.owner,
                    format!(
                        "ALTER TABLE ONLY {} ALTER COLUMN {} SET DEFAULT {default}",
                        ident(&table.name),
                        ident(&column.name)
                    ),
                )
            }
            Node::Check(check) => (self.owner_of(check), self.add_constraint(check)),
        };
        let object = self.name_of(node);
        steps.push(Step::new(owner, sql, object));
        if let Node::Relation(relation) = node {
            self.amend(relation, apart, steps);
        }
        Ok(())
    }

    fn rows(&self) -> Vec<Rows> {
        let types = self.catalog.types.iter().flat_map(|found| found.companions.iter().chain([&found.oid]));
        let row_types = self.catalog.relations.iter().flat_map(|relation| relation.types.iter().flatten());
        let own: HashSet<Oid> = types.chain(row_types).copied().collect();
        let column = |column: &Column| {
            let name = ident(&column.name);
            // A value of one of the schema's types becomes one of the copy's by what it looks like.
            let read = if own.contains(&column.type_oid) {
                format!("{name}::pg_catalog.text::{}", column.type_name)
            } else {
                name.clone()
            };
            (name, read)
        };
        let above = |table: &Relation| {
            let mut names = Vec::new();
            let mut next = table.parents.first().filter(|_| table.is_partition);
            while let Some(parent) = next.and_then(|oid| self.relations.get(oid)) {
                names.push(parent.name.clone());
                next = parent.parents.first();
            }
            names
        };
        let tables = self.catalog.relations.iter().filter(|table| table.kind == Kind::Table);
        tables
            .map(|table| Rows {
                name: table.name.clone(),
                part_of: above(table),
                owner: table.owner,
                columns: table.columns.iter().filter(|column| column.generated.is_none()).map(column).collect(),
                names: table
                    .columns
                    .iter()
                    .filter(|column| column.generated.is_none())
                    .map(|column| column.name.clone())
                    .collect(),
                oid: table.oid,
            })
            .collect()
    }

    fn positions(&self) -> Vec<Position> {
        let table = |sequence: &Relation| {
            let (table, _) = self.catalog.sequences.get(&sequence.oid)?.owned_by?;
            self.relations.get(&table).map(|table| table.name.clone())
        };
        let sequences = self.catalog.relations.iter().filter(|relation| relation.kind == Kind::Sequence);
        sequences
            .map(|sequence| Position { name: sequence.name.clone(), owner: sequence.owner, table: table(sequence) })
            .collect()
    }
}
