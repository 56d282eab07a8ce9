//! The other side of [`super::remote`], in the tenant's own database.

use super::apply::Task;
use super::remote::applied;
use super::run::{Direction, Run};
use super::target::Step;
use crate::error::{Error, Result};
use crate::home;
use crate::query;
use crate::sqltype::Name;
use crate::uuid;
use crate::worker::process;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};

const SCHEMA: &str = "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::pg_catalog.name";

/// A request as it is read here.
struct Request {
    run: Run,
    tenant: Uuid,
    step: Step,
    /// What the control database knows to be applied.
    applied: Vec<String>,
}

impl Request {
    fn read(request: &Value) -> Option<Self> {
        let text = |field: &str| request.get(field).and_then(Value::as_str).map(str::to_owned);
        let number = |field: &str| request.get(field).and_then(Value::as_i64);
        let run = Run {
            id: Uuid::from_bytes([0; 16]),
            template: Name(text("template")?),
            direction: Direction::from_name(&text("direction")?),
            position: 0,
            canary: None,
            max_attempts: 1,
            lock_timeout: i32::try_from(number("lock_timeout")?).ok()?,
            workers: 1,
        };
        let step = Step {
            schema: None,
            schema_name: text("schema_name")?,
            called: text("called")?,
            owner: Some(pg_sys::Oid::from(u32::try_from(number("owner")?).ok()?)),
            version: text("version")?,
            sql: text("sql"),
            verify_sql: text("verify_sql"),
            transactional: request.get("transactional")?.as_bool()?,
            is_last: true,
            attempts: 0,
            database: None,
        };
        let tenant = Uuid::from_bytes(uuid::parse(text("tenant")?.as_bytes())?);
        let applied = serde_json::from_value(request.get("applied")?.clone()).ok()?;
        Some(Self { run, tenant, step, applied })
    }

    /// Whether the step has been done before. What this database has must be what the control database knows, but for this step: one that was put
    /// back to what it was long ago is not one that migrations can be guessed for.
    fn is_done(&self) -> Result<bool> {
        let has = applied(&self.run.template, self.tenant)?;
        let differs_by_step = |more: &[String], less: &[String]| {
            let rest: Vec<&String> = more.iter().filter(|version| **version != self.step.version).collect();
            more.len() == less.len() + 1 && rest.iter().copied().eq(less)
        };
        let is_done = match self.run.direction {
            Direction::Up => differs_by_step(&has, &self.applied),
            Direction::Down => differs_by_step(&self.applied, &has),
        };
        if is_done || has == self.applied {
            return Ok(is_done);
        }
        Err(Error::State(
            format!("the database of {} has other migrations than are recorded for it", self.step.called),
            "tenancy.applied_migrations says which, in that database and in the control database.",
        ))
    }
}

/// The errand.
pub fn answer(request: &Value) -> Result<Value> {
    let unreadable = || Error::Internal("a migration cannot be read".to_owned());
    let Request { run, tenant, .. } = &Request::read(request).ok_or_else(unreadable)?;
    if !process::transaction(|| true, || Ok(home::is_of(tenant.as_bytes())))?.unwrap_or_default() {
        return Err(Error::State(format!("this database is not that of tenant \"{tenant}\""), ""));
    }
    let task = Task { run, tenant: Some(*tenant), attempts: 0, patient: true };
    let begun = process::transaction(
        || task.lock(),
        || {
            let request = Request::read(request).ok_or_else(unreadable)?;
            if request.is_done()? {
                return Ok(None);
            }
            let name = Name(request.step.schema_name.clone());
            let schema: Option<pg_sys::Oid> = query::current_rows(SCHEMA, &[name.into()], |row| row.must(1))?.pop();
            task.begin(Step { schema, ..request.step }).map(Some)
        },
    )?;
    if let Some(begun) = begun.flatten() {
        task.end(begun)?;
    }
    Ok(json!({}))
}
