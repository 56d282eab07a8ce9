//! Rows and positions of sequences, as they are at one moment, while others go on writing.

use super::plan::{Plan, Position, Rows};
use crate::error::{Error, Result};
use crate::query::{self, ident, literal};
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
    /// Whether a table of this name, a part of those above, gets its rows.
    pub fn includes(&self, table: &str, above: &[String]) -> bool {
        match self {
            Self::Tables(names) => names.iter().any(|name| name == table || above.contains(name)),
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
    let wanted: Vec<&Rows> = plan.rows.iter().filter(|table| data.includes(&table.name, &table.part_of)).collect();
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
        if let Some((value, is_called)) = position.read(source)? {
            position.set(destination, &value, is_called)?;
        }
    }
    Ok(())
}

impl Position {
    /// Where the sequence stands in a schema: its last value, and whether that was given to someone.
    pub fn read(&self, schema: &str) -> Result<Option<(String, bool)>> {
        let name = ident(&self.name);
        let read = format!("SELECT pg_catalog.concat_ws(',', last_value, is_called) FROM {}.{name}", ident(schema));
        let place: Vec<Option<String>> = role::as_owner(self.owner, || query::current_column(&read, &[]))?;
        let place = place.iter().flatten().find_map(|place| place.split_once(','));
        Ok(place.map(|(value, is_called)| (value.to_owned(), is_called == "t")))
    }

    pub fn set(&self, schema: &str, value: &str, is_called: bool) -> Result<()> {
        let sequence = literal(&format!("{}.{}", ident(schema), ident(&self.name)));
        let set = format!("SELECT pg_catalog.setval({sequence}, {}, {is_called})", literal(value));
        role::as_owner(self.owner, || query::statement(&set, &[])).map(drop)
    }
}

const MAY_READ: &str = "SELECT pg_catalog.has_table_privilege($1, $2, 'SELECT')";

fn copy_table(source: &str, destination: &str, table: &Rows, moment: &Moment) -> Result<()> {
    let (columns, values): (Vec<&str>, Vec<&str>) =
        table.columns.iter().map(|(name, value)| (name.as_str(), value.as_str())).unzip();
    let (columns, values) = (columns.join(", "), values.join(", "));
    let (role, name) = (relation::role_name(table.owner), ident(&table.name));
    let (original, copy) = (format!("{}.{name}", ident(source)), format!("{}.{name}", ident(destination)));
    let sql = match columns.as_str() {
        "" => format!("INSERT INTO {copy} SELECT FROM ONLY {original}"),
        columns => {
            format!("INSERT INTO {copy} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM ONLY {original}")
        }
    };
    // An owner may have taken the right from themselves.
    let may_read = query::value::<bool>(MAY_READ, &[table.owner.into(), table.oid.into()])? == Some(true);
    let lend = |verb: &str, preposition: &str| {
        let sql = format!("{verb} SELECT ON {original} {preposition} {role}");
        if may_read { Ok(0) } else { role::as_owner(table.owner, || query::statement(&sql, &[])) }
    };
    lend("GRANT", "TO")?;
    role::as_owner_of_all_rows(table.owner, || execute(&sql, moment.0))?;
    lend("REVOKE", "FROM")?;
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
