//! The statements that make a copy of a schema, in an order in which each finds what it needs.
//!
//! They name the schema's own objects without the schema, since they run with the copy first in `search_path`. Types, functions, sequences,
//! tables and views are ordered by what they depend on; the rest follows in one order that always works: rows, indexes, partitions,
//! what is attached to tables, foreign keys, comments.

use super::body::Renaming;
use super::catalog::{
    Attached, Catalog, Column, Constraint, Function, Index, Kind, Object, Relation, Trigger, Type, class,
};
use super::order;
use crate::error::{Error, Result};
use crate::query::{ident, literal};
use crate::relation::role_name;
use pgrx::pg_sys::{self, Oid};
use std::collections::{HashMap, HashSet};

/// Who runs a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The owner of what it makes, whose code it may run.
    Owner(Oid),
    /// The product: what needs more rights than an owner has, and runs no code of users.
    Product,
}

/// One statement.
pub struct Step {
    pub actor: Actor,
    pub sql: String,
    /// The object that it is part of, in words: `table contacts`.
    pub object: String,
    /// The table that the object is attached to.
    pub on: Option<String>,
}

impl Step {
    pub fn new(actor: Actor, sql: impl Into<String>, object: impl Into<String>) -> Self {
        Self { actor, sql: sql.into(), object: object.into(), on: None }
    }

    fn on(self, table: &Relation) -> Self {
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
    /// Who owns the copy as long as it is made.
    pub maker: Oid,
    /// What is copied, all columns but generated ones: each with what it is read as.
    pub columns: Vec<(String, String)>,
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
    /// The table that draws from it, where one owns it.
    pub table: Option<String>,
}

/// What makes a copy.
pub struct Plan {
    /// Types, functions, tables, views.
    pub define: Vec<Step>,
    pub rows: Vec<Rows>,
    pub positions: Vec<Position>,
    /// What comes once the rows are there.
    pub complete: Vec<Step>,
    /// Privileges of the objects, and what needs them.
    pub finish: Vec<Step>,
    /// Privileges of the schema, once nobody needs more.
    pub close: Vec<Step>,
    /// The relations that it makes, each of which takes a lock.
    pub locks: usize,
}

impl Plan {
    /// The roles that have a part in it.
    pub fn actors(&self) -> impl Iterator<Item = Oid> {
        let steps = self.define.iter().chain(&self.complete).chain(&self.finish);
        let actors = steps.filter_map(|step| match step.actor {
            Actor::Owner(role) => Some(role),
            Actor::Product => None,
        });
        actors.chain(self.rows.iter().map(|table| table.owner))
    }
}

/// What is copied, and under which name.
pub struct Planner<'a> {
    pub(super) catalog: &'a Catalog,
    source: &'a str,
    renaming: Renaming<'a>,
    destination: &'a str,
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

fn comma(parts: &[String]) -> String {
    parts.join(", ")
}

impl<'a> Planner<'a> {
    pub fn new(catalog: &'a Catalog, source: &'a str, destination: &'a str, names: &'a HashSet<&'a str>) -> Self {
        Self {
            catalog,
            source,
            renaming: Renaming { from: source, to: destination, objects: names },
            destination,
            relations: catalog.relations.iter().map(|relation| (relation.oid, relation)).collect(),
        }
    }

    pub fn plan(&self) -> Result<Plan> {
        let catalog = self.catalog;
        let mut complete = Vec::new();
        complete.extend(self.late_checks());
        complete.extend(self.indexes(false)?);
        complete.extend(self.attachments());
        complete.extend(self.indexes(true)?);
        complete.extend(self.index_attachments());
        complete.extend(self.statistics()?);
        complete.extend(self.table_states());
        complete.extend(self.rules()?);
        complete.extend(self.policies());
        complete.extend(self.triggers()?);
        complete.extend(self.foreign_keys());
        complete.extend(self.ownerships());
        complete.extend(self.handovers());
        complete.extend(self.notes());
        let (mut define, order) = self.definitions()?;
        for step in define.iter_mut().chain(&mut complete) {
            step.sql = self.renaming.apply_to_late_names(&step.sql);
        }
        Ok(Plan {
            define,
            rows: self.rows(),
            positions: self.positions(),
            complete,
            finish: self.refreshes(&order),
            close: Vec::new(),
            // A table may have a TOAST table with its index.
            locks: 3 * catalog.relations.len() + catalog.indexes.len(),
        })
    }

    // What others depend on.

    /// The statements, and the relations in the order in which they are made.
    fn definitions(&self) -> Result<(Vec<Step>, Vec<Oid>)> {
        // Defaults and checks come with their tables, unless that makes a circle: a table's check may call a function that takes its row.
        for apart in [false, true] {
            let nodes = self.nodes(apart);
            match order::sort(nodes.len(), &self.edges(&nodes)) {
                Ok(ordered) => {
                    let (mut steps, mut relations) = (Vec::new(), Vec::new());
                    for node in ordered {
                        self.define(nodes[node], apart, &mut steps)?;
                        if let Node::Relation(relation) = nodes[node] {
                            relations.push(relation.oid);
                        }
                    }
                    return Ok((steps, relations));
                }
                Err(circle) if apart => {
                    let names: Vec<String> = circle.into_iter().map(|node| self.name_of(nodes[node])).collect();
                    return Err(Error::Uncloneable(format!(
                        "{}, which depend on each other in a circle",
                        comma(&names)
                    )));
                }
                Err(_) => {}
            }
        }
        Ok((Vec::new(), Vec::new()))
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

    fn edges(&self, nodes: &[Node<'a>]) -> Vec<(usize, usize)> {
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

    /// Children whose makers are not their owners, each with its maker.
    pub fn made_for_others(&self) -> Vec<(Oid, Oid)> {
        let relations = self.catalog.relations.iter();
        relations
            .map(|relation| (relation.oid, self.maker(relation), relation.owner))
            .filter(|(_, maker, owner)| maker != owner)
            .map(|(oid, maker, _)| (oid, maker))
            .collect()
    }

    /// Who makes a relation: for a child the owner of its parent, since only who owns both may join them, and for a sequence the owner of
    /// its table. The child is handed to its owner when nothing is left to be done to it.
    fn maker(&self, relation: &Relation) -> Oid {
        let owned_by =
            self.catalog.sequences.get(&relation.oid).and_then(|sequence| sequence.owned_by).map(|(table, _)| table);
        let above = relation.parents.first().copied().or(owned_by).and_then(|above| self.relations.get(&above));
        above.map_or(relation.owner, |above| self.maker(above))
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
            Node::Function(function) => format!("function {}({})", ident(&function.name), function.arguments),
            Node::Relation(relation) => named("relation", &relation.name),
            Node::Default(table, column) => format!("default of {}.{}", ident(&table.name), ident(&column.name)),
            Node::Check(constraint) => named("constraint", &constraint.name),
        }
    }

    fn define(&self, node: Node, apart: bool, steps: &mut Vec<Step>) -> Result<()> {
        let (owner, sql) = match node {
            Node::Type(found) => (found.owner, self.create_type(found, apart)),
            Node::Function(function) => return self.create_function(function, steps),
            Node::Relation(relation) => match relation.kind {
                Kind::Sequence => (self.maker(relation), self.create_sequence(relation)),
                Kind::View => (self.maker(relation), create_view(relation)),
                Kind::Materialized => (self.maker(relation), create_materialized_view(relation)),
                _ => (self.maker(relation), self.create_table(relation, apart)),
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
        steps.push(Step::new(Actor::Owner(owner), sql, object));
        if let Node::Relation(relation) = node {
            self.amend(relation, apart, steps);
        }
        Ok(())
    }

    pub(super) fn create_type(&self, found: &Type, apart: bool) -> String {
        let name = ident(&found.name);
        match found.kind.as_str() {
            "e" => {
                let labels: Vec<String> = found.labels.iter().map(|label| literal(label)).collect();
                format!("CREATE TYPE {name} AS ENUM ({})", comma(&labels))
            }
            "r" => format!("CREATE TYPE {name} AS RANGE ({})", found.range.as_deref().unwrap_or_default()),
            "d" => {
                let mut sql = format!("CREATE DOMAIN {name} AS {}", found.base.as_deref().unwrap_or_default());
                if let Some(collation) = &found.collation {
                    sql.push_str(&format!(" COLLATE {collation}"));
                }
                if let Some(default) = &found.default {
                    sql.push_str(&format!(" DEFAULT {default}"));
                }
                if found.not_null {
                    sql.push_str(" NOT NULL");
                }
                let checks = self
                    .catalog
                    .constraints
                    .iter()
                    .filter(|check| check.domain == found.oid && check.kind == "c" && check.validated && !apart);
                for check in checks {
                    sql.push_str(&format!(" CONSTRAINT {} {}", ident(&check.name), check.definition));
                }
                sql
            }
            _ => {
                let attributes: Vec<String> = found
                    .columns
                    .iter()
                    .map(|column| {
                        let collation = column
                            .collation
                            .as_ref()
                            .map(|collation| format!(" COLLATE {collation}"))
                            .unwrap_or_default();
                        format!("{} {}{collation}", ident(&column.name), column.type_name)
                    })
                    .collect();
                format!("CREATE TYPE {name} AS ({})", comma(&attributes))
            }
        }
    }

    pub(super) fn create_function(&self, function: &Function, steps: &mut Vec<Step>) -> Result<()> {
        let object = self.name_of(Node::Function(function));
        if function.kind == "a" {
            let sql = format!("CREATE AGGREGATE {}", function.definition);
            let privileged = sql.contains("STYPE = internal");
            self.give(function, sql, privileged, steps);
            return Ok(());
        }
        let keyword = if function.kind == "p" { "PROCEDURE" } else { "FUNCTION" };
        let prefix = format!("CREATE OR REPLACE {keyword} {}.{}(", ident(self.source), ident(&function.name));
        let unexpected = || Error::Internal(format!("unexpected definition of {object}"));
        let rest = function.definition.strip_prefix(&prefix).ok_or_else(unexpected)?;
        let is_text = !function.parsed && !matches!(function.language.as_str(), "c" | "internal");
        let (head, body) = if is_text {
            // pg_get_functiondef ends with the source between two such marks.
            let mark = dollar_mark(keyword, &function.source);
            let end = rest.len().checked_sub(function.source.len() + 2 * mark.len() + 1).ok_or_else(unexpected)?;
            if !rest.is_char_boundary(end) || !rest[end..].starts_with(&mark) {
                return Err(unexpected());
            }
            let is_sql = matches!(function.language.as_str(), "sql" | "plpgsql");
            let source = self.renaming.apply(&function.source, is_sql);
            let mark = dollar_mark(keyword, &source);
            (&rest[..end], format!("{mark}{source}{mark}"))
        } else {
            (rest, String::new())
        };
        let mut settings = false;
        let head: Vec<String> = head
            .split('\n')
            .map(|line| {
                if line.starts_with(" SET search_path TO ") {
                    return self.renaming.apply(line, true);
                }
                settings |= line.starts_with(" SET ");
                line.to_owned()
            })
            .collect();
        let head = head.join("\n");
        let sql = format!("CREATE {keyword} {}({head}{body}", ident(&function.name));
        let privileged = !function.trusted || settings || head.contains(" LEAKPROOF");
        self.give(function, sql, privileged, steps);
        Ok(())
    }

    /// Makes the function as its owner or, where that takes more than an owner may have, for its owner.
    fn give(&self, function: &Function, sql: String, privileged: bool, steps: &mut Vec<Step>) {
        let object = self.name_of(Node::Function(function));
        // SAFETY: reads the role's attributes.
        if !privileged || unsafe { pg_sys::superuser_arg(function.owner) } {
            steps.push(Step::new(Actor::Owner(function.owner), sql, object));
            return;
        }
        steps.push(Step::new(Actor::Product, sql, object.clone()));
        let owner = role_name(function.owner);
        let sql = format!("ALTER {} OWNER TO {owner}", routine(function));
        steps.push(Step::new(Actor::Product, sql, object));
    }

    pub(super) fn create_sequence(&self, relation: &Relation) -> String {
        let unlogged = if relation.unlogged { "UNLOGGED " } else { "" };
        let parameters = self.catalog.sequences.get(&relation.oid).map(|sequence| sequence.parameters.as_str());
        format!("CREATE {unlogged}SEQUENCE {} {}", ident(&relation.name), parameters.unwrap_or_default())
    }

    fn create_table(&self, table: &Relation, apart: bool) -> String {
        let inherits = !table.is_partition && !table.parents.is_empty();
        let mut elements: Vec<String> = Vec::new();
        for column in &table.columns {
            let definition = self.column(table, column, apart);
            match &table.of_type {
                Some(_) if definition.is_empty() => {}
                Some(_) => elements.push(format!("{} WITH OPTIONS{definition}", ident(&column.name))),
                None if inherits && !column.is_local => {}
                None => elements.push(format!("{} {}{definition}", ident(&column.name), column.type_name)),
            }
        }
        for constraint in self.catalog.constraints.iter().filter(|constraint| constraint.table == table.oid) {
            let is_inline = match constraint.kind.as_str() {
                "p" | "u" | "x" => true,
                "c" => !apart && self.is_early_check(constraint),
                _ => false,
            };
            if is_inline {
                elements.push(format!("CONSTRAINT {} {}", ident(&constraint.name), constraint.definition));
            }
        }
        let mut sql = format!("CREATE {}TABLE {}", if table.unlogged { "UNLOGGED " } else { "" }, ident(&table.name));
        match &table.of_type {
            Some(of_type) if elements.is_empty() => sql.push_str(&format!(" OF {of_type}")),
            Some(of_type) => sql.push_str(&format!(" OF {of_type} ({})", comma(&elements))),
            None => sql.push_str(&format!(" ({})", comma(&elements))),
        }
        if inherits {
            let parents: Vec<String> = table
                .parents
                .iter()
                .filter_map(|parent| self.relations.get(parent))
                .map(|parent| ident(&parent.name))
                .collect();
            sql.push_str(&format!(" INHERITS ({})", comma(&parents)));
        }
        if let Some(key) = &table.partition_key {
            sql.push_str(&format!(" PARTITION BY {key}"));
        }
        sql.push_str(&storage(table));
        sql
    }

    /// What follows a column's type.
    pub(super) fn column(&self, table: &Relation, column: &Column, apart: bool) -> String {
        let mut sql = String::new();
        if let Some(compression) = &column.compression {
            sql.push_str(&format!(" COMPRESSION {compression}"));
        }
        if let Some(collation) = &column.collation {
            sql.push_str(&format!(" COLLATE {collation}"));
        }
        match (&column.default, column.generated) {
            (Some((_, expression)), Some(kind)) => sql.push_str(&format!(" GENERATED ALWAYS AS ({expression}) {kind}")),
            (Some((_, expression)), None) if !apart => sql.push_str(&format!(" DEFAULT {expression}")),
            _ => {}
        }
        if !column.identity.is_empty() {
            let kind = if column.identity == "a" { "ALWAYS" } else { "BY DEFAULT" };
            let owned = |sequence: &&super::catalog::Sequence| {
                sequence.is_identity && sequence.owned_by == Some((table.oid, column.number))
            };
            if let Some(sequence) = self.catalog.sequences.values().find(owned)
                && let Some(relation) = self.relations.get(&sequence.oid)
            {
                // The type of an identity's sequence is that of its column.
                let parameters = sequence.parameters.find(" INCREMENT ").map_or("", |at| &sequence.parameters[at..]);
                sql.push_str(&format!(
                    " GENERATED {kind} AS IDENTITY (SEQUENCE NAME {}{parameters})",
                    ident(&relation.name)
                ));
            }
        }
        if column.not_null {
            let named = |constraint: &&Constraint| {
                constraint.kind == "n"
                    && constraint.table == table.oid
                    && constraint.column.as_deref() == Some(column.name.as_str())
            };
            if let Some(constraint) = self.catalog.constraints.iter().find(named) {
                sql.push_str(&format!(" CONSTRAINT {}", ident(&constraint.name)));
            }
            sql.push_str(" NOT NULL");
        }
        sql
    }

    /// What CREATE has no place for.
    pub(super) fn amend(&self, relation: &Relation, apart: bool, steps: &mut Vec<Step>) {
        let mut changes: Vec<String> = Vec::new();
        let inherits = !relation.is_partition && !relation.parents.is_empty();
        for column in &relation.columns {
            let name = ident(&column.name);
            if let Some(storage) = &column.storage {
                changes.push(format!("ALTER COLUMN {name} SET STORAGE {storage}"));
            }
            if let Some(target) = column.statistics {
                changes.push(format!("ALTER COLUMN {name} SET STATISTICS {target}"));
            }
            if let Some(options) = &column.options {
                changes.push(format!("ALTER COLUMN {name} SET ({options})"));
            }
            if let Some(compression) = &column.compression
                && relation.kind == Kind::Materialized
            {
                changes.push(format!("ALTER COLUMN {name} SET COMPRESSION {compression}"));
            }
            if relation.kind == Kind::View
                && let Some((_, default)) = &column.default
            {
                changes.push(format!("ALTER COLUMN {name} SET DEFAULT {default}"));
            }
            if inherits && column.generated.is_none() && column.identity.is_empty() {
                match &column.default {
                    Some((_, default)) if !apart => changes.push(format!("ALTER COLUMN {name} SET DEFAULT {default}")),
                    Some(_) => {}
                    None => changes.push(format!("ALTER COLUMN {name} DROP DEFAULT")),
                }
                if column.not_null && !column.is_local {
                    changes.push(format!("ALTER COLUMN {name} SET NOT NULL"));
                }
            }
        }
        if changes.is_empty() {
            return;
        }
        let keyword = if relation.kind == Kind::View { "VIEW" } else { "TABLE ONLY" };
        let changes: Vec<String> = if relation.kind == Kind::View { changes } else { vec![comma(&changes)] };
        for change in changes {
            let sql = format!("ALTER {keyword} {} {change}", ident(&relation.name));
            steps.push(Step::new(Actor::Owner(self.maker(relation)), sql, named("relation", &relation.name)));
        }
    }

    // Constraints.

    /// A check that is part of its table's (or domain's) definition.
    fn is_early_check(&self, constraint: &Constraint) -> bool {
        constraint.kind == "c" && constraint.validated && self.is_own(constraint)
    }

    /// A check that is not validated is added once the rows are there, which may not satisfy it.
    fn is_late_check(&self, constraint: &Constraint) -> bool {
        constraint.kind == "c" && !constraint.validated
    }

    /// A constraint that does not come from a parent; a partition has its parent's before it is attached.
    fn is_own(&self, constraint: &Constraint) -> bool {
        let is_partition = self.relations.get(&constraint.table).is_some_and(|table| table.is_partition);
        constraint.is_local || is_partition
    }

    fn owner_of(&self, constraint: &Constraint) -> Oid {
        let table = self.relations.get(&constraint.table).map(|table| self.maker(table));
        let domain = || self.catalog.types.iter().find(|found| found.oid == constraint.domain).map(|found| found.owner);
        table.or_else(domain).unwrap_or(Oid::INVALID)
    }

    fn add_constraint(&self, constraint: &Constraint) -> String {
        let addition = format!("ADD CONSTRAINT {} {}", ident(&constraint.name), constraint.definition);
        match self.relations.get(&constraint.table) {
            Some(table) => format!("ALTER TABLE {} {addition}", ident(&table.name)),
            None => {
                let domain = self.catalog.types.iter().find(|found| found.oid == constraint.domain);
                format!(
                    "ALTER DOMAIN {} {addition}",
                    ident(domain.map(|found| found.name.as_str()).unwrap_or_default())
                )
            }
        }
    }

    fn late_checks(&self) -> Vec<Step> {
        let late = self
            .catalog
            .constraints
            .iter()
            .filter(|constraint| self.is_late_check(constraint) && self.is_own(constraint));
        late.map(|constraint| {
            Step::new(
                Actor::Owner(self.owner_of(constraint)),
                self.add_constraint(constraint),
                named("constraint", &constraint.name),
            )
        })
        .collect()
    }

    fn foreign_keys(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut last = None;
        let keys =
            self.catalog.constraints.iter().filter(|constraint| constraint.kind == "f" && !constraint.has_parent);
        for constraint in keys {
            let Some(table) = self.relations.get(&constraint.table) else { continue };
            let maker = self.maker(table);
            let object = named("foreign keys of table", &table.name);
            let addition = format!("ADD CONSTRAINT {} {}", ident(&constraint.name), constraint.definition);
            let referred = constraint.references.and_then(|referred| self.relations.get(&referred));
            if let Some(referred) = referred.filter(|referred| self.maker(referred) != maker) {
                // The right to refer to another owner's table is among the grants, which come later.
                let (name, role) = (ident(&referred.name), role_name(maker));
                let lend = |verb: &str, preposition: &str| {
                    let sql = format!("{verb} REFERENCES ON TABLE {name} {preposition} {role}");
                    Step::new(Actor::Product, sql, object.clone())
                };
                let sql = format!("ALTER TABLE {} {addition}", ident(&table.name));
                steps.extend([
                    lend("GRANT", "TO"),
                    Step::new(Actor::Owner(maker), sql, object.clone()),
                    lend("REVOKE", "FROM"),
                ]);
                last = None;
                continue;
            }
            match steps.last_mut() {
                Some(step) if last == Some(table.oid) => {
                    step.sql.push_str(", ");
                    step.sql.push_str(&addition);
                }
                _ => {
                    let sql = format!("ALTER TABLE {} {addition}", ident(&table.name));
                    steps.push(Step::new(Actor::Owner(maker), sql, object));
                }
            }
            last = Some(table.oid);
        }
        steps
    }

    // Indexes and partitions.

    /// Indexes of partitioned tables come when the partitions are there, or those would get indexes that the original has not.
    fn indexes(&self, of_partitioned: bool) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for index in &self.catalog.indexes {
            let Some(table) = self.relations.get(&index.table) else { continue };
            if (table.kind == Kind::Partitioned) != of_partitioned {
                continue;
            }
            let object = named("index", &index.name);
            let mut push = |sql: String| steps.push(Step::new(Actor::Owner(self.maker(table)), sql, object.clone()));
            if !index.valid && table.kind != Kind::Partitioned {
                return Err(Error::State(
                    format!("{object} of {}.{} is not valid", ident(self.source), ident(&table.name)),
                    "A CREATE INDEX CONCURRENTLY failed or is running: drop the index, or try again when it is done.",
                ));
            }
            if !index.of_constraint {
                push(self.unqualify(&index.definition, table, &[" ON ", " ON ONLY "], " USING ", &object)?);
            }
            let name = ident(&index.name);
            if let Some(options) = &index.options {
                push(format!("ALTER INDEX {name} SET ({options})"));
            }
            if let Some(tablespace) = &index.tablespace {
                push(format!("ALTER INDEX {name} SET TABLESPACE {tablespace}"));
            }
            if let Some(changes) = &index.statistics {
                push(format!("ALTER INDEX {name} {changes}"));
            }
        }
        Ok(steps)
    }

    /// Indexes of partitions to those of the tables above; those of keys have found theirs.
    fn index_attachments(&self) -> Vec<Step> {
        let indexes: HashMap<Oid, &Index> = self.catalog.indexes.iter().map(|index| (index.oid, index)).collect();
        let step = |index: &Index| {
            let parent = indexes.get(&index.parent?).filter(|parent| !parent.of_constraint)?;
            let table = self.relations.get(&parent.table)?;
            let sql = format!("ALTER INDEX {} ATTACH PARTITION {}", ident(&parent.name), ident(&index.name));
            Some(Step::new(Actor::Owner(self.maker(table)), sql, named("index", &index.name)))
        };
        self.catalog.indexes.iter().filter_map(step).collect()
    }

    /// A definition without the schema before its table, which PostgreSQL always writes there.
    pub(super) fn unqualify(
        &self,
        definition: &str,
        table: &Relation,
        before: &[&str],
        after: &str,
        object: &str,
    ) -> Result<String> {
        let qualified = format!("{}.{}", ident(self.source), ident(&table.name));
        before
            .iter()
            .filter_map(|before| {
                let text = format!("{before}{qualified}{after}");
                let at = definition.find(&text)?;
                Some((at, text.len(), format!("{before}{}{after}", ident(&table.name))))
            })
            .min_by_key(|(at, ..)| *at)
            .map(|(at, length, new)| format!("{}{new}{}", &definition[..at], &definition[at + length..]))
            .ok_or_else(|| Error::Internal(format!("unexpected definition of {object}")))
    }

    /// Partitions to their parents, the lower levels first: their indexes and keys find those of the parent.
    fn attachments(&self) -> Vec<Step> {
        let depth = |table: &Relation| {
            let mut depth = 0;
            let mut parent = table.parents.first();
            while let Some(table) = parent.and_then(|parent| self.relations.get(parent)) {
                depth += 1;
                parent = table.parents.first();
            }
            depth
        };
        let mut partitions: Vec<&Relation> = self.catalog.relations.iter().filter(|table| table.is_partition).collect();
        partitions.sort_by_key(|table| std::cmp::Reverse(depth(table)));
        let mut steps = Vec::new();
        for table in partitions {
            let Some(parent) = table.parents.first().and_then(|parent| self.relations.get(parent)) else { continue };
            let (name, bound) = (ident(&table.name), table.bound.as_deref().unwrap_or_default());
            let object = named("partition", &table.name);
            let sql = format!("ALTER TABLE ONLY {} ATTACH PARTITION {name} {bound}", ident(&parent.name));
            steps.push(Step::new(Actor::Owner(self.maker(parent)), sql, object));
        }
        steps
    }

    // What is attached to tables.

    pub(super) fn statistics(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for statistics in &self.catalog.statistics {
            let object = named("statistics", &statistics.name);
            let prefix = format!("CREATE STATISTICS {}.", ident(self.source));
            let rest = statistics
                .definition
                .strip_prefix(&prefix)
                .ok_or_else(|| Error::Internal(format!("unexpected definition of {object}")))?;
            let owner = self.relations.get(&statistics.table).map_or(statistics.owner, |table| self.maker(table));
            let name = ident(&statistics.name);
            let actor = Actor::Owner(owner);
            steps.push(Step::new(actor, format!("CREATE STATISTICS {rest}"), object.clone()));
            if owner != statistics.owner {
                let sql = format!("ALTER STATISTICS {name} OWNER TO {}", role_name(statistics.owner));
                steps.push(Step::new(Actor::Product, sql, object.clone()));
            }
            if let Some(target) = statistics.target {
                let sql = format!("ALTER STATISTICS {name} SET STATISTICS {target}");
                steps.push(Step::new(Actor::Owner(statistics.owner), sql, object));
            }
        }
        Ok(steps)
    }

    fn table_states(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for table in &self.catalog.relations {
            let mut changes: Vec<String> = Vec::new();
            let index = |wanted: fn(&Index) -> bool| {
                self.catalog.indexes.iter().find(|index| index.table == table.oid && wanted(index))
            };
            match table.replica_identity.as_str() {
                "f" => changes.push("REPLICA IDENTITY FULL".to_owned()),
                "n" if matches!(table.kind, Kind::Table | Kind::Partitioned) => {
                    changes.push("REPLICA IDENTITY NOTHING".to_owned())
                }
                "i" => changes.extend(
                    index(|index| index.replica_identity)
                        .map(|index| format!("REPLICA IDENTITY USING INDEX {}", ident(&index.name))),
                ),
                _ => {}
            }
            changes.extend(index(|index| index.clustered).map(|index| format!("CLUSTER ON {}", ident(&index.name))));
            changes.extend(table.row_security.then(|| "ENABLE ROW LEVEL SECURITY".to_owned()));
            changes.extend(table.force.then(|| "FORCE ROW LEVEL SECURITY".to_owned()));
            if !changes.is_empty() {
                let sql = format!("ALTER TABLE ONLY {} {}", ident(&table.name), comma(&changes));
                steps.push(Step::new(Actor::Owner(self.maker(table)), sql, named("table", &table.name)));
            }
        }
        steps
    }

    pub(super) fn rules(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for rule in &self.catalog.rules {
            let Some(table) = self.relations.get(&rule.table) else { continue };
            let object = named("rule", &rule.name);
            let text = [" ", "\n"]
                .into_iter()
                .find_map(|after| self.unqualify(&rule.definition, table, &[" TO "], after, &object).ok());
            let sql = text.ok_or_else(|| Error::Internal(format!("unexpected definition of {object}")))?;
            steps.push(Step::new(Actor::Owner(self.maker(table)), sql, object).on(table));
            steps.extend(change_state(table, self.maker(table), "RULE", rule));
        }
        Ok(steps)
    }

    pub(super) fn policies(&self) -> Vec<Step> {
        let step = |policy: &Attached| {
            let table = self.relations.get(&policy.table)?;
            let sql = format!("CREATE POLICY {} ON {} {}", ident(&policy.name), ident(&table.name), policy.definition);
            Some(Step::new(Actor::Owner(self.maker(table)), sql, named("policy", &policy.name)).on(table))
        };
        self.catalog.policies.iter().filter_map(step).collect()
    }

    pub(super) fn triggers(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for trigger in &self.catalog.triggers {
            let Some(table) = self.relations.get(&trigger.table) else { continue };
            let object = named("trigger", &trigger.name);
            let actor = Actor::Owner(self.maker(table));
            if !trigger.has_parent {
                steps.push(Step::new(actor, self.create_trigger(trigger, table, &object)?, object.clone()).on(table));
            }
            let state = match trigger.enabled.as_str() {
                "D" => "DISABLE",
                "R" => "ENABLE REPLICA",
                "A" => "ENABLE ALWAYS",
                _ if trigger.has_parent => "ENABLE",
                _ => continue,
            };
            let only = if trigger.has_parent { "ONLY " } else { "" };
            let sql = format!("ALTER TABLE {only}{} {state} TRIGGER {}", ident(&table.name), ident(&trigger.name));
            steps.push(Step::new(actor, sql, object).on(table));
        }
        Ok(steps)
    }

    fn create_trigger(&self, trigger: &Trigger, table: &Relation, object: &str) -> Result<String> {
        let sql = self.unqualify(&trigger.definition, table, &[" ON "], " ", object)?;
        let sql = self.renaming.apply_to_arguments(&sql);
        // A constraint trigger may name a second table.
        let from = format!(" FROM {}.", ident(self.source));
        let on = format!(" ON {} FROM {}.", ident(&table.name), ident(self.source));
        Ok(if sql.contains(&on) { sql.replacen(&from, " FROM ", 1) } else { sql })
    }

    /// Children to their owners.
    fn handovers(&self) -> Vec<Step> {
        let children =
            self.catalog.relations.iter().filter(|child| {
                matches!(child.kind, Kind::Table | Kind::Partitioned) && self.maker(child) != child.owner
            });
        children
            .map(|child| {
                Step::new(
                    Actor::Product,
                    format!("ALTER TABLE {} OWNER TO {}", ident(&child.name), role_name(child.owner)),
                    named("table", &child.name),
                )
            })
            .collect()
    }

    /// Sequences to the columns that they belong to, once both exist.
    fn ownerships(&self) -> Vec<Step> {
        let step = |relation: &Relation| {
            let sequence = self.catalog.sequences.get(&relation.oid).filter(|sequence| !sequence.is_identity)?;
            let (table, number) = sequence.owned_by?;
            let table = self.relations.get(&table)?;
            let column = table.columns.iter().find(|column| column.number == number)?;
            let sql = format!(
                "ALTER SEQUENCE {} OWNED BY {}.{}",
                ident(&relation.name),
                ident(&table.name),
                ident(&column.name)
            );
            Some(Step::new(Actor::Owner(self.maker(relation)), sql, named("sequence", &relation.name)))
        };
        self.catalog.relations.iter().filter_map(step).collect()
    }

    fn refreshes(&self, order: &[Oid]) -> Vec<Step> {
        let relations = order.iter().filter_map(|oid| self.relations.get(oid));
        let views = relations.filter(|view| view.kind == Kind::Materialized && view.populated);
        let step = |view: &&Relation| {
            Step::new(
                Actor::Owner(view.owner),
                format!("REFRESH MATERIALIZED VIEW {}", ident(&view.name)),
                named("materialized view", &view.name),
            )
        };
        views.map(step).collect()
    }

    // Rows.

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
                maker: self.maker(table),
                columns: table.columns.iter().filter(|column| column.generated.is_none()).map(column).collect(),
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
        sequences.map(|sequence| Position { name: sequence.name.clone(), table: table(sequence) }).collect()
    }

    // Comments and labels.

    pub(super) fn notes(&self) -> Vec<Step> {
        let mut targets: HashMap<Object, (String, Option<String>)> = HashMap::new();
        let catalog = self.catalog;
        targets.insert((class::SCHEMA, Oid::INVALID), (String::new(), None));
        for relation in &catalog.relations {
            let keyword = match relation.kind {
                Kind::View => "VIEW",
                Kind::Materialized => "MATERIALIZED VIEW",
                Kind::Sequence => "SEQUENCE",
                _ => "TABLE",
            };
            targets.insert((class::RELATION, relation.oid), (named(keyword, &relation.name), None));
        }
        for index in &catalog.indexes {
            targets.insert((class::RELATION, index.oid), (named("INDEX", &index.name), None));
        }
        for found in &catalog.types {
            targets.insert(
                (class::TYPE, found.oid),
                (named(if found.kind == "d" { "DOMAIN" } else { "TYPE" }, &found.name), None),
            );
        }
        for function in &catalog.functions {
            targets.insert((class::FUNCTION, function.oid), (routine(function), None));
        }
        for constraint in &catalog.constraints {
            let domain = catalog
                .types
                .iter()
                .find(|found| found.oid == constraint.domain)
                .map(|found| named("DOMAIN", &found.name));
            let on = self.relations.get(&constraint.table).map(|table| ident(&table.name)).or(domain);
            targets.insert((class::CONSTRAINT, constraint.oid), (named("CONSTRAINT", &constraint.name), on));
        }
        let attached = catalog
            .triggers
            .iter()
            .map(|trigger| (class::TRIGGER, trigger.oid, "TRIGGER", &trigger.name, trigger.table));
        let attached =
            attached.chain(catalog.rules.iter().map(|rule| (class::RULE, rule.oid, "RULE", &rule.name, rule.table)));
        let attached = attached.chain(
            catalog.policies.iter().map(|policy| (class::POLICY, policy.oid, "POLICY", &policy.name, policy.table)),
        );
        for (class, oid, keyword, name, table) in attached {
            let on = self.relations.get(&table).map(|table| ident(&table.name));
            targets.insert((class, oid), (named(keyword, name), on));
        }
        for statistics in &catalog.statistics {
            targets.insert((class::STATISTICS, statistics.oid), (named("STATISTICS", &statistics.name), None));
        }
        let target = |object: &Object, column: i32| -> Option<String> {
            if object.0 == class::SCHEMA {
                return Some(named("SCHEMA", self.destination));
            }
            if column > 0 {
                let relation = self.relations.get(&object.1).map(|relation| (&relation.name, &relation.columns));
                let composite = || {
                    catalog
                        .types
                        .iter()
                        .find(|found| found.relation == object.1)
                        .map(|found| (&found.name, &found.columns))
                };
                let (name, columns) = relation.or_else(composite)?;
                let column = columns.iter().find(|known| known.number == column)?;
                return Some(format!("COLUMN {}.{}", ident(name), ident(&column.name)));
            }
            let (target, on) = targets.get(object)?;
            Some(on.as_ref().map_or_else(|| target.clone(), |on| format!("{target} ON {on}")))
        };
        let comments = catalog.comments.iter().filter_map(|note| {
            let target = target(&note.object, note.column)?;
            let sql = format!("COMMENT ON {target} IS {}", literal(&self.renaming.apply(&note.text, false)));
            Some(Step::new(Actor::Product, sql, target))
        });
        let labels = catalog.labels.iter().filter_map(|note| {
            let target = target(&note.object, note.column)?;
            let sql = format!("SECURITY LABEL FOR {} ON {target} IS {}", note.provider.as_ref()?, note.text);
            Some(Step::new(Actor::Product, sql, target))
        });
        comments.chain(labels).collect()
    }
}

/// What a function is called in COMMENT and its kin.
pub fn routine(function: &Function) -> String {
    match function.kind.as_str() {
        "a" => format!(
            "AGGREGATE {}({})",
            ident(&function.name),
            if function.arguments.is_empty() { "*" } else { &function.arguments }
        ),
        "p" => format!("PROCEDURE {}({})", ident(&function.name), function.types),
        _ => format!("FUNCTION {}({})", ident(&function.name), function.types),
    }
}

/// The mark that pg_get_functiondef puts around a body.
fn dollar_mark(keyword: &str, source: &str) -> String {
    let mut mark = format!("${}", keyword.to_lowercase());
    while source.contains(&mark) {
        mark.push('x');
    }
    mark.push('$');
    mark
}

/// How a relation is stored.
pub(super) fn storage(relation: &Relation) -> String {
    let mut sql = String::new();
    if let Some(method) = &relation.access_method {
        sql.push_str(&format!(" USING {method}"));
    }
    if let Some(options) = &relation.options {
        sql.push_str(&format!(" WITH ({options})"));
    }
    if let Some(tablespace) = &relation.tablespace {
        sql.push_str(&format!(" TABLESPACE {tablespace}"));
    }
    sql
}

fn query_of(relation: &Relation) -> &str {
    relation.query.as_deref().unwrap_or_default().trim_end().trim_end_matches(';')
}

pub(super) fn create_view(view: &Relation) -> String {
    format!("CREATE VIEW {}{} AS {}", ident(&view.name), storage(view), query_of(view))
}

pub(super) fn create_materialized_view(view: &Relation) -> String {
    format!("CREATE MATERIALIZED VIEW {}{} AS {} WITH NO DATA", ident(&view.name), storage(view), query_of(view))
}

fn change_state(table: &Relation, maker: Oid, keyword: &str, attached: &Attached) -> Option<Step> {
    let state = match attached.enabled.as_deref()? {
        "D" => "DISABLE",
        "R" => "ENABLE REPLICA",
        "A" => "ENABLE ALWAYS",
        _ => return None,
    };
    let sql = format!("ALTER TABLE {} {state} {keyword} {}", ident(&table.name), ident(&attached.name));
    Some(Step::new(Actor::Owner(maker), sql, named(&keyword.to_lowercase(), &attached.name)).on(table))
}
