//! Runs: what the session does that calls migrate_tenants() or rollback_tenants(). It starts workers for one phase after the other and waits,
//! without a snapshot, so that nothing that a worker does has to wait for it.

use super::registry::check_template;
use super::run::{self, Direction, Run};
use super::target::{self, Phase, Target};
use super::worker::{FUNCTION, Orders};
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{Mode, Subject};
use crate::json::{Jsonb, Object};
use crate::procedure::Procedure;
use crate::query;
use crate::role;
use crate::sqltype::Name;
use crate::worker::{self, Job, Workers};
use pgrx::AnyNumeric;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use std::time::{Duration, Instant};

/// How often a run tells what it has done.
const REPORT_EVERY: Duration = Duration::from_secs(3);
const MAX_ATTEMPTS: i32 = 100;
/// A day, in milliseconds.
const MAX_LOCK_TIMEOUT: f64 = 86_400_000.0;

const START: &str = "INSERT INTO tenancy.migration_runs
        (template, direction, to_version, canary, workers, max_attempts, lock_timeout_s, leader_pid)
    VALUES ($1, $2, $3, $4, $5, $6, $7::numeric / 1000, pg_catalog.pg_backend_pid()) RETURNING run_id";
const FINISH: &str =
    "UPDATE tenancy.migration_runs SET finished_at = pg_catalog.clock_timestamp(), outcome = $2 WHERE run_id = $1";
const FINISH_OTHERS: &str =
    "UPDATE tenancy.migration_runs SET finished_at = pg_catalog.clock_timestamp(), outcome = 'interrupted'
    WHERE template = $1 AND finished_at IS NULL";
/// What failed to go back is applied all the same; what is no target any more needs no report.
const TIDY: &str = "DELETE FROM tenancy.failed_migrations f WHERE f.template = $1
    AND (f.direction = 'down' OR f.tenant_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM tenancy.tenants t WHERE t.id = f.tenant_id AND t.template = $1 AND t.schema_name IS NOT NULL))";
const POSITION: &str = "SELECT position FROM tenancy.migrations WHERE template = $1 AND version = $2";
const IRREVERSIBLE: &str = "SELECT m.version FROM tenancy.migrations m
    WHERE m.template = $1 AND m.position > $2 AND m.down_sql IS NULL
      AND EXISTS (SELECT FROM tenancy.applied_migrations a WHERE a.template = $1 AND a.version = m.version)
    ORDER BY m.position DESC LIMIT 1";
const HAS_CANARY: &str = "SELECT true FROM tenancy.tenants
    WHERE template = $1 AND schema_name IS NOT NULL AND purge_started_at IS NULL AND metadata @> $2 LIMIT 1";
const FAILED: &str = "SELECT f.version, f.sqlstate, f.message, t.slug FROM tenancy.failed_migrations f
    LEFT JOIN tenancy.tenants t ON t.id = f.tenant_id
    WHERE f.template = $1 AND f.run_id = $2 AND ($3 OR f.tenant_id IS NULL) ORDER BY f.failed_at LIMIT 1";

/// What is asked for.
struct Order {
    template: Name,
    direction: Direction,
    to_version: Option<String>,
    canary: Option<Jsonb>,
    workers: i32,
    max_attempts: i32,
    lock_timeout: i32,
}

impl Order {
    fn check(
        template: Option<Name>,
        workers: Option<i32>,
        max_attempts: Option<i32>,
        lock_timeout_s: Option<AnyNumeric>,
    ) -> Result<Self> {
        let template = template.ok_or(Error::Null("template"))?;
        let workers = workers.ok_or(Error::Null("workers"))?;
        if !(1..=worker::MAX as i32).contains(&workers) {
            return Err(Error::invalid(format!("workers must be from 1 to {}, not {workers}", worker::MAX), ""));
        }
        let max_attempts = max_attempts.ok_or(Error::Null("max_attempts"))?;
        if !(1..=MAX_ATTEMPTS).contains(&max_attempts) {
            return Err(Error::invalid(
                format!("max_attempts must be from 1 to {MAX_ATTEMPTS}, not {max_attempts}"),
                "",
            ));
        }
        let seconds = lock_timeout_s.ok_or(Error::Null("lock_timeout_s"))?;
        let milliseconds = f64::try_from(seconds).map_or(f64::NAN, |seconds| seconds * 1000.0);
        if !(1.0..=MAX_LOCK_TIMEOUT).contains(&milliseconds) {
            return Err(Error::invalid("lock_timeout_s must be from 0.001 to 86400 seconds", ""));
        }
        Ok(Self {
            template,
            direction: Direction::Up,
            to_version: None,
            canary: None,
            workers,
            max_attempts,
            lock_timeout: milliseconds as i32,
        })
    }

    /// Checks what depends on the registry.
    fn check_registered(&self) -> Result<()> {
        check_template(&self.template)?;
        if self.direction == Direction::Up {
            return Ok(());
        }
        let position: i64 = match &self.to_version {
            Some(version) => query::value(POSITION, &[self.template.clone().into(), version.as_str().into()])?
                .ok_or_else(|| Error::Unknown("migration", version.clone()))?,
            None => 0,
        };
        match query::value::<String>(IRREVERSIBLE, &[self.template.clone().into(), position.into()])? {
            Some(version) => Err(Error::without_down_sql(&version, &self.template.0)),
            None => Ok(()),
        }
    }

    /// Writes the run down, and ends those whose leaders have gone.
    fn start(&self) -> Result<Run> {
        query::run(FINISH_OTHERS, &[self.template.clone().into()])?;
        query::run(TIDY, &[self.template.clone().into()])?;
        let args: [DatumWithOid; 7] = [
            self.template.clone().into(),
            self.direction.name().into(),
            self.to_version.as_deref().into(),
            self.canary.clone().into(),
            self.workers.into(),
            self.max_attempts.into(),
            self.lock_timeout.into(),
        ];
        let id = query::returning(START, &args, |row| row.must::<Uuid>(1))?
            .ok_or_else(|| Error::Internal("INSERT returned no row".to_owned()))?;
        run::find(id)?.ok_or_else(|| Error::Internal("a run that was just begun is not there".to_owned()))
    }
}

/// One run of a template at a time, as long as this lives. Held by the session, since a run is many transactions.
struct Turn(Subject);

impl Turn {
    fn wait(procedure: &Procedure, template: &Name) -> Self {
        let subject = Subject::run(&template.0);
        if !subject.try_lock_session(Mode::Exclusive) {
            notice!("waiting for another run of template \"{}\" to end", template.0);
            procedure.wait_until(|| subject.try_lock_session(Mode::Exclusive));
        }
        Self(subject)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.unlock_session(Mode::Exclusive);
    }
}

/// How far a phase has come.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// Schemas that something is left to do for.
    left: usize,
    /// Those of them that a worker can still try.
    open: usize,
    /// Those of them that have failed in this run.
    failed: usize,
    attempts: i32,
}

impl Run {
    fn progress(&self, phase: Phase) -> Result<Progress> {
        let pending = role::as_extension_owner(|| target::pending(self, phase))?;
        let how_many = |which: &dyn Fn(&Target) -> bool| pending.iter().filter(|target| which(target)).count();
        Ok(Progress {
            left: pending.len(),
            open: how_many(&|target| target.attempts < self.max_attempts),
            failed: how_many(&|target| target.attempts > 0),
            attempts: pending.iter().map(|target| target.attempts).sum(),
        })
    }

    /// Lets workers do a phase; what is left of it, which is what failed.
    fn work_through(&self, procedure: &Procedure, phase: Phase) -> Result<Progress> {
        let mut progress = self.progress(phase)?;
        let total = progress.left;
        match phase {
            _ if total == 0 => {}
            Phase::Template => notice!("{} template \"{}\"", self.verb(), self.template.0),
            _ => notice!("{} {total} {}", self.verb(), phase.name()),
        }
        // Workers leave something undone when they are ended, or when someone else works on a schema.
        while progress.open > 0 {
            let before = progress;
            self.let_work(procedure, phase, total, progress.open)?;
            progress = self.progress(phase)?;
            if progress == before {
                break;
            }
        }
        if total > 0 && phase != Phase::Template {
            self.tell(phase, total, progress);
        }
        Ok(progress)
    }

    fn let_work(&self, procedure: &Procedure, phase: Phase, total: usize, open: usize) -> Result<()> {
        let of = if phase == Phase::Template { 1 } else { self.workers.min(open) };
        let argument = |number| Orders { run: self.id, phase, number, of }.write();
        let name = format!("pg_tenancy: migrations of template {}", self.template.0);
        // SAFETY: a plain read.
        let database = unsafe { pg_sys::MyDatabaseId };
        let workers = Workers::start(&Job { function: FUNCTION, name: &name, database }, of, argument)?;
        if workers.count() < of {
            notice!("there is room for {} of {of} workers only", workers.count());
        }
        while !workers.have_ended() {
            let next_report = Instant::now() + REPORT_EVERY;
            procedure.wait_until(|| workers.have_ended() || Instant::now() >= next_report);
            if !workers.have_ended() && phase != Phase::Template {
                self.tell(phase, total, self.progress(phase)?);
            }
        }
        procedure.commit();
        Ok(())
    }

    fn tell(&self, phase: Phase, total: usize, progress: Progress) {
        let done = total.saturating_sub(progress.left);
        notice!("{done} of {total} {} done, {} failed", phase.name(), progress.failed);
    }

    fn verb(&self) -> &'static str {
        match self.direction {
            Direction::Up => "migrating",
            Direction::Down => "rolling back",
        }
    }

    /// Does one phase after the other; how many tenants failed, or what stopped it.
    fn conduct(&self, procedure: &Procedure) -> Result<std::result::Result<usize, Error>> {
        match self.direction {
            Direction::Up => {
                self.warn_of_no_canary()?;
                if self.work_through(procedure, Phase::Template)?.left > 0 {
                    return Ok(Err(self.stopped(false)?));
                }
                if self.canary.is_some() && self.work_through(procedure, Phase::Canaries)?.left > 0 {
                    return Ok(Err(self.stopped(true)?));
                }
                Ok(Ok(self.work_through(procedure, Phase::Tenants)?.left))
            }
            Direction::Down => {
                let left = self.work_through(procedure, Phase::Tenants)?.left;
                if left == 0 && self.work_through(procedure, Phase::Template)?.left > 0 {
                    return Ok(Err(self.stopped(false)?));
                }
                Ok(Ok(left))
            }
        }
    }

    /// The error of a run that was stopped by the template or, else, a canary.
    fn stopped(&self, by_canary: bool) -> Result<Error> {
        let args: [DatumWithOid; 3] = [self.template.clone().into(), self.id.into(), by_canary.into()];
        let failed = role::as_extension_owner(|| {
            query::current_rows(FAILED, &args, |row| {
                Ok((row.must::<String>(1)?, row.must::<String>(2)?, row.must::<String>(3)?, row.get::<String>(4)?))
            })
        })?;
        let who = |slug: Option<String>| match slug {
            Some(slug) => format!("canary tenant {slug}"),
            None => format!("template \"{}\"", self.template.0),
        };
        Ok(match failed.into_iter().next() {
            Some((version, sqlstate, message, slug)) => Error::Stopped(
                format!("migration \"{version}\" failed for {}, so that nothing else was touched", who(slug)),
                format!("{sqlstate}: {message}"),
            ),
            None => Error::Stopped(
                format!("the workers of template \"{}\" ended before their work was done", self.template.0),
                "See the server's log for why; someone may have ended them, or worked on a schema for long.".to_owned(),
            ),
        })
    }

    fn record(&self, action: &str, after: Object) -> Result<()> {
        audit::record(&Entry {
            action,
            target: Some(&self.template.0),
            after: Some(after.text("run_id", &self.id.to_string()).finish()),
            ..Entry::default()
        })
    }

    fn finish(&self, result: &std::result::Result<usize, Error>) -> Result<()> {
        let (outcome, failed) = match result {
            Ok(0) => ("done", 0),
            Ok(failed) => ("some tenants failed", *failed),
            Err(_) => ("stopped", 0),
        };
        role::as_extension_owner(|| {
            query::run(FINISH, &[self.id.into(), outcome.into()])?;
            let after = Object::new().text("outcome", outcome).number("failed_tenants", failed as u64);
            self.record("migration.finish", after)
        })
    }

    /// A canary that nobody is protects nobody.
    fn warn_of_no_canary(&self) -> Result<()> {
        let Some(canary) = &self.canary else { return Ok(()) };
        let args: [DatumWithOid; 2] = [self.template.clone().into(), canary.clone().into()];
        if role::as_extension_owner(|| query::value::<bool>(HAS_CANARY, &args))?.is_none() {
            warning!("no tenant of template \"{}\" is a canary", self.template.0);
        }
        Ok(())
    }
}

/// Whether anything is left to do.
fn has_work(order: &Order) -> Result<bool> {
    // A run of no id has failed at nothing.
    let run = Run {
        id: Uuid::from_bytes([0; 16]),
        template: order.template.clone(),
        direction: order.direction,
        position: match &order.to_version {
            Some(version) => {
                query::value(POSITION, &[order.template.clone().into(), version.as_str().into()])?.unwrap_or(0)
            }
            None => 0,
        },
        canary: None,
        max_attempts: order.max_attempts,
        lock_timeout: order.lock_timeout,
        workers: 0,
    };
    Ok(!target::pending(&run, Phase::Template)?.is_empty() || !target::pending(&run, Phase::Tenants)?.is_empty())
}

fn conduct(procedure: &Procedure, order: &Order) -> Result<()> {
    role::as_extension_owner(|| order.check_registered())?;
    let _turn = Turn::wait(procedure, &order.template);
    // What a run that we waited for has done is seen from here on.
    procedure.commit();
    let run = role::as_extension_owner(|| {
        order.check_registered()?;
        if !has_work(order)? {
            return Ok(None);
        }
        let run = order.start()?;
        let details = Object::new()
            .text("direction", order.direction.name())
            .optional("to_version", order.to_version.as_deref())
            .number("workers", u64::from(order.workers.unsigned_abs()));
        run.record(if order.direction == Direction::Up { "migration.run" } else { "migration.rollback" }, details)?;
        Ok(Some(run))
    })?;
    procedure.commit();
    let Some(run) = run else {
        notice!("nothing is left to do for template \"{}\"", order.template.0);
        return Ok(());
    };
    let result = run.conduct(procedure)?;
    run.finish(&result)?;
    procedure.commit();
    let failed = result?;
    if failed > 0 {
        warn_of_failures(&run, failed);
    }
    Ok(())
}

fn warn_of_failures(run: &Run, failed: usize) {
    let template = match run.direction {
        Direction::Up => "",
        Direction::Down => ", and the template was left as it was",
    };
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("{failed} tenants of template \"{}\" failed{template}", run.template.0),
        "pg_tenancy",
    )
    .set_hint("SELECT * FROM tenancy.migration_status WHERE status <> 'applied'; then mend the causes and call again.")
    .report(PgLogLevel::WARNING);
}

/// Applies what is pending to a template and its tenants.
#[pg_extern(
    sql = "CREATE PROCEDURE migrate_tenants(template name, workers integer DEFAULT 2, canary jsonb DEFAULT NULL,
        max_attempts integer DEFAULT 3, lock_timeout_s numeric DEFAULT 5)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn migrate_tenants(
    template: Option<Name>,
    workers: Option<i32>,
    canary: Option<Jsonb>,
    max_attempts: Option<i32>,
    lock_timeout_s: Option<AnyNumeric>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "migrate_tenants") }?;
    if canary.as_ref().is_some_and(|canary| !canary.is_object()) {
        return Err(
            Error::invalid("canary must be a JSON object", "It is what the canaries' metadata contains.").into()
        );
    }
    let order = Order { canary, ..Order::check(template, workers, max_attempts, lock_timeout_s)? };
    Ok(conduct(&procedure, &order)?)
}

/// Undoes what was added to a template after a version, for its tenants and itself.
#[pg_extern(sql = "CREATE PROCEDURE rollback_tenants(template name, to_version text, workers integer DEFAULT 2,
        max_attempts integer DEFAULT 3, lock_timeout_s numeric DEFAULT 5)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn rollback_tenants(
    template: Option<Name>,
    to_version: Option<String>,
    workers: Option<i32>,
    max_attempts: Option<i32>,
    lock_timeout_s: Option<AnyNumeric>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "rollback_tenants") }?;
    let order = Order::check(template, workers, max_attempts, lock_timeout_s)?;
    Ok(conduct(&procedure, &Order { direction: Direction::Down, to_version, ..order })?)
}
