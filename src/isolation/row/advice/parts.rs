//! Building a counterpart while everyone goes on writing: at once, or partition by partition.

use super::super::inspect::partitions;
use super::scope::{Member, Scope};
use super::step::{Problem, Step};
use crate::error::Result;
use crate::isolation::keys::change::{ACCESS_EXCLUSIVE, BUILDS, Change, MOMENT, SHARE, SHARE_UPDATE_EXCLUSIVE, Way};
use crate::isolation::keys::counterpart::{Counterpart, Names};
use crate::isolation::keys::index::Index;
use pgrx::pg_sys;

/// What is being built of partitions.
pub struct Builder<'a> {
    names: &'a Names,
    /// Parts that are there already and were used.
    used: Vec<pg_sys::Oid>,
}

impl<'a> Builder<'a> {
    pub fn new(names: &'a Names) -> Self {
        Self { names, used: Vec::new() }
    }

    /// The steps that build the counterpart of an index of `member`, whole.
    pub fn whole(
        &mut self,
        steps: &mut Vec<Step>,
        scope: &Scope,
        member: &Member,
        counterpart: &Counterpart,
        problem: &Problem,
    ) -> Result<()> {
        if counterpart.present.is_some_and(|present| present.valid) {
            return Ok(());
        }
        let table = &member.table;
        let mut add = |change| steps.push(Step::of(&table.name, table.owner, problem, change));
        if let Some(invalid) = counterpart.present {
            add(drop_invalid(&invalid.qualified()));
        }
        if !table.partitioned {
            add(build(counterpart, counterpart.definition(&table.name, true)));
            return Ok(());
        }
        self.of_partitions(steps, scope, member, counterpart, problem)?;
        let statement = vec![counterpart.definition(&table.name, false)];
        let note = "takes what its partitions have; writers wait for that long";
        let change = Change::new(Way::Together, statement, (SHARE, MOMENT), note);
        steps.push(Step::of(&table.name, table.owner, problem, change));
        Ok(())
    }

    /// The steps that build it for each partition alone, to be taken by the whole: the partitions and the names of their parts.
    pub fn of_partitions(
        &mut self,
        steps: &mut Vec<Step>,
        scope: &Scope,
        member: &Member,
        counterpart: &Counterpart,
        problem: &Problem,
    ) -> Result<Vec<(String, String)>> {
        let mut parts = Vec::new();
        for (oid, _) in partitions(member.table.oid)? {
            let Some(Member { table, indexes, .. }) = scope.member(oid) else { continue };
            let there = counterpart.of_partition(oid, indexes, &self.used);
            if let Some(there) = there {
                self.used.push(there.oid);
            }
            let mut add = |change| steps.push(Step::of(&table.name, table.owner, problem, change));
            if let Some(invalid) = there.filter(|there| !there.valid) {
                add(drop_invalid(&invalid.qualified()));
            }
            let name = match there.filter(|there| there.valid) {
                Some(there) => there.name.clone(),
                None => {
                    let (schema, base) = table.schema_and_name();
                    let name = self.names.free(base, schema)?;
                    add(build(counterpart, counterpart.definition_as(&name, &table.name, true)));
                    name
                }
            };
            parts.push((table.name.clone(), name));
        }
        Ok(parts)
    }
}

fn build(counterpart: &Counterpart, statement: String) -> Change {
    let constraint = counterpart.like.and_then(|like| like.constraint.as_ref());
    let note = if constraint.is_some_and(|constraint| constraint.deferrable) {
        "writers go on; not inside a transaction block; checked at once, until it is the constraint's that may be deferred"
    } else {
        "writers go on; not inside a transaction block"
    };
    Change::new(Way::Concurrently, vec![statement], (SHARE_UPDATE_EXCLUSIVE, BUILDS), note)
}

/// What an interrupted build has left goes.
pub fn drop_invalid(index: &str) -> Change {
    let note = "left invalid by a build that was interrupted, or being built by somebody now";
    Change::new(Way::Together, vec![format!("DROP INDEX {index}")], (ACCESS_EXCLUSIVE, MOMENT), note)
}

/// The old index goes.
pub fn drop_old(member: &Member, index: &Index) -> Change {
    let note = "only roles that bypass row security ever search it: keep it if they do";
    if member.table.partitioned {
        let statement = vec![format!("DROP INDEX {}", index.qualified())];
        return Change::new(Way::Together, statement, (ACCESS_EXCLUSIVE, MOMENT), note);
    }
    let statement = vec![format!("DROP INDEX CONCURRENTLY {}", index.qualified())];
    Change::new(Way::Concurrently, statement, (SHARE_UPDATE_EXCLUSIVE, MOMENT), note)
}
