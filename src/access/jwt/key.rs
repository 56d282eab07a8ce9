//! The keys of signed tokens. A key is of one algorithm, which a token's header must name: nothing that a token says chooses another.

use super::super::secret;
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::json::Object;
use crate::query;
use crate::scan::{Key, Row, Table};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
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

/// Keys that are looked at for a token without a kid.
const MAX_KEYS: usize = 64;
const MAX_KID: usize = 255;
const MAX_NAME: usize = 1000;
/// RFC 7518, section 3.2: a key of the hash's size or more.
const MIN_SECRET: usize = 32;
/// RFC 7518, section 3.3.
const MIN_RSA_BYTES: usize = 256;

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
    expires_at: Option<i64>,
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
            expires_at: row.get(EXPIRES_AT),
            created_at: row.must(CREATED_AT)?,
        })
    }

    fn is_live(&self) -> bool {
        // SAFETY: reads the clock.
        self.expires_at.is_none_or(|expires_at| expires_at > unsafe { pg_sys::GetCurrentTimestamp() })
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

/// The live key of this kid; for a token without one the only live key, if it is the only one.
pub fn find(kid: Option<&str>) -> Result<Option<JwtKey>> {
    let key = match kid {
        Some(kid) => {
            let by_kid = [Key::text(KID, kid)?];
            STORED_JWT_KEYS_BY_KID.first(&by_kid)?.map(JwtKey::from).transpose()?
        }
        None => {
            let mut live = all_live()?;
            if live.len() == 1 { live.pop() } else { None }
        }
    };
    Ok(key.filter(JwtKey::is_live))
}

fn all_live() -> Result<Vec<JwtKey>> {
    let keys: Vec<JwtKey> = STORED_JWT_KEYS.all::<MAX_KEYS>()?.into_iter().map(JwtKey::from).collect::<Result<_>>()?;
    Ok(keys.into_iter().filter(JwtKey::is_live).collect())
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

type Parsed<T> = std::result::Result<T, jsonwebtoken::errors::Error>;

/// A secret, a public key in PEM, or a JSON Web Key (RFC 7517).
fn decoding_key(algorithm: Algorithm, key: &str) -> Parsed<DecodingKey> {
    if let Some(jwk) = jwk(key) {
        return DecodingKey::from_jwk(&jwk);
    }
    match algorithm {
        Algorithm::HS256 => Ok(DecodingKey::from_secret(key.as_bytes())),
        Algorithm::RS256 => DecodingKey::from_rsa_pem(key.as_bytes()),
        Algorithm::ES256 => DecodingKey::from_ec_pem(key.as_bytes()),
        _ => DecodingKey::from_ed_pem(key.as_bytes()),
    }
}

fn encoding_key(algorithm: Algorithm, key: &str) -> Parsed<EncodingKey> {
    match algorithm {
        Algorithm::HS256 => match jwk(key).map(|jwk| jwk.algorithm) {
            Some(AlgorithmParameters::OctetKey(octets)) => EncodingKey::from_urlsafe_base64_secret(&octets.value),
            _ => Ok(EncodingKey::from_secret(key.as_bytes())),
        },
        Algorithm::RS256 => EncodingKey::from_rsa_pem(key.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(key.as_bytes()),
        _ => EncodingKey::from_ed_pem(key.as_bytes()),
    }
}

fn jwk(key: &str) -> Option<Jwk> {
    key.trim_start().starts_with('{').then(|| serde_json::from_str(key).ok()).flatten()
}

/// Whether the key's parameters are those of its algorithm, and strong enough.
fn fits(algorithm: Algorithm, key: &Jwk) -> bool {
    let length = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map(|bytes| bytes.len()).unwrap_or_default();
    match (algorithm, &key.algorithm) {
        (Algorithm::HS256, AlgorithmParameters::OctetKey(octets)) => length(&octets.value) >= MIN_SECRET,
        (Algorithm::RS256, AlgorithmParameters::RSA(rsa)) => length(&rsa.n) >= MIN_RSA_BYTES,
        (Algorithm::ES256, AlgorithmParameters::EllipticCurve(curve)) => {
            curve.curve == EllipticCurve::P256 && length(&curve.x) == 32 && length(&curve.y) == 32
        }
        (Algorithm::EdDSA, AlgorithmParameters::OctetKeyPair(pair)) => {
            pair.curve == EllipticCurve::Ed25519 && length(&pair.x) == 32
        }
        _ => false,
    }
}

fn malformed(message: &str) -> Error {
    Error::invalid(
        message,
        "HS256 takes a secret of 32 characters or more; RS256, ES256 and EdDSA take a public key in PEM, or a JWK.",
    )
}

/// Checks a key that verifies, and brings it into the form that is stored.
fn check_verifying(algorithm: Algorithm, key: &str) -> Result<String> {
    if key.contains("PRIVATE KEY") {
        return Err(malformed("key is a private one: give it as private_key"));
    }
    let parsed = decoding_key(algorithm, key).map_err(|_| malformed("key is malformed or of another algorithm"))?;
    if algorithm == Algorithm::HS256 && jwk(key).is_none() {
        let strong = key.len() >= MIN_SECRET && !key.contains("-----BEGIN") && !key.trim_start().starts_with('{');
        return if strong { Ok(key.to_owned()) } else { Err(malformed("key is no secret of 32 characters or more")) };
    }
    let public = match jwk(key) {
        Some(jwk) => Some(jwk),
        None => Jwk::from_decoding_key(&parsed, Some(algorithm)).ok(),
    };
    match public {
        Some(public) if fits(algorithm, &public) => Ok(key.to_owned()),
        _ => Err(malformed("key is too weak or of another algorithm")),
    }
}

/// The public key of a private one.
fn public_key_of(algorithm: Algorithm, private: &str) -> Result<String> {
    let wrong = || Error::invalid("private_key is malformed or of another algorithm", "It is in PEM (PKCS #8).");
    let signing = encoding_key(algorithm, private).map_err(|_| wrong())?;
    let public = Jwk::from_encoding_key(&signing, algorithm).map_err(|_| wrong())?;
    if !fits(algorithm, &public) {
        return Err(wrong());
    }
    serde_json::to_string(&public).map_err(|_| wrong())
}

/// What is stored of the keys that were given: what verifies, and what signs.
fn stored_keys(algorithm: Algorithm, key: Option<&str>, private: Option<&str>) -> Result<(String, Option<String>)> {
    match (algorithm, key, private) {
        (Algorithm::HS256, _, Some(_)) => Err(malformed("an HS256 key has no private part")),
        (Algorithm::HS256, None, None) => Ok((BASE64_URL_SAFE_NO_PAD.encode(secret::random::<32>()?), None)),
        (_, None, None) => Err(malformed("a key or a private key must be given")),
        (_, Some(key), None) => Ok((check_verifying(algorithm, key)?, None)),
        (_, key, Some(private)) => {
            key.map(|key| check_verifying(algorithm, key)).transpose()?;
            Ok((public_key_of(algorithm, private)?, Some(private.to_owned())))
        }
    }
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
    let (verifying, signing) = stored_keys(algorithm, key, private_key)?;
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
