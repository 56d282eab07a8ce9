//! Comments, and labels of other providers.

use super::catalog::{Kind, Object, class};
use super::objects::routine;
use super::plan::{Planner, Step, named};
use crate::query::{ident, literal};
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

/// What is commented on: who owns it, its kind and name, and what it is attached to.
struct Target {
    owner: Oid,
    name: String,
    on: Option<String>,
}

impl Planner<'_> {
    pub(super) fn notes(&self) -> Vec<Step> {
        let targets = self.targets();
        let target = |object: &Object, column: i32| -> Option<(Oid, String)> {
            if object.0 == class::SCHEMA {
                return Some((self.schema_owner, named("SCHEMA", self.destination)));
            }
            if column > 0 {
                let relation = self.relations.get(&object.1).map(|found| (found.owner, &found.name, &found.columns));
                let composite = self.catalog.types.iter().find(|found| found.relation == object.1);
                let composite = composite.map(|found| (found.owner, &found.name, &found.columns));
                let (owner, name, columns) = relation.or(composite)?;
                let column = columns.iter().find(|known| known.number == column)?;
                return Some((owner, format!("COLUMN {}.{}", ident(name), ident(&column.name))));
            }
            let Target { owner, name, on } = targets.get(object)?;
            Some((*owner, on.as_ref().map_or_else(|| name.clone(), |on| format!("{name} ON {on}"))))
        };
        let comments = self.catalog.comments.iter().filter_map(|note| {
            let (owner, target) = target(&note.object, note.column)?;
            let sql = format!("COMMENT ON {target} IS {}", literal(&self.renaming.apply(&note.text, false)));
            Some(Step::new(owner, sql, target))
        });
        let labels = self.catalog.labels.iter().filter_map(|note| {
            let (owner, target) = target(&note.object, note.column)?;
            let sql = format!("SECURITY LABEL FOR {} ON {target} IS {}", note.provider.as_ref()?, note.text);
            Some(Step::new(owner, sql, target))
        });
        comments.chain(labels).collect()
    }

    fn targets(&self) -> HashMap<Object, Target> {
        let catalog = self.catalog;
        let mut targets = HashMap::new();
        let mut insert = |object: Object, owner, name, on| targets.insert(object, Target { owner, name, on });
        for relation in &catalog.relations {
            let keyword = match relation.kind {
                Kind::View => "VIEW",
                Kind::Materialized => "MATERIALIZED VIEW",
                Kind::Sequence => "SEQUENCE",
                _ => "TABLE",
            };
            insert((class::RELATION, relation.oid), relation.owner, named(keyword, &relation.name), None);
        }
        for found in &catalog.types {
            let keyword = if found.kind == "d" { "DOMAIN" } else { "TYPE" };
            insert((class::TYPE, found.oid), found.owner, named(keyword, &found.name), None);
        }
        for function in &catalog.functions {
            insert((class::FUNCTION, function.oid), function.owner, routine(function), None);
        }
        for statistics in &catalog.statistics {
            let name = named("STATISTICS", &statistics.name);
            insert((class::STATISTICS, statistics.oid), statistics.owner, name, None);
        }
        for index in &catalog.indexes {
            let Some(table) = self.relations.get(&index.table) else { continue };
            insert((class::RELATION, index.oid), table.owner, named("INDEX", &index.name), None);
        }
        for constraint in &catalog.constraints {
            let domain = catalog.types.iter().find(|found| found.oid == constraint.domain);
            let domain = domain.map(|found| (found.owner, named("DOMAIN", &found.name)));
            let table = self.relations.get(&constraint.table).map(|table| (table.owner, ident(&table.name)));
            let Some((owner, on)) = table.or(domain) else { continue };
            insert((class::CONSTRAINT, constraint.oid), owner, named("CONSTRAINT", &constraint.name), Some(on));
        }
        let triggers = catalog
            .triggers
            .iter()
            .map(|trigger| (class::TRIGGER, trigger.oid, "TRIGGER", &trigger.name, trigger.table));
        let rules = catalog.rules.iter().map(|rule| (class::RULE, rule.oid, "RULE", &rule.name, rule.table));
        let policies =
            catalog.policies.iter().map(|policy| (class::POLICY, policy.oid, "POLICY", &policy.name, policy.table));
        for (class, oid, keyword, name, table) in triggers.chain(rules).chain(policies) {
            let Some(table) = self.relations.get(&table) else { continue };
            insert((class, oid), table.owner, named(keyword, name), Some(ident(&table.name)));
        }
        targets
    }
}
