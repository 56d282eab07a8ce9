//! What keys are made of: secrets, PEM (RFC 7468) and JSON Web Keys (RFC 7517), and whether they are fit for their algorithm.

use super::super::secret;
use crate::error::{Error, Result};
use aws_lc_rs::signature::{self, ParsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::Value;

/// RFC 7518, section 3.2: a key of the hash's size or more.
const MIN_SECRET: usize = 32;
/// RFC 7518, section 3.3, and what the library takes at most.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

type Parsed<T> = std::result::Result<T, jsonwebtoken::errors::Error>;

/// A secret, a public key in PEM, or a JSON Web Key.
pub fn decoding_key(algorithm: Algorithm, key: &str) -> Parsed<DecodingKey> {
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

/// A secret, or a private key in PEM.
pub fn encoding_key(algorithm: Algorithm, key: &str) -> Parsed<EncodingKey> {
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

/// Whether it has the parameter that makes an asymmetric JSON Web Key private.
fn is_private(key: &str) -> bool {
    key.contains("PRIVATE KEY") || serde_json::from_str::<Value>(key).is_ok_and(|key| key.get("d").is_some())
}

fn bytes(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default()
}

/// Whether the key says that it is for another algorithm, or not for signatures.
fn is_for_something_else(algorithm: Algorithm, key: &Jwk) -> bool {
    let own = match algorithm {
        Algorithm::HS256 => KeyAlgorithm::HS256,
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::ES256 => KeyAlgorithm::ES256,
        _ => KeyAlgorithm::EdDSA,
    };
    key.common.key_algorithm.is_some_and(|other| other != own)
        || key.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature)
}

/// Whether the key's parameters are those of its algorithm, and strong enough.
fn fits(algorithm: Algorithm, key: &Jwk) -> bool {
    match (algorithm, &key.algorithm) {
        (Algorithm::HS256, AlgorithmParameters::OctetKey(octets)) => bytes(&octets.value).len() >= MIN_SECRET,
        (Algorithm::RS256, AlgorithmParameters::RSA(rsa)) => {
            let (modulus, exponent) = (bytes(&rsa.n), bytes(&rsa.e));
            let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
            let is_one = exponent.iter().rev().skip(1).all(|byte| *byte == 0) && exponent.last() == Some(&1);
            RSA_BYTES.contains(&modulus.len()) && modulus[0] >= 0x80 && is_odd(&modulus) && is_odd(&exponent) && !is_one
        }
        (Algorithm::ES256, AlgorithmParameters::EllipticCurve(curve)) => {
            let (x, y) = (bytes(&curve.x), bytes(&curve.y));
            let point = [&[4][..], &x, &y].concat();
            curve.curve == EllipticCurve::P256
                && x.len() == 32
                && ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).is_ok()
        }
        (Algorithm::EdDSA, AlgorithmParameters::OctetKeyPair(pair)) => {
            let point = bytes(&pair.x);
            pair.curve == EllipticCurve::Ed25519
                && !has_small_order(&point)
                && ParsedPublicKey::new(&signature::ED25519, point).is_ok()
        }
        _ => false,
    }
}

/// The points of Ed25519 whose order divides 8, by their y (little end first), the second spelling of two of them included: what they
/// verify, anyone can sign. 0, 1, the two y of order 8, p - 1, p, p + 1 for p = 2^255 - 19.
const SMALL_ORDER: [(u8, [u8; 30], u8); 7] = [
    (0x00, [0x00; 30], 0x00),
    (0x01, [0x00; 30], 0x00),
    (0x26, ORDER_8, 0x05),
    (0xc7, MINUS_ORDER_8, 0x7a),
    (0xec, [0xff; 30], 0x7f),
    (0xed, [0xff; 30], 0x7f),
    (0xee, [0xff; 30], 0x7f),
];
const ORDER_8: [u8; 30] = [
    0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05,
    0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc,
];
const MINUS_ORDER_8: [u8; 30] = [
    0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa,
    0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03,
];

/// Whether an Ed25519 public key is one of them; the sign of x, the highest bit, makes no difference.
fn has_small_order(point: &[u8]) -> bool {
    match point {
        [first, middle @ .., last] => {
            SMALL_ORDER.iter().any(|(low, rest, high)| first == low && middle == rest && last & 0x7f == *high)
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

/// The public key that verifies, checked.
fn check_public(algorithm: Algorithm, key: &str) -> Result<Jwk> {
    if is_private(key) {
        return Err(malformed("key is a private one: give it as private_key, in PEM"));
    }
    let parsed = decoding_key(algorithm, key).map_err(|_| malformed("key is malformed or of another algorithm"))?;
    let public = jwk(key).or_else(|| Jwk::from_decoding_key(&parsed, Some(algorithm)).ok());
    match public {
        Some(public) if fits(algorithm, &public) && !is_for_something_else(algorithm, &public) => Ok(public),
        _ => Err(malformed("key is too weak, damaged or of another algorithm")),
    }
}

/// The secret that signs and verifies, checked.
fn check_secret(key: &str) -> Result<()> {
    if let Some(jwk) = jwk(key) {
        let algorithm = Algorithm::HS256;
        let good = fits(algorithm, &jwk) && !is_for_something_else(algorithm, &jwk);
        return if good { Ok(()) } else { Err(malformed("key is too short or of another algorithm")) };
    }
    let strong = key.len() >= MIN_SECRET && !key.contains("-----BEGIN") && !key.trim_start().starts_with('{');
    if strong { Ok(()) } else { Err(malformed("key is no secret of 32 characters or more")) }
}

/// The public key of a private one.
fn public_key_of(algorithm: Algorithm, private: &str) -> Result<Jwk> {
    let wrong = || Error::invalid("private_key is malformed or of another algorithm", "It is in PEM (PKCS #8).");
    let signing = encoding_key(algorithm, private).map_err(|_| wrong())?;
    let public = Jwk::from_encoding_key(&signing, algorithm).map_err(|_| wrong())?;
    if fits(algorithm, &public) { Ok(public) } else { Err(wrong()) }
}

/// What is stored of the keys that were given: what verifies, and what signs.
pub fn check(algorithm: Algorithm, key: Option<&str>, private: Option<&str>) -> Result<(String, Option<String>)> {
    match (algorithm, key, private) {
        (Algorithm::HS256, _, Some(_)) => Err(malformed("an HS256 key has no private part")),
        (Algorithm::HS256, None, None) => Ok((BASE64_URL_SAFE_NO_PAD.encode(secret::random::<32>()?), None)),
        (Algorithm::HS256, Some(key), None) => check_secret(key).map(|()| (key.to_owned(), None)),
        (_, None, None) => Err(malformed("a key or a private key must be given")),
        (_, Some(key), None) => check_public(algorithm, key).map(|_| (key.to_owned(), None)),
        (_, key, Some(private)) => {
            let public = public_key_of(algorithm, private)?;
            if let Some(key) = key
                && check_public(algorithm, key)?.algorithm != public.algorithm
            {
                return Err(malformed("key is not the public part of private_key"));
            }
            let public = serde_json::to_string(&public)
                .map_err(|_| Error::Internal("a public key cannot be written".to_owned()))?;
            Ok((public, Some(private.to_owned())))
        }
    }
}
