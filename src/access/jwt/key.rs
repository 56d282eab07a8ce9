//! The keys of signed tokens. A key is of one algorithm, which a token's header must name: nothing that a token says chooses another.

use super::material::{self, decoding_key, encoding_key};
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::json::Object;
use crate::query;
use crate::scan::{Key, Row, Table};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use pgrx::pg_sys;
use pgrx::prelude::*;

/// Column numbers of `tenancy.stored_jwt_keys`; sql/access.sql keeps them.
const KID: i16 = 1;
const ALGORITHM: i16 = 2;
const VERIFYING_KEY: i16 = 3;
const SIGNING_KEY: i16 = 4;
const ISSUER: i16 = 5;
const AUDIENCE: i16 = 6;
const EXPIRES_AT: i16 = 7;
const CREATED_AT: i16 = 8;

/// Live keys that are looked at, for a token without a kid or to sign one.
const MAX_LIVE: usize = 64;
const MAX_KID: usize = 255;
const MAX_NAME: usize = 1000;

static STORED_JWT_KEYS: Table = Table::whole(c"stored_jwt_keys");
static STORED_JWT_KEYS_BY_KID: Table = Table::by(c"stored_jwt_keys", c"stored_jwt_keys_pkey");

const INSERT: &str =
    "INSERT INTO tenancy.stored_jwt_keys (kid, algorithm, verifying_key, signing_key, issuer, audience, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
const DELETE: &str = "DELETE FROM tenancy.stored_jwt_keys WHERE kid = $1 RETURNING algorithm";

const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// A key as it is stored.
pub struct JwtKey {
    pub kid: String,
    pub algorithm: Algorithm,
    verifying_key: String,
    signing_key: Option<String>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    created_at: i64,
}

impl JwtKey {
    fn from(row: Row) -> Result<Self> {
        let algorithm: String = row.must(ALGORITHM)?;
        Ok(Self {
            kid: row.must(KID)?,
            algorithm: algorithm_named(&algorithm)
                .ok_or_else(|| Error::Internal(format!("unknown algorithm {algorithm}")))?,
            verifying_key: row.must(VERIFYING_KEY)?,
            signing_key: row.get(SIGNING_KEY),
            issuer: row.get(ISSUER),
            audience: row.get(AUDIENCE),
            created_at: row.must(CREATED_AT)?,
        })
    }

    pub fn decoding_key(&self) -> Result<DecodingKey> {
        decoding_key(self.algorithm, &self.verifying_key).map_err(|_| unusable(&self.kid))
    }

    /// What signs; None for a key that only verifies.
    pub fn encoding_key(&self) -> Result<Option<EncodingKey>> {
        let secret =
            if self.algorithm == Algorithm::HS256 { Some(&self.verifying_key) } else { self.signing_key.as_ref() };
        secret.map(|key| encoding_key(self.algorithm, key).map_err(|_| unusable(&self.kid))).transpose()
    }
}

fn unusable(kid: &str) -> Error {
    Error::Internal(format!("JWT key \"{kid}\" cannot be used"))
}

fn algorithm_named(name: &str) -> Option<Algorithm> {
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

fn is_live(row: &Row) -> bool {
    // SAFETY: reads the clock.
    row.get::<i64>(EXPIRES_AT).is_none_or(|expires_at| expires_at > unsafe { pg_sys::GetCurrentTimestamp() })
}

/// The live key of this kid; for a token without one the only live key, if it is the only one.
pub fn find(kid: Option<&str>) -> Result<Option<JwtKey>> {
    let Some(kid) = kid else {
        let mut live = all_live()?;
        return Ok(if live.len() == 1 { live.pop() } else { None });
    };
    let key = STORED_JWT_KEYS_BY_KID.first(&[Key::text(KID, kid)?])?;
    key.filter(is_live).map(JwtKey::from).transpose()
}

fn all_live() -> Result<Vec<JwtKey>> {
    STORED_JWT_KEYS.all::<MAX_LIVE>(&[], is_live)?.into_iter().map(JwtKey::from).collect()
}

/// The key that signs: the one named, or the newest live one that can.
pub fn find_signing(kid: Option<&str>) -> Result<(JwtKey, EncodingKey)> {
    let mut keys = match kid {
        Some(kid) => vec![find(Some(kid))?.ok_or_else(|| Error::Unknown("JWT key", kid.to_owned()))?],
        None => all_live()?,
    };
    keys.sort_by_key(|key| key.created_at);
    while let Some(key) = keys.pop() {
        if let Some(signing) = key.encoding_key()? {
            return Ok((key, signing));
        }
    }
    Err(Error::State(
        "there is no live JWT key that can sign".to_owned(),
        "Add one: SELECT add_jwt_key('2026-01', 'HS256');",
    ))
}

fn check_name<'a>(what: &str, name: &'a str, limit: usize) -> Result<&'a str> {
    if (1..=limit).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(name);
    }
    Err(Error::invalid(format!("{what} is empty, too long or has other than printable ASCII characters"), ""))
}

/// Adds a key for signed tokens.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn add_jwt_key(
    kid: Option<&str>,
    algorithm: Option<&str>,
    key: default!(Option<&str>, "NULL"),
    private_key: default!(Option<&str>, "NULL"),
    issuer: default!(Option<&str>, "NULL"),
    audience: default!(Option<&str>, "NULL"),
    expires_at: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> SqlResult<String> {
    let kid = check_name("kid", kid.ok_or(Error::Null("kid"))?, MAX_KID)?;
    let name = algorithm.ok_or(Error::Null("algorithm"))?;
    let algorithm = algorithm_named(name).ok_or_else(|| {
        Error::invalid(format!("\"{name}\" is not an algorithm"), "Algorithms are HS256, RS256, ES256 and EdDSA.")
    })?;
    let issuer = issuer.map(|issuer| check_name("issuer", issuer, MAX_NAME)).transpose()?;
    let audience = audience.map(|audience| check_name("audience", audience, MAX_NAME)).transpose()?;
    let (verifying, signing) = material::check(algorithm, key, private_key)?;
    let can_sign = algorithm == Algorithm::HS256 || signing.is_some();
    let args =
        [kid.into(), name.into(), verifying.into(), signing.into(), issuer.into(), audience.into(), expires_at.into()];
    if query::run(INSERT, &args)? == 0 {
        return Err(Error::Duplicate("JWT key", kid.to_owned()).into());
    }
    audit::record(&Entry {
        action: "jwt_key.add",
        target: Some(kid),
        after: Some(
            Object::new()
                .text("algorithm", name)
                .boolean("can_sign", can_sign)
                .optional("issuer", issuer)
                .optional("audience", audience)
                .finish(),
        ),
        ..Entry::default()
    })?;
    Ok(kid.to_owned())
}

/// Removes a key: what it signed is not accepted from here on. False when there is none.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn remove_jwt_key(kid: Option<&str>) -> SqlResult<bool> {
    let kid = kid.ok_or(Error::Null("kid"))?;
    let Some(algorithm) = query::returning(DELETE, &[kid.into()], |row| row.must::<String>(1))? else {
        return Ok(false);
    };
    audit::record(&Entry {
        action: "jwt_key.remove",
        target: Some(kid),
        before: Some(Object::new().text("algorithm", &algorithm).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}
