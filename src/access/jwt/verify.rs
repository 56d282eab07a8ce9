//! From a signed token to the principal. Nothing of a token is kept between calls: keys, user and membership are read anew each time.

use super::super::settings::{self, Membership};
use super::super::{credential, role};
use super::MAX_TOKEN;
use super::claims::{Claims, Payload};
use super::key::{self, JwtKey};
use crate::context::registry::{self, Tenant, User};
use crate::context::{Grants, Principal, Source};
use crate::error::{Error, Result};
use crate::monitor::{self, Kind, Reason};
use crate::raw::fallible_function;
use crate::uuid;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use pgrx::{Uuid, pg_sys};
use serde_json::Value;

/// PostgreSQL counts microseconds since 2000, a token seconds since 1970.
const EPOCH_DIFFERENCE: f64 = 946_684_800.0;

/// What became of a token: the answer, or why it is refused and the kid that may be shown.
type Outcome<T> = std::result::Result<T, (Reason, String)>;

fn reason(error: &jsonwebtoken::errors::Error) -> Reason {
    match error.kind() {
        ErrorKind::InvalidSignature => Reason::Signature,
        ErrorKind::ExpiredSignature => Reason::Expired,
        ErrorKind::ImmatureSignature => Reason::NotYetValid,
        ErrorKind::InvalidIssuer => Reason::Issuer,
        ErrorKind::InvalidAudience => Reason::Audience,
        ErrorKind::InvalidAlgorithm => Reason::Algorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Reason::Claims,
        _ => Reason::Malformed,
    }
}

/// What a token must be for its key.
fn validation(key: &JwtKey) -> Validation {
    let mut validation = Validation::new(key.algorithm);
    validation.leeway = settings::leeway();
    validation.validate_nbf = true;
    let mut required = vec!["exp"];
    if let Some(issuer) = &key.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &key.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// The payload of a token that one of our keys has signed and that is valid now.
fn payload(token: &str) -> Result<Outcome<(Payload, String)>> {
    if token.len() > MAX_TOKEN {
        return Ok(Err((Reason::Malformed, String::new())));
    }
    let Ok(header) = decode_header(token) else { return Ok(Err((Reason::Malformed, String::new()))) };
    // RFC 7515, section 4.1.11: an extension that must be understood, and is not.
    if header.crit.is_some() {
        return Ok(Err((Reason::Malformed, String::new())));
    }
    let Some(key) = key::find(header.kid.as_deref())? else { return Ok(Err((Reason::Kid, String::new()))) };
    let kid = key.kid.clone();
    if header.alg != key.algorithm {
        return Ok(Err((Reason::Algorithm, kid)));
    }
    Ok(match decode::<Payload>(token, &key.decoding_key()?, &validation(&key)) {
        // RFC 7519, section 4.1.1: one text; the library takes a list, too.
        Ok(token) if key.issuer.is_some() && !token.claims.get("iss").is_some_and(Value::is_string) => {
            Err((Reason::Issuer, kid))
        }
        Ok(token) if key.audience.is_none() && token.claims.get("aud").is_some_and(|aud| !aud.is_null()) => {
            Err((Reason::Audience, kid))
        }
        Ok(token) => Ok((token.claims, kid)),
        Err(error) => Err((reason(&error), kid)),
    })
}

/// A claim that has the form of an id.
fn parse_id(claim: &str) -> Option<Uuid> {
    uuid::parse(claim.to_ascii_lowercase().as_bytes()).map(Uuid::from_bytes)
}

/// The tenant that a claim names by its id or external id.
fn find_tenant(claim: &str) -> Result<Option<Tenant>> {
    if let Some(id) = parse_id(claim)
        && let Some(tenant) = registry::find(id)?
    {
        return Ok(Some(tenant));
    }
    registry::find_by_external_id(claim)
}

/// The user that a claim names by id or external id. One at home in another tenant does not exist here, whatever is trusted.
fn find_user(tenant: &Tenant, claim: &str) -> Result<std::result::Result<Option<User>, Reason>> {
    if let Some(id) = parse_id(claim)
        && let Some(user) = registry::find_user(id)?
    {
        return Ok(if user.exists_for(tenant.id) { Ok(Some(user)) } else { Err(Reason::Unknown) });
    }
    registry::find_user_by_external_id(claim, tenant.id).map(Ok)
}

/// Whether the token was issued before its user's tokens were revoked. One that does not say when counts as such.
fn is_revoked(user: &User, issued_at: Option<f64>) -> bool {
    let Some(not_before) = user.tokens_not_before else { return false };
    let not_before = not_before as f64 / 1e6 + EPOCH_DIFFERENCE;
    issued_at.is_none_or(|issued_at| issued_at < not_before)
}

/// The user's id, and the role that they have in the tenant.
fn member(tenant: &Tenant, claims: &Claims) -> Result<std::result::Result<(Uuid, Option<String>), Reason>> {
    let trusted = settings::membership() == Membership::Trusted;
    let user = match find_user(tenant, &claims.user)? {
        Ok(user) => user,
        Err(reason) => return Ok(Err(reason)),
    };
    if user.as_ref().is_some_and(|user| is_revoked(user, claims.issued_at)) {
        return Ok(Err(Reason::Revoked));
    }
    let id = match &user {
        Some(user) => user.id,
        None => match parse_id(&claims.user) {
            Some(id) if trusted => id,
            _ => return Ok(Err(Reason::Unknown)),
        },
    };
    if !trusted {
        let role = registry::member_role(tenant.id.as_bytes(), id.as_bytes())?;
        return Ok(role.map(|role| (id, Some(role))).ok_or(Reason::Member));
    }
    match &claims.role {
        Some(role) if role::rank(role)?.is_none() => Ok(Err(Reason::Claims)),
        role => Ok(Ok((id, role.clone()))),
    }
}

/// The principal of a token.
fn principal(token: &str) -> Result<Outcome<Principal>> {
    let (payload, kid) = match payload(token)? {
        Ok(found) => found,
        Err(refused) => return Ok(Err(refused)),
    };
    let claims = match Claims::read(&payload) {
        Ok(claims) => claims,
        Err(reason) => return Ok(Err((reason, kid))),
    };
    let Some(tenant) = find_tenant(&claims.tenant)? else { return Ok(Err((Reason::Unknown, kid))) };
    match tenant.admit(false) {
        Err(Error::TenantClosed { .. }) => return Ok(Err((Reason::Tenant, kid))),
        admitted => admitted?,
    }
    Ok(match member(&tenant, &claims)? {
        Ok((user, role)) => {
            let grants = Grants { role, api_key: None, scopes: claims.scopes };
            Ok(Principal { tenant, user: Some(user), source: Source::Jwt, grants })
        }
        Err(reason) => Err((reason, kid)),
    })
}

/// # Safety
/// `fcinfo` is the record of a call of authenticate_jwt().
unsafe fn authenticate(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise.
    unsafe {
        let principal = principal(credential::argument(fcinfo))?.map_err(|(reason, kid)| {
            monitor::count_attempt(Kind::Jwt, &kid, reason);
            Error::InvalidCredential("token")
        })?;
        credential::bind_and_answer(fcinfo, &principal)
    }
}

fallible_function! {
    /// Binds the transaction to the tenant that a signed token names.
    pg_tenancy_authenticate_jwt, pg_finfo_pg_tenancy_authenticate_jwt, authenticate
}
