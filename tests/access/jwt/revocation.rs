//! revoke_tokens: what was issued before it ends, in every session and tenant.

use super::{Desk, Principal, claims_of, now, refuses};
use crate::access::fixtures::{attempt, email, member, token};
use harness::*;
use serde_json::{Value, json};

const REVOKE: &str = "SELECT revoke_tokens($1)";

#[test]
fn tokens_of_before_end_and_those_of_after_are_good() {
    let mut desk = Desk::new("jwt_revoke");
    let (tenant, ada) = (desk.tenant, desk.ada);
    let issued = |desk: &Desk, iat: Value| desk.token(&desk.claims_with(json!({ "iat": iat })));
    let tokens = [
        issued(&desk, json!(now() - 3600)),
        issued(&desk, json!(now())),
        issued(&desk, json!(now() as f64 - 0.5)),
        issued(&desk, json!(0)),
        issued(&desk, json!(-1)),
        desk.token(&desk.claims_without("iat")),
    ];
    let mut session = desk.database.connect("client");
    let own = token(&mut desk.app, tenant, ada);
    for token in tokens.iter().chain([&own]) {
        super::admits(&mut session, token);
    }
    assert!(one::<bool>(&mut desk.app, REVOKE, &[&ada]));
    for token in tokens.iter().chain([&own]) {
        refuses(&mut session, token);
        desk.refuses_own(token, "revoked");
    }
    // When a token was issued must be a number to count.
    for iat in [json!(null), json!("9999999999"), json!([now() + 60]), json!(true)] {
        refuses(&mut session, &issued(&desk, iat));
    }
    // The same second: our own tokens know the fraction.
    let next = token(&mut desk.app, tenant, ada);
    super::admits(&mut session, &next);
    super::admits(&mut session, &issued(&desk, json!(now() + 1)));
    assert!(one::<bool>(&mut desk.app, REVOKE, &[&ada]));
    refuses(&mut session, &next);
}

#[test]
fn a_revocation_is_for_every_tenant_and_for_one_user() {
    let mut desk = Desk::new("jwt_revoke_all");
    let (other, ada, bob) = (desk.other, desk.ada, desk.bob);
    as_tenant(&mut desk.app, other, |tx| one::<Uuid>(tx, "SELECT add_member($1, 'viewer')", &[&ada]));
    let here = desk.token(&desk.claims());
    let there = desk.token(&claims_of(&other.to_string(), &ada.to_string()));
    let bobs = desk.token(&claims_of(&other.to_string(), &bob.to_string()));
    assert_eq!(desk.admits(&there), Principal::of(other, ada, "viewer"));
    one::<Uuid>(&mut desk.app, "SELECT update_user($1, external_id => 'ext-ada')", &[&ada]);
    let by_name = desk.token(&claims_of(&other.to_string(), "ext-ada"));
    assert!(one::<bool>(&mut desk.app, REVOKE, &[&ada]));
    for token in [here, there, by_name] {
        desk.refuses_own(&token, "revoked");
    }
    assert_eq!(desk.admits(&bobs), Principal::of(other, bob, "member"));
}

/// Also a token that says itself who is a member, as long as the user is known.
#[test]
fn a_trusted_token_is_revoked_too() {
    let mut desk = Desk::new("jwt_revoke_trusted");
    let (ada, bob) = (desk.ada, desk.bob);
    desk.set("tenancy.jwt_membership", "trusted");
    let here = desk.token(&desk.claims_with(json!({ "role": "owner" })));
    let mut elsewhere = claims_of(&desk.other.to_string(), &ada.to_string());
    elsewhere["role"] = json!("owner");
    let elsewhere = desk.token(&elsewhere);
    let without_time = desk.token(&desk.claims_without("iat"));
    let all = [here, elsewhere, without_time];
    for token in &all {
        desk.admits(token);
    }
    assert!(one::<bool>(&mut desk.app, REVOKE, &[&ada]));
    for token in &all {
        desk.refuses_own(token, "revoked");
    }
    let bobs = desk.token(&claims_of(&desk.other.to_string(), &bob.to_string()));
    desk.admits(&bobs);
}

/// In the middle of another session's transaction, and for one that sees the state of before.
#[test]
fn a_revocation_counts_at_commit_for_every_session() {
    let mut desk = Desk::new("jwt_revoke_now");
    let (ada, token) = (desk.ada, desk.token(&desk.claims()));
    let mut busy = desk.database.connect("client");
    let mut long =
        busy.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().expect("begin");
    rows(&mut long, super::AUTHENTICATE, &[&token]);
    let mut revoking = desk.app.transaction().expect("begin");
    assert!(one::<bool>(&mut revoking, REVOKE, &[&ada]));
    super::admits(&mut desk.client, &token);
    revoking.commit().expect("commit");
    refuses(&mut desk.client, &token);
    fails(long.query(super::AUTHENTICATE, &[&token]), "28000");
}

#[test]
fn who_revokes_whose_tokens() {
    let mut desk = Desk::new("jwt_revoke_who");
    let (tenant, other, ada, bob) = (desk.tenant, desk.other, desk.ada, desk.bob);
    let at_home = as_tenant(&mut desk.app, tenant, |tx| {
        let user: Uuid = one(tx, "SELECT create_user($1, tenant => $2)", &[&email(), &tenant]);
        one::<Uuid>(tx, "SELECT add_member($1, 'owner')", &[&user])
    });
    let viewer = member(&mut desk.app, tenant, "viewer");
    let nobody = Uuid::new_v4();
    for (bound, user, sqlstate) in [
        (tenant, ada, "42501"),
        (other, ada, "42501"),
        (tenant, bob, "42501"),
        (other, at_home, "P0002"),
        (tenant, nobody, "P0002"),
    ] {
        fails(attempt(&mut desk.app, bound, None, REVOKE, &[&user]), sqlstate);
    }
    fails(desk.app.query(REVOKE, &[&nobody]), "P0002");
    fails(desk.app.query("SELECT revoke_tokens(NULL)", &[]), "22023");
    let token = desk.token(&claims_of(&tenant.to_string(), &at_home.to_string()));
    desk.admits(&token);
    // A viewer throws nobody out who is above them.
    fails(attempt(&mut desk.app, tenant, Some(viewer), REVOKE, &[&at_home]), "42501");
    desk.admits(&token);
    for (bound, acting, user) in [(tenant, Some(ada), ada), (tenant, Some(at_home), at_home), (tenant, None, at_home)] {
        attempt(&mut desk.app, bound, acting, REVOKE, &[&user]).expect("revoke");
    }
    desk.refuses_own(&token, "revoked");
    for role in ["client", "operator", "monitor", "stranger"] {
        let allowed = desk.database.connect(role).query(REVOKE, &[&ada]);
        fails(allowed, "42501");
    }
    let told = count(&mut desk.operator, "tenancy.audit_log WHERE action = 'token.revoke'");
    assert_eq!(told, 3);
}

/// A viewer who could give an owner their own subject would log in as the owner.
#[test]
fn a_member_cannot_take_over_the_subject_of_one_above() {
    let mut desk = Desk::new("jwt_takeover");
    let tenant = desk.tenant;
    let owner = as_tenant(&mut desk.app, tenant, |tx| {
        let user: Uuid =
            one(tx, "SELECT create_user($1, external_id => 'sub-owner', tenant => $2)", &[&email(), &tenant]);
        one::<Uuid>(tx, "SELECT add_member($1, 'owner')", &[&user])
    });
    let viewer = member(&mut desk.app, tenant, "viewer");
    let take = "SELECT update_user($1, external_id => 'sub-viewer')";
    fails(attempt(&mut desk.app, tenant, Some(viewer), take, &[&owner]), "42501");
    desk.refuses_own(&desk.token(&claims_of(&tenant.to_string(), "sub-viewer")), "unknown");
    let owners = desk.token(&claims_of(&tenant.to_string(), "sub-owner"));
    assert_eq!(desk.admits(&owners), Principal::of(tenant, owner, "owner"));
}
