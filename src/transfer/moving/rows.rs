//! Rows on their way: out of the one table into a file as its owner, and from there into the other one as its owner.

use super::pairs::Pair;
use super::record::{self, Moved};
use crate::error::{Error, Result};
use crate::query::{self, ident, literal};
use crate::scratch::Scratch;
use crate::{role, row_file};
use pgrx::Uuid;

impl Pair {
    /// Copies the tenant's rows; how many.
    pub fn copy(&self, tenant: Uuid) -> Result<u64> {
        let file = Scratch::new()?;
        let mut names = self.columns.clone();
        let mut values: Vec<String> = names.iter().map(|name| ident(name)).collect();
        if let Some(column) = self.missing_tenant() {
            names.push(column.to_owned());
            values.push(literal(&tenant.to_string()));
        }
        let wanted = self.source.condition(tenant).map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let select = format!("SELECT {} FROM {}{wanted}", values.join(", "), self.source.source());
        let (source, target) = (&self.source, &self.target);
        let rows =
            role::as_owner_of_all_rows(source.owner, || query::as_of_now(|| row_file::unload(&select, file.path())))?;
        role::as_owner_of_all_rows(target.owner, || row_file::load(target.oid, &names, file.path()))
            .map(|_| rows)
            .inspect(|rows| pgrx::debug1!("pg_tenancy copied {rows} rows of {}", source.full_name))
    }

    /// Copies the rows of a table that is no tenant's.
    pub fn copy_all(&self) -> Result<u64> {
        self.copy(Uuid::from_bytes([0; 16]))
    }

    /// Fails unless the rows are the same on both sides; how many they are.
    pub fn verify(&self, tenant: Uuid, copied: u64) -> Result<u64> {
        let (before, after) = (self.source.digest(tenant, &self.columns)?, self.target.digest(tenant, &self.columns)?);
        if before != after || before.rows != copied {
            return Err(Error::State(
                format!(
                    "the rows of {} differ from those that were copied to {} ({} and {} of them)",
                    self.source.full_name, self.target.full_name, before.rows, after.rows
                ),
                "Something wrote while they were copied that bypasses row security, or a column has another type there. Try again, or make the types the same.",
            ));
        }
        Ok(after.rows)
    }
}

/// What has been copied, to be verified.
pub struct Copied {
    pub rows: Vec<u64>,
    pub at: pgrx::datum::TimestampWithTimeZone,
}

/// Fails unless everything that was copied is the same on both sides.
pub fn verify(pairs: &[Pair], copied: &Copied, tenant: Uuid) -> Result<Moved> {
    let mut rows = Vec::new();
    for (pair, copied) in pairs.iter().zip(&copied.rows) {
        rows.push((pair.source.name.clone(), pair.verify(tenant, *copied)?));
    }
    Ok(Moved { rows, copied_at: copied.at, verified_at: record::now()? })
}
