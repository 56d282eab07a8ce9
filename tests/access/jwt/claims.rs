//! What a token says: its times, issuer and audience, and the claims that the settings name.

use super::signer::SigningKey;
use super::{Desk, Principal, authenticate, new_kid, now, refuses};
use harness::*;
use serde_json::{Value, json};

const ADD_KEY_FOR: &str = "SELECT add_jwt_key($1, 'HS256', $2, issuer => $3, audience => $4)";

#[test]
fn a_token_is_valid_from_nbf_to_exp_give_or_take_the_leeway() {
    let mut desk = Desk::new("jwt_times");
    for (leeway, inside, outside) in [(None, 20, 45), (Some(0), -20, 20), (Some(300), 270, 330)] {
        if let Some(leeway) = leeway {
            desk.set("tenancy.jwt_leeway", &leeway.to_string());
        }
        let ended = |seconds: i64| json!({ "exp": now() - seconds });
        let begins = |seconds: i64| json!({ "nbf": now() + seconds });
        for good in [ended(inside), begins(inside), json!({ "nbf": now() - 1, "exp": now() + 60 })] {
            assert_eq!(desk.admits(&desk.token(&desk.claims_with(good))), desk.ada());
        }
        desk.refuses_own(&desk.token(&desk.claims_with(ended(outside))), "expired");
        desk.refuses_own(&desk.token(&desk.claims_with(begins(outside))), "not_yet_valid");
    }
    for leeway in ["-1", "301", "2h"] {
        fails(desk.database.superuser().batch_execute(&format!("SET tenancy.jwt_leeway = '{leeway}'")), "22023");
    }
}

/// Nothing of it is kept: the session that it was good for refuses it too, in the middle of a transaction.
#[test]
fn an_expired_token_can_be_replayed_by_nobody() {
    let mut desk = Desk::new("jwt_replay");
    desk.set("tenancy.jwt_leeway", "0");
    let mut session = desk.database.connect("client");
    let issue = || desk.token(&desk.claims_with(json!({ "exp": now() + 1 })));
    // A machine that stops for a second must not fail the test.
    let good = |token: &String| authenticate(&mut session, token).is_ok();
    let token = std::iter::repeat_with(issue).take(10).find(good).expect("a token that is good for a second");
    let mut transaction = session.transaction().expect("begin");
    wait_until("the token expires", || {
        let mut attempt = transaction.transaction().expect("savepoint");
        attempt.query("SELECT * FROM authenticate_jwt($1)", &[&token]).is_err()
    });
    transaction.rollback().expect("roll back");
    refuses(&mut session, &token);
    desk.refuses_own(&token, "expired");
}

/// `changed` is the text of one member, or nothing, that takes the place of the claim `name`.
fn payload(desk: &Desk, name: &str, changed: &str) -> String {
    let rest = desk.claims_without(name).to_string();
    if changed.is_empty() { rest } else { rest.replacen('{', &format!("{{\"{name}\":{changed},"), 1) }
}

#[test]
fn times_of_the_wrong_kind_are_refused() {
    let mut desk = Desk::new("jwt_time_kinds");
    let soon = now() + 600;
    let text = format!("\"{soon}\"");
    for (value, reason) in [
        ("", "claims"),
        ("null", "claims"),
        ("true", "claims"),
        (text.as_str(), "claims"),
        ("\"2099-01-01T00:00:00Z\"", "claims"),
        ("\"never\"", "claims"),
        ("\"\"", "claims"),
        ("[]", "claims"),
        (&format!("[{soon}]"), "malformed"),
        ("{}", "claims"),
        ("-1", "claims"),
        ("-0.5", "claims"),
        ("-9223372036854775808", "claims"),
        ("-1e308", "claims"),
        ("18446744073709551616", "claims"),
        ("99999999999999999999999999999999", "claims"),
        ("1e308", "claims"),
        ("1e400", "malformed"),
        ("-1e400", "malformed"),
        ("NaN", "malformed"),
        ("Infinity", "malformed"),
        ("-Infinity", "malformed"),
        ("0x7fffffff", "malformed"),
        ("+4102444800", "malformed"),
        ("0", "expired"),
        ("0.0", "expired"),
        ("1e-300", "expired"),
        ("1", "expired"),
    ] {
        desk.refuses_own(&desk.token_of(payload(&desk, "exp", value)), reason);
    }
    for (value, reason) in [
        ("\"0\"", "claims"),
        ("true", "claims"),
        ("[]", "claims"),
        ("{}", "claims"),
        ("-1", "claims"),
        ("1e308", "claims"),
        ("18446744073709551615", "not_yet_valid"),
        ("1e18", "not_yet_valid"),
        ("1e400", "malformed"),
    ] {
        let with_nbf = desk.claims().to_string().replacen('{', &format!("{{\"nbf\":{value},"), 1);
        desk.refuses_own(&desk.token_of(with_nbf), reason);
    }
    for good in [
        json!({ "exp": soon as f64 + 0.5 }),
        json!({ "exp": 4_102_444_800_i64 }),
        json!({ "nbf": now() as f64 - 0.25 }),
    ] {
        assert_eq!(desk.admits(&desk.token(&desk.claims_with(good))), desk.ada());
    }
    assert_eq!(desk.admits(&desk.token_of(payload(&desk, "exp", "4.1024448e9"))), desk.ada());
}

#[test]
fn user_and_tenant_must_be_texts() {
    let mut desk = Desk::new("jwt_kinds");
    for name in ["sub", "tenant_id"] {
        for value in ["", "null", "\"\"", "0", "1", "-1", "true", "1e3"] {
            desk.refuses_own(&desk.token_of(payload(&desk, name, value)), "claims");
        }
        let id = if name == "sub" { desk.ada } else { desk.tenant };
        for wrapped in ["[]".to_owned(), "{}".to_owned(), format!("[\"{id}\"]"), format!("{{\"id\":\"{id}\"}}")] {
            let token = desk.token_of(payload(&desk, name, &wrapped));
            refuses(&mut desk.client, &token);
        }
        for spelled in [
            format!(" {id}"),
            format!("{id} "),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            id.simple().to_string(),
            format!("{id}\\u0000"),
            format!("{id}\\n"),
            "%".to_owned(),
            "' OR true --".to_owned(),
            "x".repeat(8000),
        ] {
            desk.refuses_own(&desk.token_of(payload(&desk, name, &format!("\"{spelled}\""))), "unknown");
        }
        // A uuid may be in capitals, and JSON may write characters by their codes.
        let capitals = id.to_string().to_uppercase();
        assert_eq!(desk.admits(&desk.token_of(payload(&desk, name, &format!("\"{capitals}\"")))), desk.ada());
        let first = u32::from(id.to_string().chars().next().expect("a digit"));
        let escaped = format!("\"\\u{first:04x}{}\"", &id.to_string()[1..]);
        assert_eq!(desk.admits(&desk.token_of(payload(&desk, name, &escaped))), desk.ada());
    }
    for role in ["5", "true", "[\"owner\"]", "{}", "\"\""] {
        let with_role = desk.claims().to_string().replacen('{', &format!("{{\"role\":{role},"), 1);
        desk.refuses_own(&desk.token_of(with_role), "claims");
    }
}

#[test]
fn a_key_of_an_issuer_takes_that_issuers_tokens_only() {
    let mut desk = Desk::new("jwt_issuer");
    let (key, kid) = (SigningKey::generate("HS256"), new_kid());
    let issuer = "https://id.example.com/";
    one::<String>(&mut desk.admin, ADD_KEY_FOR, &[&kid, &key.verifying_key(), &issuer, &None::<&str>]);
    let token = |desk: &Desk, iss: Value| key.token(Some(&kid), &desk.claims_with(json!({ "iss": iss })));
    let good = token(&desk, json!(issuer));
    assert_eq!(desk.admits(&good), desk.ada());
    for other in [
        "https://id.example.com",
        "https://ID.example.com/",
        "https://id.example.com//",
        "https://id.example.com/x",
        "https://id.example.com.attacker.example/",
        " https://id.example.com/",
        "",
        "%",
    ] {
        desk.refuses(&token(&desk, json!(other)), Some(&kid), "issuer");
    }
    for other in [json!(null), json!(1), json!({}), json!({ "iss": issuer })] {
        desk.refuses(&token(&desk, other), Some(&kid), "claims");
    }
    desk.refuses(&key.token(Some(&kid), &desk.claims()), Some(&kid), "claims");
    // A key without an issuer does not ask.
    let any = desk.claims_with(json!({ "iss": "https://anyone.example" }));
    assert_eq!(desk.admits(&desk.token(&any)), desk.ada());
}

/// RFC 7519, section 4.1.1: a text. A list with the right one among others says that somebody else issued it as well.
#[test]
fn an_issuer_is_one_text_and_no_list() {
    let mut desk = Desk::new("jwt_issuers");
    let (key, kid) = (SigningKey::generate("HS256"), new_kid());
    let issuer = "https://id.example.com/";
    one::<String>(&mut desk.admin, ADD_KEY_FOR, &[&kid, &key.verifying_key(), &issuer, &None::<&str>]);
    for list in [json!([issuer]), json!(["https://attacker.example", issuer]), json!([])] {
        let token = key.token(Some(&kid), &desk.claims_with(json!({ "iss": list })));
        refuses(&mut desk.client, &token);
    }
}

#[test]
fn a_key_of_an_audience_takes_tokens_for_that_audience_only() {
    let mut desk = Desk::new("jwt_audience");
    let (key, kid) = (SigningKey::generate("HS256"), new_kid());
    let audience = "https://api.example.com";
    one::<String>(&mut desk.admin, ADD_KEY_FOR, &[&kid, &key.verifying_key(), &None::<&str>, &audience]);
    let token = |desk: &Desk, aud: Value| key.token(Some(&kid), &desk.claims_with(json!({ "aud": aud })));
    for good in [json!(audience), json!([audience]), json!(["other", audience]), json!([audience, audience])] {
        let token = token(&desk, good);
        assert_eq!(desk.admits(&token), desk.ada());
    }
    for other in [
        json!("other"),
        json!(""),
        json!("HTTPS://API.EXAMPLE.COM"),
        json!("https://api.example.com/"),
        json!([]),
        json!(["other"]),
    ] {
        desk.refuses(&token(&desk, other), Some(&kid), "audience");
    }
    for other in [
        json!(null),
        json!(1),
        json!({}),
        json!([1]),
        json!([audience, 1]),
        json!([[audience]]),
        json!({ "aud": audience }),
    ] {
        desk.refuses(&token(&desk, other), Some(&kid), "claims");
    }
    desk.refuses(&key.token(Some(&kid), &desk.claims()), Some(&kid), "claims");
}

/// RFC 7519, section 4.1.3: who does not find itself in the audience refuses the token.
#[test]
fn a_token_for_an_audience_is_refused_by_a_key_without_one() {
    let mut desk = Desk::new("jwt_no_audience");
    for aud in [json!("https://api.example.com"), json!(""), json!(["a"]), json!([]), json!(1), json!({}), json!(true)]
    {
        desk.refuses_own(&desk.token(&desk.claims_with(json!({ "aud": aud }))), "audience");
    }
    let (key, kid) = (SigningKey::generate("HS256"), new_kid());
    one::<String>(&mut desk.admin, ADD_KEY_FOR, &[&kid, &key.verifying_key(), &"issuer", &None::<&str>]);
    let foreign = desk.claims_with(json!({ "iss": "issuer", "aud": "another service" }));
    desk.refuses(&key.token(Some(&kid), &foreign), Some(&kid), "audience");
}

#[test]
fn settings_name_the_claims_also_inside_objects() {
    let mut desk = Desk::new("jwt_names");
    let (tenant, ada) = (desk.tenant.to_string(), desk.ada.to_string());
    desk.set("tenancy.jwt_user_claim", "https://id.example.com/user");
    desk.set("tenancy.jwt_tenant_claim", "app_metadata.tenant.id");
    desk.set("tenancy.jwt_scope_claim", "permissions");
    let exp = now() + 600;
    let user = "https://id.example.com/user";
    for metadata in [json!({ "tenant": { "id": tenant } }), json!({ "tenant.id": tenant })] {
        let claims = json!({ user: ada, "app_metadata": metadata, "exp": exp, "permissions": ["read"] });
        let expected = Principal { scopes: Some(vec!["read".to_owned()]), ..desk.ada() };
        assert_eq!(desk.admits(&desk.token(&claims)), expected);
    }
    let flat = json!({ user: ada, "app_metadata.tenant.id": tenant, "exp": exp });
    assert_eq!(desk.admits(&desk.token(&flat)), desk.ada());
    // Names that are not set any more say nothing.
    let other = json!({ user: ada, "app_metadata": { "tenant": { "id": tenant } }, "exp": exp,
        "tenant_id": desk.other.to_string(), "sub": desk.bob.to_string(), "scope": "*" });
    assert_eq!(desk.admits(&desk.token(&other)), desk.ada());
    desk.refuses_own(&desk.token(&desk.claims()), "claims");
    for metadata in [
        json!(tenant),
        json!([tenant]),
        json!({ "tenant": tenant }),
        json!({ "tenant": [{ "id": tenant }] }),
        json!({ "tenant": { "ID": tenant } }),
        json!(null),
    ] {
        let claims = json!({ user: ada, "app_metadata": metadata, "tenant": { "id": tenant }, "exp": exp });
        desk.refuses_own(&desk.token(&claims), "claims");
    }
}

const SETTINGS: [(&str, &str); 6] = [
    ("tenancy.jwt_user_claim", "email"),
    ("tenancy.jwt_tenant_claim", "email"),
    ("tenancy.jwt_role_claim", "email"),
    ("tenancy.jwt_scope_claim", "email"),
    ("tenancy.jwt_leeway", "300"),
    ("tenancy.jwt_membership", "trusted"),
];

#[test]
fn only_a_superuser_sets_how_tokens_are_read() {
    let desk = Desk::new("jwt_settings");
    for role in ["client", "app", "operator", "monitor", "admin"] {
        let mut session = desk.database.connect(role);
        for (name, value) in SETTINGS {
            let before = text(&mut session, &format!("SHOW {name}"));
            for change in [
                format!("SET {name} = '{value}'"),
                format!("SET LOCAL {name} = '{value}'"),
                format!("SELECT set_config('{name}', '{value}', true)"),
                format!("ALTER ROLE {role} SET {name} = '{value}'"),
                format!("ALTER DATABASE {} SET {name} = '{value}'", desk.database.name()),
                format!("UPDATE pg_settings SET setting = '{value}' WHERE name = '{name}'"),
            ] {
                fails(session.batch_execute(&change), "42501");
            }
            assert_eq!(text(&mut session, &format!("SHOW {name}")), before);
            let options = format!("-c {name}={value}");
            let refused = desk.database.connect_with(role, |config| {
                config.options(&options);
            });
            fails(refused.map(drop), "42501");
        }
    }
}

#[test]
fn scopes_come_as_a_text_or_a_list() {
    let mut desk = Desk::new("jwt_scopes");
    let some = |scopes: &[&str]| Some(scopes.iter().map(|scope| (*scope).to_owned()).collect::<Vec<_>>());
    for (claim, expected) in [
        (json!("a b:read  c:*"), some(&["a", "b:read", "c:*"])),
        (json!(" a\tb\n"), some(&["a", "b"])),
        (json!(["a", "b:read"]), some(&["a", "b:read"])),
        (json!(""), some(&[])),
        (json!([]), some(&[])),
        (json!(null), None),
        (json!("x|y|z ;drop, {} [] '$"), some(&["x|y|z", ";drop,", "{}", "[]", "'$"])),
    ] {
        let principal = desk.admits(&desk.token(&desk.claims_with(json!({ "scope": claim }))));
        assert_eq!(principal, Principal { scopes: expected, ..desk.ada() });
    }
    assert_eq!(desk.admits(&desk.token(&desk.claims())), desk.ada());
    for claim in [
        json!(1),
        json!({}),
        json!(true),
        json!([1]),
        json!([null]),
        json!(["a b"]),
        json!([""]),
        json!("a\"b"),
        json!("a\\b"),
        json!("sch\u{f6}n"),
        json!("a\u{0}b"),
        json!("x".repeat(256)),
        json!([["a"]]),
    ] {
        desk.refuses_own(&desk.token(&desk.claims_with(json!({ "scope": claim }))), "claims");
    }
    let many: Vec<String> = (0..1000).map(|number| format!("s{number}")).collect();
    let principal = desk.admits(&desk.token(&desk.claims_with(json!({ "scope": many }))));
    assert_eq!(principal.scopes, Some(many));
}

#[test]
fn a_scope_of_a_token_counts_and_no_other() {
    const HAS: &str = "SELECT has_scope($1)";
    let mut desk = Desk::new("jwt_has_scope");
    let scoped = |desk: &Desk, scope: Value| desk.token(&desk.claims_with(json!({ "scope": scope })));
    for (token, held, missing) in [
        (
            scoped(&desk, json!("files:read users:*")),
            vec!["files:read", "users:x", "users:*"],
            vec!["files:write", "files", "user", "*"],
        ),
        (scoped(&desk, json!("")), vec![], vec!["files:read", "*"]),
        (desk.token(&desk.claims()), vec![], vec!["files:read", "*"]),
        (scoped(&desk, json!("*")), vec!["files:read", "*"], vec![]),
        // A scope that looks like the inside of the binding's own text.
        (scoped(&desk, json!("owner|*|admin x|y")), vec!["x|y"], vec!["*", "owner", "x", "y"]),
    ] {
        let mut transaction = desk.client.transaction().expect("begin");
        rows(&mut transaction, "SELECT * FROM authenticate_jwt($1)", &[&token]);
        assert!(held.iter().all(|scope| one::<bool>(&mut transaction, HAS, &[scope])), "{held:?}");
        assert!(!missing.iter().any(|scope| one::<bool>(&mut transaction, HAS, &[scope])), "{missing:?}");
        assert_eq!(one::<String>(&mut transaction, "SELECT current_member_role()", &[]), "member");
        for scope in missing {
            let mut attempt = transaction.transaction().expect("savepoint");
            fails(attempt.query("SELECT require_scope($1)", &[&scope]), "42501");
        }
    }
}
