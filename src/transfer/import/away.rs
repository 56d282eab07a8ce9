//! A tenant in a database of its own: the database is made as for any tenant, and its rows are loaded by a worker there, in one transaction.
//!
//! Until the end the tenant is cancelled, for a reason that says why: nobody can use it, and a call that was interrupted is done again from the
//! beginning.

use super::lines::Lines;
use super::load::{self, Way};
use super::people::People;
use super::register::{self, Registered};
use super::unpack::{Header, Package, Packed};
use super::{Mode, Wishes, known, reading_the_file};
use crate::context::registry::Status;
use crate::database::{self, Contents};
use crate::error::{Error, Result};
use crate::fields;
use crate::metering::limit;
use crate::procedure::{self, Procedure};
use crate::query;
use crate::role;
use crate::row_file;
use crate::transfer::format;
use crate::transfer::own;
use crate::transfer::remote::refuse_elsewhere;
use crate::transfer::tables::Place;
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};

pub const LOAD: Errand = Errand { name: "transfer.load", run };

/// What is said of a tenant as long as it is made.
const UNFINISHED: &str = "an import that has not ended";

const CLOSE: &str = "UPDATE tenancy.tenants SET status = 'cancelled', status_reason = $2 WHERE id = $1";
const OPEN: &str =
    "UPDATE tenancy.tenants SET status = 'active', status_reason = NULL, status_since = pg_catalog.now() WHERE id = $1";
const DISCARD: &str = "DELETE FROM tenancy.tenants WHERE id = $1 AND status = 'cancelled' AND status_reason = $2";

/// Makes the tenant, with a database. Commits.
pub fn make(procedure: &Procedure, package: &Package, wishes: &Wishes) -> Result<()> {
    let prepare = || -> Result<(Uuid, People)> {
        known::check(package)?;
        let tenant = register::register(package, wishes)?;
        // Nobody else is to make its database, nor to come in before all is there.
        query::run(CLOSE, &[tenant.into(), UNFINISHED.into()])?;
        Ok((tenant, People::find(package, tenant, wishes.mode == Mode::Beside)?))
    };
    if wishes.mode == Mode::New {
        discard_unfinished(procedure, package.header.tenant)?;
    }
    let (tenant, people) = as_owner(prepare)?;
    procedure.commit();
    let done = database::build(procedure, tenant, Contents::Template)
        .and_then(|()| send(package, tenant, &people, wishes)?.wait_in(procedure))
        .and_then(|answer| as_owner(|| finish(package, tenant, &people, wishes, answer["rows"].as_u64().unwrap_or(0))));
    procedure.commit();
    if done.is_err() {
        discard_unfinished(procedure, tenant)?;
    }
    done
}

/// Runs `work` as the extension's owner, so that an error can be answered.
fn as_owner<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let settled = || role::with_settings(format::SETTINGS, || row_file::with_settings(work));
    procedure::caught(|| reading_the_file(|| role::as_extension_owner(settled)))
}

/// Removes what an import has left that did not come to its end. Commits.
fn discard_unfinished(procedure: &Procedure, tenant: Uuid) -> Result<()> {
    let is_left = as_owner(|| {
        let found = Registered::find(tenant)?;
        Ok(found.is_some_and(|found| {
            found.status == Status::Cancelled && found.status_reason.as_deref() == Some(UNFINISHED)
        }))
    })?;
    procedure.commit();
    if is_left {
        database::demolish(procedure, tenant)?;
        as_owner(|| query::run(DISCARD, &[tenant.into(), UNFINISHED.into()]))?;
        procedure.commit();
    }
    Ok(())
}

/// Replaces the rows of a tenant that nobody writes for; how many it has now. They are there before the caller's transaction ends.
pub fn replace(package: &Package, tenant: Uuid, wishes: &Wishes) -> Result<u64> {
    let answer = send(package, tenant, &People::default(), wishes)?.wait()?;
    Ok(answer["rows"].as_u64().unwrap_or(0))
}

fn finish(package: &Package, tenant: Uuid, people: &People, wishes: &Wishes, rows: u64) -> Result<()> {
    known::write(package, tenant, people, wishes.mode, false)?;
    query::run(OPEN, &[tenant.into()])?;
    if wishes.mode == Mode::New {
        register::restore(package, tenant)?;
    }
    database::open(tenant, Registered::get(tenant)?.status.name())?;
    limit::erase(tenant)?;
    register::record(package, tenant, wishes, rows)
}

/// Sends the rows to the tenant's database.
fn send(package: &Package, tenant: Uuid, people: &People, wishes: &Wishes) -> Result<errand::Sent> {
    let missing = || Error::Unknown("database of tenant", tenant.to_string());
    let (database, schema) = role::as_extension_owner(|| {
        Ok((database::oid_of(tenant)?.ok_or_else(missing)?, Registered::get(tenant)?.schema))
    })?;
    let tables: Vec<Value> = (package.tables.iter())
        .map(|table| {
            json!({ "name": table.name, "schema": table.schema, "tenant_column": table.tenant_column, "columns": table.columns,
                    "rows": table.rows.name(), "count": table.rows.count })
        })
        .collect();
    let own = package.own.iter().filter(|(own, _)| own.beside_rows);
    let own: Vec<Value> =
        own.map(|(own, lines)| json!({ "name": own.name, "rows": lines.name(), "count": lines.count })).collect();
    let users = people.changed.iter().map(|(there, here)| json!([there.to_string(), here.to_string()]));
    let request = json!({
        "tenant": tenant.to_string(),
        "schema": schema,
        "source": package.header.tenant.to_string(),
        "mode": wishes.mode.name(),
        "tables": tables,
        "own": own,
        "sequences": package.sequences,
        "users": users.collect::<Vec<Value>>(),
    });
    errand::send(database, LOAD.name, &request)
}

/// In a worker, in the tenant's database.
fn run(request: &Value) -> Result<Value> {
    let load = || role::with_settings(format::SETTINGS, || row_file::with_settings(|| load_here(request)));
    let rows = process::transaction(|| true, || reading_the_file(|| role::as_extension_owner(load)))?;
    Ok(json!({ "rows": rows }))
}

fn load_here(request: &Value) -> Result<u64> {
    let (tenant, mode) = (fields::tenant(request, "tenant")?, Mode::parse(fields::text(request, "mode")?)?);
    refuse_elsewhere(tenant)?;
    let (package, people) = (unpacked(request)?, people(request)?);
    if mode != Mode::Replace {
        known::write(&package, tenant, &people, mode, true)?;
    }
    let schema = request["schema"].as_str();
    let place = query::as_of_now(|| Place::read(tenant, schema, pg_sys::RowExclusiveLock as _))?;
    let rows = load::load(&place, &package, &people, &Way { new_ids: false, replaces: mode == Mode::Replace })?;
    limit::erase(tenant)?;
    Ok(rows)
}

/// The package that was sent, as far as it is for the tenant's database.
fn unpacked(request: &Value) -> Result<Package> {
    let optional = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
    let lines =
        |value: &Value| Lines::of(fields::text(value, "rows")?, fields::number(value, "count")?.cast_unsigned());
    let table = |table: &Value| {
        Ok(Packed {
            name: fields::text(table, "name")?.to_owned(),
            schema: optional(table, "schema"),
            tenant_column: optional(table, "tenant_column"),
            columns: fields::texts(table, "columns")?,
            rows: lines(table)?,
        })
    };
    let known = |value: &Value| {
        let name = fields::text(value, "name")?;
        let own = own::ALL.iter().find(|own| own.name == name);
        Ok((own.ok_or_else(|| Error::Internal(format!("there is no {name}")))?, lines(value)?))
    };
    let sequences = serde_json::from_value(request["sequences"].clone());
    Ok(Package {
        header: Header {
            tenant: fields::tenant(request, "source")?,
            isolation: String::new(),
            template: None,
            json: String::new(),
        },
        own: fields::list(request, "own")?.iter().map(known).collect::<Result<_>>()?,
        tables: fields::list(request, "tables")?.iter().map(table).collect::<Result<_>>()?,
        sequences: sequences.map_err(|error| Error::Internal(format!("sequences cannot be read: {error}")))?,
    })
}

fn people(request: &Value) -> Result<People> {
    let user = |pair: &Value| Ok((fields::uuid_at(pair, 0)?, fields::uuid_at(pair, 1)?));
    Ok(People::with(fields::list(request, "users")?.iter().map(user).collect::<Result<_>>()?))
}
