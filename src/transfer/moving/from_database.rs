//! Out of a database of its own: a worker there writes the rows to files, in which they come to the shared tables or to a schema.

use super::along::{self, Back};
use super::order::Order;
use super::pairs::{Origin, Pair, Pairs, Sent};
use super::record::{Isolation, Moved};
use super::tables::{self, Digest, Table};
use super::{sequences, to_rows, to_schema};
use crate::context;
use crate::database;
use crate::error::{Error, Result};
use crate::fields;
use crate::guard;
use crate::isolation::schema::{Place, Schema};
use crate::procedure::{self, Procedure};
use crate::role;
use crate::scratch::{self, Scratch};
use crate::transfer::remote::refuse_elsewhere;
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use pgrx::pg_sys;
use serde_json::{Value, json};

pub const UNLOAD: Errand = Errand { name: "move.unload", run: unload };

/// Fails when the tenant cannot be moved, as far as that can be seen before; the rest is seen in its database.
pub fn check(order: &Order) -> Result<()> {
    match order.to {
        Isolation::Row => to_schema::refuse_rows(order),
        _ => to_schema::targets(order).map(drop),
    }
}

/// Fetches the rows, compares them, and switches. Commits as it goes.
pub fn perform(procedure: &Procedure, order: &Order) -> Result<Moved> {
    let (tenant, are_shared) = (order.tenant, order.to == Isolation::Row);
    let (targets, found) = procedure::caught_all(|| {
        role::as_extension_owner(|| {
            let targets = if are_shared { to_rows::targets(order)? } else { to_schema::targets(order)? };
            Ok((targets, database::oid_of(tenant)?))
        })
    })?;
    let database = found.ok_or_else(|| Error::Unknown("database of tenant", tenant.to_string()))?;
    let (pairs, places) = fetch(procedure, order, database, targets, are_shared)?;
    // Everything that was used there is known here from now on: nobody uses anything meanwhile.
    database::report::drain(procedure, database)?;
    let back = along::fetch(procedure, tenant, database)?;
    procedure::caught_all(|| {
        role::as_extension_owner(|| {
            Back::take(&back, tenant)?;
            if are_shared {
                to_rows::receive(order, &pairs, &places)
            } else {
                to_schema::receive(order, pairs, &places)
            }
        })
    })
}

fn fetch(
    procedure: &Procedure,
    order: &Order,
    database: pg_sys::Oid,
    targets: Vec<Table>,
    are_shared: bool,
) -> Result<(Pairs, Vec<Place>)> {
    let files: Vec<Scratch> = targets.iter().map(|_| Scratch::new()).collect::<Result<_>>()?;
    let wanted: Vec<Value> = targets
        .iter()
        .zip(&files)
        .map(|(table, file)| json!({ "table": table.to_json(), "file": file.name() }))
        .collect();
    let request = json!({
        "tenant": order.tenant.to_string(), "schema": order.schema, "targets": wanted, "are_shared": are_shared });
    let answer = errand::send(database, UNLOAD.name, &request)?.wait_in(procedure)?;
    let mut known: Vec<(Table, Scratch)> = targets.into_iter().zip(files).collect();
    let mut pairs =
        |name| fields::list(&answer, name)?.iter().map(|sent| pair(&mut known, sent)).collect::<Result<Vec<Pair>>>();
    let pairs = Pairs { moved: pairs("moved")?, compared: pairs("compared")? };
    let places = fields::list(&answer, "places")?.iter().map(place).collect::<Result<_>>()?;
    Ok((pairs, places))
}

/// A table that was sent, with where its rows go.
fn pair(known: &mut Vec<(Table, Scratch)>, sent: &Value) -> Result<Pair> {
    let name = fields::text(sent, "table")?.to_owned();
    let index = known.iter().position(|(table, _)| table.name == name);
    let (target, file) = known.swap_remove(index.ok_or_else(|| Error::Unknown("table", name.clone()))?);
    let hashes = sent["hashes"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
    let full_name = fields::text(sent, "full_name")?.to_owned();
    let digest = Digest::from_json(&sent["digest"])?;
    let source = Origin::There(Sent { name, full_name, file, digest, hashes });
    Ok(Pair { source, target, columns: fields::texts(sent, "columns")? })
}

/// Where a sequence was; whose it is here is known here.
fn place(place: &Value) -> Result<Place> {
    Ok(Place {
        sequence: fields::text(place, "sequence")?.to_owned(),
        owner: pg_sys::InvalidOid,
        value: fields::number(place, "value")?,
        is_called: fields::boolean(place, "is_called")?,
    })
}

/// In the tenant's database: writes the rows of its tables.
fn unload(request: &Value) -> Result<Value> {
    let tenant = fields::tenant(request, "tenant")?;
    let are_shared = fields::boolean(request, "are_shared")?;
    let wanted = fields::list(request, "targets")?;
    let targets: Vec<Table> = wanted.iter().map(|target| Table::from_json(&target["table"])).collect::<Result<_>>()?;
    let file = |name: &str| -> Result<_> {
        let target = wanted.iter().find(|target| target["table"]["name"] == name);
        scratch::path(fields::text(target.unwrap_or(&Value::Null), "file")?)
    };
    let describe = |pair: &Pair| -> Result<Value> {
        Ok(json!({
            "table": pair.source.name(), "full_name": pair.source.full_name(), "columns": pair.columns,
            "digest": pair.source.digest(tenant, &pair.columns)?.to_json() }))
    };
    let write = |own: &Schema| {
        let pairs = Pairs::of_own(tables::of_schema(own.oid)?, &targets, tenant, are_shared)?;
        let (mut moved, mut compared) = (Vec::new(), Vec::new());
        for pair in &pairs.moved {
            if let Some(source) = pair.source.table() {
                pair.unload(source, tenant, &file(&source.name)?)?;
            }
            moved.push(describe(pair)?);
        }
        for pair in &pairs.compared {
            let mut described = describe(pair)?;
            described["hashes"] = json!(pair.source.hashes(&pair.columns)?);
            compared.push(described);
        }
        let place =
            |place: &Place| json!({ "sequence": place.sequence, "value": place.value, "is_called": place.is_called });
        let places = sequences::places(&own.name, &sequences::of_schema(own.oid)?)?;
        Ok(json!({ "moved": moved, "compared": compared, "places": places.iter().map(place).collect::<Vec<Value>>() }))
    };
    let unload = || {
        refuse_elsewhere(tenant)?;
        let own = Schema::get(fields::text(request, "schema")?)?;
        context::while_making_schema(tenant, || guard::schema::while_working_on(&[own.oid], || write(&own)))
    };
    process::transaction(|| true, || role::as_extension_owner(unload))?
        .ok_or_else(|| Error::Internal("a transaction was not begun".to_owned()))
}
