//! Which tables are adopted.

use super::request::Request;
use crate::error::{Error, Result};
use crate::isolation::row::inspect::{self, Column, Table, TenantType};
use crate::isolation::row::registry;
use crate::label;
use crate::query;
use pgrx::pg_sys;
use std::collections::HashMap;

const SCHEMA: &str = "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::name";
/// Tables of a schema that inherit from none; those of extensions are not the application's.
const TABLES: &str = "SELECT c.oid, c.relname::text FROM pg_catalog.pg_class c
    WHERE c.relnamespace = $1 AND c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY c.relname";
/// What the references of a table to others depend on: the column and its type, of every protected table.
const PROTECTED: &str = "SELECT table_name::oid, tenant_column::text, tenant_type FROM tenancy.protected_tables";

/// A table that is adopted with everything that inherits from it.
pub struct Root {
    /// Itself first.
    pub members: Vec<Table>,
    pub column_name: String,
    /// The tenant column, where there is one.
    pub column: Option<Column>,
    pub is_protected: bool,
}

impl Root {
    pub fn table(&self) -> &Table {
        &self.members[0]
    }

    fn of(oid: pg_sys::Oid, request: &Request) -> Result<Self> {
        let members = inspect::hierarchy(oid)?;
        let protection = registry::registered(oid)?;
        if let Some(protection) = &protection
            && protection.column != request.column
        {
            return Err(Error::Unprotectable(
                format!("{} is protected by column {}", members[0].name, query::ident(&protection.column)),
                "Name that column, or call unprotect_table() first.".to_owned(),
            ));
        }
        let by_key = protection.as_ref().is_some_and(|protection| protection.tenant_type.is_key());
        let column = inspect::column(oid, &request.column, by_key)?;
        Ok(Self { members, column_name: request.column.clone(), column, is_protected: protection.is_some() })
    }
}

/// The tables of one call.
pub struct Scope {
    pub roots: Vec<Root>,
    /// The tenant columns of these tables and of those that are protected already.
    pub columns: HashMap<u32, (String, TenantType)>,
}

impl Scope {
    fn new(roots: Vec<Root>) -> Result<Self> {
        let mut columns: HashMap<u32, (String, TenantType)> = query::rows(PROTECTED, &[], |row| {
            Ok((row.must::<pg_sys::Oid>(1)?.to_u32(), (row.must(2)?, TenantType::from_name(&row.must::<String>(3)?)?)))
        })?
        .into_iter()
        .collect();
        for root in &roots {
            let tenant_type = root.column.as_ref().map_or(TenantType::Uuid, |column| column.tenant_type);
            for member in &root.members {
                columns.insert(member.oid.to_u32(), (root.column_name.clone(), tenant_type));
            }
        }
        Ok(Self { roots, columns })
    }

    /// One table.
    pub fn of_table(table: pg_sys::Oid, request: &Request) -> Result<Self> {
        let root = Root::of(table, request)?;
        inspect::refuse_open_parent(&inspect::hierarchy(root.table().oid)?)?;
        Self::new(vec![root])
    }

    /// Every table of a schema but those that tenants go on sharing.
    pub fn of_schema(schema: &str, shared: &[String], request: &Request) -> Result<Self> {
        let unknown = || Error::Unknown("schema", schema.to_owned());
        let oid: pg_sys::Oid = query::value(SCHEMA, &[schema.into()])?.ok_or_else(unknown)?;
        if schema.starts_with("pg_") || matches!(schema, "information_schema" | "tenancy") {
            return Err(Error::invalid(format!("schema \"{schema}\" is the system's"), ""));
        }
        if label::of_schema(oid).is_some() {
            return Err(Error::invalid(
                format!("schema \"{schema}\" is a tenant's or a template"),
                "Tables that tenants share are in a schema that is neither.",
            ));
        }
        let found: Vec<(pg_sys::Oid, String)> =
            query::rows(TABLES, &[oid.into()], |row| Ok((row.must(1)?, row.must(2)?)))?;
        if let Some(stranger) = shared.iter().find(|name| !found.iter().any(|(_, known)| known == *name)) {
            return Err(Error::Unknown("table", format!("{schema}.{stranger}")));
        }
        let roots = found.into_iter().filter(|(_, name)| !shared.contains(name));
        Self::new(roots.map(|(oid, _)| Root::of(oid, request)).collect::<Result<_>>()?)
    }

    /// Every table, the heirs included.
    pub fn members(&self) -> impl Iterator<Item = &Table> {
        self.roots.iter().flat_map(|root| &root.members)
    }

    /// The tenant column of a table that is a tenant's or becomes one.
    pub fn column_of(&self, table: pg_sys::Oid) -> Option<&str> {
        self.columns.get(&table.to_u32()).map(|(column, _)| column.as_str())
    }

    pub fn oids(&self) -> Vec<pg_sys::Oid> {
        self.members().map(|table| table.oid).collect()
    }
}
