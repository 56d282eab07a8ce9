//! The plan: every step that is left to do, found from the catalogs. `adoption_plan` shows it, the procedures carry it out, and a call after a
//! crash makes it again, shorter.
//!
//! Columns come first, so that all tables have theirs; then indexes, built while everyone goes on writing; then foreign keys, which need the
//! parents' indexes; then keys, which old foreign keys depend on no more; protection last.

use super::fill;
use super::refuse;
use super::request::Request;
use super::scope::{Root, Scope};
use crate::error::Result;
use crate::isolation::keys::change::{
    ACCESS_EXCLUSIVE, BUILDS, Change, MOMENT, READS, SHARE, SHARE_ROW_EXCLUSIVE, SHARE_UPDATE_EXCLUSIVE, Way,
};
use crate::isolation::keys::counterpart::{Counterpart, Counterparts, Names};
use crate::isolation::keys::foreign_key::{self, ForeignKey};
use crate::isolation::keys::index::{self, Index};
use crate::isolation::row::inspect::{Table, TenantType};
use crate::query::{ident, literal};
use pgrx::pg_sys;

const ROW_EXCLUSIVE: &str = "ROW EXCLUSIVE";
const WRITES: &str = "writes every row without a tenant";

/// How a step is carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// In one transaction, as the table's owner.
    Statements,
    /// In one transaction for each batch of rows.
    Fill,
    /// By a background worker, outside any transaction.
    Concurrently,
    /// By the product itself.
    Protect,
}

impl Action {
    /// Whoever carries out an adoption sees every row.
    const fn of(way: Way) -> Self {
        match way {
            Way::Together | Way::SeeingAllRows => Self::Statements,
            Way::Concurrently => Self::Concurrently,
        }
    }
}

pub struct Step {
    pub root: pg_sys::Oid,
    /// The tables that it locks, the one that it changes first.
    pub tables: Vec<pg_sys::Oid>,
    pub table_name: String,
    pub owner: pg_sys::Oid,
    pub action: Action,
    pub statements: Vec<String>,
    pub lock: &'static str,
    pub duration: &'static str,
    pub note: String,
}

impl Step {
    pub fn text(&self) -> String {
        self.statements.join("; ")
    }

    /// Whether writers wait for it and behind it.
    pub fn blocks_writers(&self) -> bool {
        matches!(self.lock, ACCESS_EXCLUSIVE | SHARE_ROW_EXCLUSIVE | SHARE)
    }
}

/// Steps of one table.
struct Sink<'a> {
    steps: &'a mut Vec<Step>,
    root: &'a Root,
}

impl Sink<'_> {
    fn add(
        &mut self,
        table: &Table,
        action: Action,
        statements: Vec<String>,
        cost: (&'static str, &'static str),
        note: &str,
    ) {
        self.steps.push(Step {
            root: self.root.table().oid,
            tables: vec![table.oid],
            table_name: table.name.clone(),
            owner: table.owner,
            action,
            statements,
            lock: cost.0,
            duration: cost.1,
            note: note.to_owned(),
        });
    }

    fn add_change(&mut self, table: &Table, change: Change) {
        self.add(table, Action::of(change.way), change.statements, (change.lock, change.duration), &change.note);
    }

    fn alter(&mut self, table: &Table, change: &str, cost: (&'static str, &'static str), note: &str) {
        self.add(table, Action::Statements, vec![format!("ALTER TABLE {} {change}", table.name)], cost, note);
    }
}

/// What is left to do, after everything that could stop it was looked for.
pub fn make(scope: &Scope, request: &Request) -> Result<Vec<Step>> {
    let indexes = scope
        .roots
        .iter()
        .map(|root| index::of_tables(root.members.iter().map(|table| table.oid).collect(), &root.column_name))
        .collect::<Result<Vec<_>>>()?;
    let keys = foreign_key::of_tables(scope.oids())?;
    refuse::check(scope, request, &indexes, &keys)?;
    let mut steps = Vec::new();
    // The same names are found twice, in the same order.
    let (built, replaced) = (Names::default(), Names::default());
    for root in scope.roots.iter().filter(|root| !root.is_protected) {
        column(&mut Sink { steps: &mut steps, root }, request)?;
    }
    for (root, indexes) in scope.roots.iter().zip(&indexes) {
        build(&mut Sink { steps: &mut steps, root }, indexes, request, &keys, &built)?;
    }
    for key in &keys {
        compose(&mut steps, scope, key, &keys);
    }
    for (root, indexes) in scope.roots.iter().zip(&indexes) {
        replace(&mut Sink { steps: &mut steps, root }, indexes, request, &replaced)?;
    }
    for root in scope.roots.iter().filter(|root| request.protect && !root.is_protected) {
        let table = root.table();
        let statement = format!("SELECT protect_table({}, {})", literal(&table.name), literal(&root.column_name));
        Sink { steps: &mut steps, root }.add(
            table,
            Action::Protect,
            vec![statement],
            (ACCESS_EXCLUSIVE, MOMENT),
            "from here on a session sees and writes rows of the tenant that it has bound",
        );
    }
    Ok(steps)
}

/// The tenant column: there, filled, NOT NULL.
fn column(sink: &mut Sink, request: &Request) -> Result<()> {
    let root = sink.root;
    let table = root.table();
    let name = ident(&root.column_name);
    let tenant = request.tenant_literal();
    let Some(column) = &root.column else {
        let change = format!("ADD COLUMN {name} pg_catalog.uuid NOT NULL DEFAULT {tenant}::pg_catalog.uuid");
        let note =
            "a constant default is kept in the catalog: no row is rewritten, and writers that name no tenant go on";
        sink.alter(table, &change, (ACCESS_EXCLUSIVE, MOMENT), note);
        return Ok(());
    };
    if column.not_null {
        return Ok(());
    }
    let type_name = match column.tenant_type {
        TenantType::Uuid => "pg_catalog.uuid",
        TenantType::Text | TenantType::KeyText => "pg_catalog.text",
        TenantType::KeyBigint => "pg_catalog.int8",
    };
    if column.default.is_none() {
        let change = format!("ALTER COLUMN {name} SET DEFAULT {tenant}::{type_name}");
        sink.alter(table, &change, (ACCESS_EXCLUSIVE, MOMENT), "writers that name no tenant go on");
    }
    for member in root.members.iter().filter(|member| !member.partitioned) {
        let fill = || vec![fill::statement(member, &root.column_name, &tenant)];
        if fill::has_rows_to_fill(member, &root.column_name)? {
            sink.add(member, Action::Fill, fill(), (ROW_EXCLUSIVE, WRITES), "in batches; triggers do not fire");
        }
    }
    let constraint = fill::constraint_name(&root.column_name);
    if !fill::has_constraint(table, &constraint)? {
        let change = format!("ADD CONSTRAINT {} CHECK ({name} IS NOT NULL) NOT VALID", ident(&constraint));
        sink.alter(table, &change, (ACCESS_EXCLUSIVE, MOMENT), "no row without a tenant comes any more");
        for member in root.members.iter().filter(|member| !member.partitioned) {
            let statement = vec![fill::statement(member, &root.column_name, &tenant)];
            sink.add(member, Action::Fill, statement, (ROW_EXCLUSIVE, READS), "what came without a tenant meanwhile");
        }
    }
    let change = format!("VALIDATE CONSTRAINT {}", ident(&constraint));
    sink.alter(table, &change, (SHARE_UPDATE_EXCLUSIVE, READS), "writers go on");
    let change = format!("ALTER COLUMN {name} SET NOT NULL, DROP CONSTRAINT {}", ident(&constraint));
    let both = change.split_once(", ").map_or_else(Vec::new, |(set, drop)| {
        [set, drop].map(|change| format!("ALTER TABLE {} {change}", table.name)).to_vec()
    });
    sink.add(
        table,
        Action::Statements,
        both,
        (ACCESS_EXCLUSIVE, MOMENT),
        "the check proves it, so that no row is read",
    );
    Ok(())
}

/// The indexes that tenants need.
fn build(sink: &mut Sink, indexes: &[Index], request: &Request, keys: &[ForeignKey], names: &Names) -> Result<()> {
    let root = sink.root;
    for table in &root.members {
        let is_partition = root.table().partitioned && table.oid != root.table().oid;
        for wanted in wanted_of(root, table, indexes, names)? {
            // Partitions have what the partitioned table has.
            if is_partition && wanted.like.is_none() || wanted.present.is_some_and(|present| present.valid) {
                continue;
            }
            if is_rebuilt(table, &wanted, request, keys) {
                continue;
            }
            if let Some(invalid) = wanted.present {
                let statements = vec![format!("DROP INDEX {}", invalid.qualified())];
                let note = "left invalid by a call that was interrupted";
                sink.add(table, Action::Statements, statements, (ACCESS_EXCLUSIVE, MOMENT), note);
            }
            let note = match wanted.like {
                Some(like) => format!("{} for one tenant", ident(&like.name)),
                None => "the rows of one tenant".to_owned(),
            };
            let statement = vec![wanted.definition(&table.name, !table.partitioned)];
            let (action, lock) = if table.partitioned {
                (Action::Statements, SHARE)
            } else {
                (Action::Concurrently, SHARE_UPDATE_EXCLUSIVE)
            };
            sink.add(table, action, statement, (lock, BUILDS), &note);
        }
    }
    Ok(())
}

/// What the tenants of a table need of its indexes.
fn wanted_of<'a>(
    root: &'a Root,
    table: &'a Table,
    indexes: &'a [Index],
    names: &'a Names,
) -> Result<Vec<Counterpart<'a>>> {
    let (schema, name) = table.schema_and_name();
    let mut wanted = Counterparts::new(table.oid, &root.column_name, schema, indexes, names);
    for index in indexes.iter().filter(|index| index.table == table.oid && index.wants_counterpart()) {
        wanted.add(index)?;
    }
    wanted.add_own(name)?;
    Ok(wanted.found)
}

/// Whether the constraint of a partitioned table is made anew as a whole, since PostgreSQL has no other way, and nothing refers to it.
fn is_rebuilt(table: &Table, wanted: &Counterpart, request: &Request, keys: &[ForeignKey]) -> bool {
    table.partitioned
        && wanted.like.is_some_and(|like| {
            like.constraint.is_some()
                && like.is_to_be_replaced(request.keys)
                && !keys.iter().any(|key| key.index == like.oid)
        })
}

/// A foreign key that a row of another tenant could satisfy gives way to a composite one of the same name.
fn compose(steps: &mut Vec<Step>, scope: &Scope, key: &ForeignKey, all: &[ForeignKey]) {
    let Some(tenant) = key.reaches_across(|table| scope.column_of(table)) else { return };
    let Some(root) = scope
        .roots
        .iter()
        .find(|root| root.members.iter().any(|table| table.oid == key.child || table.oid == key.parent))
    else {
        return;
    };
    for change in key.changes(tenant, all, &[]) {
        steps.push(Step {
            root: root.table().oid,
            tables: vec![key.child, key.parent],
            table_name: key.child_name.clone(),
            owner: key.child_owner,
            action: Action::of(change.way),
            statements: change.statements,
            lock: change.lock,
            duration: change.duration,
            note: change.note,
        });
    }
}

/// Keys become keys of each tenant by itself, under the same names.
fn replace(sink: &mut Sink, indexes: &[Index], request: &Request, names: &Names) -> Result<()> {
    let root = sink.root;
    for table in &root.members {
        for wanted in wanted_of(root, table, indexes, names)? {
            if !wanted.like.is_some_and(|like| like.is_to_be_replaced(request.keys)) {
                continue;
            }
            if let Some(change) = wanted.replacement(&table.name, table.partitioned, &root.column_name, &[]) {
                sink.add_change(table, change);
            }
        }
    }
    Ok(())
}
