//! What the product knew of the tenant, written here.

use super::Mode;
use super::people::People;
use super::unpack::Package;
use crate::error::{Error, Result};
use crate::metering::usage;
use crate::query;
use crate::role;
use crate::transfer::own::{self, Own};
use pgrx::Uuid;

/// Rows that are written at a time.
const BATCH: usize = 500;

/// Writes what is kept beside the tenant's rows, or the rest. Limits do not stand in the way of what a tenant has.
pub fn write(package: &Package, tenant: Uuid, people: &People, mode: Mode, beside_rows: bool) -> Result<()> {
    let wanted = |own: &Own| own.beside_rows == beside_rows && (own.for_copies || mode == Mode::New);
    for (own, lines) in package.own.iter().filter(|(own, _)| wanted(own)) {
        if own.name == own::EVENTS {
            usage::prepare_archive()?;
        }
        let mut rows: Vec<String> = Vec::new();
        lines.read(|line| {
            rows.push(String::from_utf8(line.to_vec()).map_err(|_| Error::Encoding)?);
            if rows.len() == BATCH { write_rows(own, tenant, people, &mut rows) } else { Ok(()) }
        })?;
        write_rows(own, tenant, people, &mut rows)?;
    }
    Ok(())
}

fn write_rows(own: &Own, tenant: Uuid, people: &People, rows: &mut Vec<String>) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    if let Some((what, missing)) = own.needs {
        let missing = query::current_rows(missing, &[rows.clone().into()], |row| row.get::<String>(1))?;
        if let Some(name) = missing.into_iter().next() {
            return Err(Error::Unknown(what, name.unwrap_or_default()));
        }
    }
    let (there, here) = people.arrays();
    let arguments = [tenant.into(), std::mem::take(rows).into(), there.into(), here.into()];
    let needed = if own.import.contains("$3") { 4 } else { 2 };
    role::without_triggers(|| query::run(own.import, &arguments[..needed]).map(drop))
}
