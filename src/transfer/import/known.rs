//! What the product knew of the tenant, written here.

use super::Mode;
use super::lines::Lines;
use super::people::People;
use super::unpack::Package;
use crate::error::{Error, Result};
use crate::home;
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
        batches(lines, |rows| write_rows(own, tenant, people, rows))?;
    }
    Ok(())
}

/// Whether everything that is kept beside the rows can be written, where the registry is.
pub fn check(package: &Package) -> Result<()> {
    let beside = package.own.iter().filter(|(own, _)| own.beside_rows);
    beside.into_iter().try_for_each(|(own, lines)| batches(lines, |rows| check_rows(own, &rows)))
}

fn batches(lines: &Lines, mut each: impl FnMut(Vec<String>) -> Result<()>) -> Result<()> {
    let mut rows: Vec<String> = Vec::new();
    lines.read(|line| {
        rows.push(String::from_utf8(line.to_vec()).map_err(|_| Error::Encoding)?);
        if rows.len() == BATCH { each(std::mem::take(&mut rows)) } else { Ok(()) }
    })?;
    if rows.is_empty() { Ok(()) } else { each(rows) }
}

/// Fails where something is missing that the rows need: a role, a metric.
fn check_rows(own: &Own, rows: &[String]) -> Result<()> {
    let Some((what, missing)) = own.needs else { return Ok(()) };
    let missing = query::current_rows(missing, &[rows.to_vec().into()], |row| row.get::<String>(1))?;
    match missing.into_iter().next() {
        None => Ok(()),
        Some(name) => Err(Error::Unknown(what, name.unwrap_or_default())),
    }
}

fn write_rows(own: &Own, tenant: Uuid, people: &People, rows: Vec<String>) -> Result<()> {
    // A tenant's own database hears of metrics from the one that keeps the registry, where this was looked at.
    if home::here().is_none() {
        check_rows(own, &rows)?;
    }
    let (there, here) = people.arrays();
    let arguments = [tenant.into(), rows.into(), there.into(), here.into()];
    let needed = if own.import.contains("$3") { 4 } else { 2 };
    role::without_triggers(|| query::run(own.import, &arguments[..needed]).map(drop))
}
