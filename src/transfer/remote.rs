//! What is done of an export in a tenant's own database: its parts travel in a file.

use super::dump;
use super::format;
use super::writer::Out;
use crate::error::{Error, Result};
use crate::fields;
use crate::home;
use crate::role;
use crate::row_file;
use crate::scratch::{self, Scratch};
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

pub const DUMP: Errand = Errand { name: "transfer.dump", run };

fn failed(error: std::io::Error) -> Error {
    Error::Internal(format!("a temporary file could not be used: {error}"))
}

/// Fails unless the worker is where it was sent to.
pub fn refuse_elsewhere(tenant: Uuid) -> Result<()> {
    if home::is_of(tenant.as_bytes()) {
        Ok(())
    } else {
        Err(Error::State(format!("this is not the database of tenant \"{tenant}\""), ""))
    }
}

/// Parts in a file: a line with the lengths of the texts and the rows, and the texts.
struct Parts(BufWriter<File>);

impl Parts {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self(BufWriter::with_capacity(format::CHUNK, File::options().write(true).open(path).map_err(failed)?)))
    }
}

impl Out for Parts {
    fn put(&mut self, kind: &str, name: &str, data: &str, rows: u64) -> Result<()> {
        writeln!(self.0, "{} {} {} {rows}", kind.len(), name.len(), data.len()).map_err(failed)?;
        [kind, name, data].into_iter().try_for_each(|text| self.0.write_all(text.as_bytes()).map_err(failed))
    }
}

/// Hands on the parts in a file.
fn read(path: &Path, out: &mut dyn Out) -> Result<()> {
    let unreadable = || Error::Internal("a temporary file cannot be read".to_owned());
    let mut file = BufReader::with_capacity(format::CHUNK, File::open(path).map_err(failed)?);
    let mut line = String::new();
    loop {
        line.clear();
        if file.read_line(&mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        pgrx::check_for_interrupts!();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [kind, name, data, rows] = numbers[..] else { return Err(unreadable()) };
        let mut text = |length: u64| {
            let mut bytes = vec![0; usize::try_from(length).map_err(|_| unreadable())?];
            file.read_exact(&mut bytes).map_err(failed)?;
            String::from_utf8(bytes).map_err(|_| Error::Encoding)
        };
        let (kind, name, data) = (text(kind)?, text(name)?, text(data)?);
        out.put(&kind, &name, &data, rows)?;
    }
}

/// Writes what is in the tenant's database, of one moment there.
pub fn write(out: &mut dyn Out, tenant: Uuid, database: pg_sys::Oid, schema: Option<&str>) -> Result<()> {
    let parts = Scratch::new()?;
    scratch::write(parts.path(), "")?;
    let request = json!({ "tenant": tenant.to_string(), "schema": schema, "parts": parts.name() });
    errand::send(database, DUMP.name, &request)?.wait()?;
    read(parts.path(), out)
}

/// In a worker, in the tenant's database.
fn run(request: &Value) -> Result<Value> {
    let (tenant, path) = (fields::tenant(request, "tenant")?, scratch::path(fields::text(request, "parts")?)?);
    let dump = || {
        refuse_elsewhere(tenant)?;
        let mut parts = Parts::open(&path)?;
        dump::write_own(&mut parts, tenant, true)?;
        dump::write_place(&mut parts, tenant, request["schema"].as_str())?;
        parts.0.flush().map_err(failed)
    };
    let dump = || role::with_settings(format::SETTINGS, || row_file::with_settings(dump));
    process::transaction(|| true, || role::as_extension_owner(dump))?;
    Ok(Value::Null)
}
