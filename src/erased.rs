//! What a tenant that goes has left, counted by table.

use crate::error::Result;
use crate::query;
use pgrx::Uuid;
use std::collections::BTreeMap;

/// Rows removed, by table.
pub type Erased = BTreeMap<String, u64>;

/// Runs statements that each take the tenant; what is deleted is counted under the table's name.
pub fn run(statements: &[&'static str], tenant: Uuid, erased: &mut Erased) -> Result<()> {
    for statement in statements {
        let rows = query::run(statement, &[tenant.into()])?;
        if let Some(rest) = statement.strip_prefix("DELETE FROM ") {
            add(erased, rest.split_whitespace().next().unwrap_or_default(), rows);
        }
    }
    Ok(())
}

pub fn add(erased: &mut Erased, table: &str, rows: u64) {
    if rows > 0 {
        *erased.entry(table.to_owned()).or_default() += rows;
    }
}
