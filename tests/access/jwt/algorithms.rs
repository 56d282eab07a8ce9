//! The four algorithms, and every way to pass one off as another.

use super::signer::{ALGORITHMS, SigningKey, hmac_sha256, segment};
use super::{Desk, new_kid};
use harness::*;
use serde_json::{Value, json};

/// Every algorithm of RFC 7518 that signs, and EdDSA.
const NAMES: [&str; 13] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
];

fn header(algorithm: &str, kid: &str) -> String {
    json!({ "alg": algorithm, "kid": kid }).to_string()
}

/// A token whose signature is what `sign` makes of the rest.
fn signed(header: &str, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", segment(header), segment(claims.to_string()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", segment(signature))
}

#[test]
fn a_token_of_each_algorithm_is_verified_by_a_key_in_pem_and_by_a_jwk() {
    let mut desk = Desk::new("jwt_algorithms");
    let claims = desk.claims();
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm);
        for verifying in [key.verifying_key(), key.jwk().to_string(), format!("\n {:#}", key.jwk())] {
            let kid = new_kid();
            desk.add_key(&kid, algorithm, &verifying);
            assert_eq!(desk.admits(&key.token(Some(&kid), &claims)), desk.ada(), "{algorithm}");
            let stranger = SigningKey::generate(algorithm).token(Some(&kid), &claims);
            desk.refuses(&stranger, Some(&kid), "signature");
        }
    }
}

#[test]
fn a_token_binds_its_tenant_for_data_and_nothing_else() {
    let mut desk = Desk::new("jwt_data");
    protected_table(&desk.database);
    for tenant in [desk.tenant, desk.other] {
        as_tenant(&mut desk.app, tenant, |tx| {
            tx.execute("INSERT INTO notes (body) VALUES ($1)", &[&tenant.to_string()])
        })
        .expect("write");
    }
    let token = desk.token(&desk.claims());
    for role in ["client", "app"] {
        let mut session = desk.database.connect(role);
        let mut transaction = session.transaction().expect("begin");
        rows(&mut transaction, "SELECT * FROM authenticate_jwt($1)", &[&token]);
        let seen: Vec<String> =
            rows(&mut transaction, "SELECT body FROM notes", &[]).iter().map(|row| row.get(0)).collect();
        assert_eq!(seen, [desk.tenant.to_string()]);
        let principal = rows(&mut transaction, "SELECT * FROM current_principal()", &[]);
        assert_eq!(principal[0].get::<_, Uuid>("tenant_id"), desk.tenant);
        assert_eq!(principal[0].get::<_, Option<Uuid>>("user_id"), Some(desk.ada));
        assert_eq!(principal[0].get::<_, String>("source"), "jwt");
        assert!(one::<bool>(&mut transaction, "SELECT has_role('member') AND NOT has_role('admin')", &[]));
        transaction.commit().expect("commit");
        fails(session.batch_execute("SELECT * FROM notes"), "42501");
    }
}

#[test]
fn a_token_without_a_signature_is_refused_however_its_header_says_so() {
    let mut desk = Desk::new("jwt_none");
    let claims = desk.claims();
    let none = ["none", "None", "NONE", "nOnE", "", " ", "null", "HS256 ", "hs256", "HS1", "A128KW", "dir"];
    for alg in
        none.iter().map(|name| json!(name)).chain([json!(null), json!(0), json!(["HS256"]), json!({}), json!(true)])
    {
        for header in [json!({ "alg": alg }), json!({ "alg": alg, "kid": desk.kid })] {
            let header = header.to_string();
            desk.refuses(&signed(&header, &claims, |_| Vec::new()), None, "malformed");
            desk.refuses(&desk.key.seal(&header, claims.to_string()), None, "malformed");
        }
    }
    desk.refuses(&desk.key.seal(json!({ "kid": desk.kid }).to_string(), claims.to_string()), None, "malformed");
    let unsigned = signed(&header("HS256", &desk.kid), &claims, |_| Vec::new());
    desk.refuses_own(&unsigned, "signature");
}

/// A key is of one algorithm. A token that names another is refused whatever it is signed with: by the owner of the private
/// key, or by anyone, with the public key as an HMAC secret.
#[test]
fn a_key_of_one_algorithm_verifies_no_token_of_another() {
    let mut desk = Desk::new("jwt_confusion");
    let claims = desk.claims();
    for algorithm in ALGORITHMS {
        for as_jwk in [false, true] {
            let (key, kid) = (SigningKey::generate(algorithm), new_kid());
            let verifying = if as_jwk { key.jwk().to_string() } else { key.verifying_key() };
            desk.add_key(&kid, algorithm, &verifying);
            for name in NAMES.into_iter().filter(|name| *name != algorithm) {
                let reason = if name == "ES512" { "malformed" } else { "algorithm" };
                let counted = (reason == "algorithm").then_some(kid.as_str());
                let header = header(name, &kid);
                desk.refuses(&signed(&header, &claims, |message| key.sign(message)), counted, reason);
                for secret in [verifying.as_str(), verifying.trim(), key.jwk().to_string().as_str(), ""] {
                    let forged = signed(&header, &claims, |message| hmac_sha256(secret.as_bytes(), message));
                    desk.refuses(&forged, counted, reason);
                }
            }
            // The algorithm is right, and the signature that of another.
            for other in ALGORITHMS.into_iter().filter(|other| *other != algorithm) {
                let other = SigningKey::generate(if other == "RS256" { "ES256" } else { other });
                let forged = signed(&header(algorithm, &kid), &claims, |message| other.sign(message));
                desk.refuses(&forged, Some(&kid), "signature");
            }
            if algorithm != "HS256" {
                let by_public_key = |message: &[u8]| hmac_sha256(verifying.as_bytes(), message);
                let forged = signed(&header(algorithm, &kid), &claims, by_public_key);
                desk.refuses(&forged, Some(&kid), "signature");
            }
            assert_eq!(desk.admits(&key.token(Some(&kid), &claims)), desk.ada());
        }
    }
}

/// Two keys are live: neither signs in the name of the other, and without a kid neither is tried.
#[test]
fn a_key_does_not_sign_for_the_kid_of_another() {
    let mut desk = Desk::new("jwt_kids");
    let claims = desk.claims();
    let keys: Vec<(SigningKey, String)> =
        ALGORITHMS.iter().flat_map(|name| [desk.new_key(name), desk.new_key(name)]).collect();
    for (signer, own) in &keys {
        for (key, kid) in keys.iter().filter(|(_, kid)| kid != own) {
            let same = key.algorithm() == signer.algorithm();
            let reason = if same { "signature" } else { "algorithm" };
            desk.refuses(&signer.token(Some(kid), &claims), Some(kid), reason);
        }
        desk.refuses(&signer.token(None, &claims), None, "kid");
        assert_eq!(desk.admits(&signer.token(Some(own), &claims)), desk.ada());
    }
}

/// Signatures that broken verifiers take: of zeros ("psychic"), empty, cut off, in another encoding, or made from a good one
/// by arithmetic.
#[test]
fn a_degenerate_signature_is_refused() {
    let mut desk = Desk::new("jwt_degenerate");
    let claims = desk.claims();
    for algorithm in ALGORITHMS {
        let (key, kid) = desk.new_key(algorithm);
        let header = header(algorithm, &kid);
        let good = key.sign(format!("{}.{}", segment(&header), segment(claims.to_string())).as_bytes());
        let length = good.len();
        let mut forged: Vec<Vec<u8>> = [0, 1, 16, 31, 32, 33, 63, 64, 65, 72, 128, 255, 256, 257]
            .into_iter()
            .flat_map(|length| [vec![0; length], vec![0xff; length]])
            .collect();
        forged.extend([1, 8, 16, length / 2, length - 1].map(|cut| good[..length - cut].to_vec()));
        forged.push([good.as_slice(), &[0]].concat());
        forged.push([&[0], good.as_slice()].concat());
        forged.push(good.repeat(2));
        forged.push(good.iter().rev().copied().collect());
        for bit in [0, 7, length * 4, length * 8 - 1] {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            forged.push(flipped);
        }
        if algorithm == "ES256" {
            // ASN.1, as openssl writes it; r and s exchanged; r = 1, s = 1.
            let (r, s) = good.split_at(32);
            forged.push([&[0x30, 70, 2, 33, 0], r, &[2, 33, 0], s].concat());
            forged.push([s, r].concat());
            let one = [&[0; 31][..], &[1]].concat();
            forged.push(one.repeat(2));
        }
        if algorithm == "EdDSA" {
            // S plus the order of the group (RFC 8032, section 5.1.7: not in range).
            forged.push(add_order(&good));
        }
        for signature in forged {
            assert_ne!(signature, good);
            desk.refuses(&signed(&header, &claims, |_| signature), Some(&kid), "signature");
        }
        assert_eq!(desk.admits(&signed(&header, &claims, |_| good)), desk.ada());
    }
}

/// An Ed25519 signature with the group's order added to S, little-endian in its second half.
fn add_order(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut sum = signature.to_vec();
    let mut carry = 0;
    for (byte, order) in sum[32..].iter_mut().zip(ORDER) {
        let total = u16::from(*byte) + u16::from(order) + carry;
        *byte = total.to_le_bytes()[0];
        carry = total >> 8;
    }
    sum
}
