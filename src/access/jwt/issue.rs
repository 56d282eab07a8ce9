//! Tokens of our own, for installations without an identity provider.

use super::super::actor::{self, Members};
use super::super::{scope, settings, user};
use super::claims::Payload;
use super::key;
use crate::context;
use crate::error::{Error, Result, SqlResult};
use crate::query;
use jsonwebtoken::{Header, encode};
use pgrx::datum::Interval;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use serde_json::Value;

const MAX_SECONDS: f64 = 366.0 * 86_400.0;

/// A token's times: now, and when it ends. Now has a fraction, so that a token issued just after a revocation is not taken for an older one.
const TIMES: &str = "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp())::float8, EXTRACT(epoch FROM $1)::float8";

fn times(expires_in: Interval) -> Result<(f64, f64)> {
    let (now, seconds) =
        query::first(TIMES, &[expires_in.into()], |row| Ok((row.must::<f64>(1)?, row.must::<f64>(2)?)))?
            .ok_or_else(|| Error::Internal("there is no time".to_owned()))?;
    if !(1.0..=MAX_SECONDS).contains(&seconds) {
        return Err(Error::invalid("a token lasts at least a second and at most 366 days", ""));
    }
    Ok((now, now + seconds))
}

/// The scopes of the token: those asked for, which the principal's own must include, or else the principal's own.
fn scopes(asked: Option<Vec<Option<String>>>) -> Result<Option<Vec<String>>> {
    match asked {
        Some(asked) => {
            let asked = scope::check_all(asked)?;
            scope::refuse_more_than_own(&asked)?;
            Ok(Some(asked))
        }
        None => Ok(context::grants().scopes),
    }
}

/// Signs a token for a member of the bound tenant.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn issue_jwt(
    user_id: Option<Uuid>,
    expires_in: default!(Option<Interval>, "'1 hour'"),
    scopes: default!(Option<Vec<Option<String>>>, "NULL"),
    kid: default!(Option<&str>, "NULL"),
) -> SqlResult<String> {
    let user = user_id.ok_or(Error::Null("user_id"))?;
    let (now, end) = times(expires_in.ok_or(Error::Null("expires_in"))?)?;
    let scopes = self::scopes(scopes)?;
    let members = Members::read(actor::tenant()?, &[user])?;
    let role = members.role(user).ok_or_else(|| Error::Unknown("member", user.to_string()))?;
    members.may_impersonate(user)?;
    let (key, signing) = key::find_signing(kid)?;

    let names = settings::claims();
    let mut payload = Payload::new();
    let mut claim = |name: &str, value: Value| payload.insert(name.to_owned(), value);
    claim(&names.user, user.to_string().into());
    claim(&names.tenant, members.tenant().to_string().into());
    claim(&names.role, role.into());
    claim("iat", now.into());
    claim("exp", (end.ceil() as u64).into());
    if let Some(scopes) = scopes {
        claim(&names.scope, scopes.join(" ").into());
    }
    if let Some(issuer) = &key.issuer {
        claim("iss", issuer.as_str().into());
    }
    if let Some(audience) = &key.audience {
        claim("aud", audience.as_str().into());
    }
    let mut header = Header::new(key.algorithm);
    header.kid = Some(key.kid.clone());
    let token = encode(&header, &payload, &signing)
        .map_err(|_| Error::Internal(format!("JWT key \"{}\" did not sign", key.kid)))?;
    // A tenant that is read-only for a while, or a standby, lets its users in all the same.
    // SAFETY: a plain read.
    if !unsafe { pg_sys::XactReadOnly } {
        user::note_login(user)?;
    }
    Ok(token)
}
