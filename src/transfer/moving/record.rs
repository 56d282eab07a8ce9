//! What is written down of moves: `tenancy.moves`. Everything here runs as the extension's owner.

use crate::context::registry::Status;
use crate::error::{Error, Result};
use crate::json::{Jsonb, Object};
use crate::query::{self, Row};
use crate::raw::fallible_function;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{Uuid, pg_sys};

const INSERT: &str = "INSERT INTO tenancy.moves
        (tenant_id, from_isolation, to_isolation, from_schema, from_database, from_template, to_template, former_status, phase, clean, started_by)
    VALUES ($1, $2, $3, $4, $9, $5, $6, $7, 'copy', $8, pg_catalog.current_setting('role', true)) RETURNING move_id";
const UNFINISHED: &str = "SELECT move_id, tenant_id, from_isolation, to_isolation, from_schema::pg_catalog.text, former_status, phase, clean FROM tenancy.moves WHERE tenant_id = $1 AND finished_at IS NULL";
/// How many rows of a table were moved out of the shared tables that the template corresponds to.
const MOVED_ROWS: &str = "SELECT coalesce((m.row_counts ->> $3)::pg_catalog.int8, 0) FROM tenancy.moves m JOIN tenancy.templates t ON t.template = m.to_template
    WHERE m.move_id = $1 AND t.shared_schema = $2::pg_catalog.name";
const ALL_UNFINISHED: &str =
    "SELECT tenant_id FROM tenancy.moves WHERE finished_at IS NULL AND (phase <> 'clean' OR clean) ORDER BY started_at";
const SWITCHED: &str = "UPDATE tenancy.moves SET phase = 'clean', to_schema = $2, to_database = $6, row_counts = $3,
        copied_at = $4, verified_at = $5, switched_at = pg_catalog.clock_timestamp() WHERE move_id = $1";
const FAILED: &str = "UPDATE tenancy.moves SET phase = 'failed', sqlstate = $2, error = $3 WHERE move_id = $1";
const ASK_CLEAN: &str = "UPDATE tenancy.moves SET clean = true WHERE move_id = $1";
const FINISHED: &str = "UPDATE tenancy.moves SET finished_at = pg_catalog.clock_timestamp() WHERE move_id = $1";
const DONE: &str =
    "UPDATE tenancy.moves SET phase = 'done', finished_at = pg_catalog.clock_timestamp() WHERE move_id = $1";
const FORGET: &str =
    "DELETE FROM tenancy.moves m WHERE NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.id = m.tenant_id)";
const NOW: &str = "SELECT pg_catalog.clock_timestamp()";

/// Where a tenant's rows are, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    Row,
    Schema,
    Database,
}

impl Isolation {
    const ALL: [(Self, &'static str); 3] = [(Self::Row, "row"), (Self::Schema, "schema"), (Self::Database, "database")];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(isolation, _)| isolation)
    }
}

/// A move that has begun.
pub struct Move {
    pub id: Uuid,
    pub tenant: Uuid,
    pub from: Isolation,
    pub to: Isolation,
    /// The schema that the tenant leaves.
    pub schema: Option<String>,
    pub former: Status,
    /// Whether the registry leads to the new place: what is left is to remove the old one.
    pub is_switched: bool,
    /// Whether it has failed, and the tenant is back: what is left is to remove what was made.
    pub has_failed: bool,
    /// Whether cleaning is to be done by whoever comes.
    pub clean: bool,
}

/// A move that is to begin.
pub struct New<'a> {
    pub tenant: Uuid,
    pub from: Isolation,
    pub to: Isolation,
    pub schema: Option<&'a str>,
    pub database: Option<&'a str>,
    pub from_template: Option<&'a str>,
    pub to_template: Option<&'a str>,
    pub former: Status,
    pub clean: bool,
}

pub fn insert(new: &New) -> Result<Uuid> {
    let args = [
        new.tenant.into(),
        new.from.name().into(),
        new.to.name().into(),
        new.schema.into(),
        new.from_template.into(),
        new.to_template.into(),
        new.former.name().into(),
        new.clean.into(),
        new.database.into(),
    ];
    query::returning(INSERT, &args, |row| row.must(1))?
        .ok_or_else(|| Error::Internal("a move was not written down".to_owned()))
}

/// The move of a tenant that has not ended.
pub fn unfinished(tenant: Uuid) -> Result<Option<Move>> {
    let isolation =
        |name: String| Isolation::from_name(&name).ok_or_else(|| Error::Internal(format!("unknown isolation {name}")));
    let read = |row: &Row| {
        let phase: String = row.must(7)?;
        Ok(Move {
            id: row.must(1)?,
            tenant: row.must(2)?,
            from: isolation(row.must(3)?)?,
            to: isolation(row.must(4)?)?,
            schema: row.get(5)?,
            former: Status::from_name(&row.must::<String>(6)?)?,
            is_switched: phase == "clean",
            has_failed: phase == "failed",
            clean: row.must(8)?,
        })
    };
    Ok(query::current_rows(UNFINISHED, &[tenant.into()], read)?.into_iter().next())
}

/// The tenants whose moves a worker has something to do for.
pub fn tenants_to_resume() -> Result<Vec<Uuid>> {
    query::current_rows(ALL_UNFINISHED, &[], |row| row.must(1))
}

/// How many rows of a shared table a move has copied.
pub fn moved_rows(id: Uuid, schema: &str, table: &str) -> Result<u64> {
    let found = query::current_rows(MOVED_ROWS, &[id.into(), schema.into(), table.into()], |row| row.must::<i64>(1))?;
    Ok(found.into_iter().next().unwrap_or(0).cast_unsigned())
}

/// How many rows of each table were moved, and when what was done.
pub struct Moved {
    pub rows: Vec<(String, u64)>,
    pub copied_at: TimestampWithTimeZone,
    pub verified_at: TimestampWithTimeZone,
}

impl Moved {
    pub fn counts(&self) -> Jsonb {
        self.rows.iter().fold(Object::new(), |object, (table, rows)| object.number(table, *rows)).finish()
    }
}

pub fn now() -> Result<TimestampWithTimeZone> {
    query::value(NOW, &[])?.ok_or_else(|| Error::Internal("there is no time".to_owned()))
}

pub fn switched(id: Uuid, schema: Option<&str>, database: Option<&str>, moved: &Moved) -> Result<()> {
    let args = [
        id.into(),
        schema.into(),
        moved.counts().into(),
        moved.copied_at.into(),
        moved.verified_at.into(),
        database.into(),
    ];
    query::run(SWITCHED, &args).map(drop)
}

pub fn failed(id: Uuid, sqlstate: &str, message: &str) -> Result<()> {
    query::run(FAILED, &[id.into(), sqlstate.into(), message.into()]).map(drop)
}

pub fn ask_clean(id: Uuid) -> Result<()> {
    query::run(ASK_CLEAN, &[id.into()]).map(drop)
}

/// Says that nothing is left of one that has failed.
pub fn finished(id: Uuid) -> Result<()> {
    query::run(FINISHED, &[id.into()]).map(drop)
}

pub fn done(id: Uuid) -> Result<()> {
    query::run(DONE, &[id.into()]).map(drop)
}

fallible_function! {
    /// The trigger that removes what is known of the moves of a tenant that is gone.
    pg_tenancy_forget_moves, pg_finfo_pg_tenancy_forget_moves, forget
}

/// # Safety
/// `fcinfo` is the record of the running call.
unsafe fn forget(_fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    query::run(FORGET, &[])?;
    Ok(pg_sys::Datum::null())
}
