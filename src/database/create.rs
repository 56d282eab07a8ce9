//! An empty database, labelled as its tenant's and closed.

use super::intent::{Intent, Phase};
use super::{dress, remove, settings};
use crate::error::{Error, Result};
use crate::fields;
use crate::guard::lock::{Mode, Subject};
use crate::home;
use crate::json::Jsonb;
use crate::label::{self, Home};
use crate::procedure::{self, Procedure};
use crate::query::{self, ident, literal};
use crate::raw;
use crate::role;
use crate::worker::errand::{self, Errand};
use crate::worker::process;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};
use std::ffi::CString;

pub const ERRAND: Errand = Errand { name: "database.create", run };

const CONTROL: &str = "SELECT pg_catalog.to_jsonb(d),
        (SELECT spcname::text FROM pg_catalog.pg_tablespace WHERE oid = d.dattablespace)
    FROM pg_catalog.pg_database d WHERE d.oid = $1";
const TAKEN: &str = "SELECT true FROM pg_catalog.pg_database WHERE oid = $1";

/// Makes the tenant's database, of which nothing is left from before. Commits. Its oid.
pub fn create(procedure: &Procedure, tenant: Uuid) -> Result<pg_sys::Oid> {
    const BEGUN: [Phase; 5] = [Phase::Requested, Phase::Creating, Phase::Installing, Phase::Filling, Phase::Filled];
    let intent = procedure::caught(|| role::as_extension_owner(|| Intent::get_in(tenant, &BEGUN)))?;
    if let Some(left) = intent.oid {
        remove::remove(procedure, tenant, left)?;
    }
    let database = procedure::caught(|| {
        role::as_extension_owner(|| {
            let intent = Intent::get_in(tenant, &BEGUN)?;
            let database = choose()?;
            intent.choose(database)?;
            Ok(database)
        })
    })?;
    // Noted before anything is made, and for good.
    procedure.commit();
    // SAFETY: a plain read.
    let here = unsafe { pg_sys::MyDatabaseId };
    errand::send(here, ERRAND.name, &json!({ "tenant": tenant.to_string() }))?.wait_in(procedure)?;
    Ok(database)
}

/// An oid that no database has, nor what is left of one.
fn choose() -> Result<pg_sys::Oid> {
    loop {
        // SAFETY: counts up, whatever becomes of the transaction.
        let oid = unsafe { pg_sys::GetNewObjectId() };
        let is_taken = query::current_rows(TAKEN, &[oid.into()], |_| Ok(()))?.pop().is_some();
        if !is_taken && remove::directories(oid)?.is_empty() {
            return Ok(oid);
        }
    }
}

/// In a worker, in the control database.
fn run(request: &Value) -> Result<Value> {
    let tenant = fields::tenant(request, "tenant")?;
    let step = || {
        Subject::database_step_of(tenant).lock(Mode::Exclusive);
        true
    };
    process::transaction(step, || {
        let intent = role::as_extension_owner(|| Intent::get_in(tenant, &[Phase::Creating]))?;
        let database = intent.oid.ok_or_else(|| Error::Internal("no oid was chosen".to_owned()))?;
        createdb(&statement(&intent, database)?)?;
        // With the database, or it is not seen to be ours. Nothing else that could fail: the files would stay.
        label::set_of_database(
            database,
            &Home { tenant: *tenant.as_bytes(), state: "provisioning".to_owned(), control: home::this() },
        )
    })?;
    process::transaction(step, || {
        role::as_extension_owner(|| {
            let intent = Intent::get_in(tenant, &[Phase::Creating])?;
            intent.oid.map_or(Ok(()), dress::close)?;
            intent.advance(Phase::Installing)
        })
    })?;
    Ok(Value::Null)
}

/// CREATE DATABASE, with what the control database has.
fn statement(intent: &Intent, database: pg_sys::Oid) -> Result<String> {
    // SAFETY: a plain read.
    let here = unsafe { pg_sys::MyDatabaseId };
    let (control, tablespace) =
        query::current_rows(CONTROL, &[here.into()], |row| Ok((row.must::<Jsonb>(1)?, row.must::<String>(2)?)))?
            .pop()
            .ok_or_else(|| Error::Internal("the control database is not in the catalog".to_owned()))?;
    let control: Value = serde_json::from_str(control.as_str()).unwrap_or_default();
    // What a version does not know is not there.
    let option = |name: &str, columns: &[&str]| {
        let value = columns.iter().find_map(|column| control[*column].as_str());
        value.map(|value| format!(" {name} {}", literal(value))).unwrap_or_default()
    };
    let (provider, locale) = match control["datlocprovider"].as_str() {
        Some("i") => {
            ("icu", option("ICU_LOCALE", &["daticulocale", "datlocale"]) + &option("ICU_RULES", &["daticurules"]))
        }
        Some("b") => ("builtin", option("BUILTIN_LOCALE", &["datlocale"])),
        _ => ("libc", String::new()),
    };
    // A page of a sequence that is copied through the WAL says that numbers are logged which never were in this database: after a crash it would give
    // them again (tried, 15.20). Files are copied between two checkpoints, which no template without sequences of users needs.
    let template = settings::template_database();
    let strategy = if template == "template0" { "wal_log" } else { "file_copy" };
    Ok(format!(
        "CREATE DATABASE {} TEMPLATE {} STRATEGY {strategy} ENCODING 'UTF8' LOCALE_PROVIDER {provider}{locale}{}{} TABLESPACE {} ALLOW_CONNECTIONS false OID {}",
        ident(&intent.database),
        ident(&template),
        option("LC_COLLATE", &["datcollate"]),
        option("LC_CTYPE", &["datctype"]),
        ident(&tablespace),
        database.to_u32(),
    ))
}

/// Runs it, in a transaction that is to commit at once.
fn createdb(sql: &str) -> Result<()> {
    let sql = CString::new(sql).map_err(|_| Error::Internal("a name has a zero byte".to_owned()))?;
    // SAFETY: one statement of this kind, parsed here; the text outlives the call. An ERROR removes what was made.
    unsafe {
        let parsed = raw::elements::<pg_sys::RawStmt>(pg_sys::pg_parse_query(sql.as_ptr())).next();
        let parsed = parsed.ok_or_else(|| Error::Internal("CREATE DATABASE was not parsed".to_owned()))?;
        let parsing = pg_sys::make_parsestate(std::ptr::null_mut());
        (*parsing).p_sourcetext = sql.as_ptr();
        pg_sys::createdb(parsing, (*parsed).stmt.cast::<pg_sys::CreatedbStmt>());
        pg_sys::free_parsestate(parsing);
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}
