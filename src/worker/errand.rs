//! What one database of the server has done in another: a worker is sent there with a request, and brings back an answer.
//!
//! Requests and answers are JSON. Each domain names its errands; [`crate::maintenance`] knows them all.

use super::process::{self, Failure};
use super::{Job, Worker};
use crate::backend::BackendStatic;
use crate::error::{Error, Result};
use crate::procedure::Procedure;
use crate::role;
use crate::scratch::{self, Scratch};
use pgrx::pg_sys;
use serde_json::{Value, json};
use std::ffi::{CStr, c_int};

/// The function of [`crate::maintenance`] that does errands, as the library exports it.
const FUNCTION: &CStr = c"pg_tenancy_errand";

/// Something that can be asked for. `run` begins and commits its transactions ([`super::process::transaction`]).
pub struct Errand {
    pub name: &'static str,
    pub run: fn(&Value) -> Result<Value>,
}

/// An errand under way. Dropped, it ends.
pub struct Sent {
    worker: Worker,
    /// Where the request is, and then the answer.
    paper: Scratch,
    what: String,
}

/// Sends a worker to `database`.
pub fn send(database: pg_sys::Oid, errand: &str, request: &Value) -> Result<Sent> {
    let paper = Scratch::new()?;
    scratch::write(paper.path(), &json!({ "errand": errand, "request": request }).to_string())?;
    let name = format!("pg_tenancy {errand}");
    let job = Job { function: FUNCTION, name: &name, database };
    let worker = Worker::start(&job, &paper.name()).ok_or(Error::NoWorkers)?;
    Ok(Sent { worker, paper, what: errand.to_owned() })
}

impl Sent {
    /// Whether the worker has ended: needs no snapshot.
    pub fn has_ended(&self) -> bool {
        self.worker.has_ended()
    }

    /// Waits where a snapshot may be held: nothing that the worker does waits for the caller.
    pub fn wait(self) -> Result<Value> {
        const EVENTS: u32 = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        while !self.has_ended() {
            // SAFETY: the latch is this process's own.
            unsafe {
                pg_sys::WaitLatch(pg_sys::MyLatch, EVENTS as c_int, 100, pg_sys::PG_WAIT_EXTENSION);
                pg_sys::ResetLatch(pg_sys::MyLatch);
            }
            pgrx::check_for_interrupts!();
        }
        self.answer()
    }

    /// Commits, and waits without a snapshot.
    pub fn wait_in(self, procedure: &Procedure) -> Result<Value> {
        procedure.wait_until(|| self.has_ended());
        self.answer()
    }

    /// What an errand that has ended brought back, an error as it was raised there.
    fn answer(self) -> Result<Value> {
        let text = scratch::read(self.paper.path())?.unwrap_or_default();
        let mut paper: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(failure) = paper.get("failure") {
            let text = |field: &str| failure.get(field).and_then(Value::as_str).map(str::to_owned);
            return Err(Error::Elsewhere {
                sqlstate: text("sqlstate").unwrap_or_default(),
                message: text("message").unwrap_or_default(),
                detail: text("detail"),
                hint: text("hint"),
            });
        }
        let answer = paper.get_mut("answer").map(Value::take);
        answer.ok_or_else(|| Error::State(format!("worker \"{}\" was ended", self.what), "Try again."))
    }
}

/// Runs a transaction of an errand as the extension's owner. Whoever has sent it waits for it, and may give up: locks are waited for longer than a worker
/// does that nobody has sent.
pub fn transaction<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let patiently = || role::with_settings([("lock_timeout", "60s")], work);
    process::transaction(|| true, || role::as_extension_owner(patiently))?
        .ok_or_else(|| Error::Internal("a transaction without locks was not begun".to_owned()))
}

/// Whether this process is a worker that another database has sent.
static IS_SENT: BackendStatic<bool> = BackendStatic::new(false);

/// Says that this process is one: at its beginning.
pub fn begin() {
    IS_SENT.set(true);
}

/// Whether another database has sent this process.
pub fn is_sent() -> bool {
    IS_SENT.get()
}

/// The worker's side: what it was sent for. None when whoever sent it has given up.
pub fn read(paper: &str) -> Result<Option<(String, Value)>> {
    let Some(text) = scratch::read(&scratch::path(paper)?)? else { return Ok(None) };
    let mut paper: Value =
        serde_json::from_str(&text).map_err(|error| Error::Internal(format!("a request cannot be read: {error}")))?;
    let errand = paper.get("errand").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Some((errand, paper.get_mut("request").map(Value::take).unwrap_or_default())))
}

/// Brings back the answer, unless nobody waits for it any more.
pub fn bring(paper: &str, answer: std::result::Result<Value, Failure>) -> Result<()> {
    let path = scratch::path(paper)?;
    let answer = match answer {
        Ok(answer) => json!({ "answer": answer }),
        Err(failure) => json!({ "failure": {
            "sqlstate": failure.sqlstate, "message": failure.message, "detail": failure.detail, "hint": failure.hint } }),
    };
    if scratch::read(&path)?.is_some() { scratch::write(&path, &answer.to_string()) } else { Ok(()) }
}
