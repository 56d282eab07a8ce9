//! Which table's rows go where: to the table of the same name, column by column. What would be lost is refused before anything is changed.

use super::tables::{Column, Digest, Table};
use crate::error::{Error, Result};
use crate::isolation::row::inspect::TenantType;
use crate::query::ident;
use crate::scratch::Scratch;
use pgrx::Uuid;
use std::collections::{BTreeMap, HashMap};

/// Where rows come from.
pub enum Origin {
    /// A table of this database.
    Here(Table),
    /// One of the tenant's own database, whose rows are in a file.
    There(Sent),
}

/// What another database has sent of a table.
pub struct Sent {
    pub name: String,
    pub full_name: String,
    pub file: Scratch,
    pub digest: Digest,
    /// Of a table of no tenant: a number for each row.
    pub hashes: Vec<i64>,
}

impl Origin {
    pub fn name(&self) -> &str {
        match self {
            Self::Here(table) => &table.name,
            Self::There(sent) => &sent.name,
        }
    }

    /// Schema-qualified and quoted.
    pub fn full_name(&self) -> &str {
        match self {
            Self::Here(table) => &table.full_name,
            Self::There(sent) => &sent.full_name,
        }
    }

    pub fn table(&self) -> Option<&Table> {
        match self {
            Self::Here(table) => Some(table),
            Self::There(_) => None,
        }
    }

    pub fn digest(&self, tenant: Uuid, columns: &[String]) -> Result<Digest> {
        match self {
            Self::Here(table) => table.digest(tenant, columns),
            Self::There(sent) => Ok(sent.digest.clone()),
        }
    }

    pub fn hashes(&self, columns: &[String]) -> Result<Vec<i64>> {
        match self {
            Self::Here(table) => table.hashes(columns),
            Self::There(sent) => Ok(sent.hashes.clone()),
        }
    }
}

/// A table whose rows are moved, and where they go.
pub struct Pair {
    pub source: Origin,
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

    /// From the tables of a tenant's own schema to these: to shared ones, or to those of another schema, which are all the tenant's.
    pub fn of_own(own: Vec<Table>, targets: &[Table], tenant: Uuid, are_shared: bool) -> Result<Self> {
        let mut pairs = Self { moved: Vec::new(), compared: Vec::new() };
        let targets: BTreeMap<&str, &Table> = targets.iter().map(|table| (table.name.as_str(), table)).collect();
        for source in own {
            match targets.get(source.name.as_str()) {
                Some(target) => {
                    let pair = Pair::new(source, (*target).clone(), tenant)?;
                    if are_shared && pair.target.tenant.is_none() {
                        pairs.compared.push(pair);
                    } else {
                        pair.check_tenant(tenant)?;
                        pairs.moved.push(pair);
                    }
                }
                None if source.has_rows(tenant)? => {
                    let place = if are_shared { "among the shared tables" } else { "in the template" };
                    return Err(homeless(&source, place));
                }
                None => {}
            }
        }
        Ok(pairs)
    }

    /// The tables of this database that rows are moved out of.
    pub fn sources(&self) -> Vec<&Table> {
        self.moved.iter().filter_map(|pair| pair.source.table()).collect()
    }

    /// Those that they are moved into.
    pub fn targets(&self) -> Vec<&Table> {
        self.moved.iter().map(|pair| &pair.target).collect()
    }

    /// Fails where the tenant has rows of its own in a table of no tenant.
    pub fn compare(&self) -> Result<()> {
        for Pair { source, target, columns } in &self.compared {
            let own = source.hashes(columns)?;
            if own.is_empty() {
                continue;
            }
            // Two rows that are the same are two.
            let mut missing: HashMap<i64, usize> = HashMap::new();
            own.into_iter().for_each(|row| *missing.entry(row).or_default() += 1);
            for row in target.hashes(columns)? {
                if let Some(number) = missing.get_mut(&row) {
                    *number = number.saturating_sub(1);
                }
            }
            if missing.values().any(|number| *number > 0) {
                return Err(Error::Unprotectable(
                    format!("{} has rows that {} lacks", source.full_name(), target.full_name),
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
        Ok(Self { source: Origin::Here(source), target, columns })
    }

    /// Two tables of no tenant.
    pub fn between(source: Table, target: Table) -> Self {
        let is_common = |column: &&Column| !column.is_generated && source.column(&column.name).is_some();
        let columns = target.columns.iter().filter(is_common).map(|column| column.name.clone()).collect();
        Self { source: Origin::Here(source), target, columns }
    }

    /// Fails where a row of the tenant's own table says that it is another tenant's.
    fn check_tenant(&self, tenant: Uuid) -> Result<()> {
        let Some(((column, kind), source)) = self.target.tenant.as_ref().zip(self.source.table()) else {
            return Ok(());
        };
        if source.column(column).is_none() || !source.has_strangers(tenant, column, *kind)? {
            return Ok(());
        }
        Err(Error::Unprotectable(
            format!("{} has rows in which column {} is not the tenant", source.full_name, ident(column)),
            format!("Correct them: the rows of {} belong to whom that column names.", self.target.full_name),
        ))
    }

    /// The column of the target that the source has not got, and every row gets the tenant in.
    pub fn missing_tenant(&self) -> Option<(&str, TenantType)> {
        let (column, kind) = self.target.tenant.as_ref()?;
        (!self.columns.contains(column)).then_some((column, *kind))
    }
}
