//! Tokens of our own: for installations without an identity provider.

use super::signer::{ALGORITHMS, SigningKey, bytes_of};
use super::{Desk, Principal, authenticate, new_kid, now};
use crate::access::fixtures::{ROLES, api_key, attempt, bind_by_key, member, stored, token};
use harness::postgres::types::ToSql;
use harness::*;
use serde_json::{Value, json};

const ISSUE: &str = "SELECT issue_jwt($1)";
const ISSUE_FOR: &str = "SELECT issue_jwt($1, $2::text::interval)";
const ISSUE_SCOPED: &str = "SELECT issue_jwt($1, scopes => $2)";
const ISSUE_BY: &str = "SELECT issue_jwt($1, kid => $2)";
const ADD_SIGNING: &str = "SELECT add_jwt_key($1, $2, $3, private_key => $4, issuer => $5, audience => $6)";

/// What the backend itself gets, bound to the tenant without a user.
#[track_caller]
fn issue(desk: &mut Desk, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> String {
    let tenant = desk.tenant;
    as_tenant(&mut desk.app, tenant, |tx| one(tx, sql, parameters))
}

/// A token's header and payload.
#[track_caller]
fn read(token: &str) -> (Value, Value) {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    let json = |part: &str| serde_json::from_slice(&bytes_of(part)).expect("JSON");
    (json(parts[0]), json(parts[1]))
}

/// Adds a key that signs; for HS256 the secret does.
#[track_caller]
fn add_signing(desk: &mut Desk, key: &SigningKey, kid: &str, issuer: Option<&str>, audience: Option<&str>) {
    let secret = key.private_key().is_none().then(|| key.verifying_key());
    let parameters: [&(dyn ToSql + Sync); 6] =
        [&kid, &key.algorithm(), &secret, &key.private_key(), &issuer, &audience];
    assert_eq!(one::<String>(&mut desk.admin, ADD_SIGNING, &parameters), kid);
}

#[test]
fn a_token_of_each_algorithm_says_what_is_documented_and_comes_back() {
    let mut desk = Desk::new("jwt_issue");
    let ada = desk.ada;
    for algorithm in ALGORITHMS {
        let (key, kid) = (SigningKey::generate(algorithm), new_kid());
        add_signing(&mut desk, &key, &kid, Some("https://us.example"), Some("us"));
        let begun = now();
        let token = issue(&mut desk, "SELECT issue_jwt($1, '10 minutes', '{files:read,a:*}', $2)", &[&ada, &kid]);
        assert!(key.has_signed(&token), "{algorithm}");
        let (header, payload) = read(&token);
        assert_eq!(header, json!({ "alg": algorithm, "typ": "JWT", "kid": kid }));
        let (iat, exp) = (payload["iat"].as_f64().expect("a number"), payload["exp"].as_i64().expect("a whole number"));
        assert!((begun as f64 - 1.0..=now() as f64 + 1.0).contains(&iat), "{iat}");
        assert!((600.0..=601.0).contains(&(exp as f64 - iat)), "{exp} {iat}");
        let expected = json!({
            "sub": ada.to_string(), "tenant_id": desk.tenant.to_string(), "role": "member", "scope": "files:read a:*",
            "iss": "https://us.example", "aud": "us", "iat": payload["iat"], "exp": payload["exp"],
        });
        assert_eq!(payload, expected);
        let scopes = Some(vec!["files:read".to_owned(), "a:*".to_owned()]);
        assert_eq!(desk.admits(&token), Principal { scopes, ..desk.ada() });
        // The private key alone was given: the public one was made from it.
        let stranger = SigningKey::generate(algorithm).token(Some(&kid), &payload);
        desk.refuses(&stranger, Some(&kid), "signature");
        one::<bool>(&mut desk.admin, "SELECT remove_jwt_key($1)", &[&kid]);
        desk.refuses(&token, None, "kid");
    }
}

#[test]
fn a_token_without_scopes_issuer_or_audience_says_nothing_of_them() {
    let mut desk = Desk::new("jwt_issue_plain");
    let ada = desk.ada;
    let tenant = desk.tenant;
    let token = token(&mut desk.app, tenant, ada);
    let (_, payload) = read(&token);
    let names: Vec<&String> = payload.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["exp", "iat", "role", "sub", "tenant_id"]);
    assert!(
        (3600.0..=3601.0).contains(&(payload["exp"].as_f64().expect("exp") - payload["iat"].as_f64().expect("iat")))
    );
    assert_eq!(desk.admits(&token), desk.ada());
    let empty = issue(&mut desk, "SELECT issue_jwt($1, scopes => '{}')", &[&ada]);
    assert_eq!(desk.admits(&empty), Principal { scopes: Some(vec![]), ..desk.ada() });
}

#[test]
fn the_claims_have_the_names_that_the_settings_give() {
    let mut desk = Desk::new("jwt_issue_names");
    let ada = desk.ada;
    for (name, value) in
        [("user", "uid"), ("tenant", "app.tenant"), ("role", "https://x.example/role"), ("scope", "scp")]
    {
        desk.set(&format!("tenancy.jwt_{name}_claim"), value);
    }
    let token = issue(&mut desk, "SELECT issue_jwt($1, scopes => '{a}')", &[&ada]);
    let expected = Principal { scopes: Some(vec!["a".to_owned()]), ..desk.ada() };
    assert_eq!(desk.admits(&token), expected);
    desk.set("tenancy.jwt_membership", "trusted");
    assert_eq!(desk.admits(&token), expected);
}

#[test]
fn a_token_lasts_from_a_second_to_a_year() {
    let mut desk = Desk::new("jwt_issue_bounds");
    let (tenant, ada) = (desk.tenant, desk.ada);
    let mut superuser = desk.database.superuser();
    let before = stored(&mut superuser);
    for length in
        ["0", "-1 second", "0.5 seconds", "-1 year", "367 days", "10 years", "178000000 years", "-178000000 years"]
    {
        fails(attempt(&mut desk.app, tenant, None, ISSUE_FOR, &[&ada, &length]), "22023");
    }
    for call in [
        "issue_jwt(NULL)",
        "issue_jwt($1, NULL)",
        "issue_jwt($1, scopes => ARRAY[NULL])",
        "issue_jwt($1, scopes => '{\"a b\"}')",
        "issue_jwt($1, scopes => '{\"\"}')",
        "issue_jwt($1, scopes => array_fill('a'::text, '{101}'))",
    ] {
        let call = format!("SELECT {call}, $1::uuid");
        fails(attempt(&mut desk.app, tenant, None, &call, &[&ada]), "22023");
    }
    assert_eq!(stored(&mut superuser), before);
    for (length, seconds) in [("1 second", 1.0), ("366 days", 31_622_400.0), ("1 month", 2_592_000.0)] {
        let token = issue(&mut desk, ISSUE_FOR, &[&ada, &length]);
        let (_, payload) = read(&token);
        let lasts = payload["exp"].as_f64().expect("exp") - payload["iat"].as_f64().expect("iat");
        assert!((seconds..=seconds + 1.0).contains(&lasts), "{length}: {lasts}");
        assert_eq!(desk.admits(&token), desk.ada());
    }
}

/// Whoever acts through a credential with scopes passes on no others.
#[test]
fn a_token_has_no_more_scopes_than_the_credential_it_comes_from() {
    let mut desk = Desk::new("jwt_issue_scopes");
    let (tenant, ada) = (desk.tenant, desk.ada);
    let narrow = issue(&mut desk, ISSUE_SCOPED, &[&ada, &vec!["files:*", "me", "tenancy:manage"]]);
    let as_narrow = |desk: &mut Desk, sql: &str, parameters: &[&(dyn ToSql + Sync)]| {
        let mut transaction = desk.app.transaction().expect("begin");
        rows(&mut transaction, super::AUTHENTICATE, &[&narrow]);
        transaction.query(sql, parameters).map(|rows| rows[0].get::<_, String>(0))
    };
    for wider in [vec!["*"], vec!["files:*", "x"], vec!["files"], vec!["fil:*"], vec!["me:*"], vec!["m*"]] {
        fails(as_narrow(&mut desk, ISSUE_SCOPED, &[&ada, &wider]), "42501");
    }
    for covered in [vec!["files:read"], vec!["files:*", "me"], vec!["files:a:*"], vec![]] {
        let token = as_narrow(&mut desk, ISSUE_SCOPED, &[&ada, &covered]).expect("issue");
        let scopes = Some(covered.into_iter().map(str::to_owned).collect());
        assert_eq!(desk.admits(&token), Principal { scopes, ..desk.ada() });
    }
    // Without tenancy:manage a limited credential makes no other.
    let small = issue(&mut desk, ISSUE_SCOPED, &[&ada, &vec!["files:*"]]);
    let mut transaction = desk.app.transaction().expect("begin");
    rows(&mut transaction, super::AUTHENTICATE, &[&small]);
    fails(transaction.query(ISSUE, &[&ada]), "42501");
    drop(transaction);
    // By default the same, never all.
    let token = as_narrow(&mut desk, ISSUE, &[&ada]).expect("issue");
    assert_eq!(desk.admits(&token).scopes, Some(["files:*", "me", "tenancy:manage"].map(str::to_owned).to_vec()));
    let mut transaction = desk.app.transaction().expect("begin");
    rows(&mut transaction, super::AUTHENTICATE, &[&narrow]);
    fails(transaction.query("SELECT * FROM create_api_key('wide', '{*}', user_id => $1)", &[&ada]), "42501");
    drop(transaction);
    assert_eq!(authenticate(&mut desk.app, &narrow).expect("still good").tenant, tenant);
}

#[test]
fn nobody_gets_a_token_of_who_is_not_below_them() {
    let mut desk = Desk::new("jwt_issue_ranks");
    let tenant = desk.tenant;
    let people: Vec<[Uuid; 2]> =
        ROLES.iter().map(|role| [member(&mut desk.app, tenant, role), member(&mut desk.app, tenant, role)]).collect();
    for (rank, [actor, _]) in people.iter().enumerate() {
        for (other_rank, [same, other]) in people.iter().enumerate() {
            let issued = attempt(&mut desk.app, tenant, Some(*actor), ISSUE, &[other]);
            match issued {
                Ok(rows) => {
                    assert!(other_rank > rank, "{} has a token of {}", ROLES[rank], ROLES[other_rank]);
                    let principal = desk.admits(&rows[0].get::<_, String>(0));
                    assert_eq!(principal, Principal::of(tenant, *other, ROLES[other_rank]));
                }
                refused => {
                    fails(refused, "42501");
                    assert!(other_rank <= rank, "{} got no token of {}", ROLES[rank], ROLES[other_rank]);
                }
            }
            if same == actor {
                attempt(&mut desk.app, tenant, Some(*actor), ISSUE, &[actor]).expect("one's own token");
            }
        }
    }
}

/// The actor's role is the one that they have now, in this tenant.
#[test]
fn a_role_in_another_tenant_gives_no_token_here() {
    let mut desk = Desk::new("jwt_issue_elsewhere");
    let (tenant, other, ada, bob) = (desk.tenant, desk.other, desk.ada, desk.bob);
    let owner = member(&mut desk.app, other, "owner");
    fails(attempt(&mut desk.app, tenant, Some(owner), ISSUE, &[&ada]), "42501");
    for foreign in [bob, owner, Uuid::new_v4(), desk.outsider()] {
        fails(attempt(&mut desk.app, tenant, None, ISSUE, &[&foreign]), "P0002");
    }
    as_tenant(&mut desk.app, tenant, |tx| one::<Uuid>(tx, "SELECT add_member($1, 'viewer')", &[&owner]));
    fails(attempt(&mut desk.app, tenant, Some(owner), ISSUE, &[&ada]), "42501");
    let token = issue(&mut desk, ISSUE, &[&owner]);
    assert_eq!(desk.admits(&token), Principal::of(tenant, owner, "viewer"));
}

#[test]
fn a_token_is_issued_for_the_bound_tenant_by_a_backend() {
    let mut desk = Desk::new("jwt_issue_levels");
    let (tenant, ada) = (desk.tenant, desk.ada);
    fails(desk.app.query(ISSUE, &[&ada]), "42501");
    for role in ["client", "operator", "monitor", "stranger"] {
        fails(desk.database.connect(role).query(ISSUE, &[&ada]), "42501");
    }
    // An API key of no user acts for nobody.
    let key = api_key(&mut desk.app, tenant, None, &[]);
    let mut transaction = desk.app.transaction().expect("begin");
    bind_by_key(&mut transaction, &key.text);
    fails(transaction.query(ISSUE, &[&ada]), "42501");
    drop(transaction);
    // A login is noted.
    let seen = "SELECT last_login_at >= now() - interval '1 minute' FROM tenancy.users WHERE id = $1";
    assert_eq!(one::<Option<bool>>(&mut desk.operator, seen, &[&ada]), None);
    issue(&mut desk, ISSUE, &[&ada]);
    assert_eq!(one::<Option<bool>>(&mut desk.operator, seen, &[&ada]), Some(true));
    one::<Uuid>(&mut desk.operator, "SELECT suspend_tenant($1)", &[&tenant]);
    let mut transaction = desk.app.transaction().expect("begin");
    fails(transaction.query("SELECT set_tenant($1)", &[&tenant]), "42501");
}

#[test]
fn the_newest_live_key_that_can_sign_does_unless_one_is_named() {
    let mut desk = Desk::new("jwt_issue_key");
    let (tenant, ada, first) = (desk.tenant, desk.ada, desk.kid.clone());
    let kid_of = |token: &str| read(token).0["kid"].as_str().map(str::to_owned).expect("a kid");
    assert_eq!(kid_of(&issue(&mut desk, ISSUE, &[&ada])), first);
    let (key, second) = (SigningKey::generate("ES256"), new_kid());
    add_signing(&mut desk, &key, &second, None, None);
    let (_, verifies) = desk.new_key("EdDSA");
    assert_eq!(kid_of(&issue(&mut desk, ISSUE, &[&ada])), second);
    assert_eq!(kid_of(&issue(&mut desk, ISSUE_BY, &[&ada, &first])), first);
    fails(attempt(&mut desk.app, tenant, None, ISSUE_BY, &[&ada, &verifies]), "55000");
    for unknown in ["", "no such key", "' OR true --"] {
        fails(attempt(&mut desk.app, tenant, None, ISSUE_BY, &[&ada, &unknown]), "P0002");
    }
    let expire = "UPDATE tenancy.stored_jwt_keys SET expires_at = clock_timestamp() WHERE kid = $1";
    desk.database.superuser().execute(expire, &[&second]).expect("expire");
    assert_eq!(kid_of(&issue(&mut desk, ISSUE, &[&ada])), first);
    fails(attempt(&mut desk.app, tenant, None, ISSUE_BY, &[&ada, &second]), "P0002");
    desk.database.superuser().execute(expire, &[&first]).expect("expire");
    fails(attempt(&mut desk.app, tenant, None, ISSUE, &[&ada]), "55000");
}

/// Made here, the secret is 256 bits, no two alike.
#[test]
fn a_key_that_is_made_here_signs_and_is_strong() {
    let mut desk = Desk::new("jwt_issue_made");
    let ada = desk.ada;
    one::<String>(&mut desk.admin, "SELECT add_jwt_key('made-1', 'HS256')", &[]);
    one::<String>(&mut desk.admin, "SELECT add_jwt_key('made-2', 'HS256')", &[]);
    let made = "SELECT verifying_key FROM tenancy.stored_jwt_keys WHERE kid LIKE 'made-%'";
    let secrets: Vec<Vec<u8>> =
        rows(&mut desk.database.superuser(), made, &[]).iter().map(|row| bytes_of(&row.get::<_, String>(0))).collect();
    assert!(secrets.iter().all(|secret| secret.len() == 32) && secrets[0] != secrets[1]);
    for kid in ["made-1", "made-2"] {
        let token = issue(&mut desk, ISSUE_BY, &[&ada, &kid]);
        assert_eq!(desk.admits(&token), desk.ada());
    }
}

/// Who may only read must log in for it.
#[test]
fn members_of_a_read_only_tenant_get_tokens() {
    let mut desk = Desk::new("jwt_issue_read_only");
    let (tenant, ada) = (desk.tenant, desk.ada);
    one::<Uuid>(&mut desk.operator, "SELECT suspend_tenant($1, mode => 'read_only')", &[&tenant]);
    let token = token(&mut desk.app, tenant, ada);
    assert_eq!(desk.admits(&token), desk.ada());
    let own = attempt(&mut desk.app, tenant, Some(ada), ISSUE, &[&ada]).expect("one's own token");
    assert_eq!(desk.admits(&own[0].get::<_, String>(0)), desk.ada());
}
