//! Keys and tokens made without the product's own library: any header, any payload, truly signed.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The algorithms that `add_jwt_key` knows.
pub const ALGORITHMS: [&str; 4] = ["HS256", "RS256", "ES256", "EdDSA"];

/// The exponent 65537, which every RSA key here has.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

enum Pair {
    Secret(String),
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A key that signs, with all that is known of it.
pub struct SigningKey {
    algorithm: &'static str,
    pair: Pair,
}

/// Bytes as a segment of a token: base64url without padding.
pub fn segment(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a token's segment.
#[track_caller]
pub fn bytes_of(segment: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(segment).expect("a segment is base64url")
}

/// DER in the armour of RFC 7468.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The HMAC with SHA-256 of a message, with any bytes as the key.
pub fn hmac_sha256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

impl SigningKey {
    /// A fresh key of one of [`ALGORITHMS`].
    pub fn generate(algorithm: &'static str) -> SigningKey {
        let pair = match algorithm {
            "HS256" => {
                let mut secret = [0; 32];
                rand::fill(&mut secret).expect("randomness");
                Pair::Secret(segment(secret))
            }
            "RS256" => Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key"))),
            "ES256" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("an EC key")),
            "EdDSA" => Pair::Ed(Ed25519KeyPair::generate().expect("an Ed25519 key")),
            other => panic!("{other} is not among ALGORITHMS"),
        };
        SigningKey { algorithm, pair }
    }

    /// Its algorithm, as a token's header names it.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = rand::SystemRandom::new();
        match &self.pair {
            Pair::Secret(secret) => hmac_sha256(secret.as_bytes(), message),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("sign by RSA");
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).expect("sign by ECDSA").as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token of a header and a payload, whatever they are.
    pub fn seal(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        let message = format!("{}.{}", segment(header), segment(payload));
        format!("{message}.{}", segment(self.sign(message.as_bytes())))
    }

    /// A token with this key's algorithm, the kid if there is one, and claims.
    pub fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let header = match kid {
            Some(kid) => json!({ "alg": self.algorithm, "typ": "JWT", "kid": kid }),
            None => json!({ "alg": self.algorithm, "typ": "JWT" }),
        };
        self.seal(header.to_string(), claims.to_string())
    }

    /// Whether the token bears this key's signature.
    pub fn has_signed(&self, token: &str) -> bool {
        let (message, signature) = token.rsplit_once('.').expect("a token has segments");
        let (message, signature) = (message.as_bytes(), bytes_of(signature));
        match &self.pair {
            Pair::Secret(secret) => hmac_sha256(secret.as_bytes(), message) == signature,
            Pair::Rsa(pair) => {
                let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key());
                public.verify(message, &signature).is_ok()
            }
            Pair::Ec(pair) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key()).verify(message, &signature).is_ok()
            }
            Pair::Ed(pair) => UnparsedPublicKey::new(&ED25519, pair.public_key()).verify(message, &signature).is_ok(),
        }
    }

    /// What verifies: the secret, or the public key in PEM.
    pub fn verifying_key(&self) -> String {
        let der = match &self.pair {
            Pair::Secret(secret) => return secret.clone(),
            Pair::Rsa(pair) => AsDer::<PublicKeyX509Der>::as_der(pair.public_key()),
            Pair::Ec(pair) => AsDer::<PublicKeyX509Der>::as_der(pair.public_key()),
            Pair::Ed(pair) => AsDer::<PublicKeyX509Der>::as_der(pair.public_key()),
        };
        pem("PUBLIC KEY", der.expect("a public key in DER").as_ref())
    }

    /// The private key in PEM; None for a secret.
    pub fn private_key(&self) -> Option<String> {
        let der = match &self.pair {
            Pair::Secret(_) => return None,
            Pair::Rsa(pair) => AsDer::<Pkcs8V1Der>::as_der(&**pair).expect("PKCS #8").as_ref().to_vec(),
            Pair::Ec(pair) => pair.to_pkcs8v1().expect("PKCS #8").as_ref().to_vec(),
            Pair::Ed(pair) => pair.to_pkcs8v1().expect("PKCS #8").as_ref().to_vec(),
        };
        Some(pem("PRIVATE KEY", &der))
    }

    /// What verifies, as a JSON Web Key.
    pub fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Secret(secret) => json!({ "kty": "oct", "k": segment(secret) }),
            Pair::Rsa(pair) => {
                // PKCS #1: a sequence of the modulus, with a leading zero, and the exponent.
                let der = pair.public_key().as_ref();
                let modulus = der[..der.len() - 5].last_chunk::<256>().expect("2048 bits");
                json!({ "kty": "RSA", "n": segment(modulus), "e": segment(RSA_EXPONENT) })
            }
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": segment(x), "y": segment(y) })
            }
            Pair::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": segment(pair.public_key()) }),
        }
    }
}
