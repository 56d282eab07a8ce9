//! What a schema consists of, object by object, in texts that can be compared with those of another schema.

use super::catalog::{Kind, Relation};
use super::objects::{create_materialized_view, create_view, routine, storage};
use super::plan::{Planner, Step, named};
use crate::error::Result;
use crate::query::ident;
use crate::relation::role_name;
use pgrx::pg_sys::Oid;

/// One object, or a column or constraint of one.
pub struct Part {
    pub kind: &'static str,
    /// As SQL names it, without the schema: `contacts.email`.
    pub name: String,
    pub definition: String,
}

impl Planner<'_> {
    /// Everything but privileges, comments and labels.
    pub fn parts(&self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let catalog = self.catalog;
        let mut push = |kind, name: String, definition: String| parts.push(Part { kind, name, definition });
        for found in &catalog.types {
            let definition = format!("{}{}", self.create_type(found, false), owned(found.owner));
            push(if found.kind == "d" { "domain" } else { "type" }, ident(&found.name), definition);
        }
        for function in &catalog.functions {
            let mut steps = Vec::new();
            self.create_function(function, &mut steps)?;
            let name = routine(function);
            let name = name.split_once(' ').map_or(name.clone(), |(_, name)| name.to_owned());
            push("function", name, format!("{}{}", join(&steps), owned(function.owner)));
        }
        for relation in &catalog.relations {
            let name = ident(&relation.name);
            match relation.kind {
                Kind::Sequence if self.is_identity(relation.oid) => {}
                Kind::Sequence => {
                    push("sequence", name, format!("{}{}", self.create_sequence(relation), owned(relation.owner)))
                }
                Kind::View | Kind::Materialized => {
                    let mut steps = Vec::new();
                    self.amend(relation, false, &mut steps);
                    let definition = if relation.kind == Kind::View {
                        create_view(relation)
                    } else {
                        create_materialized_view(relation)
                    };
                    push("view", name, [definition, join(&steps), owned(relation.owner)].concat());
                }
                _ => push("table", name, self.table(relation)),
            }
        }
        for table in catalog.relations.iter().filter(|table| matches!(table.kind, Kind::Table | Kind::Partitioned)) {
            for column in &table.columns {
                let mut definition = format!("{}{}", column.type_name, self.column(table, column, false));
                let details = [
                    column.storage.as_ref().map(|storage| format!(" STORAGE {storage}")),
                    column.statistics.map(|target| format!(" STATISTICS {target}")),
                    column.options.as_ref().map(|options| format!(" ({options})")),
                ];
                definition.extend(details.into_iter().flatten());
                push("column", format!("{}.{}", ident(&table.name), ident(&column.name)), definition);
            }
        }
        for constraint in
            catalog.constraints.iter().filter(|constraint| constraint.kind != "n" && !constraint.has_parent)
        {
            let table = self.relations.get(&constraint.table).map(|table| ident(&table.name));
            let domain =
                || catalog.types.iter().find(|found| found.oid == constraint.domain).map(|found| ident(&found.name));
            let on = table.or_else(domain).unwrap_or_default();
            push("constraint", format!("{on}.{}", ident(&constraint.name)), constraint.definition.clone());
        }
        for index in catalog.indexes.iter().filter(|index| !index.of_constraint) {
            let Some(table) = self.relations.get(&index.table) else { continue };
            let definition = if index.valid || table.kind == Kind::Partitioned {
                self.unqualify(
                    &index.definition,
                    table,
                    &[" ON ", " ON ONLY "],
                    " USING ",
                    &named("index", &index.name),
                )?
            } else {
                format!("{} -- not valid", index.definition)
            };
            push("index", ident(&index.name), definition);
        }
        let attached = [
            ("trigger", self.triggers()?),
            ("rule", self.rules()?),
            ("policy", self.policies()),
            ("statistics", self.statistics()?),
        ];
        for (kind, steps) in attached {
            for steps in steps.chunk_by(|one, other| one.on == other.on && one.object == other.object) {
                let Some(first) = steps.first() else { continue };
                let object = first.object.split_once(' ').map_or("", |(_, name)| name);
                let name = first.on.as_ref().map_or_else(|| object.to_owned(), |on| format!("{on}.{object}"));
                push(kind, name, join(steps));
            }
        }
        for part in &mut parts {
            part.definition = self.renaming.apply_to_late_names(&part.definition);
        }
        Ok(parts)
    }

    pub fn comments(&self) -> Vec<Part> {
        let comments = self.notes().into_iter();
        comments.map(|step| Part { kind: "comment", name: step.object, definition: step.sql }).collect()
    }

    /// What a table is, less its columns and constraints.
    fn table(&self, table: &Relation) -> String {
        let parents: Vec<String> = table
            .parents
            .iter()
            .filter_map(|parent| self.relations.get(parent))
            .map(|parent| ident(&parent.name))
            .collect();
        let parts = [
            table.unlogged.then(|| "UNLOGGED".to_owned()),
            table.of_type.as_ref().map(|of_type| format!("OF {of_type}")),
            (!parents.is_empty()).then(|| format!("INHERITS ({})", parents.join(", "))),
            table.partition_key.as_ref().map(|key| format!("PARTITION BY {key}")),
            table.bound.clone(),
            Some(storage(table).trim().to_owned()).filter(|storage| !storage.is_empty()),
            table.row_security.then(|| "ROW LEVEL SECURITY".to_owned()),
            table.force.then(|| "FORCE ROW LEVEL SECURITY".to_owned()),
            (table.replica_identity != "d").then(|| format!("REPLICA IDENTITY {}", table.replica_identity)),
            Some(owned(table.owner).trim().to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<String>>().join(" ")
    }
}

fn owned(owner: Oid) -> String {
    format!(" OWNER {}", role_name(owner))
}

fn join(steps: &[Step]) -> String {
    steps.iter().map(|step| step.sql.as_str()).collect::<Vec<&str>>().join("; ")
}
