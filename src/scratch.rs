//! Files that processes of one server hand to each other, which do not outlive what they are for.
//!
//! They are among PostgreSQL's own temporary files: it removes what a crash has left when it starts again, and a base backup leaves them out.

use crate::backend::BackendStatic;
use crate::error::{Error, Result};
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{CStr, c_int};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Relative to the data directory, which every process of the server works in (PG_TEMP_FILES_DIR of the default tablespace).
const DIRECTORY: &str = "base/pgsql_tmp";
/// How PostgreSQL knows a temporary file (PG_TEMP_FILE_PREFIX), and we ours.
const PREFIX: &str = "pgsql_tmp_tenancy";

static NUMBER: BackendStatic<u64> = BackendStatic::new(0);
static ENDS_WITH_US: BackendStatic<bool> = BackendStatic::new(false);

thread_local! {
    /// The files of this process: one that is terminated unwinds nothing.
    static OURS: RefCell<BTreeSet<PathBuf>> = const { RefCell::new(BTreeSet::new()) };
}

/// A file that is removed when this is dropped, or the process ends. It need not exist.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A name that no other process uses.
    pub fn new() -> Result<Self> {
        if !ENDS_WITH_US.get() {
            // SAFETY: a static function, registered once.
            unsafe { pg_sys::on_proc_exit(Some(remove_all), pg_sys::Datum::null()) };
            ENDS_WITH_US.set(true);
        }
        NUMBER.set(NUMBER.get() + 1);
        let path = directory()?.join(format!("{PREFIX}_{}.{}", std::process::id(), NUMBER.get()));
        OURS.with_borrow_mut(|ours| ours.insert(path.clone()));
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What [`read`] and [`write`] of another process know it by.
    pub fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        OURS.with_borrow_mut(|ours| ours.remove(&self.0));
        let _ = std::fs::remove_file(&self.0);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn remove_all(_code: c_int, _argument: pg_sys::Datum) {
    for path in OURS.take() {
        let _ = std::fs::remove_file(path);
    }
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::Internal(format!("a temporary file could not be {what}: {error}"))
}

fn directory() -> Result<PathBuf> {
    // SAFETY: the path that the server was started with.
    let data = unsafe { CStr::from_ptr(pg_sys::DataDir) }.to_string_lossy().into_owned();
    let directory = Path::new(&data).join(DIRECTORY);
    match std::fs::create_dir(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("made room for", &error)),
    }
    Ok(directory)
}

/// Removes files of processes that have ended: another one may have written one just after its owner had removed it.
pub fn remove_orphans() -> Result<()> {
    let directory = std::fs::read_dir(directory()?).map_err(|error| failed("looked for", &error))?;
    for file in directory.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('_')?.split_once('.'));
        let owner = owner.and_then(|(pid, _)| pid.parse::<c_int>().ok());
        // SAFETY: looks for the process among the server's.
        if owner.is_some_and(|pid| unsafe { pg_sys::BackendPidGetProc(pid) }.is_null()) {
            let _ = std::fs::remove_file(file.path());
        }
    }
    Ok(())
}

/// The path of another process' file.
pub fn path(name: &str) -> Result<PathBuf> {
    if !name.starts_with(PREFIX) || name.contains('/') {
        return Err(Error::Internal(format!("\"{name}\" is no temporary file of ours")));
    }
    Ok(directory()?.join(name))
}

/// Writes a file whole, for nobody but the server.
pub fn write(path: &Path, content: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content.as_bytes())).map_err(|error| failed("written", &error))
}

/// Reads a file whole; None where there is none.
pub fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &error)),
    }
}
