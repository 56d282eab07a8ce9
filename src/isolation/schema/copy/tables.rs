//! What comes to tables once they hold their rows: indexes, partitions, statistics, rules, policies, triggers, owners.

use super::catalog::{Attached, Index, Kind, Relation, Trigger};
use super::plan::{Planner, Step, comma, named};
use crate::error::{Error, Result};
use crate::extension;
use crate::query::ident;
use crate::relation::role_name;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

impl Planner<'_> {
    /// Indexes of partitioned tables come when the partitions are there, or those would get indexes that the original has not.
    pub(super) fn indexes(&self, of_partitioned: bool) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for index in &self.catalog.indexes {
            let Some(table) = self.relations.get(&index.table) else { continue };
            if (table.kind == Kind::Partitioned) != of_partitioned {
                continue;
            }
            let object = named("index", &index.name);
            let mut push = |sql: String| steps.push(Step::new(table.owner, sql, object.clone()));
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
    pub(super) fn index_attachments(&self) -> Vec<Step> {
        let indexes: HashMap<Oid, &Index> = self.catalog.indexes.iter().map(|index| (index.oid, index)).collect();
        let step = |index: &Index| {
            let parent = indexes.get(&index.parent?).filter(|parent| !parent.of_constraint)?;
            let table = self.relations.get(&parent.table)?;
            let sql = format!("ALTER INDEX {} ATTACH PARTITION {}", ident(&parent.name), ident(&index.name));
            Some(Step::new(table.owner, sql, named("index", &index.name)))
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
    pub(super) fn attachments(&self) -> Vec<Step> {
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
            steps.push(Step::new(parent.owner, sql, object));
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
            let owner = self.relations.get(&statistics.table).map_or(statistics.owner, |table| table.owner);
            let name = ident(&statistics.name);
            let role = owner;
            steps.push(Step::new(role, format!("CREATE STATISTICS {rest}"), object.clone()));
            if owner != statistics.owner {
                let sql = format!("ALTER STATISTICS {name} OWNER TO {}", role_name(statistics.owner));
                steps.push(Step::new(self.schema_owner, sql, object.clone()));
            }
            if let Some(target) = statistics.target {
                let sql = format!("ALTER STATISTICS {name} SET STATISTICS {target}");
                steps.push(Step::new(statistics.owner, sql, object));
            }
        }
        Ok(steps)
    }

    pub(super) fn table_states(&self) -> Vec<Step> {
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
                steps.push(Step::new(table.owner, sql, named("table", &table.name)));
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
            steps.push(Step::new(table.owner, sql, object).on(table));
            steps.extend(change_state(table, "RULE", rule));
        }
        Ok(steps)
    }

    pub(super) fn policies(&self) -> Vec<Step> {
        let step = |policy: &Attached| {
            let table = self.relations.get(&policy.table)?;
            let sql = format!("CREATE POLICY {} ON {} {}", ident(&policy.name), ident(&table.name), policy.definition);
            Some(Step::new(table.owner, sql, named("policy", &policy.name)).on(table))
        };
        self.catalog.policies.iter().filter_map(step).collect()
    }

    pub(super) fn triggers(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for trigger in &self.catalog.triggers {
            let Some(table) = self.relations.get(&trigger.table) else { continue };
            let object = named("trigger", &trigger.name);
            let role = if trigger.is_limit { extension::owner()? } else { table.owner };
            if !trigger.has_parent {
                steps.push(Step::new(role, self.create_trigger(trigger, table, &object)?, object.clone()).on(table));
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
            steps.push(Step::new(role, sql, object).on(table));
        }
        Ok(steps)
    }

    pub(super) fn create_trigger(&self, trigger: &Trigger, table: &Relation, object: &str) -> Result<String> {
        let sql = self.unqualify(&trigger.definition, table, &[" ON "], " ", object)?;
        let sql = self.renaming.apply_to_arguments(&sql);
        // A constraint trigger may name a second table.
        let from = format!(" FROM {}.", ident(self.source));
        let on = format!(" ON {} FROM {}.", ident(&table.name), ident(self.source));
        Ok(if sql.contains(&on) { sql.replacen(&from, " FROM ", 1) } else { sql })
    }

    /// Sequences to the columns that they belong to, once both exist.
    pub(super) fn ownerships(&self) -> Vec<Step> {
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
            Some(Step::new(relation.owner, sql, named("sequence", &relation.name)))
        };
        self.catalog.relations.iter().filter_map(step).collect()
    }

    pub(super) fn refreshes(&self, order: &[Oid]) -> Vec<Step> {
        let relations = order.iter().filter_map(|oid| self.relations.get(oid));
        let views = relations.filter(|view| view.kind == Kind::Materialized && view.populated);
        let step = |view: &&Relation| {
            Step::new(
                view.owner,
                format!("REFRESH MATERIALIZED VIEW {}", ident(&view.name)),
                named("materialized view", &view.name),
            )
        };
        views.map(step).collect()
    }
}

fn change_state(table: &Relation, keyword: &str, attached: &Attached) -> Option<Step> {
    let state = match attached.enabled.as_deref()? {
        "D" => "DISABLE",
        "R" => "ENABLE REPLICA",
        "A" => "ENABLE ALWAYS",
        _ => return None,
    };
    let sql = format!("ALTER TABLE {} {state} {keyword} {}", ident(&table.name), ident(&attached.name));
    Some(Step::new(table.owner, sql, named(&keyword.to_lowercase(), &attached.name)).on(table))
}
