//! Scopes: what a credential is limited to. `workflows:read` is one action, `workflows:*` all that begin with `workflows:`, `*` all.

use crate::context;
use crate::error::{Error, Result, SqlResult};
use pgrx::prelude::*;

const MAX_LENGTH: usize = 255;
const MAX_SCOPES: usize = 100;
const ALL: &str = "*";

/// A scope-token of RFC 6749, section 3.3.
pub fn is_well_formed(scope: &str) -> bool {
    (1..=MAX_LENGTH).contains(&scope.len())
        && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

fn check(scope: &str) -> Result<&str> {
    if is_well_formed(scope) {
        return Ok(scope);
    }
    Err(Error::invalid(
        "scope is malformed",
        "A scope has printable ASCII characters but blanks, quotes and backslashes, at most 255.",
    ))
}

/// The scopes of an array argument.
pub fn check_all(scopes: Vec<Option<String>>) -> Result<Vec<String>> {
    if scopes.len() > MAX_SCOPES {
        return Err(Error::invalid("more than 100 scopes", ""));
    }
    let scopes: Vec<String> = scopes.into_iter().collect::<Option<_>>().ok_or(Error::Null("scopes"))?;
    scopes.iter().try_for_each(|scope| check(scope).map(drop))?;
    Ok(scopes)
}

/// Whether one of the `granted` scopes includes `wanted`.
fn includes(granted: &[String], wanted: &str) -> bool {
    granted.iter().any(|scope| {
        scope == wanted
            || scope == ALL
            || scope.strip_suffix(ALL).is_some_and(|group| group.ends_with(':') && wanted.starts_with(group))
    })
}

/// Fails where a credential would be given a scope that the principal's own credential does not have.
pub fn refuse_more_than_own(wanted: &[String]) -> Result<()> {
    let Some(own) = context::grants().scopes else { return Ok(()) };
    match wanted.iter().find(|scope| !includes(&own, scope)) {
        Some(scope) => Err(Error::MissingScope(scope.clone())),
        None => Ok(()),
    }
}

/// Whether the principal's credential has the scope.
fn holds(scope: Option<&str>) -> Result<bool> {
    let scope = check(scope.ok_or(Error::Null("scope"))?)?;
    Ok(context::grants().scopes.is_some_and(|own| includes(&own, scope)))
}

/// Whether the credential that bound the tenant has the scope.
#[pg_extern(stable, parallel_safe)]
fn has_scope(scope: Option<&str>) -> SqlResult<bool> {
    Ok(holds(scope)?)
}

/// True when the credential that bound the tenant has the scope; raises otherwise.
#[pg_extern(stable, parallel_safe)]
fn require_scope(scope: Option<&str>) -> SqlResult<bool> {
    if holds(scope)? { Ok(true) } else { Err(Error::MissingScope(scope.unwrap_or_default().to_owned()).into()) }
}
