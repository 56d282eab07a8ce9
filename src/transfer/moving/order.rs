//! What is to be moved where.

use super::held::Kept;
use super::record::Isolation;
use crate::context::registry::Status;
use crate::error::Error;
use pgrx::Uuid;
use std::cell::RefCell;

/// What there is to do about a key that another tenant has, too.
const KEY_OF_ALL: &str = "Each place gives numbers by itself: a key that rows are moved under is one of the tenant column and the number, or a uuid.";

/// A move that was written down and is to be performed.
pub struct Order {
    pub id: Uuid,
    pub tenant: Uuid,
    pub slug: String,
    pub from: Isolation,
    pub to: Isolation,
    /// The tenant's schema where it has one.
    pub schema: String,
    /// The template of the schema that it has or gets, and the schema of the shared tables that this corresponds to.
    pub template: String,
    pub shared: String,
    pub former: Status,
    /// The table that is being copied, for an error to name.
    pub at: RefCell<String>,
    pub _template: Kept,
}

impl Order {
    /// Remembers which table is being copied.
    pub fn note(&self, table: &str) {
        table.clone_into(&mut self.at.borrow_mut());
    }

    /// The error with the table that was being copied.
    pub fn name_table(&self, error: Error) -> Error {
        let table = self.at.borrow();
        match error {
            Error::Elsewhere { sqlstate, message, detail, hint } if !table.is_empty() => {
                let detail =
                    detail.map_or_else(|| format!("Table {table}."), |detail| format!("Table {table}: {detail}"));
                let hint = if sqlstate == "23505" { Some(KEY_OF_ALL.to_owned()) } else { hint };
                Error::Elsewhere { sqlstate, message, detail: Some(detail), hint }
            }
            error => error,
        }
    }
}
