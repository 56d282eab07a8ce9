//! Whether every row of a table belongs to a tenant that exists.

use super::inspect::{self, Table};
use crate::context::registry;
use crate::error::{Error, Result};
use crate::query::{self, ident};
use crate::role;
use crate::uuid;
use pgrx::Uuid;

/// Tenants that are named in an error.
const SHOWN: usize = 3;
/// How the values of a tenant column are found without reading every row, where an index is led by it: from each to the next.
const BY_INDEX: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_sort", "off"), ("max_parallel_workers_per_gather", "0")];

/// The different values of a tenant column, NULL included.
fn values(table: &Table, column: &str) -> Result<Vec<Option<String>>> {
    let (name, table_name) = (ident(column), &table.name);
    if !inspect::has_index(table, column)? {
        let sql = format!("SELECT DISTINCT {name}::pg_catalog.text FROM ONLY {table_name}");
        return role::as_owner_of_all_rows(table.owner, || query::current_column(&sql, &[]));
    }
    let sql = format!(
        "WITH RECURSIVE found(value) AS (
            (SELECT {name} FROM ONLY {table_name} WHERE {name} IS NOT NULL ORDER BY {name} LIMIT 1)
            UNION ALL SELECT (SELECT t.{name} FROM ONLY {table_name} t WHERE t.{name} OPERATOR(pg_catalog.>) f.value ORDER BY t.{name} LIMIT 1)
                FROM found f WHERE f.value IS NOT NULL
        ) SELECT value::pg_catalog.text FROM found WHERE value IS NOT NULL
        UNION ALL (SELECT NULL FROM ONLY {table_name} WHERE {name} IS NULL LIMIT 1)"
    );
    role::as_owner_of_all_rows(table.owner, || role::with_settings(BY_INDEX, || query::current_column(&sql, &[])))
}

/// Fails unless every row of `table` belongs to a tenant that exists: by its external id where `by_key`, and to none yet where `allow_null`.
pub fn rows(table: &Table, column: &str, by_key: bool, allow_null: bool) -> Result<()> {
    let found = values(table, column)?;
    let mut strangers = Vec::new();
    for value in found {
        match value {
            None if allow_null => {}
            None => strangers.push("NULL".to_owned()),
            Some(value) => {
                // A text column is compared with the canonical spelling and nothing else; a uuid is printed so.
                let known = match uuid::parse(value.as_bytes()) {
                    _ if by_key => registry::find_by_external_id(&value)?.is_some_and(|tenant| tenant.key.is_some()),
                    Some(id) => registry::find(Uuid::from_bytes(id))?.is_some(),
                    None => false,
                };
                if !known {
                    strangers.push(value);
                }
            }
        }
    }
    if strangers.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = strangers.iter().take(SHOWN).map(String::as_str).collect();
    let more = if strangers.len() > SHOWN { ", ..." } else { "" };
    Err(Error::Unprotectable(
        format!("{} has rows that belong to no known tenant: {}{more}", table.name, shown.join(", ")),
        format!(
            "Create the tenants with these ids (create_tenant(..., id => ...), or external_id => ... for keys of the application's own) or correct the rows: SELECT {0}, count(*) FROM {1} GROUP BY {0};",
            ident(column),
            table.name
        ),
    ))
}
