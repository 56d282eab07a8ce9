//! What is asked of an adoption.

use crate::context::registry::{self, Isolation};
use crate::error::{Error, Result};
use crate::isolation::keys::Keys;
use crate::sqltype::Name;
use pgrx::Uuid;

const MAX_COLUMN_NAME: usize = 63;
const MAX_BATCH: i32 = 1_000_000;

impl Keys {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Natural => "natural",
            Self::All => "all",
            Self::None => "none",
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        [Self::Natural, Self::All, Self::None].into_iter().find(|keys| keys.name() == name).ok_or_else(|| {
            let name: String = name.chars().take(63).collect();
            Error::invalid(
                format!("\"{name}\" does not say which keys become keys of each tenant"),
                "natural: all but generated ones. all: every unique and primary key. none: no key.",
            )
        })
    }
}

/// The call's arguments, checked.
pub struct Request {
    /// Whose the existing rows are; None for a plan that leaves it open.
    pub tenant: Option<Uuid>,
    pub column: String,
    pub keys: Keys,
    /// Whether the tables are put under the guard at the end.
    pub protect: bool,
    /// Rows that one transaction fills in.
    pub batch: i32,
}

impl Request {
    pub fn check(tenant: Option<Uuid>, column: Option<Name>, keys: Option<&str>) -> Result<Self> {
        let Name(column) = column.ok_or(Error::Null("tenant_column"))?;
        if column.is_empty() || column.len() > MAX_COLUMN_NAME {
            return Err(Error::invalid("the tenant column needs a name", ""));
        }
        let keys = Keys::from_name(keys.ok_or(Error::Null("keys"))?)?;
        if let Some(tenant) = tenant {
            let found = registry::find(tenant)?.ok_or_else(|| Error::unknown_tenant(tenant))?;
            found.admit(true)?;
            if found.isolation != Isolation::Row {
                return Err(Error::State(
                    format!("tenant \"{tenant}\" does not live in tables that tenants share"),
                    "Rows are adopted by a tenant of isolation row.",
                ));
            }
        }
        Ok(Self { tenant, column, keys, protect: true, batch: MAX_BATCH })
    }

    /// With what only the procedures are told.
    pub fn for_call(self, protect: Option<bool>, batch_size: Option<i32>) -> Result<Self> {
        let protect = protect.ok_or(Error::Null("protect"))?;
        let batch = batch_size.ok_or(Error::Null("batch_size"))?;
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(Error::invalid(format!("batch_size must be from 1 to {MAX_BATCH}, not {batch}"), ""));
        }
        Ok(Self { protect, batch, ..self })
    }

    /// The tenant as a literal, or what stands for it in a plan that leaves it open.
    pub fn tenant_literal(&self) -> String {
        self.tenant.map_or_else(|| "'<tenant>'".to_owned(), |tenant| format!("'{tenant}'"))
    }
}
