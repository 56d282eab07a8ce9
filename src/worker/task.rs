//! What background workers do by themselves in each database that has the extension. Each domain names its own steps; [`crate::maintenance`]
//! runs them.

use crate::backend::BackendStatic;
use crate::error::Result;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How a step is done.
#[derive(Clone, Copy)]
pub enum Work {
    /// One batch, in a transaction of its own, as the extension's owner: how many things were done, and whether there may be more at once.
    Batch(fn() -> Result<(u64, bool)>),
    /// A procedure of the public functions' schema that commits as it goes, tells what it does ([`note_done`], [`note_failure`]) and
    /// stops early when [`time_is_up`], to be called again.
    Call(&'static str),
}

/// A step that is done again and again.
#[derive(Clone, Copy)]
pub struct Task {
    pub name: &'static str,
    /// Seconds from the end of one run to the start of the next. A step of less than a minute is done at every visit that a use of the database
    /// has announced, and once a minute without.
    pub every_s: u32,
    pub work: Work,
}

/// When the worker is to end; None in a session, which has all the time that it wants.
static END: BackendStatic<Option<Instant>> = BackendStatic::new(None);

/// Gives this worker so long.
pub fn limit_time(limit: Duration) {
    END.set(Instant::now().checked_add(limit));
}

/// Whether this is a worker that has worked long enough: what is left is done at another visit, and nobody who wants to drop the database has to
/// wait for long.
pub fn time_is_up() -> bool {
    END.get().is_some_and(|end| Instant::now() >= end)
}

/// What a step has told of its work.
#[derive(Default)]
pub struct Noted {
    pub done: u64,
    /// What could not be done while the rest went on.
    pub failure: Option<String>,
}

thread_local! {
    static NOTED: RefCell<Noted> = RefCell::default();
}

/// Says that so many things were done.
pub fn note_done(number: u64) {
    NOTED.with_borrow_mut(|noted| noted.done += number);
}

/// Says that one thing could not be done, though the others were: the last one is shown.
pub fn note_failure(message: &str) {
    NOTED.with_borrow_mut(|noted| noted.failure = Some(message.to_owned()));
}

/// What was told since this was asked last.
pub fn take_noted() -> Noted {
    NOTED.take()
}
