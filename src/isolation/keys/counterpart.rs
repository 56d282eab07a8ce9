//! Indexes led by the tenant column, made after others.

use super::change::{ACCESS_EXCLUSIVE, BUILDS, Change, MOMENT, Way};
use super::index::Index;
use crate::error::{Error, Result};
use crate::query::{self, ident, literal};
use pgrx::pg_sys;
use std::cell::RefCell;

const IS_TAKEN: &str = "SELECT true FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE pg_catalog.quote_ident(n.nspname) = $1 AND c.relname = $2::name";

/// Names that indexes to come have been given.
#[derive(Default)]
pub struct Names(RefCell<Vec<(String, String)>>);

/// An index that tenants need.
pub struct Counterpart<'a> {
    pub name: String,
    pub unique: bool,
    /// The index that it is made after; None for the one on the tenant column alone.
    pub like: Option<&'a Index>,
    /// The index that is there already.
    pub present: Option<&'a Index>,
    method: &'a str,
    rest: String,
}

/// The counterparts of one table's indexes.
pub struct Counterparts<'a> {
    pub found: Vec<Counterpart<'a>>,
    own: Vec<&'a Index>,
    column: &'a str,
    /// Quoted.
    schema: &'a str,
    names: &'a Names,
}

impl Counterpart<'_> {
    pub fn definition(&self, table: &str, concurrently: bool) -> String {
        self.definition_as(&self.name, table, concurrently)
    }

    /// The same under another name, for a partition.
    pub fn definition_as(&self, name: &str, table: &str, concurrently: bool) -> String {
        format!(
            "CREATE {}INDEX {}{} ON {table} USING {} ({}",
            if self.unique { "UNIQUE " } else { "" },
            if concurrently { "CONCURRENTLY " } else { "" },
            ident(name),
            self.method,
            self.rest
        )
    }

    /// The index of a partition that is the same, and is neither `used` nor a part of the partitioned table's yet.
    pub fn of_partition<'a>(
        &self,
        partition: pg_sys::Oid,
        indexes: &'a [Index],
        used: &[pg_sys::Oid],
    ) -> Option<&'a Index> {
        indexes.iter().find(|index| {
            index.table == partition
                && !used.contains(&index.oid)
                && !index.is_attached
                && index.constraint.is_none()
                && index.is_like(self.method, self.unique, &self.rest)
        })
    }

    /// Whether a constraint of its own has it already.
    pub fn is_there_by_constraint(&self) -> bool {
        self.present.is_some_and(|present| present.constraint.is_some())
    }

    /// Takes the place of the index that it is made after. `partitions` are those of a partitioned table, each with the name of its own
    /// part, ready to be used; where they are not, the index of a constraint is built here.
    pub fn replacement(
        &self,
        table: &str,
        is_partitioned: bool,
        column: &str,
        partitions: &[(String, String)],
    ) -> Option<Change> {
        let old = self.like?;
        let name = ident(&old.name);
        let mut duration = MOMENT;
        let is_there_by_constraint = self.is_there_by_constraint();
        let mut statements = match &old.constraint {
            None if is_there_by_constraint => vec![format!("DROP INDEX {}", old.qualified())],
            None => vec![
                format!("DROP INDEX {}", old.qualified()),
                format!("ALTER INDEX {}.{} RENAME TO {name}", old.schema, ident(&self.name)),
            ],
            Some(constraint) if is_there_by_constraint => {
                vec![format!("ALTER TABLE {table} DROP CONSTRAINT {}", ident(&constraint.name))]
            }
            Some(constraint) => {
                let name = ident(&constraint.name);
                let kind = constraint.keyword();
                let using = |index: &str| format!("{kind} USING INDEX {}{}", ident(index), constraint.deferral());
                if is_partitioned {
                    if partitions.is_empty() {
                        duration = BUILDS;
                    }
                    let whole = constraint.definition.replacen('(', &format!("({}, ", ident(column)), 1);
                    let mut statements = vec![format!("ALTER TABLE {table} DROP CONSTRAINT {name}")];
                    statements.extend(partitions.iter().map(|(partition, index)| {
                        format!("ALTER TABLE {partition} ADD CONSTRAINT {} {}", ident(index), using(index))
                    }));
                    statements.push(format!("ALTER TABLE {table} ADD CONSTRAINT {name} {whole}"));
                    statements
                } else {
                    let added = using(&self.name);
                    vec![format!("ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {added}")]
                }
            }
        };
        if !is_there_by_constraint {
            statements.extend(properties(old, table));
        }
        let note = "unique in each tenant; ON CONFLICT must name the tenant column, too";
        Some(Change::new(Way::Together, statements, (ACCESS_EXCLUSIVE, duration), note))
    }
}

/// What hung on the index that went.
fn properties(old: &Index, table: &str) -> Vec<String> {
    let name = ident(&old.name);
    let mut statements = Vec::new();
    if old.is_replica_identity {
        statements.push(format!("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {name}"));
    }
    if old.is_clustered {
        statements.push(format!("ALTER TABLE {table} CLUSTER ON {name}"));
    }
    if let Some(comment) = &old.comment {
        let on = match &old.constraint {
            Some(constraint) => format!("CONSTRAINT {} ON {table}", ident(&constraint.name)),
            None => format!("INDEX {}", old.qualified()),
        };
        statements.push(format!("COMMENT ON {on} IS {}", literal(comment)));
    }
    statements
}

impl<'a> Counterparts<'a> {
    /// None yet, of the table in this schema (quoted) among whose tenants `column` tells; `indexes` are the table's and may be others', too.
    pub fn new(table: pg_sys::Oid, column: &'a str, schema: &'a str, indexes: &'a [Index], names: &'a Names) -> Self {
        let own = indexes.iter().filter(|index| index.table == table).collect();
        Self { found: Vec::new(), own, column, schema, names }
    }

    pub fn of(&self, index: pg_sys::Oid) -> Option<&Counterpart<'a>> {
        self.found.iter().find(|found| found.like.is_some_and(|like| like.oid == index))
    }

    /// The counterpart of this index, which is the table's.
    pub fn add(&mut self, like: &'a Index) -> Result<()> {
        let rest = like.rest_led_by(self.column);
        // Two indexes of the same definition need one counterpart, unless each is a constraint's.
        if !like.unique && self.found.iter().any(|other| !other.unique && other.rest == rest) {
            return Ok(());
        }
        let method = like.method_led_by_tenant();
        let is_used = |name: &str| self.found.iter().any(|other| other.present.is_some_and(|there| there.name == name));
        let present = self.own.iter().copied().find(|other| {
            other.is_like(method, like.unique, &rest) && other.can_stand_for(like) && !is_used(&other.name)
        });
        let name = match present {
            Some(present) => present.name.clone(),
            None => self.names.free(&like.name, self.schema)?,
        };
        self.found.push(Counterpart { name, unique: like.unique, like: Some(like), present, method, rest });
        Ok(())
    }

    /// The index on the tenant column alone, where none serves every look-up by it.
    pub fn add_own(&mut self, table_name: &str) -> Result<()> {
        let is_partial = |found: &Counterpart| found.like.is_some_and(|like| like.is_partial);
        if self.own.iter().any(|index| index.serves_tenant()) || self.found.iter().any(|found| !is_partial(found)) {
            return Ok(());
        }
        let rest = format!("{})", ident(self.column));
        let present = self.own.iter().copied().find(|other| other.is_like("btree", false, &rest));
        let name = match present {
            Some(present) => present.name.clone(),
            None => self.names.free(table_name, self.schema)?,
        };
        self.found.push(Counterpart { name, unique: false, like: None, present, method: "btree", rest });
        Ok(())
    }
}

impl Names {
    /// A name made of another one that nothing in the schema (quoted) has, nor will have.
    pub fn free(&self, base: &str, schema: &str) -> Result<String> {
        for number in 0.. {
            let name = (schema.to_owned(), super::successor_name(base, number));
            let is_taken = || query::value::<bool>(IS_TAKEN, &[schema.into(), name.1.as_str().into()]);
            if !self.0.borrow().contains(&name) && is_taken()?.is_none() {
                self.0.borrow_mut().push(name.clone());
                return Ok(name.1);
            }
        }
        Err(Error::Internal(format!("no name is left for an index like {base}")))
    }
}
