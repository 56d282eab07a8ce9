//! Removing a tenant's rows from every protected table: referencing tables first, in batches, each as the table's owner.

use super::inspect::TenantType;
use crate::context;
use crate::erased::Erased;
use crate::error::{Error, Result};
use crate::query::{self, ident};
use crate::role;
use pgrx::datum::DatumWithOid;
use pgrx::{Uuid, pg_sys};
use std::collections::BTreeMap;

/// Rows removed per transaction, but for tables that refer to each other in a circle.
const BATCH: u64 = 10_000;
/// Rounds over all tables: a trigger may write for the tenant while its rows go.
const ROUNDS: u32 = 5;

const TABLES: &str = "SELECT p.table_name::oid, p.root::oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner, c.relkind = 'p',
        p.tenant_column::text, p.tenant_type
    FROM tenancy.protected_tables p JOIN pg_catalog.pg_class c ON c.oid = p.table_name JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    ORDER BY p.table_name";
const REFERENCES: &str = "SELECT DISTINCT source.root::oid, target.root::oid FROM pg_catalog.pg_constraint con
    JOIN tenancy.protected_tables source ON source.table_name = con.conrelid
    JOIN tenancy.protected_tables target ON target.table_name = con.confrelid
    WHERE con.contype = 'f'";

/// A table that holds rows itself: a plain table, a partition or a child.
struct Leaf {
    name: String,
    owner: pg_sys::Oid,
    column: String,
    tenant_type: TenantType,
}

impl Leaf {
    /// The condition that finds the tenant's rows, with the tenant as `$1`.
    fn condition(&self) -> String {
        format!("{} OPERATOR(pg_catalog.=) $1", ident(&self.column))
    }

    /// The tenant as the column has it; None where it has no key of that kind, and so no rows.
    fn argument(&self, tenant: Uuid) -> Result<Option<DatumWithOid<'static>>> {
        self.tenant_type.argument(tenant)
    }

    /// Removes up to `limit` rows.
    fn erase_some(&self, tenant: Uuid, limit: u64) -> Result<u64> {
        let Some(argument) = self.argument(tenant)? else { return Ok(0) };
        let sql = format!(
            "DELETE FROM ONLY {0} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT ctid FROM ONLY {0} WHERE {1} LIMIT {limit}))",
            self.name,
            self.condition()
        );
        context::for_maintenance(tenant, || role::as_owner(self.owner, || query::statement(&sql, &[argument])))
    }

    /// Whether a row of the tenant is left, whatever policies say.
    fn has_rows(&self, tenant: Uuid) -> Result<bool> {
        let Some(argument) = self.argument(tenant)? else { return Ok(false) };
        let sql = format!("SELECT true FROM ONLY {} WHERE {} LIMIT 1", self.name, self.condition());
        context::for_maintenance(tenant, || {
            role::as_owner_of_all_rows(self.owner, || Ok(!query::current_column::<bool>(&sql, &[argument])?.is_empty()))
        })
    }
}

/// Tables that are emptied together: one hierarchy, or several that refer to each other in a circle.
struct Group {
    leaves: Vec<Leaf>,
    /// Whether a row may refer to another row of the group, so that no batch of them can go alone.
    circular: bool,
}

fn add(erased: &mut Erased, leaf: &Leaf, rows: u64) {
    if rows > 0 {
        *erased.entry(leaf.name.clone()).or_default() += rows;
    }
}

/// Removes all rows of a circle in one statement, after which PostgreSQL checks its foreign keys.
fn erase_circle(leaves: &[Leaf], tenant: Uuid, erased: &mut Erased) -> Result<u64> {
    let Some(first) = leaves.first() else { return Ok(0) };
    if let Some(other) = leaves.iter().find(|leaf| leaf.owner != first.owner) {
        return Err(Error::Unprotectable(
            format!("{} and {} refer to each other and have different owners", first.name, other.name),
            "Give them one owner: their rows can only be removed together.".to_owned(),
        ));
    }
    let mut arguments = Vec::new();
    let mut parts = Vec::new();
    let mut reached = Vec::new();
    for leaf in leaves {
        let Some(argument) = leaf.argument(tenant)? else { continue };
        let index = reached.len();
        reached.push(leaf);
        arguments.push(argument);
        parts.push(format!(
            "d{index} AS (DELETE FROM ONLY {} WHERE {} OPERATOR(pg_catalog.=) ${} RETURNING 1)",
            leaf.name,
            ident(&leaf.column),
            index + 1
        ));
    }
    if reached.is_empty() {
        return Ok(0);
    }
    let counts: Vec<String> = (0..reached.len())
        .map(|index| format!("SELECT {index} AS leaf, pg_catalog.count(*) AS removed FROM d{index}"))
        .collect();
    let sql = format!(
        "WITH {} SELECT removed FROM ({}) AS counts ORDER BY leaf",
        parts.join(", "),
        counts.join(" UNION ALL ")
    );
    let counts: Vec<Option<i64>> =
        context::for_maintenance(tenant, || role::as_owner(first.owner, || query::current_column(&sql, &arguments)))?;
    let mut total = 0;
    for (leaf, count) in reached.into_iter().zip(counts) {
        let count = count.unwrap_or(0).cast_unsigned();
        add(erased, leaf, count);
        total += count;
    }
    Ok(total)
}

/// The groups in the order in which they can be emptied.
fn groups() -> Result<Vec<Group>> {
    let mut hierarchies: BTreeMap<u32, Vec<Leaf>> = BTreeMap::new();
    let tables = query::rows(TABLES, &[], |row| {
        let leaf = Leaf {
            name: row.must(3)?,
            owner: row.must(4)?,
            column: row.must(6)?,
            tenant_type: TenantType::from_name(&row.must::<String>(7)?)?,
        };
        Ok((row.must::<pg_sys::Oid>(2)?.to_u32(), row.must::<bool>(5)?, leaf))
    })?;
    for (root, partitioned, leaf) in tables {
        let leaves = hierarchies.entry(root).or_default();
        if !partitioned {
            leaves.push(leaf);
        }
    }
    let references: Vec<(u32, u32)> = query::rows(REFERENCES, &[], |row| {
        Ok((row.must::<pg_sys::Oid>(1)?.to_u32(), row.must::<pg_sys::Oid>(2)?.to_u32()))
    })?;
    let roots: Vec<u32> = hierarchies.keys().copied().collect();
    Ok(order(&roots, &references)
        .into_iter()
        .map(|circle| {
            let circular = references.iter().any(|(from, to)| circle.contains(from) && circle.contains(to));
            let leaves = circle.iter().flat_map(|root| hierarchies.remove(root).unwrap_or_default()).collect();
            Group { leaves, circular }
        })
        .collect())
}

/// Sorts tables so that each comes after those that refer to it; tables that refer to each other in a circle stay together.
pub fn order<T: Copy + Ord>(tables: &[T], references: &[(T, T)]) -> Vec<Vec<T>> {
    let reachable = |from: T| {
        let mut found = vec![from];
        let mut next = 0;
        while let Some(table) = found.get(next).copied() {
            for (source, target) in references {
                if *source == table && !found.contains(target) {
                    found.push(*target);
                }
            }
            next += 1;
        }
        found
    };
    let reach: BTreeMap<T, Vec<T>> = tables.iter().map(|table| (*table, reachable(*table))).collect();
    let mut left: Vec<T> = tables.to_vec();
    let mut ordered = Vec::new();
    while let Some(first) = left.first().copied() {
        // Walk up the references until nothing outside the circle refers to it.
        let mut circle = circle_of(first, &left, &reach);
        while let Some((outside, _)) =
            references.iter().find(|(from, to)| circle.contains(to) && !circle.contains(from) && left.contains(from))
        {
            circle = circle_of(*outside, &left, &reach);
        }
        left.retain(|table| !circle.contains(table));
        ordered.push(circle);
    }
    ordered
}

/// The tables that `table` reaches and that reach it, itself included.
fn circle_of<T: Copy + Ord>(table: T, left: &[T], reach: &BTreeMap<T, Vec<T>>) -> Vec<T> {
    left.iter().copied().filter(|other| reach[&table].contains(other) && reach[other].contains(&table)).collect()
}

/// Removes one tenant's rows, a batch at a time, so that the caller can commit in between.
pub struct Eraser {
    tenant: Uuid,
    groups: Vec<Group>,
    group: usize,
    leaf: usize,
    round: u32,
    erased_in_round: u64,
}

impl Eraser {
    pub fn new(tenant: Uuid) -> Result<Self> {
        let groups = role::as_extension_owner(groups)?;
        Ok(Self { tenant, groups, group: 0, leaf: 0, round: 1, erased_in_round: 0 })
    }

    pub fn tenant(&self) -> Uuid {
        self.tenant
    }

    /// Removes the next batch: whether there may be more to remove, and what was removed now.
    pub fn batch(&mut self) -> Result<(bool, Erased)> {
        check_constraints_now()?;
        let mut erased = Erased::new();
        let mut budget = BATCH;
        while budget > 0 {
            let Some(group) = self.groups.get(self.group) else {
                let again = self.erased_in_round > 0 && self.round < ROUNDS;
                (self.group, self.leaf, self.round, self.erased_in_round) = (0, 0, self.round + 1, 0);
                return Ok((again, erased));
            };
            let removed = if group.circular {
                self.group += 1;
                erase_circle(&group.leaves, self.tenant, &mut erased)?
            } else if let Some(leaf) = group.leaves.get(self.leaf) {
                let removed = leaf.erase_some(self.tenant, budget)?;
                add(&mut erased, leaf, removed);
                if removed < budget {
                    self.leaf += 1;
                }
                removed
            } else {
                (self.group, self.leaf) = (self.group + 1, 0);
                0
            };
            self.erased_in_round += removed;
            budget = budget.saturating_sub(removed);
        }
        Ok((true, erased))
    }
}

/// Makes deferred constraints fire with the statement that causes them: at commit, they would run with the caller's rights, and fail
/// where nobody catches it.
pub fn check_constraints_now() -> Result<()> {
    query::statement("SET CONSTRAINTS ALL IMMEDIATE", &[]).map(drop)
}

/// A protected table that has a row of the tenant.
pub fn table_with_rows(tenant: Uuid) -> Result<Option<String>> {
    for leaf in role::as_extension_owner(groups)?.into_iter().flat_map(|group| group.leaves) {
        if leaf.has_rows(tenant)? {
            return Ok(Some(leaf.name));
        }
    }
    Ok(None)
}

/// Fails when a protected table still has a row of the tenant.
pub fn verify(tenant: Uuid) -> Result<()> {
    match table_with_rows(tenant)? {
        Some(table) => Err(Error::Unprotectable(
            format!("rows of the tenant remain in {table}"),
            "A trigger or a policy of the table keeps them, or something goes on writing. Mend that, then CALL purge_tenant() again."
                .to_owned(),
        )),
        None => Ok(()),
    }
}
