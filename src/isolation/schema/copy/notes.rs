//! Comments, and labels of other providers.

use super::catalog::Kind;
use super::catalog::{Object, class};
use super::objects::routine;
use super::plan::{Actor, Planner, Step, named};
use crate::query::{ident, literal};
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

impl Planner<'_> {
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
