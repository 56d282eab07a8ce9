//! One migration of one schema.
//!
//! The SQL is the administrator's, but what it fires may be anyone's who may create triggers in that schema. So it runs as the owner of the
//! template's schema, in a session that cannot become anyone else, bound to the tenant and kept to its schema, until the transaction has
//! committed: deferred triggers fire then. What the product writes in between it writes as itself.
//!
//! Where the schema is in a database of the tenant's own, all of that is done there ([`remote`]), and recorded in both.

use super::remote;
use super::run::{Direction, Run};
use super::script::Script;
use super::target::{self, Step};
use crate::context;
use crate::error::{Error, Result};
use crate::extension;
use crate::guard::lock::{Mode, Subject};
use crate::guard::schema::Work;
use crate::label::{self, Use};
use crate::query::{self, ident};
use crate::role::{self, Session};
use crate::worker::process;
use pgrx::datum::DatumWithOid;
use pgrx::{Uuid, pg_sys};
use std::ffi::{CStr, CString};

const APPLIED: &str = "INSERT INTO tenancy.applied_migrations (template, tenant_id, version) VALUES ($1, $2, $3)";
const UNDONE: &str = "DELETE FROM tenancy.applied_migrations
    WHERE template = $1 AND tenant_id IS NOT DISTINCT FROM $2 AND version = $3";
const SUCCEEDED: &str = "DELETE FROM tenancy.failed_migrations
    WHERE template = $1 AND tenant_id IS NOT DISTINCT FROM $2 AND version = $3";
const STILL_APPLIED: &str = "SELECT t.slug FROM tenancy.applied_migrations a JOIN tenancy.tenants t ON t.id = a.tenant_id
    WHERE a.template = $1 AND a.version = $2 AND t.template = $1 AND t.schema_name IS NOT NULL AND t.purge_started_at IS NULL LIMIT 1";
const INVALID_INDEX: &str = "SELECT pg_catalog.format('DROP INDEX %I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relnamespace = $1 AND c.relname = $2 AND NOT i.indisvalid AND c.relkind = 'i'";

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is nothing to do.
    Nothing,
    /// Someone else works on the schema.
    Busy,
    /// Done, and more to do.
    More,
    /// Done, and nothing more to do.
    Last,
}

/// A schema that a worker of a run works on.
pub struct Task<'a> {
    pub run: &'a Run,
    pub tenant: Option<Uuid>,
    /// How often this run has failed at it, as far as this worker knows.
    pub attempts: i32,
    /// Whether to wait for someone else who works on the schema.
    pub patient: bool,
}

/// A step in its transaction: how it ended, unless it is one to be done by itself.
pub type Begun = (Outcome, Option<Confined>, Option<(pg_sys::Oid, Step)>);

impl Step {
    fn outcome(&self) -> Outcome {
        if self.is_last { Outcome::Last } else { Outcome::More }
    }
}

/// Foreign SQL can run while this lives.
pub struct Confined {
    _session: Session,
    _work: Work,
}

impl Task<'_> {
    /// Does what comes next, in one transaction; `version` becomes its version once that is known.
    pub fn step(&self, version: &mut Option<String>) -> Result<Outcome> {
        let done = process::transaction(
            || self.lock(),
            || {
                let Some(step) = role::as_extension_owner(|| target::next(self.run, self.tenant))? else {
                    return Ok((Outcome::Nothing, None, None));
                };
                if step.attempts > self.attempts {
                    // Another worker has tried meanwhile.
                    return Ok((Outcome::Nothing, None, None));
                }
                *version = Some(step.version.clone());
                self.say(&step);
                if step.sql.is_none() {
                    return Err(self.without_down_sql(&step));
                }
                match &step.database {
                    Some(database) => {
                        remote::send(self.run, self.tenant, &step, database)?;
                        self.record(&step)?;
                        Ok((step.outcome(), None, None))
                    }
                    None => self.begin(step),
                }
            },
        )?;
        match done {
            None => Ok(Outcome::Busy),
            Some(begun) => self.end(begun),
        }
    }

    /// Does a step in a transaction that has the locks, or prepares for doing it by itself.
    pub fn begin(&self, step: Step) -> Result<Begun> {
        let schema = self.schema(&step)?;
        let confined = self.confine(&step, schema)?;
        let script = Script::parse("sql", step.sql.as_deref().unwrap_or_default())?;
        if !step.transactional {
            self.prepare(schema, &script)?;
            return Ok((Outcome::More, Some(confined), Some((schema, step))));
        }
        script.run()?;
        self.conclude(&step)?;
        Ok((step.outcome(), Some(confined), None))
    }

    /// What is left to do when that transaction has committed.
    pub fn end(&self, (outcome, confined, alone): Begun) -> Result<Outcome> {
        drop(confined);
        alone.map_or(Ok(outcome), |(schema, step)| self.step_alone(schema, &step))
    }

    /// The same for a statement that cannot run in a transaction. What was prepared for it holds until the worker forgets.
    fn step_alone(&self, schema: pg_sys::Oid, step: &Step) -> Result<Outcome> {
        let work = Work::on(&[schema]);
        // SAFETY: the worker is between transactions.
        let session = unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            let session = Session::for_one_statement(self.owner(step)?);
            Script::parse("sql", step.sql.as_deref().unwrap_or_default())?.run_alone();
            pg_sys::CommitTransactionCommand();
            session
        };
        drop((session, work));
        let confined = process::transaction(
            || true,
            || {
                let confined = self.confine(step, schema)?;
                self.conclude(step)?;
                Ok(confined)
            },
        )?;
        drop(confined);
        Ok(step.outcome())
    }

    /// Takes the locks; false when someone else has the schema's.
    pub fn lock(&self) -> bool {
        set(c"lock_timeout", &self.run.lock_timeout.to_string(), Scope::Transaction);
        let template = Subject::template(&self.run.template.0);
        match self.tenant.map(Subject::schema_of) {
            Some(schema) => {
                template.lock(Mode::Share);
                if !self.patient {
                    return schema.try_lock(Mode::Exclusive);
                }
                schema.lock(Mode::Exclusive);
            }
            None => template.lock(Mode::Exclusive),
        }
        true
    }

    /// The schema, which must be what its label says that it is: no mistake in the registry makes this run in another one.
    fn schema(&self, step: &Step) -> Result<pg_sys::Oid> {
        let Some(schema) = step.schema else {
            return Err(Error::Unknown("schema", step.schema_name.clone()));
        };
        let expected = self.tenant.map_or(Use::Template, |tenant| Use::Tenant(*tenant.as_bytes()));
        if label::of_schema(schema) == Some(expected) {
            return Ok(schema);
        }
        Err(Error::State(format!("schema {} is not that of {}", ident(&step.schema_name), step.called), ""))
    }

    fn owner(&self, step: &Step) -> Result<pg_sys::Oid> {
        step.owner.ok_or_else(|| Error::Unknown("schema of template", self.run.template.0.clone()))
    }

    /// Makes the session one in which the step's SQL can run, until the transaction has ended and the result is dropped.
    fn confine(&self, step: &Step, schema: pg_sys::Oid) -> Result<Confined> {
        let path = role::as_extension_owner(|| self.path(step))?;
        set(c"search_path", &path, if step.transactional { Scope::Transaction } else { Scope::Session });
        // A parallel worker would not know what schema it is kept to.
        set(c"max_parallel_workers_per_gather", "0", Scope::Transaction);
        if let Some(tenant) = self.tenant {
            context::for_migration(tenant);
        }
        Ok(Confined { _work: Work::on(&[schema]), _session: Session::of(self.owner(step)?) })
    }

    fn path(&self, step: &Step) -> Result<String> {
        let extension = extension::schema()?;
        let public = if extension == "public" { "" } else { ", public" };
        Ok(format!("{}, {extension}{public}", ident(&step.schema_name)))
    }

    /// Prepares for a statement that runs by itself: keeps the locks beyond this transaction and removes what is left of an attempt to build
    /// the same index. The template's lock is shared even for its own schema: whoever waited for it in vain would have a
    /// snapshot, which building an index waits for.
    fn prepare(&self, schema: pg_sys::Oid, script: &Script) -> Result<()> {
        set(c"lock_timeout", &self.run.lock_timeout.to_string(), Scope::Session);
        Subject::template(&self.run.template.0).lock_session(Mode::Share);
        if let Some(tenant) = self.tenant {
            Subject::schema_of(tenant).lock_session(Mode::Exclusive);
        }
        if let Some(index) = script.index() {
            let drop: Option<String> = query::value(INVALID_INDEX, &[schema.into(), index.as_str().into()])?;
            if let Some(drop) = drop {
                query::statement(&drop, &[])?;
            }
        }
        Ok(())
    }

    /// Verifies what the step's SQL has done, and records it.
    fn conclude(&self, step: &Step) -> Result<()> {
        if let Some(verify_sql) = &step.verify_sql {
            let path = role::as_extension_owner(|| self.path(step))?;
            set(c"search_path", &path, Scope::Transaction);
            Script::parse("verify_sql", verify_sql)?.verify()?;
        }
        self.record(step)
    }

    /// Records it.
    fn record(&self, step: &Step) -> Result<()> {
        role::as_extension_owner(|| {
            let args = || -> [DatumWithOid; 3] {
                [self.run.template.clone().into(), self.tenant.into(), step.version.as_str().into()]
            };
            match self.run.direction {
                Direction::Up => query::run(APPLIED, &args())?,
                Direction::Down => {
                    self.check_left_by_tenants(step)?;
                    query::run(UNDONE, &args())?
                }
            };
            query::run(SUCCEEDED, &args()).map(drop)
        })
    }

    /// A template goes back after its tenants; one may have been made meanwhile.
    fn check_left_by_tenants(&self, step: &Step) -> Result<()> {
        if self.tenant.is_some() {
            return Ok(());
        }
        let args: [DatumWithOid; 2] = [self.run.template.clone().into(), step.version.as_str().into()];
        match query::current_rows(STILL_APPLIED, &args, |row| row.must::<String>(1))?.first() {
            Some(slug) => Err(Error::State(format!("tenant {slug} still has migration \"{}\"", step.version), "")),
            None => Ok(()),
        }
    }

    fn without_down_sql(&self, step: &Step) -> Error {
        Error::without_down_sql(&step.version, &self.run.template.0)
    }

    /// What pg_stat_activity says.
    fn say(&self, step: &Step) {
        process::say(&match self.run.direction {
            Direction::Up => format!("pg_tenancy: migrating {} to {}", step.called, step.version),
            Direction::Down => format!("pg_tenancy: rolling {} of {} back", step.version, step.called),
        });
    }
}

/// How long a setting lasts.
enum Scope {
    Transaction,
    Session,
}

fn set(name: &CStr, value: &str, scope: Scope) {
    let value = CString::new(value).unwrap_or_default();
    let action = match scope {
        Scope::Transaction => pg_sys::GucAction::GUC_ACTION_LOCAL,
        Scope::Session => pg_sys::GucAction::GUC_ACTION_SET,
    };
    let (context, source) = (pg_sys::GucContext::PGC_USERSET, pg_sys::GucSource::PGC_S_SESSION);
    // SAFETY: C strings, which are copied.
    unsafe { pg_sys::set_config_option(name.as_ptr(), value.as_ptr(), context, source, action, true, 0, false) };
}
