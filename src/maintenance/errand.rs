//! A worker that another database has sent ([`crate::worker::errand`]).

use crate::error::Error;
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use crate::{database, fleet, metering, transfer};
use pgrx::{log, pg_guard, pg_sys};

/// Every errand.
fn errands() -> impl Iterator<Item = &'static Errand> {
    let others = [metering::usage::ERRANDS, fleet::ERRANDS, transfer::ERRANDS, transfer::moving::ERRANDS];
    database::ERRANDS.iter().copied().chain(others).flatten()
}

/// Where the postmaster starts a worker.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_tenancy_errand(argument: pg_sys::Datum) {
    // SAFETY: the main function of a worker, which begins so.
    let paper = unsafe { process::begin_where_nobody_may(argument) };
    errand::begin();
    let done = process::attempt(|| {
        let Some((name, request)) = errand::read(&paper)? else { return Ok(()) };
        process::configure();
        process::say(&name);
        let answer = process::attempt(|| match errands().find(|known| known.name == name) {
            Some(known) => (known.run)(&request),
            None => Err(Error::Internal(format!("there is no errand \"{name}\""))),
        });
        errand::bring(&paper, answer)
    });
    if let Err(failure) = done {
        log!("pg_tenancy worker: {}", failure.message);
    }
}
