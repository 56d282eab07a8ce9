//! Rows and positions of sequences, as they are at one moment, while others go on writing.

use super::Schema;
use super::plan::{Plan, Position, Rows};
use crate::error::{Error, Result};
use crate::guard;
use crate::query::{self, ident, literal};
use crate::relation;
use crate::role;
use crate::row_file;
use crate::scratch::Scratch;
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

    /// Runs `work` with the snapshot as the active one.
    fn watch<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // SAFETY: popped below, or by PostgreSQL after an ERROR.
        unsafe { pg_sys::PushActiveSnapshot(self.0) };
        let result = work();
        // SAFETY: pops what was pushed.
        unsafe { pg_sys::PopActiveSnapshot() };
        result
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        // SAFETY: what now() registered.
        unsafe { pg_sys::UnregisterSnapshot(self.0) }
    }
}

/// The tables whose rows are wanted. Fails when one is named that is not there.
fn wanted<'a>(plan: &'a Plan, data: &Data) -> Result<Vec<&'a Rows>> {
    if let Data::Tables(names) = data
        && let Some(unknown) = names.iter().find(|name| !plan.rows.iter().any(|table| table.is_of(name)))
    {
        return Err(Error::Unknown("table", format!("{}.{}", ident(&plan.source), ident(unknown))));
    }
    Ok(plan.rows.iter().filter(|table| data.includes(&table.name, &table.part_of)).collect())
}

/// Fills the copy, whose tables exist and have no triggers yet.
pub fn copy(source: &str, destination: &str, plan: &Plan, data: &Data) -> Result<()> {
    let wanted = wanted(plan, data)?;
    {
        let moment = Moment::now();
        for table in &wanted {
            copy_table(source, destination, table, &moment)?;
        }
    }
    // Positions are not part of a snapshot: read after it, none is behind the rows.
    positions(plan, &wanted, data)?.iter().try_for_each(|place| place.take(destination))
}

/// Rows of a table in a file, as [`row_file`] writes them.
pub struct File {
    /// The table, and the columns in the order of the file, as they are named.
    pub table: String,
    pub columns: Vec<String>,
    pub rows: Scratch,
}

/// Writes the rows that a copy gets to files, for another database; and the positions of sequences that it gets.
pub fn unload(source: &Schema, plan: &Plan, data: &Data) -> Result<(Vec<File>, Vec<Place>)> {
    guard::schema::while_working_on(&[source.oid], || {
        let wanted = wanted(plan, data)?;
        let moment = Moment::now();
        let write = |table: &&Rows| unload_table(&source.name, table, &moment);
        let files: Vec<File> = wanted.iter().map(write).collect::<Result<_>>()?;
        drop(moment);
        Ok((files, positions(plan, &wanted, data)?))
    })
}

/// How far a sequence is.
pub struct Place {
    pub sequence: String,
    pub owner: pg_sys::Oid,
    pub value: i64,
    pub is_called: bool,
}

impl Place {
    /// Where a sequence is.
    pub fn of(schema: &str, sequence: &str, owner: pg_sys::Oid) -> Result<Option<Self>> {
        let name = format!("{}.{}", ident(schema), ident(sequence));
        let read = format!("SELECT pg_catalog.concat_ws(',', last_value, is_called) FROM {name}");
        let place: Vec<Option<String>> = role::as_owner(owner, || query::current_column(&read, &[]))?;
        let place = place.iter().flatten().find_map(|place| place.split_once(','));
        let Some((Ok(value), is_called)) = place.map(|(value, is_called)| (value.parse(), is_called == "t")) else {
            return Ok(None);
        };
        Ok(Some(Self { sequence: sequence.to_owned(), owner, value, is_called }))
    }

    /// Puts the sequence of this name of a schema there.
    pub fn take(&self, schema: &str) -> Result<()> {
        let name = literal(&format!("{}.{}", ident(schema), ident(&self.sequence)));
        let set = format!("SELECT pg_catalog.setval({name}, {}, {})", self.value, self.is_called);
        role::as_owner(self.owner, || query::statement(&set, &[])).map(drop)
    }
}

fn positions(plan: &Plan, wanted: &[&Rows], data: &Data) -> Result<Vec<Place>> {
    let includes = |position: &&Position| match &position.table {
        _ if *data == Data::All => true,
        Some(table) => wanted.iter().any(|rows| rows.is_of(table)),
        None => false,
    };
    let mut places = Vec::new();
    for position in plan.positions.iter().filter(includes) {
        places.extend(Place::of(&plan.source, &position.name, position.owner)?);
    }
    Ok(places)
}

const MAY_READ: &str = "SELECT pg_catalog.has_table_privilege($1, $2, 'SELECT')";

/// Runs `work` as the owner of a table, who may have taken the right to read it from themselves, and sees every row.
fn as_reader<T>(table: &Rows, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let role = relation::role_name(table.owner);
    let may_read = query::value::<bool>(MAY_READ, &[table.owner.into(), table.oid.into()])? == Some(true);
    let lend = |verb: &str, preposition: &str| {
        let sql = format!("{verb} SELECT ON {name} {preposition} {role}");
        if may_read { Ok(0) } else { role::as_owner(table.owner, || query::statement(&sql, &[])) }
    };
    lend("GRANT", "TO")?;
    let result = role::as_owner_of_all_rows(table.owner, work)?;
    lend("REVOKE", "FROM")?;
    Ok(result)
}

fn copy_table(source: &str, destination: &str, table: &Rows, moment: &Moment) -> Result<()> {
    let (columns, values): (Vec<&str>, Vec<&str>) =
        table.columns.iter().map(|(name, value)| (name.as_str(), value.as_str())).unzip();
    let (columns, values) = (columns.join(", "), values.join(", "));
    let name = ident(&table.name);
    let (original, copy) = (format!("{}.{name}", ident(source)), format!("{}.{name}", ident(destination)));
    let sql = match columns.as_str() {
        "" => format!("INSERT INTO {copy} SELECT FROM ONLY {original}"),
        columns => {
            format!("INSERT INTO {copy} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM ONLY {original}")
        }
    };
    as_reader(table, &original, || execute(&sql, moment.0))
}

fn unload_table(source: &str, table: &Rows, moment: &Moment) -> Result<File> {
    let name = format!("{}.{}", ident(source), ident(&table.name));
    let columns: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
    let sql = format!("SELECT {} FROM ONLY {name}", columns.join(", "));
    let rows = Scratch::new()?;
    as_reader(table, &name, || moment.watch(|| row_file::unload(&sql, rows.path())))?;
    Ok(File { table: table.name.clone(), columns: table.names.clone(), rows })
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
