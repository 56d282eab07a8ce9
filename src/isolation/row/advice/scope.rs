//! The tables that advice is given on.

use super::super::inspect::{self, Table, TenantType};
use super::super::registry;
use super::search::Search;
use crate::error::{Error, Result};
use crate::isolation::keys::foreign_key::{self, ForeignKey};
use crate::isolation::keys::index::{self, Index};
use crate::query::{self, literal};
use pgrx::pg_sys;
use std::collections::HashMap;

/// Those that are still there.
const PROTECTED: &str =
    "SELECT p.table_name::oid, p.root::oid, p.tenant_column::text, p.tenant_type FROM tenancy.protected_tables p
    JOIN pg_catalog.pg_class c ON c.oid = p.table_name ORDER BY p.root::oid, p.table_name::oid";

pub struct Member {
    pub table: Table,
    /// The tenant column.
    pub column: String,
    /// Whether advice is given on it, or on a table that it is a part of; others are parents of their foreign keys.
    pub is_asked: bool,
    pub indexes: Vec<Index>,
    pub searches: Vec<Search>,
}

pub struct Scope {
    pub members: Vec<Member>,
    /// The tenant columns of all protected tables.
    columns: HashMap<u32, (String, TenantType)>,
    pub keys: Vec<ForeignKey>,
}

impl Scope {
    /// The protected table and all that inherits from it, and what that belongs to; every protected table for None.
    pub fn find(table: Option<pg_sys::Oid>) -> Result<Self> {
        let root = table.map(root_of).transpose()?;
        let protected: Vec<(pg_sys::Oid, pg_sys::Oid, String, TenantType)> = query::rows(PROTECTED, &[], |row| {
            Ok((row.must(1)?, row.must(2)?, row.must(3)?, TenantType::from_name(&row.must::<String>(4)?)?))
        })?;
        let mut roots: Vec<pg_sys::Oid> = protected.iter().map(|(_, root, ..)| *root).collect();
        roots.dedup();
        roots.retain(|own| root.is_none_or(|root| root == *own));
        let columns =
            protected.into_iter().map(|(oid, _, column, tenant_type)| (oid.to_u32(), (column, tenant_type))).collect();
        let mut scope = Self { members: Vec::new(), columns, keys: Vec::new() };
        for root in roots {
            scope.add(root, true)?;
        }
        scope.keys = foreign_key::of_tables(scope.members.iter().map(|member| member.table.oid).collect())?;
        for parent in scope.keys.iter().map(|key| key.parent).collect::<Vec<_>>() {
            if scope.columns.contains_key(&parent.to_u32()) && scope.member(parent).is_none() {
                scope.add(parent, false)?;
            }
        }
        Ok(scope)
    }

    fn add(&mut self, root: pg_sys::Oid, is_asked: bool) -> Result<()> {
        let Some(column) = self.column_of(root).map(str::to_owned) else { return Ok(()) };
        let mut tables = inspect::hierarchy(root)?;
        // All of a hierarchy have the column; and a partition may have come before the whole.
        tables.retain(|table| self.column_of(table.oid).is_some() && self.member(table.oid).is_none());
        let oids: Vec<pg_sys::Oid> = tables.iter().map(|table| table.oid).collect();
        let mut indexes: HashMap<u32, Vec<Index>> = HashMap::new();
        for index in index::of_tables(oids.clone(), &column)? {
            indexes.entry(index.table.to_u32()).or_default().push(index);
        }
        let searches = if is_asked { Search::of_tables(oids, &column)? } else { Vec::new() };
        let mut searched: HashMap<u32, Vec<Search>> = HashMap::new();
        for search in searches {
            searched.entry(search.table.to_u32()).or_default().push(search);
        }
        self.members.extend(tables.into_iter().map(|table| {
            let oid = table.oid.to_u32();
            let (indexes, searches) =
                (indexes.remove(&oid).unwrap_or_default(), searched.remove(&oid).unwrap_or_default());
            Member { table, column: column.clone(), is_asked, indexes, searches }
        }));
        Ok(())
    }

    pub fn member(&self, table: pg_sys::Oid) -> Option<&Member> {
        self.members.iter().find(|member| member.table.oid == table)
    }

    pub fn column_of(&self, table: pg_sys::Oid) -> Option<&str> {
        self.columns.get(&table.to_u32()).map(|(column, _)| column.as_str())
    }

    /// Whether the tenant columns of two tables are of one type.
    pub fn are_alike(&self, one: pg_sys::Oid, other: pg_sys::Oid) -> bool {
        let [one, other] = [one, other].map(|table| self.columns.get(&table.to_u32()).map(|(_, kind)| *kind));
        one == other
    }
}

fn root_of(table: pg_sys::Oid) -> Result<pg_sys::Oid> {
    if let Some(protection) = registry::registered(table)? {
        return Ok(protection.root);
    }
    let name = inspect::hierarchy(table)?.swap_remove(0).name;
    Err(Error::Unprotectable(format!("{name} is not protected"), format!("SELECT protect_table({});", literal(&name))))
}
