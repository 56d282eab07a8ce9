//! Carrying out a plan, step by step, each in a transaction of its own.

use super::fill::Fill;
use super::plan::{self, Action, Step};
use super::registry;
use super::request::Request;
use super::scope::Scope;
use super::worker;
use crate::error::{Error, Result};
use crate::guard::lock::{Mode, Subject};
use crate::isolation::row::inspect;
use crate::isolation::row::protect;
use crate::procedure::{self, Procedure};
use crate::query;
use crate::role;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// How long a step that writers wait for waits for its lock, and them behind it, before it lets them go first.
const PATIENCE: &str = "100ms";
/// Pauses between such attempts.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];
/// How often a step that waits for its lock says so.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// One adoption at a time in a database, as long as this lives.
struct Turn(Subject);

impl Turn {
    fn wait(procedure: &Procedure) -> Self {
        let subject = Subject::step("adoption");
        if !subject.try_lock_session(Mode::Exclusive) {
            notice!("waiting for another adoption to end");
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

/// Adopts what `scope` finds.
pub fn conduct(procedure: &Procedure, request: &Request, scope: impl Fn(&Request) -> Result<Scope>) -> Result<()> {
    let tenant = request.tenant.ok_or(Error::Null("tenant"))?;
    query::refuse_old_snapshot("a table cannot be adopted")?;
    let _turn = Turn::wait(procedure);
    // What an adoption that we waited for has done is seen from here on.
    procedure.commit();
    let (scope, steps) = role::as_extension_owner(|| {
        let scope = scope(request)?;
        scope.roots.iter().try_for_each(|root| registry::refuse_other(root, request))?;
        let steps = plan::make(&scope, request)?;
        Ok((scope, steps))
    })?;
    if steps.is_empty() {
        notice!("nothing is left to do");
    }
    let of_root = |root: pg_sys::Oid| steps.iter().filter(|step| step.root == root).count();
    role::as_extension_owner(|| {
        let roots = scope.roots.iter().filter(|root| of_root(root.table().oid) > 0);
        roots.into_iter().try_for_each(|root| registry::begin(root, tenant, request, of_root(root.table().oid)))
    })?;
    procedure.commit();
    for (number, step) in steps.iter().enumerate() {
        notice!("{} of {}: {}", number + 1, steps.len(), step.text());
        carry_out(procedure, step, request)?;
    }
    role::as_extension_owner(|| {
        let roots = scope.roots.iter().filter(|root| of_root(root.table().oid) > 0);
        roots.into_iter().try_for_each(|root| registry::finish(root, tenant))
    })?;
    procedure.commit();
    Ok(())
}

fn carry_out(procedure: &Procedure, step: &Step, request: &Request) -> Result<()> {
    role::as_extension_owner(|| registry::enter(step.root, &step.text()))?;
    procedure.commit();
    match step.action {
        Action::Statements => {
            in_its_turn(procedure, step, || step.statements.iter().try_for_each(|sql| run(step, sql)))?
        }
        Action::Protect => {
            in_its_turn(procedure, step, || protect::protect(step.root, &request.column, false, false).map(drop))?
        }
        Action::Concurrently => worker::run(procedure, step.root, step.tables[0])?,
        Action::Fill => {
            let fill = Fill {
                table: step.tables[0],
                name: &step.table_name,
                owner: step.owner,
                column: &request.column,
                tenant: request.tenant_literal(),
                batch: request.batch,
            };
            fill.run(procedure, |rows| role::as_extension_owner(|| registry::add_filled(step.root, rows)))?;
        }
    }
    role::as_extension_owner(|| registry::leave(step.root))?;
    procedure.commit();
    Ok(())
}

fn run(step: &Step, sql: &str) -> Result<()> {
    role::as_owner_of_all_rows(step.owner, || query::statement(sql, &[])).map(drop)
}

/// Does a step in one transaction, again and again until its locks were to be had within [`PATIENCE`]: whoever waits for a lock keeps all from
/// the table who come after. Autovacuum gives way to the weaker lock that comes first and keeps nobody.
fn in_its_turn(procedure: &Procedure, step: &Step, work: impl Fn() -> Result<()>) -> Result<()> {
    let patience = if step.blocks_writers() { PATIENCE } else { "0" };
    let settings = [("lock_timeout", patience), ("client_min_messages", "warning")];
    let mut next_report = Instant::now() + REPORT_EVERY;
    for attempt in 0_usize.. {
        for table in &step.tables {
            // SAFETY: any oid may be locked; the transaction's end gives it back.
            unsafe { pg_sys::LockRelationOid(*table, pg_sys::ShareUpdateExclusiveLock as _) };
        }
        let done = procedure::unless_locked(|| {
            role::as_extension_owner(|| {
                role::with_settings(settings, || {
                    inspect::refuse_other(step.tables[0], &step.table_name, step.owner)?;
                    work()
                })
            })
        })?;
        procedure.commit();
        if done.is_some() {
            break;
        }
        if Instant::now() >= next_report {
            notice!("waiting for transactions that use {} to end", step.table_name);
            next_report = Instant::now() + REPORT_EVERY;
        }
        let resume = Instant::now() + PAUSES[attempt.min(PAUSES.len() - 1)];
        procedure.wait_until(|| Instant::now() >= resume);
        procedure.commit();
    }
    Ok(())
}
