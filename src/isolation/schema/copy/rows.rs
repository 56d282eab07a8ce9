//! Rows and positions of sequences, as they are at one moment, while others go on writing.

use super::plan::{Plan, Position, Rows};
use crate::error::{Error, Result};
use crate::query::{self, ident};
use crate::relation;
use crate::role;
use pgrx::pg_sys;
use std::ffi::CString;

/// Which rows a copy gets.
#[derive(Clone, PartialEq, Eq)]
pub enum Data {
    /// Those of the tables of these names: a template's reference rows.
    Tables(Vec<String>),
    All,
}

impl Data {
    fn includes(&self, table: &Rows) -> bool {
        match self {
            Self::Tables(names) => names.iter().any(|name| table.is_of(name)),
            Self::All => true,
        }
    }
}

/// One snapshot for all tables, so that rows that refer to each other fit together.
struct Moment(pg_sys::Snapshot);

impl Moment {
    fn now() -> Self {
        // SAFETY: registered with the current resource owner, and given back by drop or by the end of the transaction.
        Self(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()) })
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        // SAFETY: what now() registered.
        unsafe { pg_sys::UnregisterSnapshot(self.0) }
    }
}

/// Fills the copy, whose tables exist and have no triggers yet.
pub fn copy(source: &str, destination: &str, plan: &Plan, data: &Data) -> Result<()> {
    let wanted: Vec<&Rows> = plan.rows.iter().filter(|table| data.includes(table)).collect();
    if let Data::Tables(names) = data
        && let Some(unknown) = names.iter().find(|name| !plan.rows.iter().any(|table| table.is_of(name)))
    {
        return Err(Error::Unknown("table", format!("{}.{}", ident(source), ident(unknown))));
    }
    {
        let moment = Moment::now();
        for table in &wanted {
            copy_table(source, destination, table, &moment)?;
        }
    }
    // Positions are not part of a snapshot: read after it, none is behind the rows.
    let includes = |position: &&Position| match &position.table {
        _ if *data == Data::All => true,
        Some(table) => wanted.iter().any(|rows| rows.is_of(table)),
        None => false,
    };
    for position in plan.positions.iter().filter(includes) {
        let name = ident(&position.name);
        let new = query::literal(&format!("{}.{name}", ident(destination)));
        let sql = format!(
            "SELECT pg_catalog.setval({new}::pg_catalog.regclass, last_value, is_called) FROM {}.{name}",
            ident(source)
        );
        query::statement(&sql, &[])?;
    }
    Ok(())
}

/// The view by which an owner reads a table of theirs that they have taken the right to read from themselves.
const WINDOW: &str = "pg_tenancy_window";
const MAY_READ: &str = "SELECT pg_catalog.has_table_privilege($1, $2, 'SELECT')";

fn copy_table(source: &str, destination: &str, table: &Rows, moment: &Moment) -> Result<()> {
    let (columns, values): (Vec<&str>, Vec<&str>) =
        table.columns.iter().map(|(name, value)| (name.as_str(), value.as_str())).unzip();
    let (columns, values) = (columns.join(", "), values.join(", "));
    let (role, name) = (relation::role_name(table.owner), ident(&table.name));
    let (original, copy) = (format!("{}.{name}", ident(source)), format!("{}.{name}", ident(destination)));
    let window = format!("{}.{WINDOW}", ident(destination));
    let may_read = query::value::<bool>(MAY_READ, &[table.owner.into(), table.oid.into()])? == Some(true);
    let is_lent = table.maker != table.owner;
    if is_lent {
        query::statement(&format!("GRANT INSERT ON {copy} TO {role}"), &[])?;
    }
    let from = if may_read {
        format!("ONLY {original}")
    } else {
        query::statement(&format!("CREATE VIEW {window} AS SELECT {columns} FROM ONLY {original}"), &[])?;
        query::statement(&format!("GRANT SELECT ON {window} TO {role}"), &[])?;
        window.clone()
    };
    let sql = match columns.as_str() {
        "" => format!("INSERT INTO {copy} SELECT FROM {from}"),
        columns => format!("INSERT INTO {copy} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {from}"),
    };
    role::as_owner_of_all_rows(table.owner, || execute(&sql, moment.0))?;
    if !may_read {
        query::statement(&format!("DROP VIEW {window}"), &[])?;
    }
    if is_lent {
        query::statement(&format!("REVOKE INSERT ON {copy} FROM {role}"), &[])?;
    }
    Ok(())
}

/// Runs a statement that reads with the given snapshot.
fn execute(sql: &str, snapshot: pg_sys::Snapshot) -> Result<()> {
    let sql = CString::new(sql).map_err(|_| Error::Internal("a statement has a zero byte".to_owned()))?;
    // SAFETY: a connection that is closed below, or by the end of the transaction on an ERROR; the plan lives as long as the connection; the
    // snapshot is registered.
    unsafe {
        pg_sys::SPI_connect();
        let plan = pg_sys::SPI_prepare(sql.as_ptr(), 0, std::ptr::null_mut());
        let code = if plan.is_null() {
            pg_sys::SPI_result
        } else {
            pg_sys::SPI_execute_snapshot(
                plan,
                std::ptr::null_mut(),
                std::ptr::null(),
                snapshot,
                std::ptr::null_mut(),
                false,
                true,
                0,
            )
        };
        pg_sys::SPI_finish();
        if code < 0 { Err(Error::Internal(format!("SPI: {code}"))) } else { Ok(()) }
    }
}
