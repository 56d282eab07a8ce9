//! The end of a tenant: its rows in users' tables, then its registry row.

use crate::access;
use crate::audit::{self, Entry};
use crate::context::registry::Status;
use crate::database;
use crate::erased::Erased;
use crate::error::{Error, Result, SqlResult};
use crate::fleet;
use crate::guard::lock;
use crate::isolation::adopt;
use crate::isolation::row::erase::{self, Eraser};
use crate::isolation::schema;
use crate::json::Object;
use crate::metering;
use crate::procedure::{self, Procedure};
use crate::query;
use crate::role;
use crate::worker::task::{self, Task, Work};
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

const LOCK_ROW: &str =
    "SELECT status, purge_after <= pg_catalog.now(), purge_after::text, purge_started_at IS NOT NULL, slug
    FROM tenancy.tenants WHERE id = $1 FOR UPDATE";
const MARK: &str = "UPDATE tenancy.tenants SET purge_started_at = pg_catalog.now() WHERE id = $1";
const ADD_ROWS: &str = "UPDATE tenancy.tenants SET purged_rows = (
        SELECT pg_catalog.jsonb_object_agg(name, rows) FROM (
            SELECT name, pg_catalog.sum(rows::bigint) AS rows
            FROM (SELECT * FROM pg_catalog.jsonb_each_text(coalesce(purged_rows, '{}'))
                  UNION ALL SELECT * FROM pg_catalog.jsonb_each_text($2)) AS counts (name, rows)
            GROUP BY name) AS sums)
    WHERE id = $1";
const ROWS: &str = "SELECT c.key, c.value::bigint FROM tenancy.tenants t, pg_catalog.jsonb_each_text(t.purged_rows) c WHERE t.id = $1 ORDER BY c.key";
const DELETE: &str = "DELETE FROM tenancy.tenants WHERE id = $1";
const EXPIRED: &str = "SELECT id FROM tenancy.tenants
    WHERE status = 'deleted' AND (purge_after <= pg_catalog.now() OR purge_started_at IS NOT NULL) ORDER BY purge_after, id";

/// What background workers do.
pub const TASKS: &[Task] =
    &[Task { name: "expired tenants", every_s: 3600, work: Work::Call("purge_expired_tenants()") }];

/// Marks the tenant, so that nothing brings it back from here on.
fn start(tenant: Uuid, force: bool) -> Result<()> {
    lock::take_alone(tenant);
    role::as_extension_owner(|| database::wait_for_writers(tenant))?;
    role::as_extension_owner(|| {
        let (status, expired, until, begun, slug) = query::returning(LOCK_ROW, &[tenant.into()], |row| {
            Ok((
                row.must::<String>(1)?,
                row.get::<bool>(2)?,
                row.get::<String>(3)?,
                row.must::<bool>(4)?,
                row.must::<String>(5)?,
            ))
        })?
        .ok_or_else(|| Error::unknown_tenant(tenant))?;
        if status != Status::Deleted.name() {
            let state = Status::from_name(&status)?.name();
            return Err(Error::IllegalChange { state, change: "be purged: delete_tenant() comes first".to_owned() });
        }
        if begun {
            return Ok(());
        }
        if !force && expired != Some(true) {
            return Err(Error::RetentionNotOver { until: until.unwrap_or_default() });
        }
        query::run(MARK, &[tenant.into()])?;
        audit::record(&Entry {
            action: "tenant.purge",
            tenant: Some(tenant),
            target: Some(&slug),
            after: Some(Object::new().boolean("force", force).finish()),
            ..Entry::default()
        })
    })
}

/// Adds what a batch removed to the tenant's row, in the batch's own transaction.
fn add_rows(tenant: Uuid, erased: &Erased) -> Result<()> {
    if erased.is_empty() {
        return Ok(());
    }
    let counts = erased.iter().fold(Object::new(), |object, (table, rows)| object.number(table, *rows)).finish();
    role::as_extension_owner(|| query::run(ADD_ROWS, &[tenant.into(), counts.into()]).map(drop))
}

/// Drops the tenant's schema, if it has one, and what a move has left.
fn drop_schema(tenant: Uuid) -> Result<()> {
    role::as_extension_owner(|| {
        schema::drop_schema(tenant)?;
        schema::drop_left(tenant).map(drop)
    })
}

/// Drops the tenant's database, if it has one. Commits.
fn drop_database(procedure: &Procedure, tenant: Uuid) -> Result<()> {
    if database::demolish(procedure, tenant)? {
        notice!("dropped the database of tenant \"{tenant}\"");
    }
    Ok(())
}

/// Removes the next batch; false when there is nothing left to remove.
fn batch(eraser: &mut Eraser) -> Result<bool> {
    lock::take_alone(eraser.tenant());
    let (more, erased) = eraser.batch()?;
    add_rows(eraser.tenant(), &erased)?;
    Ok(more)
}

/// Removes the registry row once no table has a row of the tenant, and redacts what the audit log knows of it. Returns what was
/// removed of each table, or None when another session has finished the purge.
fn finish(tenant: Uuid) -> Result<Option<Erased>> {
    lock::take_alone(tenant);
    erase::verify(tenant)?;
    erase::check_constraints_now()?;
    role::as_extension_owner(|| {
        let mut erased: Erased =
            query::current_rows(ROWS, &[tenant.into()], |row| Ok((row.must(1)?, row.must::<i64>(2)?.cast_unsigned())))?
                .into_iter()
                .collect();
        if query::run(DELETE, &[tenant.into()])? == 0 {
            return Ok(None);
        }
        access::erase(tenant, &mut erased)?;
        schema::erase(tenant, &mut erased)?;
        fleet::erase(tenant, &mut erased)?;
        adopt::erase(tenant, &mut erased)?;
        metering::erase(tenant, &mut erased)?;
        database::erase(tenant, &mut erased)?;
        audit::redact(tenant)?;
        let rows = erased.iter().fold(Object::new(), |object, (table, rows)| object.number(table, *rows));
        audit::record(&Entry {
            action: "tenant.purged",
            tenant: Some(tenant),
            after: Some(Object::new().object("rows", rows).finish()),
            ..Entry::default()
        })?;
        Ok(Some(erased))
    })
}

/// Tells what was removed.
fn report(tenant: Uuid, erased: Option<Erased>) {
    let Some(erased) = erased else {
        notice!("tenant \"{tenant}\" was purged by another session");
        return;
    };
    for (table, rows) in &erased {
        notice!("purged {rows} rows of tenant \"{tenant}\" from {table}");
    }
    notice!("purged tenant \"{tenant}\"");
}

/// Purges one tenant, committing after each batch.
fn purge(procedure: &Procedure, tenant: Uuid, force: bool) -> Result<()> {
    start(tenant, force)?;
    procedure.commit();
    drop_database(procedure, tenant)?;
    drop_schema(tenant)?;
    procedure.commit();
    let mut eraser = Eraser::new(tenant)?;
    while batch(&mut eraser)? {
        procedure.commit();
    }
    procedure.commit();
    let erased = finish(tenant)?;
    procedure.commit();
    report(tenant, erased);
    Ok(())
}

/// Removes a deleted tenant for good.
#[pg_extern(sql = "CREATE PROCEDURE purge_tenant(tenant uuid, force boolean DEFAULT false)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn purge_tenant(tenant: Option<Uuid>, force: Option<bool>, fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "purge_tenant") }?;
    Ok(purge(&procedure, tenant.ok_or(Error::Null("tenant"))?, force.ok_or(Error::Null("force"))?)?)
}

/// Removes every deleted tenant whose retention is over.
#[pg_extern(sql = "CREATE PROCEDURE purge_expired_tenants()
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn purge_expired_tenants(fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "purge_expired_tenants") }?;
    let tenants: Vec<Uuid> = role::as_extension_owner(|| query::rows(EXPIRED, &[], |row| row.must(1)))?;
    for tenant in tenants {
        let purged = purge_one_of_many(&procedure, tenant);
        procedure.commit();
        match purged {
            Ok(()) if task::time_is_up() => break,
            Ok(()) => {}
            // The next one is tried even if the time is up: this one would be the first again at the next call.
            Err(error) => {
                let message = format!("tenant \"{tenant}\" was not purged: {error}");
                task::note_failure(&message);
                warning!("{message}");
            }
        }
    }
    Ok(())
}

/// Purges one tenant so that its failure stays its own: every step that can fail runs in a subtransaction. A worker whose time is up leaves the
/// rest for the next call.
fn purge_one_of_many(procedure: &Procedure, tenant: Uuid) -> std::result::Result<(), String> {
    procedure::attempt(|| start(tenant, false))?;
    procedure.commit();
    drop_database(procedure, tenant).map_err(|error| pg_sys::panic::ErrorReport::from(error).message().to_owned())?;
    procedure::attempt(|| drop_schema(tenant))?;
    procedure.commit();
    let mut eraser = procedure::attempt(|| Eraser::new(tenant))?;
    while procedure::attempt(|| batch(&mut eraser))? {
        procedure.commit();
        if task::time_is_up() {
            return Ok(());
        }
    }
    procedure.commit();
    report(tenant, procedure::attempt(|| finish(tenant))?);
    task::note_done(1);
    Ok(())
}
