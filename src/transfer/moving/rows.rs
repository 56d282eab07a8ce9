//! Rows on their way: out of the one table into a file as its owner, and from there into the other one as its owner.

use super::pairs::{Origin, Pair};
use super::record::{self, Moved};
use super::tables::Table;
use crate::error::{Error, Result};
use crate::query::{self, ident, literal};
use crate::scratch::Scratch;
use crate::{role, row_file};
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use std::path::Path;

impl Pair {
    /// The columns of the file, in its order.
    pub fn names(&self) -> Vec<String> {
        self.columns.iter().map(String::as_str).chain(self.missing_tenant()).map(str::to_owned).collect()
    }

    /// Writes the tenant's rows of a table of this database to a file; how many.
    pub fn unload(&self, source: &Table, tenant: Uuid, path: &Path) -> Result<u64> {
        let mut values: Vec<String> = self.columns.iter().map(|name| ident(name)).collect();
        values.extend(self.tenant_to_add(tenant)?.map(|own| literal(&own)));
        let wanted = source.condition(tenant)?.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let select = format!("SELECT {} FROM {}{wanted}", values.join(", "), source.source());
        role::as_owner_of_all_rows(source.owner, || query::as_of_now(|| row_file::unload(&select, path)))
    }

    fn load(&self, path: &Path) -> Result<u64> {
        let Table { oid, owner, .. } = self.target;
        role::as_owner_of_all_rows(owner, || row_file::load(oid, &self.names(), path))
    }

    /// Copies the tenant's rows; how many.
    pub fn copy(&self, tenant: Uuid) -> Result<u64> {
        match &self.source {
            Origin::Here(source) => {
                let file = Scratch::new()?;
                self.unload(source, tenant, file.path())?;
                self.load(file.path())
            }
            Origin::There(sent) => self.load(sent.file.path()),
        }
    }

    /// Copies the rows of a table that is no tenant's.
    pub fn copy_all(&self) -> Result<u64> {
        self.copy(Uuid::from_bytes([0; 16]))
    }

    /// Fails unless the rows are the same on both sides; how many they are.
    fn verify(&self, tenant: Uuid, copied: u64) -> Result<u64> {
        let (before, after) = (self.source.digest(tenant, &self.columns)?, self.target.digest(tenant, &self.columns)?);
        if before == after && before.rows == copied {
            return Ok(after.rows);
        }
        Err(differ(self.source.full_name(), &self.target.full_name, before.rows, after.rows))
    }
}

/// What is said where two sides are not the same.
pub fn differ(from: &str, to: &str, before: u64, after: u64) -> Error {
    Error::State(
        format!("the rows of {from} differ from those that were copied to {to} ({before} and {after} of them)"),
        "Something wrote while they were copied that bypasses row security, or a column has another type there. Try again, or make the types the same.",
    )
}

/// What has been copied, to be verified.
pub struct Copied {
    pub rows: Vec<u64>,
    pub at: TimestampWithTimeZone,
}

/// Fails unless everything that was copied is the same on both sides.
pub fn verify(pairs: &[Pair], copied: &Copied, tenant: Uuid) -> Result<Moved> {
    let mut rows = Vec::new();
    for (pair, copied) in pairs.iter().zip(&copied.rows) {
        rows.push((pair.source.name().to_owned(), pair.verify(tenant, *copied)?));
    }
    Ok(Moved { rows, copied_at: copied.at, verified_at: record::now()? })
}
