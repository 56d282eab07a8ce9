//! Statements that make what others depend on: types, functions, sequences, tables, views.

use super::catalog::{Column, Constraint, Function, Kind, Relation, Sequence, Type};
use super::plan::{Planner, Step, comma, named};
use crate::error::{Error, Result};
use crate::query::{ident, literal};
use crate::relation::role_name;
use pgrx::pg_sys::Oid;
use std::collections::HashSet;

impl Planner<'_> {
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
        let object = function_name(function);
        if function.kind == "a" {
            let sql = format!("CREATE AGGREGATE {}", function.definition);
            self.give(function, sql, steps);
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
        let rename = |line: &str| {
            if line.starts_with(" SET search_path TO ") { self.renaming.apply(line, true) } else { line.to_owned() }
        };
        let head: Vec<String> = head.split('\n').map(rename).collect();
        let head = head.join("\n");
        let sql = format!("CREATE {keyword} {}({head}{body}", ident(&function.name));
        self.give(function, sql, steps);
        Ok(())
    }

    /// Makes the function as its owner or, where only a superuser can, as the schema's owner for it.
    fn give(&self, function: &Function, sql: String, steps: &mut Vec<Step>) {
        let object = function_name(function);
        if !function.is_beyond_owner {
            steps.push(Step::new(function.owner, sql, object));
            return;
        }
        steps.push(Step::new(self.schema_owner, sql, object.clone()));
        let sql = format!("ALTER {} OWNER TO {}", routine(function), role_name(function.owner));
        steps.push(Step::new(self.schema_owner, sql, object));
    }

    pub(super) fn create_sequence(&self, relation: &Relation) -> String {
        let unlogged = if relation.unlogged { "UNLOGGED " } else { "" };
        let parameters = self.catalog.sequences.get(&relation.oid).map(|sequence| sequence.parameters.as_str());
        format!("CREATE {unlogged}SEQUENCE {} {}", ident(&relation.name), parameters.unwrap_or_default())
    }

    pub(super) fn create_table(&self, table: &Relation, apart: bool, early: &HashSet<Oid>) -> String {
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
                "f" => early.contains(&constraint.oid),
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
            let owned =
                |sequence: &&Sequence| sequence.is_identity && sequence.owned_by == Some((table.oid, column.number));
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
            steps.push(Step::new(relation.owner, sql, named("relation", &relation.name)));
        }
    }
}

/// What a function is called in words.
pub(super) fn function_name(function: &Function) -> String {
    format!("function {}({})", ident(&function.name), function.arguments)
}

/// What a function is called in COMMENT and its kin.
pub(super) fn routine(function: &Function) -> String {
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
