//! The keys behind tokens: rotation, bad ones, and who gets to see them.

use super::signer::{ALGORITHMS, SigningKey, pem, segment};
use super::{ADD_KEY, Desk, authenticate, new_kid, now, refuses};
use crate::access::fixtures::stored;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use harness::*;
use serde_json::{Value, json};

const ADD_EXPIRING: &str = "SELECT add_jwt_key($1, $2, $3, expires_at => clock_timestamp() + $4::text::interval)";
const ADD_PAIR: &str = "SELECT add_jwt_key($1, $2, $3, private_key => $4)";
const REMOVE: &str = "SELECT remove_jwt_key($1)";

/// Made by `openssl genrsa 1024`.
const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDFVRTxgrZ7A+pMEUdzoKPt2DpR
vjyCw6hWJGgTSXVES7hRC/HGXhsiWkMt8qLdNj42oa/C9w9GgswNa173jbnuReHl
kgnbABtgbvWsjeBCgnpBP7iMHWyLU/K50XPNWMswDF+NzxZMIYC08VkMmkopbh+n
iljJ3OIAABH1A2xuKQIDAQAB
-----END PUBLIC KEY-----
";
/// Made by `openssl genpkey -algorithm ed448` and `x25519`.
const ED448: &str = "-----BEGIN PUBLIC KEY-----
MEMwBQYDK2VxAzoA+fsatf4Nbn063a2QJ+pu4Z/8N3q+BpxJuhqnNn5j0vfqpytc
tUZtuOF1rPX6mbgWzr6mxUinKj2A
-----END PUBLIC KEY-----
";
const X25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAsClPZLi3HG5lP5hPcgXm2UsQfyNRReS8oZvo05lbJiU=
-----END PUBLIC KEY-----
";

fn public_key_on(curve: &'static EcdsaSigningAlgorithm) -> String {
    let pair = EcdsaKeyPair::generate(curve).expect("an EC key");
    let der = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).expect("a public key in DER");
    pem("PUBLIC KEY", der.as_ref())
}

/// Makes a live key one that has expired.
#[track_caller]
fn expire(desk: &Desk, kid: &str) {
    let expire = "UPDATE tenancy.stored_jwt_keys SET expires_at = clock_timestamp() WHERE kid = $1";
    assert_eq!(desk.database.superuser().execute(expire, &[&kid]).expect("expire"), 1);
}

#[test]
fn several_keys_are_live_until_each_expires_or_is_removed() {
    let mut desk = Desk::new("jwt_rotation");
    let claims = desk.claims();
    let keys: Vec<(SigningKey, String)> = ALGORITHMS.iter().map(|name| desk.new_key(name)).collect();
    let token = |place: usize| keys[place].0.token(Some(&keys[place].1), &claims);
    for place in 0..4 {
        assert_eq!(desk.admits(&token(place)), desk.ada());
    }
    assert!(one::<bool>(&mut desk.admin, REMOVE, &[&keys[0].1]));
    assert!(!one::<bool>(&mut desk.admin, REMOVE, &[&keys[0].1]));
    expire(&desk, &keys[1].1);
    // A removed key's kid tells nothing any more; an expired one's is known, and refused all the same.
    desk.refuses(&token(0), None, "kid");
    refuses(&mut desk.client, &token(1));
    for place in 2..4 {
        assert_eq!(desk.admits(&token(place)), desk.ada());
    }
    // The kid may be given to another key, which the old tokens do not know.
    let (kid, next) = (keys[0].1.clone(), SigningKey::generate("HS256"));
    desk.add_key(&kid, "HS256", &next.verifying_key());
    desk.refuses(&token(0), Some(&kid), "signature");
    assert_eq!(desk.admits(&next.token(Some(&kid), &claims)), desk.ada());
    assert!(!one::<bool>(&mut desk.admin, REMOVE, &[&"no such key"]));
    fails(desk.admin.query("SELECT remove_jwt_key(NULL)", &[]), "22023");
}

#[test]
fn a_key_ends_by_itself_at_its_time() {
    let mut desk = Desk::new("jwt_key_expiry");
    let (key, kid) = (SigningKey::generate("HS256"), new_kid());
    let token = key.token(Some(&kid), &desk.claims());
    one::<String>(&mut desk.admin, ADD_EXPIRING, &[&kid, &"HS256", &key.verifying_key(), &"1 hour"]);
    assert_eq!(desk.admits(&token), desk.ada());
    let soon = "UPDATE tenancy.stored_jwt_keys SET expires_at = clock_timestamp() + '0.2 s' WHERE kid = $1";
    desk.database.superuser().execute(soon, &[&kid]).expect("expire soon");
    wait_until("the key expires", || authenticate(&mut desk.client, &token).is_err());
    refuses(&mut desk.client, &token);
}

#[test]
fn a_token_without_a_kid_needs_that_one_key_is_live() {
    let mut desk = Desk::new("jwt_no_kid");
    let claims = desk.claims();
    let token = desk.key.token(None, &claims);
    assert_eq!(desk.admits(&token), desk.ada());
    // One that expired stands in nobody's way.
    let (second, kid) = desk.new_key("HS256");
    desk.refuses(&token, None, "kid");
    desk.refuses(&second.token(None, &claims), None, "kid");
    assert_eq!(desk.admits(&desk.token(&claims)), desk.ada());
    expire(&desk, &kid);
    assert_eq!(desk.admits(&token), desk.ada());
    refuses(&mut desk.client, &second.token(None, &claims));
    // The only key is not tried for another algorithm either.
    let forged = SigningKey::generate("ES256").token(None, &claims);
    desk.refuses(&forged, Some(&desk.kid.clone()), "algorithm");
    expire(&desk, &desk.kid.clone());
    desk.refuses(&token, None, "kid");
    desk.refuses(&desk.token(&claims), None, "kid");
    for kid in [kid, desk.kid.clone()] {
        assert!(one::<bool>(&mut desk.admin, REMOVE, &[&kid]));
    }
    desk.refuses(&token, None, "kid");
}

/// Keys of years of rotation that nobody removed.
#[test]
fn a_hundred_expired_keys_are_in_nobodys_way() {
    let mut desk = Desk::new("jwt_many_keys");
    let claims = desk.claims();
    one::<bool>(&mut desk.admin, REMOVE, &[&desk.kid]);
    desk.admin
        .batch_execute(
            "SELECT add_jwt_key('old-' || i, 'HS256', expires_at => now() + '1 hour') FROM generate_series(1, 100) i",
        )
        .expect("add keys");
    let expire = "UPDATE tenancy.stored_jwt_keys SET expires_at = clock_timestamp()";
    desk.database.superuser().batch_execute(expire).expect("expire");
    let (key, kid) = desk.new_key("HS256");
    assert_eq!(desk.admits(&key.token(Some(&kid), &claims)), desk.ada());
    assert_eq!(desk.admits(&key.token(None, &claims)), desk.ada());
    let (tenant, ada) = (desk.tenant, desk.ada);
    let issued = as_tenant(&mut desk.app, tenant, |tx| one::<String>(tx, "SELECT issue_jwt($1)", &[&ada]));
    assert!(key.has_signed(&issued));
    // A second live key behind a hundred others is seen.
    let (_, second) = desk.new_key("HS256");
    desk.refuses(&key.token(None, &claims), None, "kid");
    one::<bool>(&mut desk.admin, REMOVE, &[&second]);
    assert_eq!(desk.admits(&key.token(None, &claims)), desk.ada());
}

/// Removed in one session, a key is refused in another at once: in the middle of a transaction, and under an old snapshot.
#[test]
fn no_session_remembers_a_key() {
    let mut desk = Desk::new("jwt_no_cache");
    let (key, kid) = desk.new_key("ES256");
    let token = key.token(Some(&kid), &desk.claims());
    let mut session = desk.database.connect("client");
    let mut busy = desk.database.connect("client");
    let mut old =
        busy.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().expect("begin");
    rows(&mut old, super::AUTHENTICATE, &[&token]);
    super::admits(&mut session, &token);
    let mut removing = desk.admin.transaction().expect("begin");
    assert!(one::<bool>(&mut removing, REMOVE, &[&kid]));
    super::admits(&mut session, &token);
    removing.commit().expect("commit");
    refuses(&mut session, &token);
    fails(old.query(super::AUTHENTICATE, &[&token]), "28000");
    drop(old);
    desk.add_key(&kid, "ES256", &key.verifying_key());
    super::admits(&mut session, &token);
    assert!(one::<bool>(&mut desk.admin, REMOVE, &[&kid]));
    desk.add_key(&kid, "ES256", &SigningKey::generate("ES256").verifying_key());
    refuses(&mut session, &token);
}

/// Nothing is written, nothing of the key is in the error, and the session lives.
#[track_caller]
fn refuses_key(desk: &mut Desk, algorithm: Option<&str>, key: Option<&str>, private: Option<&str>, sqlstate: &str) {
    let kid = new_kid();
    let mut superuser = desk.database.superuser();
    let before = stored(&mut superuser);
    let fault = fails(desk.admin.query(ADD_PAIR, &[&kid, &algorithm, &key, &private]), sqlstate);
    let told = format!("{fault:?}");
    for secret in [key, private].into_iter().flatten() {
        let inside: String = secret.lines().filter(|line| !line.starts_with("-----")).collect();
        let part = inside.get(inside.len() / 2..inside.len() / 2 + 12);
        assert!(part.is_none_or(|part| !told.contains(part)), "{told}");
    }
    assert_eq!(stored(&mut superuser), before);
}

#[test]
fn a_weak_or_foreign_key_is_not_taken() {
    let mut desk = Desk::new("jwt_bad_keys");
    let keys: Vec<SigningKey> = ALGORITHMS.iter().map(|name| SigningKey::generate(name)).collect();
    for key in &keys {
        for algorithm in ALGORITHMS.into_iter().filter(|name| *name != key.algorithm()) {
            // Any text of that length is a secret, so an HS256 key's own text is one.
            for verifying in [key.verifying_key(), key.jwk().to_string()] {
                refuses_key(&mut desk, Some(algorithm), Some(&verifying), None, "22023");
            }
            if let Some(private) = key.private_key() {
                refuses_key(&mut desk, Some(algorithm), None, Some(&private), "22023");
            }
        }
        if let Some(private) = key.private_key() {
            refuses_key(&mut desk, Some(key.algorithm()), Some(&private), None, "22023");
            refuses_key(&mut desk, Some("HS256"), Some(&private), None, "22023");
            refuses_key(&mut desk, Some(key.algorithm()), None, Some(&key.verifying_key()), "22023");
        }
    }
    let short = segment([7; 23]);
    for secret in ["", " ", "secret", "password", &short[..31], &"x".repeat(31)] {
        refuses_key(&mut desk, Some("HS256"), Some(secret), None, "22023");
    }
    refuses_key(
        &mut desk,
        Some("HS256"),
        Some(&json!({ "kty": "oct", "k": segment([7; 31]) }).to_string()),
        None,
        "22023",
    );
    refuses_key(&mut desk, Some("HS256"), Some(&keys[0].verifying_key()), Some("x"), "22023");
    for (algorithm, key) in [
        ("RS256", RSA_1024.to_owned()),
        ("EdDSA", ED448.to_owned()),
        ("EdDSA", X25519.to_owned()),
        ("ES256", public_key_on(&ECDSA_P384_SHA384_FIXED_SIGNING)),
        ("ES256", public_key_on(&ECDSA_P256K1_SHA256_FIXED_SIGNING)),
    ] {
        refuses_key(&mut desk, Some(algorithm), Some(&key), None, "22023");
    }
    for name in [
        "none", "None", "", "hs256", "HS384", "HS512", "RS384", "RS512", "PS256", "ES384", "ES512", "Ed25519",
        "HS256 ", "x'; --",
    ] {
        refuses_key(&mut desk, Some(name), Some(&keys[0].verifying_key()), None, "22023");
        refuses_key(&mut desk, Some(name), Some(&keys[1].verifying_key()), None, "22023");
    }
    refuses_key(&mut desk, None, Some(&keys[0].verifying_key()), None, "22023");
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        refuses_key(&mut desk, Some(algorithm), None, None, "22023");
    }
}

#[test]
fn a_malformed_key_is_not_taken() {
    let mut desk = Desk::new("jwt_malformed");
    for key in ALGORITHMS.map(SigningKey::generate) {
        let algorithm = Some(key.algorithm());
        let armoured = key.verifying_key();
        let middle = armoured.len() / 2;
        if key.algorithm() != "HS256" {
            for text in [
                String::new(),
                "x".repeat(40),
                "x".repeat(1 << 20),
                armoured[..middle].to_owned(),
                armoured.replace("PUBLIC KEY", "PUBLIC KEYS"),
                armoured.replace("-----BEGIN", "-----START"),
                armoured.lines().filter(|line| !line.starts_with("-----")).collect(),
                pem("PUBLIC KEY", &[]),
                pem("PUBLIC KEY", &[0x30, 0x80]),
                pem("PUBLIC KEY", &[0xff; 200]),
                pem("PUBLIC KEY", &[&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0; 64][..]].concat()),
                // Nested without end.
                pem("PUBLIC KEY", &[0x30, 0x80].repeat(20_000)),
            ] {
                refuses_key(&mut desk, algorithm, Some(&text), None, "22023");
                refuses_key(&mut desk, algorithm, None, Some(&text), "22023");
            }
        }
        let good = key.jwk();
        let changed = |name: &str, value: Value| {
            let mut jwk = good.clone();
            jwk[name] = value;
            jwk.to_string()
        };
        // For HS256 a list would be a text like any other.
        let list = (key.algorithm() != "HS256").then(|| json!([good]).to_string());
        let mut bad = vec![
            "{}".to_owned(),
            "{".to_owned() + &" ".repeat(60),
            format!("{good}{good}"),
            json!({ "keys": [good] }).to_string(),
            changed("kty", json!("XYZ")),
            changed("kty", json!(null)),
            changed("kty", json!(1)),
        ];
        for name in ["n", "e", "x", "y", "k", "crv"].into_iter().filter(|name| good.get(name).is_some()) {
            for value in [json!(""), json!(null), json!(1), json!("!"), json!("AA=="), json!("AAAA"), json!("é")] {
                // AAAA is an exponent too, of the wrong kind.
                bad.push(changed(name, value));
            }
        }
        for text in bad.into_iter().chain(list) {
            refuses_key(&mut desk, algorithm, Some(&text), None, "22023");
        }
    }
}

/// What JWK files hold that would otherwise fail later, or be kept where it does not belong.
#[test]
fn a_jwk_must_be_a_public_one_for_this_algorithm() {
    let mut desk = Desk::new("jwt_jwk");
    for key in ALGORITHMS.map(SigningKey::generate) {
        let with = |name: &str, value: Value| {
            let mut jwk = key.jwk();
            jwk[name] = value;
            jwk.to_string()
        };
        let algorithm = Some(key.algorithm());
        if key.algorithm() != "HS256" {
            refuses_key(&mut desk, algorithm, Some(&with("d", json!(segment([9; 32])))), None, "22023");
        }
        refuses_key(&mut desk, algorithm, Some(&with("alg", json!("PS384"))), None, "22023");
        refuses_key(&mut desk, algorithm, Some(&with("use", json!("enc"))), None, "22023");
        // What names the key itself, or comes from elsewhere, is no hindrance.
        for (name, value) in
            [("alg", json!(key.algorithm())), ("use", json!("sig")), ("kid", json!("x")), ("x-other", json!(1))]
        {
            let kid = new_kid();
            desk.add_key(&kid, key.algorithm(), &with(name, value));
            assert_eq!(desk.admits(&key.token(Some(&kid), &desk.claims())), desk.ada());
        }
    }
}

/// A key that verifies nothing, or everything, is found when it is added and not by users who cannot log in.
#[test]
fn a_key_that_cannot_work_is_not_taken() {
    let mut desk = Desk::new("jwt_useless");
    let mut off_curve = SigningKey::generate("ES256").jwk();
    off_curve["y"] = json!(segment([1; 32]));
    refuses_key(&mut desk, Some("ES256"), Some(&off_curve.to_string()), None, "22023");
    let rsa = SigningKey::generate("RS256").jwk();
    // s to the power of 1 is s: everyone could sign.
    for exponent in [&[1][..], &[2], &[0], &[0, 0, 0]] {
        let mut jwk = rsa.clone();
        jwk["e"] = json!(segment(exponent));
        refuses_key(&mut desk, Some("RS256"), Some(&jwk.to_string()), None, "22023");
    }
    // Points of small order: with such a key a signature of zeros holds for a quarter of all messages, or for every one.
    for first in [0, 1] {
        let mut point = [0; 32];
        point[0] = first;
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": segment(point) }).to_string();
        refuses_key(&mut desk, Some("EdDSA"), Some(&jwk), None, "22023");
    }
    // A public key of another pair beside the private one: which of the two is meant?
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let (one, other) = (SigningKey::generate(algorithm), SigningKey::generate(algorithm));
        refuses_key(&mut desk, Some(algorithm), Some(&one.verifying_key()), other.private_key().as_deref(), "22023");
    }
}

#[test]
fn a_kid_is_unique_and_well_formed() {
    let mut desk = Desk::new("jwt_kid_form");
    let key = SigningKey::generate("HS256").verifying_key();
    let mut superuser = desk.database.superuser();
    let before = stored(&mut superuser);
    let own = desk.kid.clone();
    for algorithm in ["HS256", "RS256"] {
        let other = SigningKey::generate(algorithm).verifying_key();
        let fault = fails(desk.admin.query(ADD_KEY, &[&own, &algorithm, &other]), "23505");
        assert!(fault.message().contains(&own), "{}", fault.message());
    }
    for kid in
        [None, Some(""), Some(" "), Some("a\nb"), Some("a\u{7f}"), Some(&*"k".repeat(256)), Some(&*"k".repeat(1 << 20))]
    {
        fails(desk.admin.query(ADD_KEY, &[&kid, &"HS256", &key]), "22023");
    }
    for (issuer, audience) in
        [(Some(""), None), (None, Some("")), (Some("a\nb"), None), (None, Some(&*"a".repeat(5000)))]
    {
        let add = "SELECT add_jwt_key('x', 'HS256', $1, issuer => $2, audience => $3)";
        fails(desk.admin.query(add, &[&key, &issuer, &audience]), "22023");
    }
    assert_eq!(stored(&mut superuser), before);
    let longest = "k".repeat(255);
    desk.add_key(&longest, "HS256", &key);
    assert!(one::<bool>(&mut desk.admin, REMOVE, &[&longest]));
}

#[test]
fn two_sessions_cannot_add_one_kid() {
    let mut desk = Desk::new("jwt_kid_race");
    let (kid, key) = (new_kid(), SigningKey::generate("HS256"));
    let mut second = desk.database.connect("admin");
    let pid = backend_pid(&mut second);
    let mut first = desk.admin.transaction().expect("begin");
    one::<String>(&mut first, ADD_KEY, &[&kid, &"HS256", &key.verifying_key()]);
    std::thread::scope(|scope| {
        let late =
            scope.spawn(|| second.query(ADD_KEY, &[&kid, &"HS256", &SigningKey::generate("HS256").verifying_key()]));
        wait_for_lock(&mut desk.operator, pid);
        first.commit().expect("commit");
        fails(late.join().expect("the second session's thread"), "23505");
    });
    let token = key.token(Some(&kid), &desk.claims());
    assert_eq!(desk.admits(&token), desk.ada());
}

#[test]
fn only_an_admin_reaches_the_keys() {
    let desk = Desk::new("jwt_reach");
    for role in ["client", "app", "operator", "monitor", "owner", "stranger"] {
        let mut session = desk.database.connect(role);
        for statement in [
            "SELECT * FROM tenancy.jwt_keys",
            "SELECT count(*) FROM tenancy.jwt_keys",
            "SELECT * FROM tenancy.stored_jwt_keys",
            "TABLE tenancy.stored_jwt_keys",
            "COPY tenancy.stored_jwt_keys TO STDOUT",
            "SELECT add_jwt_key('mine', 'HS256')",
            "SELECT remove_jwt_key('mine')",
            "INSERT INTO tenancy.stored_jwt_keys (kid, algorithm, verifying_key) VALUES ('mine', 'HS256', repeat('x', 43))",
            "UPDATE tenancy.stored_jwt_keys SET verifying_key = 'x'",
            "DELETE FROM tenancy.stored_jwt_keys",
            "TRUNCATE tenancy.stored_jwt_keys",
            "CREATE TRIGGER t BEFORE INSERT ON tenancy.stored_jwt_keys EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ] {
            fails(session.batch_execute(statement), "42501");
        }
    }
    let mut admin = desk.database.connect("admin");
    for statement in [
        "SELECT * FROM tenancy.stored_jwt_keys",
        "DELETE FROM tenancy.stored_jwt_keys",
        "UPDATE tenancy.jwt_keys SET issuer = 'x'",
    ] {
        fails(admin.batch_execute(statement), "42501");
    }
    // Statistics hold the most common values of columns.
    desk.database.superuser().batch_execute("ANALYZE tenancy.stored_jwt_keys").expect("analyze");
    assert_eq!(count(&mut admin, "pg_stats WHERE tablename = 'stored_jwt_keys'"), 0);
}

/// Views, audit log and counters show that there is a key, and nothing of it.
#[test]
fn no_secret_is_shown_to_anyone() {
    let mut desk = Desk::new("jwt_secrets");
    let mut secrets = vec![desk.key.verifying_key(), desk.token(&desk.claims())];
    for algorithm in ALGORITHMS {
        let (key, kid) = (SigningKey::generate(algorithm), new_kid());
        match key.private_key() {
            Some(private) => {
                one::<String>(&mut desk.admin, ADD_PAIR, &[&kid, &algorithm, &None::<&str>, &Some(&private)]);
                secrets.push(private.lines().nth(1).expect("a line of base64").to_owned());
            }
            None => {
                desk.add_key(&kid, algorithm, &key.verifying_key());
                secrets.push(key.verifying_key());
            }
        }
        one::<bool>(&mut desk.admin, REMOVE, &[&kid]);
    }
    let token = secrets[1].clone();
    let made: String = one(&mut desk.admin, "SELECT add_jwt_key('made', 'HS256', issuer => 'me')", &[]);
    secrets.push(one(
        &mut desk.database.superuser(),
        "SELECT verifying_key FROM tenancy.stored_jwt_keys WHERE kid = $1",
        &[&made],
    ));
    super::admits(&mut desk.client, &token);
    refuses(&mut desk.client, &format!("{token}x"));
    let mut shown = String::new();
    for (role, from) in [
        ("admin", "tenancy.jwt_keys"),
        ("admin", "tenancy.audit_log"),
        ("monitor", "tenancy.failed_attempts"),
        ("admin", "tenancy.activity"),
        ("app", "pg_stat_activity"),
    ] {
        let rows = simple(&mut desk.database.connect(role), &format!("SELECT to_jsonb(t) FROM {from} t"));
        shown.extend(rows.into_iter().flatten().flatten());
    }
    assert!(shown.contains(&made) && shown.contains("jwt_key.add") && shown.contains("jwt_key.remove"));
    for secret in &secrets {
        for part in secret.split('.') {
            assert!(!shown.contains(part), "{part} is shown");
        }
    }
    let columns: Vec<String> = rows(
        &mut desk.admin,
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'tenancy.jwt_keys'::regclass AND attnum > 0 ORDER BY attnum",
        &[],
    )
    .iter()
    .map(|row| row.get(0))
    .collect();
    assert_eq!(columns, ["kid", "algorithm", "can_sign", "issuer", "audience", "expires_at", "created_at"]);
}

#[test]
fn the_view_of_keys_tells_what_each_is_for() {
    let mut desk = Desk::new("jwt_view");
    let key = SigningKey::generate("ES256");
    let add = "SELECT add_jwt_key('full', 'ES256', private_key => $1, issuer => 'i', audience => 'a', expires_at => '2099-01-01')";
    one::<String>(&mut desk.admin, add, &[&key.private_key()]);
    desk.add_key("verifies", "ES256", &key.verifying_key());
    let view = "SELECT kid, algorithm, can_sign, issuer, audience, expires_at FROM tenancy.jwt_keys WHERE kid <> $1 ORDER BY kid";
    let shown: Vec<Value> = rows(&mut desk.admin, &format!("SELECT to_jsonb(t) FROM ({view}) t"), &[&desk.kid])
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(
        shown,
        [
            json!({ "kid": "full", "algorithm": "ES256", "can_sign": true, "issuer": "i", "audience": "a", "expires_at": "2099-01-01T00:00:00+00:00" }),
            json!({ "kid": "verifies", "algorithm": "ES256", "can_sign": false, "issuer": null, "audience": null, "expires_at": null }),
        ]
    );
    let audited: Value = one(
        &mut desk.admin,
        "SELECT after FROM tenancy.audit_log WHERE action = 'jwt_key.add' AND target = 'full'",
        &[],
    );
    assert_eq!(audited["algorithm"], json!("ES256"));
}

#[test]
fn a_monitor_sees_why_tokens_are_refused_and_nobody_below() {
    let mut desk = Desk::new("jwt_attempts");
    let (key, kid) = desk.new_key("HS256");
    let claims = desk.claims();
    let (tenant, ada) = (desk.tenant, desk.ada);
    let expired = key.token(Some(&kid), &desk.claims_with(json!({ "exp": now() - 600 })));
    let early = key.token(Some(&kid), &desk.claims_with(json!({ "nbf": now() + 600 })));
    let aimed = key.token(Some(&kid), &desk.claims_with(json!({ "aud": "x" })));
    let nobody = key.token(Some(&kid), &super::claims_of(&tenant.to_string(), "nobody"));
    let stranger = key.token(Some(&kid), &super::claims_of(&desk.other.to_string(), &ada.to_string()));
    for token in [
        desk.key.token(Some(&kid), &claims),
        SigningKey::generate("EdDSA").token(Some(&kid), &claims),
        expired,
        early,
        aimed,
        key.token(Some(&kid), &json!({})),
        nobody,
        stranger,
    ] {
        refuses(&mut desk.client, &token);
    }
    let expected = ["algorithm", "audience", "claims", "expired", "member", "not_yet_valid", "signature", "unknown"];
    assert_eq!(desk.reasons(Some(&kid)), expected.map(|reason| (reason.to_owned(), 1)));
    for role in ["client", "app", "stranger"] {
        fails(desk.database.connect(role).batch_execute("SELECT * FROM tenancy.failed_attempts"), "42501");
    }
    // A kid that nobody knows is not repeated: whoever sends tokens would write into the view.
    refuses(&mut desk.client, &key.token(Some("made-up-kid"), &claims));
    assert_eq!(desk.reasons(Some("made-up-kid")), []);
}
