//! A run, as leader and workers know it.

use crate::error::Result;
use crate::json::Jsonb;
use crate::query::{self, Row};
use crate::sqltype::Name;
use pgrx::Uuid;

const FIND: &str =
    "SELECT r.run_id, r.template, r.direction, coalesce(m.position, 0), r.canary, r.max_attempts, (r.lock_timeout_s * 1000)::integer, r.workers
    FROM tenancy.migration_runs r LEFT JOIN tenancy.migrations m ON m.template = r.template AND m.version = r.to_version
    WHERE r.run_id = $1";
const IS_UNFINISHED: &str = "SELECT finished_at IS NULL FROM tenancy.migration_runs WHERE run_id = $1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    pub fn from_name(name: &str) -> Self {
        if name == "down" { Self::Down } else { Self::Up }
    }
}

pub struct Run {
    pub id: Uuid,
    pub template: Name,
    pub direction: Direction,
    /// Of the version that a rollback goes back to; 0 for the beginning, and for migrating.
    pub position: i64,
    pub canary: Option<Jsonb>,
    pub max_attempts: i32,
    /// In milliseconds.
    pub lock_timeout: i32,
    pub workers: usize,
}

/// The run of this id.
pub fn find(id: Uuid) -> Result<Option<Run>> {
    let map = |row: &Row| {
        Ok(Run {
            id: row.must(1)?,
            template: row.must(2)?,
            direction: Direction::from_name(&row.must::<String>(3)?),
            position: row.must(4)?,
            canary: row.get(5)?,
            max_attempts: row.must(6)?,
            lock_timeout: row.must(7)?,
            workers: row.must::<i32>(8)?.unsigned_abs() as usize,
        })
    };
    Ok(query::current_rows(FIND, &[id.into()], map)?.into_iter().next())
}

/// Whether the run has not been ended.
pub fn is_unfinished(id: Uuid) -> Result<bool> {
    Ok(query::current_rows(IS_UNFINISHED, &[id.into()], |row| row.must(1))?.first() == Some(&true))
}
