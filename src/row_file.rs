//! Rows of tables in files, as COPY writes and reads them: between databases of one server, and out of it.
//!
//! Unlike the COPY command these ask for no right to files, which the owner of a table need not have, and read into a table whatever its row
//! security says. The caller is the table's owner ([`crate::role::as_owner`]) and has looked at what it reads.

use crate::error::{Error, Result};
use crate::{raw, role, version};
use pgrx::pg_sys;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What the texts of values go by, whatever the session or the database has set.
const SETTINGS: [(&str, &str); 6] = [
    ("extra_float_digits", "3"),
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("bytea_output", "hex"),
    ("xmloption", "content"),
    ("client_encoding", "UTF8"),
];

fn c_text(text: &[u8]) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Internal("a name has a zero byte".to_owned()))
}

/// Runs `work` with what the texts of values go by.
pub fn with_settings<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    role::with_settings(SETTINGS, work)
}

/// Writes the rows of a query, as of the active snapshot; how many they were.
pub fn unload(query: &str, path: &Path) -> Result<u64> {
    let (query, path) = (c_text(query.as_bytes())?, c_text(path.as_os_str().as_bytes())?);
    with_settings(|| {
        // SAFETY: one statement, parsed here; C strings that outlive the call; the state is ended below, or with the transaction on an ERROR.
        unsafe {
            let statement = raw::elements::<pg_sys::RawStmt>(pg_sys::pg_parse_query(query.as_ptr())).next();
            let statement = statement.ok_or_else(|| Error::Internal("there is nothing to copy".to_owned()))?;
            let parsing = pg_sys::make_parsestate(std::ptr::null_mut());
            (*parsing).p_sourcetext = query.as_ptr();
            let state = version::begin_copy_to(parsing, statement, path.as_ptr());
            let rows = pg_sys::DoCopyTo(state);
            pg_sys::EndCopyTo(state);
            pg_sys::free_parsestate(parsing);
            Ok(rows)
        }
    })
}

/// Reads rows into a table: the columns named, in the order of the file; how many they were. Triggers fire as for any COPY.
pub fn load(table: pg_sys::Oid, columns: &[String], path: &Path) -> Result<u64> {
    let path = c_text(path.as_os_str().as_bytes())?;
    let columns: Vec<CString> = columns.iter().map(|column| c_text(column.as_bytes())).collect::<Result<_>>()?;
    with_settings(|| {
        // SAFETY: as COPY FROM does it: the table is open and locked until the transaction ends, and the only entry of the range table; names are
        // copied into the list.
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as _);
            let parsing = pg_sys::make_parsestate(std::ptr::null_mut());
            pg_sys::addRangeTableEntryForRelation(
                parsing,
                relation,
                pg_sys::RowExclusiveLock as _,
                std::ptr::null_mut(),
                false,
                false,
            );
            let mut names = std::ptr::null_mut();
            for column in &columns {
                names = pg_sys::lappend(names, pg_sys::makeString(pg_sys::pstrdup(column.as_ptr())).cast());
            }
            let (none, options) = (std::ptr::null_mut(), std::ptr::null_mut());
            let state = pg_sys::BeginCopyFrom(parsing, relation, none, path.as_ptr(), false, None, names, options);
            let rows = pg_sys::CopyFrom(state);
            pg_sys::EndCopyFrom(state);
            pg_sys::free_parsestate(parsing);
            pg_sys::table_close(relation, pg_sys::NoLock as _);
            pg_sys::CommandCounterIncrement();
            Ok(rows)
        }
    })
}
