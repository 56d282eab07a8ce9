//! Exemptions: views and functions of bypassing owners that an administrator lets through by name.
//!
//! A view's exemption is a row of `tenancy.definer_exemptions`. A function's is its own SET clause of `tenancy.definer_exempt`, which
//! only a superuser's right can put there: the executor does not tell a hook which function it runs in. A function that is
//! replaced loses its clause, and so its exemption.

use super::relation;
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult, raise};
use crate::json;
use crate::query;
use crate::role;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use pgrx::prelude::*;

static DEFINER_EXEMPT: GucSetting<bool> = GucSetting::<bool>::new(false);

const IS_EXEMPT: &str = "SELECT true FROM tenancy.definer_exemptions WHERE kind = 'view' AND object = $1";
const INSERT: &str = "INSERT INTO tenancy.definer_exemptions (object, kind, reason) VALUES ($1, $2, $3)
    ON CONFLICT (object) DO UPDATE SET reason = excluded.reason";
const DELETE: &str = "DELETE FROM tenancy.definer_exemptions WHERE object = $1";
const VIEW: &str = "SELECT c.oid::oid, c.relkind::text FROM pg_catalog.pg_class c
    WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('v', 'm')";
const FUNCTION: &str =
    "SELECT pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid))
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid = pg_catalog.to_regprocedure($1) AND p.prosecdef AND p.prokind = 'f'";

pub fn init() {
    GucRegistry::define_bool_guc(
        c"tenancy.definer_exempt",
        c"Lets a SECURITY DEFINER function of a bypassing owner use protected tables.",
        c"Set by allow_definer() as a SET clause of the function; not for sessions.",
        &DEFINER_EXEMPT,
        GucContext::Suset,
        GucFlags::DISALLOW_IN_FILE,
    );
}

/// Whether the running function, or one that called it, is exempt.
pub fn function_is_exempt() -> bool {
    DEFINER_EXEMPT.get()
}

/// Whether this view is exempt. Runs as the extension's owner, for sessions that may not read the table.
pub fn view_is_exempt(view: pg_sys::Oid) -> bool {
    let name = relation::name(view);
    role::as_extension_owner(|| query::value::<bool>(IS_EXEMPT, &[name.into()]))
        .unwrap_or_else(|error| raise(error))
        .unwrap_or(false)
}

/// An object that can be exempted.
struct Exempted {
    name: String,
    kind: &'static str,
}

/// Finds the view, materialised view or SECURITY DEFINER function that `text` names, in its canonical spelling.
fn find(text: &str) -> Result<Exempted> {
    let malformed = || {
        Error::invalid(
            format!("\"{text}\" is neither a view nor a SECURITY DEFINER function"),
            "Write it as schema.view or schema.function(argument types).",
        )
    };
    if text.contains('(') {
        let name = query::value(FUNCTION, &[text.into()])?.ok_or_else(malformed)?;
        return Ok(Exempted { name, kind: "function" });
    }
    let (oid, kind): (pg_sys::Oid, String) =
        query::first(VIEW, &[text.into()], |row| Ok((row.must(1)?, row.must(2)?)))?.ok_or_else(malformed)?;
    let kind = if kind == "m" { "materialized view" } else { "view" };
    Ok(Exempted { name: relation::name(oid), kind })
}

/// Exempts a view, materialised view or definer function from the back-door check.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn allow_definer(object: Option<&str>, reason: Option<&str>) -> SqlResult<bool> {
    let object = find(object.ok_or(Error::Null("object"))?)?;
    let reason = reason.map(str::trim).filter(|reason| !reason.is_empty()).ok_or_else(|| {
        Error::invalid("an exemption needs a reason", "Say why this object may see the rows of every tenant.")
    })?;
    if object.kind == "function" {
        query::statement(&format!("ALTER FUNCTION {} SET tenancy.definer_exempt = on", object.name), &[])?;
    }
    query::run(INSERT, &[object.name.as_str().into(), object.kind.into(), reason.into()])?;
    audit::record(&Entry {
        action: "definer.allow",
        target: Some(&object.name),
        after: Some(json::Object::new().text("kind", object.kind).text("reason", reason).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}

/// Takes an exemption back; false when there was none.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn disallow_definer(object: Option<&str>) -> SqlResult<bool> {
    let object = find(object.ok_or(Error::Null("object"))?)?;
    if object.kind == "function" {
        query::statement(&format!("ALTER FUNCTION {} RESET tenancy.definer_exempt", object.name), &[])?;
    }
    let existed = query::run(DELETE, &[object.name.as_str().into()])? > 0;
    if existed {
        audit::record(&Entry { action: "definer.disallow", target: Some(&object.name), ..Entry::default() })?;
    }
    Ok(existed)
}

extension_sql_file!("../../sql/guard.sql", name = "guard", requires = ["bootstrap", allow_definer, disallow_definer]);
