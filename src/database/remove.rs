//! Taking a tenant's database away: whole, half made, or what a crash has left of one that never was.

use super::intent::{Intent, Phase};
use crate::error::{Error, Result};
use crate::fields;
use crate::guard::lock::{Mode, Subject};
use crate::home;
use crate::procedure::{self, Procedure};
use crate::query;
use crate::role;
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;

pub const ERRAND: Errand = Errand { name: "database.remove", run };

const TABLESPACES: &str = "SELECT oid FROM pg_catalog.pg_tablespace WHERE spcname <> 'pg_global'";

/// PostgreSQL's functions for the files of a database (storage/md.h, postmaster/bgwriter.h, access/xloginsert.h).
mod files {
    use super::{c_char, c_int, pg_sys};

    unsafe extern "C-unwind" {
        pub fn ForgetDatabaseSyncRequests(database: pg_sys::Oid);
        pub fn RequestCheckpoint(flags: c_int);
        pub fn XLogRegisterData(data: *const c_char, length: u32);
    }
}

/// CHECKPOINT_IMMEDIATE, CHECKPOINT_FORCE and CHECKPOINT_WAIT (access/xlog.h).
const CHECKPOINT_NOW: c_int = 0x0004 | 0x0008 | 0x0020;
/// The resource manager of databases (access/rmgrlist.h), its record of a drop (commands/dbcommands_xlog.h), and the mark of records that change
/// files other than by pages (access/xlogrecord.h).
const RM_DBASE_ID: u8 = 4;
const XLOG_DBASE_DROP: u8 = 0x20;
const XLR_SPECIAL_REL_UPDATE: u8 = 0x01;

/// Drops the tenant's database with everyone in it, and forgets it. Commits. False when there is none to forget.
pub fn demolish(procedure: &Procedure, tenant: Uuid) -> Result<bool> {
    let intent = procedure::caught(|| {
        role::as_extension_owner(|| {
            let intent = Intent::find(tenant)?;
            intent.as_ref().map_or(Ok(()), |intent| intent.advance(Phase::Dropping))?;
            Ok(intent)
        })
    })?;
    let Some(intent) = intent else { return Ok(false) };
    procedure.commit();
    if let Some(database) = intent.oid {
        remove(procedure, tenant, database)?;
    }
    procedure::caught(|| role::as_extension_owner(|| intent.forget()))?;
    procedure.commit();
    Ok(true)
}

/// Removes the database of this oid, if it is the tenant's, or what is left of it. Commits.
pub fn remove(procedure: &Procedure, tenant: Uuid, database: pg_sys::Oid) -> Result<()> {
    // SAFETY: a plain read.
    let here = unsafe { pg_sys::MyDatabaseId };
    let request = json!({ "tenant": tenant.to_string(), "database": database.to_u32() });
    errand::send(here, ERRAND.name, &request)?.wait_in(procedure).map(drop)
}

/// In a worker, in the control database.
fn run(request: &Value) -> Result<Value> {
    let (tenant, database) = (fields::tenant(request, "tenant")?, fields::oid(request, "database")?);
    let step = || {
        Subject::database_step_of(tenant).lock(Mode::Exclusive);
        true
    };
    process::transaction(step, || match home::name_of(database) {
        // Another's: a copy of the control database knows the same tenants, and an oid may be used again.
        Some(_) if home::of(tenant, database).is_none() => Ok(()),
        Some(name) => drop_database(&name),
        None => remove_stray(database),
    })?;
    Ok(Value::Null)
}

fn drop_database(name: &str) -> Result<()> {
    let name = CString::new(name).map_err(|_| Error::Internal("a name has a zero byte".to_owned()))?;
    // SAFETY: a C string; the transaction commits at once.
    unsafe { pg_sys::dropdb(name.as_ptr(), true, true) };
    Ok(())
}

/// The directories of a database of this oid, in the catalog or not: each tablespace's with its path.
pub fn directories(database: pg_sys::Oid) -> Result<Vec<(pg_sys::Oid, CString)>> {
    let mut found = Vec::new();
    for tablespace in query::current_rows(TABLESPACES, &[], |row| row.must::<pg_sys::Oid>(1))? {
        // SAFETY: gives a palloc'd C string, relative to the directory that the server works in.
        let path = unsafe { CStr::from_ptr(pg_sys::GetDatabasePath(database, tablespace)) }.to_owned();
        if Path::new(&*path.to_string_lossy()).exists() {
            found.push((tablespace, path));
        }
    }
    Ok(found)
}

/// Removes the files of a database that was being made when the server crashed, and so never was. Does what DROP DATABASE does of it, on standbys too.
fn remove_stray(database: pg_sys::Oid) -> Result<()> {
    if directories(database)?.is_empty() {
        return Ok(());
    }
    // Whoever makes a database has this lock until they commit: what has files and no row after it has them from nobody who is there.
    // SAFETY: a lock that the transaction's end releases.
    unsafe { pg_sys::LockRelationOid(pg_sys::DatabaseRelationId, pg_sys::ShareLock as _) };
    if home::name_of(database).is_some() {
        return Ok(());
    }
    let directories = directories(database)?;
    // xl_dbase_drop_rec: the database, how many tablespaces, and which.
    let count = u32::try_from(directories.len()).unwrap_or(0);
    let numbers = [database.to_u32(), count].into_iter().chain(directories.iter().map(|(space, _)| space.to_u32()));
    let record: Vec<u8> = numbers.flat_map(u32::to_ne_bytes).collect();
    // SAFETY: nobody is connected to the database, nor can be. The paths are C strings, the record lives until it is written.
    unsafe {
        pg_sys::DropDatabaseBuffers(database);
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            files::ForgetDatabaseSyncRequests(database);
            files::RequestCheckpoint(CHECKPOINT_NOW);
        });
        for (_, path) in &directories {
            pg_sys::rmtree(path.as_ptr(), true);
        }
        pg_sys::XLogBeginInsert();
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            files::XLogRegisterData(record.as_ptr().cast(), record.len() as u32);
        });
        pg_sys::XLogInsert(RM_DBASE_ID, XLOG_DBASE_DROP | XLR_SPECIAL_REL_UPDATE);
    }
    Ok(())
}
