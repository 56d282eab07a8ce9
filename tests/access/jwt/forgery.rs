//! Changed tokens, tokens that bring their own key, and what is no token at all.

use super::signer::{ALGORITHMS, SigningKey, bytes_of, segment};
use super::{Desk, claims_of, refuses};
use harness::*;
use serde_json::{Value, json};

#[test]
fn a_header_cannot_bring_its_own_key() {
    let mut desk = Desk::new("jwt_embedded");
    let claims = desk.claims();
    let (key, kid) = desk.new_key("ES256");
    let attacker = SigningKey::generate("ES256");
    let certificate = segment(attacker.verifying_key());
    for brought in [
        json!({ "jwk": attacker.jwk() }),
        json!({ "jku": "https://attacker.example/keys.json" }),
        json!({ "jku": "file:///etc/passwd" }),
        json!({ "x5u": "https://attacker.example/chain.pem" }),
        json!({ "x5c": [certificate] }),
        json!({ "x5t": "AAAA", "x5t#S256": "AAAA" }),
        json!({ "jwk": attacker.jwk(), "jku": "https://attacker.example", "x5c": [certificate] }),
        json!({ "key": attacker.verifying_key(), "pem": attacker.verifying_key(), "secret": "" }),
    ] {
        let header = |kid: Value| {
            let mut header = brought.clone();
            let fields = header.as_object_mut().expect("an object");
            fields.insert("alg".to_owned(), json!("ES256"));
            fields.insert("kid".to_owned(), kid);
            header.to_string()
        };
        desk.refuses(&attacker.seal(header(json!(kid)), claims.to_string()), Some(&kid), "signature");
        for unknown in [json!("attacker"), json!(null), json!("")] {
            desk.refuses(&attacker.seal(header(unknown), claims.to_string()), None, "kid");
        }
        // What the header brings is not looked at: our own key's signature counts.
        assert_eq!(desk.admits(&key.seal(header(json!(kid)), claims.to_string())), desk.ada());
    }
}

#[test]
fn an_extension_that_must_be_understood_is_refused() {
    let mut desk = Desk::new("jwt_crit");
    let claims = desk.claims().to_string();
    for critical in [
        json!({ "crit": ["b64"], "b64": false }),
        json!({ "crit": ["exp"], "exp": 1 }),
        json!({ "crit": ["https://example.com/extension"], "https://example.com/extension": true }),
        json!({ "crit": [] }),
        json!({ "crit": "b64" }),
        json!({ "crit": 1 }),
        json!({ "crit": { "b64": true } }),
    ] {
        let mut header = critical;
        let fields = header.as_object_mut().expect("an object");
        fields.insert("alg".to_owned(), json!("HS256"));
        fields.insert("kid".to_owned(), json!(desk.kid));
        desk.refuses(&desk.key.seal(header.to_string(), &claims), None, "malformed");
    }
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let mut desk = Desk::new("jwt_kid_injection");
    let claims = desk.claims();
    let own = desk.kid.clone();
    let hostile = [
        "' OR '1'='1",
        "' UNION SELECT 'x', 'HS256', 'secret' --",
        "'; DROP TABLE tenancy.stored_jwt_keys; --",
        "../../../../dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "%",
        "_",
        "*",
        "kid-%",
        "\\",
        "$1",
        "$$",
        "\u{0}",
        "\u{202e}",
        "\u{1f511}",
        "http://attacker.example/key",
        "| sleep 10",
        &own.to_uppercase(),
        &format!("{own} "),
        &format!(" {own}"),
        &format!("{own}\u{0}"),
        &format!("{own}\n"),
        &"k".repeat(10_000),
    ];
    for kid in hostile {
        desk.refuses(&desk.key.token(Some(kid), &claims), None, "kid");
    }
    for kid in [json!(1), json!(true), json!([own]), json!({ "kid": own })] {
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        desk.refuses(&desk.key.seal(header, claims.to_string()), None, "malformed");
    }
    // Kids that are stored are found by exactly their own name.
    for kid in ["%", "'OR'1'='1", "../../../../dev/null"] {
        let key = SigningKey::generate("HS256");
        desk.add_key(kid, "HS256", &key.verifying_key());
        assert_eq!(desk.admits(&key.token(Some(kid), &claims)), desk.ada());
    }
    desk.refuses(&desk.key.token(Some("%"), &claims), Some("%"), "signature");
    assert_eq!(desk.admits(&desk.token(&claims)), desk.ada());
}

/// The parts of two good tokens, put together anew.
#[test]
fn a_signature_holds_for_its_own_header_and_payload_only() {
    let mut desk = Desk::new("jwt_parts");
    for algorithm in ALGORITHMS {
        let (key, kid) = desk.new_key(algorithm);
        let ada = key.token(Some(&kid), &desk.claims());
        let bob = key.token(Some(&kid), &claims_of(&desk.other.to_string(), &desk.bob.to_string()));
        let (ada, bob): (Vec<&str>, Vec<&str>) = (ada.split('.').collect(), bob.split('.').collect());
        desk.refuses(&[ada[0], bob[1], ada[2]].join("."), Some(&kid), "signature");
        desk.refuses(&[ada[0], ada[1], bob[2]].join("."), Some(&kid), "signature");
        let reordered = json!({ "kid": kid, "typ": "at+jwt", "alg": algorithm }).to_string();
        desk.refuses(&[&segment(reordered), ada[1], ada[2]].join("."), Some(&kid), "signature");
        // Changed by its holder, who knows no key.
        let mut claims: Value = serde_json::from_slice(&bytes_of(ada[1])).expect("claims");
        claims["tenant_id"] = json!(desk.other.to_string());
        desk.refuses(&[ada[0], &segment(claims.to_string()), ada[2]].join("."), Some(&kid), "signature");
        let stranger = SigningKey::generate(algorithm);
        desk.refuses(&stranger.token(Some(&kid), &desk.claims()), Some(&kid), "signature");
    }
}

#[test]
fn a_token_that_is_cut_off_or_added_to_is_refused() {
    let mut desk = Desk::new("jwt_cut");
    let token = desk.token(&desk.claims());
    let parts: Vec<&str> = token.split('.').collect();
    for length in 0..token.len() {
        refuses(&mut desk.client, &token[..length]);
    }
    for start in 1..parts[0].len() {
        refuses(&mut desk.client, &token[start..]);
    }
    let [header, payload, signature] = [parts[0], parts[1], parts[2]];
    for changed in [
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{token}"),
        format!("{header}.{payload}.{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}.{signature}"),
        format!("{header} .{payload}.{signature}"),
        format!(" {token}"),
        format!("{token} "),
        format!("{token}\n"),
        format!("{token}\r\n"),
        format!("{token}\u{feff}"),
        format!("\u{feff}{token}"),
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("\"{token}\""),
        format!("{token}, {token}"),
        format!("{token}{token}"),
        format!("{token}="),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}==.{signature}"),
        token.replace('.', "\u{ff0e}"),
        token.replace('.', ","),
        token.to_uppercase(),
        token.chars().rev().collect(),
    ] {
        refuses(&mut desk.client, &changed);
    }
    assert_eq!(desk.admits(&token), desk.ada());
}

/// One token, one text: what decodes to the same bytes in another spelling is another token.
#[test]
fn base64url_has_one_spelling() {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut desk = Desk::new("jwt_base64");
    let mut spelled = 0;
    // 32 bytes end in a digit with two bits that mean nothing.
    let token = desk.token(&desk.claims());
    let last = *token.as_bytes().last().expect("a signature");
    let place = DIGITS.iter().position(|digit| *digit == last).expect("a digit of base64url");
    for bits in 1..4 {
        let other = char::from(DIGITS[place ^ bits]);
        refuses(&mut desk.client, &format!("{}{other}", &token[..token.len() - 1]));
    }
    while spelled < 3 {
        // A signature with a digit that base64 writes otherwise.
        let token = desk.token(
            &desk.claims_with(json!({ "n": spelled, "salt": segment(SigningKey::generate("HS256").verifying_key()) })),
        );
        let (message, signature) = token.rsplit_once('.').expect("segments");
        if signature.contains(['-', '_']) {
            let other = signature.replace('-', "+").replace('_', "/");
            refuses(&mut desk.client, &format!("{message}.{other}"));
            spelled += 1;
        }
    }
}

#[test]
fn what_is_no_token_is_refused_and_the_session_lives() {
    let mut desk = Desk::new("jwt_noise");
    let pid = backend_pid(&mut desk.client);
    fails(desk.client.query("SELECT * FROM authenticate_jwt(NULL)", &[]), "28000");
    let object = segment("{}");
    let mega = 1 << 20;
    for noise in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "....".to_owned(),
        "a.b.c".to_owned(),
        "null".to_owned(),
        "\u{1f600}.\u{1f600}.\u{1f600}".to_owned(),
        "é.é.é".to_owned(),
        "' OR true --".to_owned(),
        "ptk_0123456789012345678901234567890123456789012345678".to_owned(),
        desk.tenant.to_string(),
        format!("{object}.{object}.{object}"),
        // Five segments: an encrypted token.
        format!("{}.{object}.{object}.{object}.{object}", segment(r#"{"alg":"dir","enc":"A256GCM"}"#)),
        // The JSON serialisation.
        json!({ "payload": object, "protected": object, "signature": object }).to_string(),
        "a".repeat(mega),
        ".".repeat(mega),
        "a.".repeat(mega),
        "\u{1f600}".repeat(mega),
        format!("{}.{}.{}", "A".repeat(4 * mega), "A".repeat(4 * mega), "A".repeat(4 * mega)),
    ] {
        desk.refuses(&noise, None, "malformed");
    }
    for header in ["", "null", "[]", "0", "\"HS256\"", "{", "{}", "{\"alg\":}", "\u{feff}{\"alg\":\"HS256\"}"] {
        desk.refuses(&desk.key.seal(header, desk.claims().to_string()), None, "malformed");
    }
    desk.refuses(&desk.key.seal([0xff, 0xfe, 0], desk.claims().to_string()), None, "malformed");
    assert_eq!(backend_pid(&mut desk.client), pid);
}

/// Whoever signed it: what is no object of claims binds nobody, and the deepest nesting is no way down the stack.
#[test]
fn a_good_signature_over_nonsense_is_refused() {
    let mut desk = Desk::new("jwt_nonsense");
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(2000), close.repeat(2000));
    let valid = desk.claims().to_string();
    for payload in [
        "".to_owned(),
        "null".to_owned(),
        "true".to_owned(),
        "0".to_owned(),
        "\"claims\"".to_owned(),
        "[]".to_owned(),
        format!("[{valid}]"),
        format!("{valid}{valid}"),
        format!("{valid},"),
        format!("{valid} x"),
        valid[..valid.len() - 1].to_owned(),
        valid.replace('"', "'"),
        format!("\u{feff}{valid}"),
        deep("[", "]"),
        deep("{\"a\":", "}"),
        valid.replacen('{', &format!("{{\"deep\":{},", deep("[", "]")), 1),
        valid.replacen('{', "{\"bad\":\"\\ud800\",", 1),
        valid.replacen('{', "{\"bad\":\"\u{1}\",", 1),
        valid.replacen('{', "{\"bad\":01,", 1),
    ] {
        desk.refuses_own(&desk.token_of(payload), "malformed");
    }
    desk.refuses_own(&desk.token_of([b"{\"sub\":\"", &[0xff, 0xfe][..], b"\"}"].concat()), "malformed");
    desk.refuses_own(&desk.token_of("{}"), "claims");
    // RFC 8259: blanks between are fine.
    assert_eq!(desk.admits(&desk.token_of(format!("\r\n\t {:#} ", desk.claims()))), desk.ada());
}

#[test]
fn a_name_that_is_there_twice_never_counts_by_its_first_value() {
    let mut desk = Desk::new("jwt_twice");
    let (tenant, other, ada, bob, kid) = (desk.tenant, desk.other, desk.ada, desk.bob, desk.kid.clone());
    let (past, future) = (super::now() - 600, super::now() + 600);
    for exp in [format!("\"exp\":{past},\"exp\":{future}"), format!("\"exp\":{future},\"exp\":{past}")] {
        desk.refuses_own(
            &desk.token_of(format!("{{\"sub\":\"{ada}\",\"tenant_id\":\"{tenant}\",{exp}}}")),
            "malformed",
        );
    }
    let twice = format!(
        "{{\"sub\":\"{ada}\",\"sub\":\"{bob}\",\"tenant_id\":\"{tenant}\",\"tenant_id\":\"{other}\",\"exp\":{future}}}"
    );
    // RFC 7519, section 4: refused, or the last.
    let twice = desk.token_of(twice);
    match super::authenticate(&mut desk.client, &twice) {
        Ok(principal) => assert_eq!((principal.tenant, principal.user), (other, Some(bob))),
        error => drop(fails(error, "28000")),
    }
    for header in [
        format!("{{\"alg\":\"none\",\"alg\":\"HS256\",\"kid\":\"{kid}\"}}"),
        format!("{{\"alg\":\"HS256\",\"alg\":\"none\",\"kid\":\"{kid}\"}}"),
        format!("{{\"alg\":\"HS256\",\"kid\":\"other\",\"kid\":\"{kid}\"}}"),
    ] {
        desk.refuses(&desk.key.seal(header, desk.claims().to_string()), None, "malformed");
    }
}

#[test]
fn a_token_has_at_most_sixteen_kilobytes() {
    let mut desk = Desk::new("jwt_size");
    let padded = |desk: &Desk, length: usize| desk.token(&desk.claims_with(json!({ "padding": "x".repeat(length) })));
    let long = padded(&desk, 11_900);
    assert!((16_000..16_384).contains(&long.len()), "{}", long.len());
    assert_eq!(desk.admits(&long), desk.ada());
    for length in [12_500, 100_000, 5_000_000] {
        desk.refuses(&padded(&desk, length), None, "malformed");
    }
}

/// In a database that takes any bytes for text, if the extension can be there at all.
#[test]
fn bytes_that_are_no_text_are_refused_and_the_session_lives() {
    let name = "jwt_ascii";
    let server = cluster().server();
    let create = format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    server.superuser().batch_execute(&create).expect("create a database");
    let connect = |role| server.config(name, role).connect(postgres::NoTls).expect("connect");
    let mut superuser = connect("postgres");
    let prepare =
        format!("REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    superuser.batch_execute(&prepare).expect("revoke");
    match superuser.batch_execute("CREATE EXTENSION pg_tenancy; SELECT grant_access('client', 'client')") {
        Ok(()) => {
            let mut session = connect("client");
            for bytes in ["\\xff", "\\xc3.\\x28.\\xff", "eyJhbGciOiJIUzI1NiJ9.\\xf0\\x28.\\x80"] {
                fails(session.batch_execute(&format!("SELECT * FROM authenticate_jwt(E'{bytes}')")), "28000");
            }
            assert_eq!(one::<i32>(&mut session, "SELECT 1", &[]), 1);
        }
        refused => drop(fails(refused, "0A000")),
    }
    drop(superuser);
    server.superuser().batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).expect("drop");
}
