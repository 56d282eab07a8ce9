//! Tokens changed at random: none is believed, and no backend ends.

use super::specimens::{self, Specimen, TENANT, USER};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use harness::*;
use serde_json::Value;

/// Up to nine bits, the small numbers as likely as the big.
fn some_length(random: &mut Random) -> usize {
    let bits = random.below(10);
    random.below(1 << bits)
}

/// Characters that tokens are made of, and some that they are not.
const CHARACTERS: [&str; 24] = [
    "A",
    "B",
    "Z",
    "a",
    "e",
    "y",
    "z",
    "0",
    "9",
    "-",
    "_",
    "+",
    "/",
    "=",
    ".",
    "..",
    " ",
    "\n",
    "'",
    "\"",
    "{",
    "\u{7f}",
    "\u{e9}",
    "\u{1f511}",
];

/// The token with some of it changed, as text.
fn change(random: &mut Random, token: &str, other: &str) -> String {
    let mut characters: Vec<String> = token.chars().map(String::from).collect();
    for _ in 0..=random.below(3) {
        let place = random.below(characters.len());
        let length = some_length(random).min(characters.len() - place);
        match random.below(9) {
            0 | 1 => characters[place] = (*random.one_of(&CHARACTERS)).to_owned(),
            2 => drop(characters.remove(place)),
            3 => characters.insert(place, (*random.one_of(&CHARACTERS)).to_owned()),
            4 => drop(characters.drain(place..place + length)),
            5 => characters.truncate(place),
            6 => {
                let copied = characters[place..place + length].to_vec();
                characters.splice(place..place, copied);
            }
            7 => {
                let second = random.below(characters.len());
                characters.swap(place, second);
            }
            _ => {
                let parts: Vec<&str> = other.split('.').collect();
                let part = random.one_of(&parts).chars().map(String::from);
                let dots: Vec<usize> = (0..characters.len()).filter(|place| characters[*place] == ".").collect();
                let end = *random.one_of(&[&dots[..], &[characters.len()]].concat());
                let start = dots.iter().rfind(|dot| **dot < end).map_or(0, |dot| dot + 1);
                characters.splice(start..end, part);
            }
        }
        if characters.is_empty() {
            break;
        }
    }
    if random.below(2000) == 0 {
        characters.push("A.".repeat(1 << 20));
    }
    characters.concat()
}

fn segment(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn json_of(segment: &str) -> Value {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(segment).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A value that a header or claim might not be ready for.
fn odd_value(random: &mut Random) -> String {
    let odd = [
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "0",
        "-1",
        "1e308",
        "1e400",
        "-0.0",
        "18446744073709551616",
        "4102444800.5",
        "\"HS256\"",
        "\"none\"",
        "\"RS256\"",
        "[\"a\"]",
        "{\"a\":{\"b\":1}}",
        "\"\\u0000\"",
        "\"\\ud83d\\udd11\"",
        "\"\\ud800\"",
        "NaN",
        "[[[[[[[[]]]]]]]]",
        "\"owner\"",
        "\"*\"",
        "\"' OR true --\"",
        "\"5eed0000-0000-4000-8000-000000000002\"",
        "\"5EED0000-0000-4000-8000-000000000001\"",
    ];
    match random.below(12) {
        0 => format!("\"{}\"", "x".repeat(random.below(20_000))),
        1 => "[".repeat(random.below(300)),
        2 => random.number().to_string(),
        _ => (*random.one_of(&odd)).to_owned(),
    }
}

/// JSON of an object, one member of which is replaced, added or there twice, or some byte of it changed.
fn odd_object(random: &mut Random, object: &Value, names: &[&str]) -> Vec<u8> {
    let (name, value) = (*random.one_of(names), odd_value(random));
    let mut object = object.clone();
    if random.below(3) > 0 {
        object.as_object_mut().expect("an object").remove(name);
    }
    let mut text = object.to_string().replacen('{', &format!("{{\"{name}\":{value},"), 1).into_bytes();
    if random.below(4) == 0 {
        let place = random.below(text.len());
        text[place] = random.number().to_le_bytes()[0];
    }
    text
}

/// A token of odd contents with a good signature.
fn sign_oddly(random: &mut Random, specimen: &Specimen) -> String {
    const HEADER: [&str; 10] = ["alg", "kid", "typ", "crit", "jwk", "x5c", "zip", "b64", "cty", "enc"];
    const CLAIMS: [&str; 10] = ["exp", "nbf", "iat", "sub", "tenant_id", "role", "scope", "iss", "aud", "jti"];
    let parts: Vec<&str> = specimen.token.split('.').collect();
    let header = match random.below(3) {
        0 => odd_object(random, &json_of(parts[0]), &HEADER),
        _ => json_of(parts[0]).to_string().into_bytes(),
    };
    let message = format!("{}.{}", segment(header), segment(odd_object(random, &json_of(parts[1]), &CLAIMS)));
    let key = hmac::Key::new(hmac::HMAC_SHA256, specimen.key.as_bytes());
    format!("{message}.{}", segment(hmac::sign(&key, message.as_bytes())))
}

/// A database in which the committed tokens are good: for one tenant among others.
fn prepare(specimens: &[Specimen]) -> Database {
    let database = Database::new("jwt_fuzz");
    let (mut operator, mut admin, mut app) =
        (database.connect("operator"), database.connect("admin"), database.connect("app"));
    tenants(&mut operator, 3);
    one::<Uuid>(&mut operator, "SELECT create_tenant('Fuzz', id => $1)", &[&TENANT]);
    as_tenant(&mut app, TENANT, |tx| {
        one::<Uuid>(tx, "SELECT create_user('fuzz@example.com', id => $1)", &[&USER]);
        one::<Uuid>(tx, "SELECT add_member($1, 'viewer')", &[&USER]);
    });
    for (place, Specimen { algorithm, kid, key, jwk, .. }) in specimens.iter().enumerate() {
        let verifying = if place % 2 == 0 { key } else { jwk };
        one::<String>(&mut admin, "SELECT add_jwt_key($1, $2, $3)", &[kid, algorithm, verifying]);
    }
    database
}

/// What became of a token: who it is, or the SQLSTATE.
fn present(client: &mut Client, token: &str) -> Result<(Uuid, Uuid), String> {
    let rows = client.query("SELECT tenant_id, user_id FROM authenticate_jwt($1)", &[&token]);
    match rows {
        Ok(rows) => Ok((rows[0].get(0), rows[0].get(1))),
        Err(error) => Err(error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())),
    }
}

/// Presents `tokens` changed tokens, half of them changed as text, the others signed anew by someone who has a key, which may make them
/// good again, but for nobody else.
pub fn survive(tokens: usize) {
    let specimens = specimens::committed();
    let secret = specimens.iter().find(|specimen| specimen.algorithm == "HS256").expect("a secret");
    let database = prepare(&specimens);
    std::thread::scope(|scope| {
        for seed in [0x9e37_79b9_7f4a_7c15_u64, 0xbf58_476d_1ce4_e5b9] {
            let (database, specimens) = (&database, &specimens);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let mut client = database.connect("client");
                let pid = backend_pid(&mut client);
                for _ in 0..tokens / 4 {
                    let [first, second] = [(); 2].map(|()| random.one_of(specimens));
                    let changed = change(&mut random, &first.token, &second.token);
                    if specimens.iter().all(|specimen| specimen.token != changed) {
                        let outcome = present(&mut client, &changed);
                        assert_eq!(outcome, Err("28000".to_owned()), "{changed}, of {}", first.library);
                    }
                    let odd = sign_oddly(&mut random, secret);
                    match present(&mut client, &odd) {
                        Ok(principal) => assert_eq!(principal, (TENANT, USER), "{odd}"),
                        Err(sqlstate) => assert_eq!(sqlstate, "28000", "{odd}"),
                    }
                }
                for specimen in specimens {
                    assert_eq!(present(&mut client, &specimen.token), Ok((TENANT, USER)));
                }
                assert_eq!(backend_pid(&mut client), pid, "the backend is still the same");
            });
        }
    });
}
