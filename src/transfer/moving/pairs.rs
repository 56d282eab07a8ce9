//! Which table's rows go where: to the table of the same name, column by column. What would be lost is refused before anything is changed.

use super::tables::{Column, Table};
use crate::error::{Error, Result};
use crate::query::ident;
use pgrx::Uuid;
use std::collections::{BTreeMap, HashSet};

/// A table whose rows are moved, and where they go.
pub struct Pair {
    pub source: Table,
    pub target: Table,
    /// The columns that both have, as the target has them.
    pub columns: Vec<String>,
}

/// What is moved.
pub struct Pairs {
    pub moved: Vec<Pair>,
    /// Tables of no tenant that the target has already: every row of the source must be there.
    pub compared: Vec<Pair>,
}

impl Pairs {
    /// From shared tables to those of a schema.
    pub fn to_schema(shared: Vec<Table>, own: &[Table], tenant: Uuid, shared_schema: &str) -> Result<Self> {
        let mut moved = Vec::new();
        let prefix = format!("{}.", ident(shared_schema));
        for source in shared {
            let target = own.iter().find(|table| table.name == source.name);
            match target.filter(|_| source.full_name.starts_with(&prefix)) {
                Some(target) => moved.push(Pair::new(source, target.clone(), tenant)?),
                None if source.has_rows(tenant)? => return Err(homeless(&source, "in the template")),
                None => {}
            }
        }
        Ok(Self { moved, compared: Vec::new() })
    }

    /// From the tables of a schema to shared ones.
    pub fn to_rows(own: Vec<Table>, shared: &[Table], tenant: Uuid) -> Result<Self> {
        let mut pairs = Self { moved: Vec::new(), compared: Vec::new() };
        let mut shared: BTreeMap<&str, &Table> = shared.iter().map(|table| (table.name.as_str(), table)).collect();
        for source in own {
            match shared.remove(source.name.as_str()) {
                Some(target) => {
                    let pair = Pair::new(source, target.clone(), tenant)?;
                    if pair.target.tenant.is_some() {
                        pair.check_tenant(tenant)?;
                        pairs.moved.push(pair);
                    } else {
                        pairs.compared.push(pair);
                    }
                }
                None if source.has_rows(tenant)? => return Err(homeless(&source, "among the shared tables")),
                None => {}
            }
        }
        Ok(pairs)
    }

    /// Fails where the tenant has rows of its own in a table of no tenant.
    pub fn compare(&self) -> Result<()> {
        for Pair { source, target, columns } in &self.compared {
            let known: HashSet<i64> = target.hashes(columns)?.into_iter().collect();
            if source.hashes(columns)?.iter().any(|row| !known.contains(row)) {
                return Err(Error::Unprotectable(
                    format!("{} has rows that {} lacks", source.full_name, target.full_name),
                    format!(
                        "The rows of {} are no tenant's. Add the missing ones there, or remove them here.",
                        target.full_name
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn homeless(table: &Table, place: &str) -> Error {
    Error::Unprotectable(
        format!("{} has rows of the tenant, and there is no table \"{}\" {place}", table.full_name, table.name),
        "A move loses nothing: make the table there, or empty this one.".to_owned(),
    )
}

impl Pair {
    fn new(source: Table, target: Table, tenant: Uuid) -> Result<Self> {
        source.lock();
        let is_target = |column: &&Column| !column.is_generated;
        let columns: Vec<String> = target
            .columns
            .iter()
            .filter(is_target)
            .filter(|column| source.column(&column.name).is_some())
            .map(|column| column.name.clone())
            .collect();
        let is_tenant = |column: &Column| source.tenant.as_ref().is_some_and(|(name, _)| *name == column.name);
        for column in source.columns.iter().filter(|column| !column.is_generated) {
            if !columns.contains(&column.name) && !is_tenant(column) && source.has_values(tenant, column)? {
                return Err(Error::Unprotectable(
                    format!(
                        "column {} of {} has values of the tenant, and {} has no such column",
                        ident(&column.name),
                        source.full_name,
                        target.full_name
                    ),
                    "A move loses nothing: add the column there, or empty this one.".to_owned(),
                ));
            }
        }
        Ok(Self { source, target, columns })
    }

    /// Two tables of no tenant.
    pub fn between(source: Table, target: Table) -> Self {
        let is_common = |column: &&Column| !column.is_generated && source.column(&column.name).is_some();
        let columns = target.columns.iter().filter(is_common).map(|column| column.name.clone()).collect();
        Self { source, target, columns }
    }

    /// Fails where a row of the tenant's own table says that it is another tenant's.
    fn check_tenant(&self, tenant: Uuid) -> Result<()> {
        let Some((column, _)) = &self.target.tenant else { return Ok(()) };
        if self.source.column(column).is_none() || !self.source.has_strangers(tenant, column)? {
            return Ok(());
        }
        Err(Error::Unprotectable(
            format!("{} has rows in which column {} is not the tenant", self.source.full_name, ident(column)),
            format!("Correct them: the rows of {} belong to whom that column names.", self.target.full_name),
        ))
    }

    /// The column of the target that the source has not got, and every row gets the tenant in.
    pub fn missing_tenant(&self) -> Option<&str> {
        let (column, _) = self.target.tenant.as_ref()?;
        (!self.columns.contains(column)).then_some(column)
    }
}
