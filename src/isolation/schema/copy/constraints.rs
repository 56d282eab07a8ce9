//! Checks that come after the rows, and foreign keys.

use super::catalog::Constraint;
use super::plan::{Planner, Step, named};
use crate::query::ident;
use crate::relation::role_name;
use pgrx::pg_sys::Oid;
use std::collections::HashSet;

impl Planner<'_> {
    /// A check that is part of its table's (or domain's) definition.
    pub(super) fn is_early_check(&self, constraint: &Constraint) -> bool {
        constraint.kind == "c" && constraint.validated && self.is_own(constraint)
    }

    /// A check that is not validated is added once the rows are there, which may not satisfy it.
    pub(super) fn is_late_check(&self, constraint: &Constraint) -> bool {
        constraint.kind == "c" && !constraint.validated
    }

    /// A constraint that does not come from a parent; a partition has its parent's before it is attached.
    pub(super) fn is_own(&self, constraint: &Constraint) -> bool {
        let is_partition = self.relations.get(&constraint.table).is_some_and(|table| table.is_partition);
        constraint.is_local || is_partition
    }

    pub(super) fn owner_of(&self, constraint: &Constraint) -> Oid {
        let table = self.relations.get(&constraint.table).map(|table| table.owner);
        let domain = || self.catalog.types.iter().find(|found| found.oid == constraint.domain).map(|found| found.owner);
        table.or_else(domain).unwrap_or(Oid::INVALID)
    }

    pub(super) fn add_constraint(&self, constraint: &Constraint) -> String {
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

    pub(super) fn late_checks(&self) -> Vec<Step> {
        let late = self
            .catalog
            .constraints
            .iter()
            .filter(|constraint| self.is_late_check(constraint) && self.is_own(constraint));
        late.map(|constraint| {
            Step::new(self.owner_of(constraint), self.add_constraint(constraint), named("constraint", &constraint.name))
        })
        .collect()
    }

    pub(super) fn foreign_keys(&self, early: &HashSet<Oid>) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut last = None;
        let keys =
            self.catalog.constraints.iter().filter(|constraint| {
                constraint.kind == "f" && !constraint.has_parent && !early.contains(&constraint.oid)
            });
        for constraint in keys {
            let Some(table) = self.relations.get(&constraint.table) else { continue };
            let owner = table.owner;
            let object = named("foreign keys of table", &table.name);
            let addition = format!("ADD CONSTRAINT {} {}", ident(&constraint.name), constraint.definition);
            let referred = constraint.references.and_then(|referred| self.relations.get(&referred));
            if let Some(referred) = referred.filter(|referred| referred.owner != owner) {
                // The right to refer to another owner's table is among the grants, which come later.
                let (name, role) = (ident(&referred.name), role_name(owner));
                let lend = |verb: &str, preposition: &str| {
                    let sql = format!("{verb} REFERENCES ON TABLE {name} {preposition} {role}");
                    Step::new(referred.owner, sql, object.clone())
                };
                let sql = format!("ALTER TABLE {} {addition}", ident(&table.name));
                steps.extend([lend("GRANT", "TO"), Step::new(owner, sql, object.clone()), lend("REVOKE", "FROM")]);
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
                    steps.push(Step::new(owner, sql, object));
                }
            }
            last = Some(table.oid);
        }
        steps
    }
}
