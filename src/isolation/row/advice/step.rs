//! One step of advice.

use crate::isolation::keys::change::{Change, MOMENT, Way};
use crate::relation;
use pgrx::pg_sys;

pub const UNIQUE_KEY: &str = "unique_key";
pub const FOREIGN_KEY: &str = "foreign_key";
pub const INDEX: &str = "index";

/// What is wrong.
#[derive(Clone)]
pub struct Problem {
    pub kind: &'static str,
    /// The key or index.
    pub object: String,
    pub text: String,
}

pub struct Step {
    pub table_name: String,
    pub problem: Problem,
    /// None where no statement mends it; the note says what does.
    pub statement: Option<String>,
    pub run_as: Option<String>,
    pub lock: Option<&'static str>,
    pub duration: Option<&'static str>,
    pub note: String,
}

impl Step {
    /// A change that the table's owner makes.
    pub fn of(table_name: &str, owner: pg_sys::Oid, problem: &Problem, change: Change) -> Self {
        let owner = relation::role_name(owner);
        let run_as = match change.way {
            Way::SeeingAllRows => format!("{owner}, with BYPASSRLS"),
            Way::Together | Way::Concurrently => owner,
        };
        Self {
            table_name: table_name.to_owned(),
            problem: problem.clone(),
            statement: Some(change.text()),
            run_as: Some(run_as),
            lock: Some(change.lock),
            duration: Some(change.duration),
            note: change.note,
        }
    }

    /// A right that is given, or an extension: nothing that anybody waits for.
    pub fn beside(table_name: &str, problem: &Problem, statement: String, run_as: String, note: &str) -> Self {
        Self {
            table_name: table_name.to_owned(),
            problem: problem.clone(),
            statement: Some(statement),
            run_as: Some(run_as),
            lock: None,
            duration: Some(MOMENT),
            note: note.to_owned(),
        }
    }

    pub fn impossible(table_name: &str, problem: &Problem, note: String) -> Self {
        Self {
            table_name: table_name.to_owned(),
            problem: problem.clone(),
            statement: None,
            run_as: None,
            lock: None,
            duration: None,
            note,
        }
    }
}
