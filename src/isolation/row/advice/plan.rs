//! The steps in their order: indexes are built while everyone goes on; then foreign keys, which need the parents' indexes; then keys, which old
//! foreign keys depend on no more; then what is only a matter of time.

use super::super::inspect;
use super::index::{self, Remedy};
use super::parts::{self, Builder};
use super::reference::{self, Reference};
use super::scope::{Member, Scope};
use super::step::{Problem, Step};
use super::unique;
use crate::error::Result;
use crate::isolation::keys::change::{Change, MOMENT, SHARE_UPDATE_EXCLUSIVE, Way};
use crate::isolation::keys::counterpart::{Counterpart, Counterparts, Names};
use crate::isolation::keys::index::Index;
use crate::query::{self, ident, literal};
use crate::relation;

/// The owner of the database, who may create extensions that are trusted.
const DATABASE_OWNER: &str = "SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";
const HAS_EXTENSION: &str = "SELECT true FROM pg_catalog.pg_extension WHERE extname = $1::name";
/// What an owner lacks to create indexes in the table's schema, and who may give it.
const SCHEMA: &str =
    "SELECT n.nspowner FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1 AND NOT pg_catalog.has_schema_privilege(c.relowner, n.oid, 'CREATE')";

/// A key of a member that becomes one of each tenant, or lends its columns to a foreign key.
struct Key<'a> {
    index: &'a Index,
    problem: Problem,
    is_replaced: bool,
    is_referred_to: bool,
}

/// What is done about a member's keys.
struct Work<'a> {
    member: &'a Member,
    keys: Vec<Key<'a>>,
    counterparts: Counterparts<'a>,
}

pub fn make(scope: &Scope) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let names = Names::default();
    let mut builder = Builder::new(&names);
    let references = reference::find(scope);
    let mut works = Vec::new();
    for member in &scope.members {
        works.push(keys_of(&mut steps, scope, member, &references, &names)?);
    }
    for work in &works {
        build_keys(&mut steps, scope, work, &mut builder)?;
    }
    for reference in &references {
        refer(&mut steps, reference)?;
    }
    for work in &works {
        replace_keys(&mut steps, scope, work, &mut builder)?;
    }
    for member in scope.members.iter().filter(|member| member.is_asked) {
        exclude(&mut steps, member)?;
    }
    for work in works.iter_mut().filter(|work| work.member.is_asked) {
        serve(&mut steps, scope, work, &mut builder)?;
    }
    lend_schemas(scope, steps)
}

/// Which keys of a member have to change; what cannot be changed is told at once.
fn keys_of<'a>(
    steps: &mut Vec<Step>,
    scope: &'a Scope,
    member: &'a Member,
    references: &[Reference],
    names: &'a Names,
) -> Result<Work<'a>> {
    let table = &member.table;
    let (schema, _) = table.schema_and_name();
    let mut counterparts = Counterparts::new(table.oid, &member.column, schema, &member.indexes, names);
    let mut keys = Vec::new();
    for own in &member.indexes {
        if member.is_asked {
            steps.extend(unique::remains(own, member));
        }
        let mut is_replaced = member.is_asked && own.reaches_across();
        if is_replaced && let Some(obstacle) = unique::obstacle(scope, own)? {
            steps.push(Step::impossible(&table.name, &unique::problem(own, member), obstacle));
            is_replaced = false;
        }
        let referring = references.iter().find(|reference| {
            reference.obstacle.is_none()
                && reference.key.index == own.oid
                && !unique::is_referable(member, reference.tenant.1, &reference.key.parent_columns)
        });
        if !is_replaced && referring.is_none() {
            continue;
        }
        let problem = match referring {
            Some(reference) if !is_replaced => reference.problem.clone(),
            _ => unique::problem(own, member),
        };
        counterparts.add(own)?;
        keys.push(Key { index: own, problem, is_replaced, is_referred_to: referring.is_some() });
    }
    Ok(Work { member, keys, counterparts })
}

impl<'a> Work<'a> {
    fn counterpart(&self, index: &Index) -> Option<&Counterpart<'a>> {
        self.counterparts.of(index.oid)
    }
}

/// Whether the key is a constraint of a partitioned table: PostgreSQL takes no index for one.
fn is_made_anew(member: &Member, key: &Key) -> bool {
    member.table.partitioned && key.is_replaced && key.index.constraint.is_some()
}

fn build_keys(steps: &mut Vec<Step>, scope: &Scope, work: &Work, builder: &mut Builder) -> Result<()> {
    for key in work.keys.iter().filter(|key| key.is_referred_to || !is_made_anew(work.member, key)) {
        if let Some(counterpart) = work.counterpart(key.index) {
            builder.whole(steps, scope, work.member, counterpart, &key.problem)?;
        }
    }
    Ok(())
}

fn refer(steps: &mut Vec<Step>, reference: &Reference) -> Result<()> {
    let Reference { all, key, tenant, problem, obstacle } = reference;
    if let Some(obstacle) = obstacle {
        steps.push(Step::impossible(&key.child_name, problem, obstacle.clone()));
        return Ok(());
    }
    if !key.may_refer {
        let statement = key.grant().trim_end_matches(';').to_owned();
        let note = "the owner of the table that refers has to be allowed to";
        steps.push(Step::beside(&key.parent_name, problem, statement, ident(&key.parent_owner_name), note));
    }
    let partitions = if key.child_is_partitioned { inspect::partitions(key.child)? } else { Vec::new() };
    for change in key.changes(*tenant, all, &partitions) {
        steps.push(Step::of(&key.child_name, key.child_owner, problem, change));
    }
    Ok(())
}

fn replace_keys(steps: &mut Vec<Step>, scope: &Scope, work: &Work, builder: &mut Builder) -> Result<()> {
    let Work { member, .. } = work;
    for key in work.keys.iter().filter(|key| key.is_replaced) {
        let Some(counterpart) = work.counterpart(key.index) else { continue };
        let parts = if is_made_anew(member, key) && !counterpart.is_there_by_constraint() {
            builder.of_partitions(steps, scope, member, counterpart, &key.problem)?
        } else {
            Vec::new()
        };
        let (table, column) = (&member.table, &member.column);
        if let Some(change) = counterpart.replacement(&table.name, table.partitioned, column, &parts) {
            steps.push(Step::of(&table.name, table.owner, &key.problem, change));
        }
    }
    Ok(())
}

fn exclude(steps: &mut Vec<Step>, member: &Member) -> Result<()> {
    let table = &member.table;
    for exclusion in unique::exclusions(member)? {
        let Some(change) = exclusion.change else {
            let note = format!("an index of method {} has one column: use GiST", exclusion.method);
            steps.push(Step::impossible(&table.name, &exclusion.problem, note));
            continue;
        };
        if exclusion.method == "gist" {
            extend(steps, "btree_gist", &table.name, &exclusion.problem)?;
        }
        steps.push(Step::of(&table.name, table.owner, &exclusion.problem, change));
    }
    Ok(())
}

/// An extension that the steps behind need, unless it is there or comes before.
fn extend(steps: &mut Vec<Step>, name: &str, table: &str, problem: &Problem) -> Result<()> {
    let statement = format!("CREATE EXTENSION IF NOT EXISTS {name}");
    let is_there = query::value::<bool>(HAS_EXTENSION, &[name.into()])?.is_some();
    if !is_there && !steps.iter().any(|step| step.statement.as_ref() == Some(&statement)) {
        let owner = query::value(DATABASE_OWNER, &[])?.map(relation::role_name).unwrap_or_default();
        steps.push(Step::beside(table, problem, statement, owner, "trusted: the owner of the database may"));
    }
    Ok(())
}

/// Indexes that are not searched get one that is, and go.
fn serve<'a>(steps: &mut Vec<Step>, scope: &'a Scope, work: &mut Work<'a>, builder: &mut Builder) -> Result<()> {
    let member = work.member;
    for own in &member.indexes {
        if own.reaches_across() || own.is_exclusion() {
            continue;
        }
        let problem = index::problem(own, member);
        let needed = match index::remedy(own, member) {
            None => continue,
            Some(Remedy::Note(note)) => {
                steps.push(Step::impossible(&member.table.name, &problem, note));
                continue;
            }
            Some(Remedy::Counterpart(needed)) => needed,
        };
        if let Some(name) = needed {
            extend(steps, name, &member.table.name, &problem)?;
        }
        work.counterparts.add(own)?;
        let Some(counterpart) = work.counterparts.of(own.oid) else { continue };
        builder.whole(steps, scope, member, counterpart, &problem)?;
        if own.unique {
            continue;
        }
        let table = &member.table;
        steps.extend(
            inherit(own, counterpart, member).map(|change| Step::of(&table.name, table.owner, &problem, change)),
        );
        steps.push(Step::of(&table.name, table.owner, &problem, parts::drop_old(member, own)));
    }
    Ok(())
}

/// What hung on the old index.
fn inherit(old: &Index, counterpart: &Counterpart, member: &Member) -> Option<Change> {
    let name = ident(&counterpart.name);
    let clustered = old.is_clustered.then(|| format!("ALTER TABLE {} CLUSTER ON {name}", member.table.name));
    let comment = old.comment.as_ref();
    let comment = comment.map(|text| format!("COMMENT ON INDEX {}.{name} IS {}", old.schema, literal(text)));
    let statements: Vec<String> = clustered.into_iter().chain(comment).collect();
    let change = |statements| {
        Change::new(Way::Together, statements, (SHARE_UPDATE_EXCLUSIVE, MOMENT), "as it was with the old one")
    };
    (!statements.is_empty()).then(|| change(statements))
}

/// Rights that an owner lacks to create indexes, before and after all else.
fn lend_schemas(scope: &Scope, steps: Vec<Step>) -> Result<Vec<Step>> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut lent = Vec::new();
    for member in &scope.members {
        let table = &member.table;
        let creates = |step: &&Step| {
            step.table_name == table.name
                && step
                    .statement
                    .as_ref()
                    .is_some_and(|text| text.starts_with("CREATE ") || text.contains(" RENAME TO "))
        };
        let Some(step) = steps.iter().find(creates) else { continue };
        let Some(owner) = query::value(SCHEMA, &[table.oid.into()])? else { continue };
        let (schema, _) = table.schema_and_name();
        let to = (schema, table.owner);
        if lent.contains(&to) {
            continue;
        }
        lent.push(to);
        let (giver, taker) = (relation::role_name(owner), relation::role_name(table.owner));
        let grant = format!("GRANT CREATE ON SCHEMA {schema} TO {taker}");
        let revoke = format!("REVOKE CREATE ON SCHEMA {schema} FROM {taker}");
        let note = "PostgreSQL asks for it where an index is created";
        before.push(Step::beside(&table.name, &step.problem, grant, giver.clone(), note));
        after.push(Step::beside(&table.name, &step.problem, revoke, giver, "no longer needed"));
    }
    before.extend(steps);
    before.extend(after);
    Ok(before)
}
