//! Who did what: every change that the product makes for someone adds a row to `tenancy.audit_log`, in the same transaction.

use crate::context;
use crate::error::{Error, Result, SqlResult};
use crate::json::{Jsonb, Object};
use crate::level::Level;
use crate::query;
use pgrx::datum::{DatumWithOid, Interval};
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use std::ffi::CStr;

pub const FUNCTIONS: &[(Level, &str)] = &[(Level::Admin, "trim_audit_log")];
pub const RELATIONS: &[(Level, &str)] = &[(Level::App, "tenancy.audit_log"), (Level::Operator, "tenancy.audit_log")];

const INSERT: &str = "INSERT INTO tenancy.audit_log
        (session_user_name, outer_user_name, principal, tenant_id, action, target, before, after)
    VALUES (session_user, $1, $2, $3, $4, $5, $6, $7)";
const REDACT: &str =
    "UPDATE tenancy.audit_log SET principal = NULL, target = NULL, before = NULL, after = NULL WHERE tenant_id = $1";
const REDACT_PRINCIPAL: &str = "UPDATE tenancy.audit_log SET principal = NULL WHERE principal ->> 'tenant_id' = $1";
const REDACT_PERSON: &str = "UPDATE tenancy.audit_log SET before = NULL, after = NULL
    WHERE (action LIKE 'user.%' AND target = $1) OR (action LIKE 'invitation.%' AND target = ANY ($2))";
const NOT_NEGATIVE: &str = "SELECT $1 >= '0'::pg_catalog.interval";
const TRIM: &str = "DELETE FROM tenancy.audit_log WHERE at < pg_catalog.now() - $1";

/// What happened.
#[derive(Default)]
pub struct Entry<'a> {
    /// `tenant.create`, `table.protect` …
    pub action: &'a str,
    /// The tenant that it concerns.
    pub tenant: Option<Uuid>,
    /// The object that it concerns, by name or id.
    pub target: Option<&'a str>,
    /// What was changed, and to what.
    pub before: Option<Jsonb>,
    pub after: Option<Jsonb>,
}

/// Writes `entry` to the log. The caller runs as the extension's owner.
pub fn record(entry: &Entry) -> Result<()> {
    let principal = context::bound().map(|context| {
        let principal = Object::new()
            .text("tenant_id", &Uuid::from_bytes(context.tenant).to_string())
            .optional("user_id", context.user.map(|user| Uuid::from_bytes(user).to_string()).as_deref())
            .text("source", context.source.name());
        match context::grants().api_key {
            Some(key) => principal.text("api_key_id", &Uuid::from_bytes(key).to_string()),
            None => principal,
        }
        .finish()
    });
    let args: [DatumWithOid; 7] = [
        outer_user_name().into(),
        principal.into(),
        entry.tenant.into(),
        entry.action.into(),
        entry.target.into(),
        entry.before.clone().into(),
        entry.after.clone().into(),
    ];
    query::run(INSERT, &args).map(drop)
}

/// Takes everything out of the tenant's rows that could tell of people: what stays is which action was taken when, and by which role.
pub fn redact(tenant: Uuid) -> Result<()> {
    query::run(REDACT, &[tenant.into()])?;
    query::run(REDACT_PRINCIPAL, &[tenant.to_string().into()]).map(drop)
}

/// Takes what the log knows of a person out of it: their own rows, and their invitations.
pub fn redact_person(user: Uuid, invitations: &[String]) -> Result<()> {
    query::run(REDACT_PERSON, &[user.to_string().into(), invitations.to_vec().into()]).map(drop)
}

/// The role that called, whatever definer functions it came through.
fn outer_user_name() -> Option<String> {
    // SAFETY: a lookup by oid that returns null or a palloc'd C string.
    unsafe {
        let name = pg_sys::GetUserNameFromId(pg_sys::GetOuterUserId(), true);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Deletes the rows of the audit log that are older than `keep`; how many.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn trim_audit_log(keep: default!(Option<Interval>, "'400 days'")) -> SqlResult<i64> {
    let keep = keep.ok_or(Error::Null("keep"))?;
    if query::value::<bool>(NOT_NEGATIVE, &[keep.into()])? != Some(true) {
        return Err(Error::invalid("the age to keep must not be negative", "").into());
    }
    let removed = query::run(TRIM, &[keep.into()])?;
    record(&Entry {
        action: "audit.trim",
        after: Some(Object::new().number("removed", removed).finish()),
        ..Entry::default()
    })?;
    Ok(removed.cast_signed())
}

extension_sql_file!("../../sql/audit.sql", name = "audit", requires = ["tenant", trim_audit_log]);
