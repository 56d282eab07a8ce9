//! Whom a token binds: ids of other systems, users at home in a tenant, membership, the tenant's state, and one tenant only.

use super::{AUTHENTICATE, Desk, Principal, authenticate, claims_of, now, refuses};
use crate::access::fixtures::{email, member, role_of};
use harness::*;
use serde_json::{Value, json};

/// A user at home in a tenant, and a member of it.
#[track_caller]
fn resident(desk: &mut Desk, tenant: Uuid, external_id: Option<&str>, role: &str) -> Uuid {
    const CREATE: &str = "SELECT create_user($1, external_id => $2, tenant => $3)";
    as_tenant(&mut desk.app, tenant, |tx| {
        let user: Uuid = one(tx, CREATE, &[&email(), &external_id, &tenant]);
        one::<Uuid>(tx, "SELECT add_member($1, $2)", &[&user, &role])
    })
}

#[track_caller]
fn name_user(desk: &mut Desk, user: Uuid, external_id: &str) {
    one::<Uuid>(&mut desk.app, "SELECT update_user($1, external_id => $2)", &[&user, &external_id]);
}

#[track_caller]
fn name_tenant(desk: &mut Desk, tenant: Uuid, external_id: &str) {
    one::<Uuid>(&mut desk.operator, "SELECT update_tenant($1, external_id => $2)", &[&tenant, &external_id]);
}

fn naming(desk: &Desk, tenant: &str, user: &str) -> String {
    desk.token(&claims_of(tenant, user))
}

#[test]
fn claims_may_hold_the_ids_of_another_system() {
    let mut desk = Desk::new("jwt_external");
    let (tenant, ada) = (desk.tenant, desk.ada);
    name_tenant(&mut desk, tenant, "org_2abcÄ|1");
    name_user(&mut desk, ada, "auth0|5f7c8ec7c33c6c004bbafe82");
    let (org, sub) = ("org_2abcÄ|1", "auth0|5f7c8ec7c33c6c004bbafe82");
    for (tenant, user) in [(org, sub), (org, &*ada.to_string()), (&*tenant.to_string(), sub)] {
        assert_eq!(desk.admits(&naming(&desk, tenant, user)), desk.ada());
    }
    for (tenant, user) in
        [(&*org.to_uppercase(), sub), (org, &*sub.to_uppercase()), ("org_2", sub), (org, "auth0|%"), (sub, org)]
    {
        desk.refuses_own(&naming(&desk, tenant, user), "unknown");
    }
    let other = desk.other.to_string();
    desk.refuses_own(&naming(&desk, &other, sub), "member");
}

/// Whoever names their own things after another's id gets nothing of the other's: an id counts before a name.
#[test]
fn an_external_id_that_is_anothers_uuid_confuses_nobody() {
    let mut desk = Desk::new("jwt_confused");
    let (tenant, other, ada, bob) = (desk.tenant, desk.other, desk.ada, desk.bob);
    let mallory = resident(&mut desk, other, Some(&ada.to_string()), "owner");
    name_tenant(&mut desk, other, &tenant.to_string());
    assert_eq!(desk.admits(&naming(&desk, &tenant.to_string(), &ada.to_string())), desk.ada());
    // Mallory, in her own tenant, by Ada's id: that is Ada, who is no member there.
    desk.refuses_own(&naming(&desk, &other.to_string(), &ada.to_string()), "member");
    desk.refuses_own(&naming(&desk, &tenant.to_string(), &mallory.to_string()), "unknown");
    desk.refuses_own(&naming(&desk, &tenant.to_string(), &bob.to_string()), "member");
    // The same with someone who is at home in the other tenant, and so does not exist for the first.
    let carol = resident(&mut desk, tenant, None, "owner");
    let dave = resident(&mut desk, other, Some(&carol.to_string()), "viewer");
    desk.refuses_own(&naming(&desk, &other.to_string(), &carol.to_string()), "unknown");
    assert_eq!(
        desk.admits(&naming(&desk, &other.to_string(), &dave.to_string())),
        Principal::of(other, dave, "viewer")
    );
}

#[test]
fn one_external_id_is_a_different_user_in_each_tenant_that_has_its_own() {
    let mut desk = Desk::new("jwt_homes");
    let (tenant, other) = (desk.tenant, desk.other);
    let global = member(&mut desk.app, tenant, "viewer");
    name_user(&mut desk, global, "sub-1");
    let third = harness::tenant(&mut desk.operator);
    let at_other = resident(&mut desk, other, Some("sub-1"), "admin");
    let at_third = resident(&mut desk, third, Some("sub-1"), "owner");
    assert_eq!(desk.admits(&naming(&desk, &tenant.to_string(), "sub-1")), Principal::of(tenant, global, "viewer"));
    assert_eq!(desk.admits(&naming(&desk, &other.to_string(), "sub-1")), Principal::of(other, at_other, "admin"));
    assert_eq!(desk.admits(&naming(&desk, &third.to_string(), "sub-1")), Principal::of(third, at_third, "owner"));
    for foreign in [at_other, at_third] {
        desk.refuses_own(&naming(&desk, &tenant.to_string(), &foreign.to_string()), "unknown");
    }
}

#[test]
fn who_is_not_known_or_no_member_is_refused() {
    let mut desk = Desk::new("jwt_unknown");
    let (tenant, outsider) = (desk.tenant.to_string(), desk.outsider().to_string());
    let nobody = Uuid::new_v4().to_string();
    desk.refuses_own(&naming(&desk, &nobody, &desk.ada.to_string()), "unknown");
    desk.refuses_own(&naming(&desk, &tenant, &nobody), "unknown");
    desk.refuses_own(&naming(&desk, &desk.ada.to_string(), &tenant), "unknown");
    desk.refuses_own(&naming(&desk, &tenant, &outsider), "member");
    desk.refuses_own(&naming(&desk, &tenant, &desk.bob.to_string()), "member");
    let slug: String = one(&mut desk.operator, "SELECT slug FROM tenancy.tenants WHERE id = $1", &[&desk.tenant]);
    desk.refuses_own(&naming(&desk, &slug, &desk.ada.to_string()), "unknown");
    let address: String = one(&mut desk.operator, "SELECT email FROM tenancy.users WHERE id = $1", &[&desk.ada]);
    desk.refuses_own(&naming(&desk, &tenant, &address), "unknown");
}

/// Also for a session whose transaction sees the state of before.
#[test]
fn membership_is_what_it_is_now_whatever_the_token_says() {
    let mut desk = Desk::new("jwt_live");
    let (tenant, ada) = (desk.tenant, desk.ada);
    let token = desk.token(&desk.claims_with(json!({ "role": "owner" })));
    assert_eq!(desk.admits(&token), desk.ada());
    let mut waiting = desk.database.connect("client");
    let mut old =
        waiting.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().expect("begin");
    one::<i64>(&mut old, "SELECT count(*) FROM pg_class", &[]);
    as_tenant(&mut desk.app, tenant, |tx| one::<bool>(tx, "SELECT change_role($1, 'viewer')", &[&ada]));
    assert_eq!(desk.admits(&token), Principal::of(tenant, ada, "viewer"));
    assert_eq!(Principal::from(&rows(&mut old, AUTHENTICATE, &[&token])[0]), Principal::of(tenant, ada, "viewer"));
    old.rollback().expect("roll back");
    let mut old =
        waiting.build_transaction().isolation_level(postgres::IsolationLevel::Serializable).start().expect("begin");
    one::<i64>(&mut old, "SELECT count(*) FROM pg_class", &[]);
    as_tenant(&mut desk.app, tenant, |tx| one::<bool>(tx, "SELECT remove_member($1)", &[&ada]));
    desk.refuses_own(&token, "member");
    fails(old.query(AUTHENTICATE, &[&token]), "28000");
    drop(old);
    as_tenant(&mut desk.app, tenant, |tx| one::<Uuid>(tx, "SELECT add_member($1, 'admin')", &[&ada]));
    assert_eq!(desk.admits(&token), Principal::of(tenant, ada, "admin"));
    one::<bool>(&mut desk.operator, "SELECT delete_user($1)", &[&ada]);
    desk.refuses_own(&token, "unknown");
}

/// A change that is not committed counts for nobody else.
#[test]
fn a_change_counts_from_its_commit() {
    let mut desk = Desk::new("jwt_commit");
    let (ada, tenant, token) = (desk.ada, desk.tenant, desk.token(&desk.claims()));
    let mut transaction = desk.app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    assert!(one::<bool>(&mut transaction, "SELECT remove_member($1)", &[&ada]));
    super::admits(&mut desk.client, &token);
    transaction.commit().expect("commit");
    refuses(&mut desk.client, &token);
}

#[test]
fn a_trusted_token_says_itself_who_is_a_member_and_as_what() {
    let mut desk = Desk::new("jwt_trusted");
    let (tenant, other, ada) = (desk.tenant, desk.other, desk.ada);
    one::<String>(&mut desk.admin, "SELECT add_role('manager', 70)", &[]);
    desk.set("tenancy.jwt_membership", "trusted");
    let stranger = Uuid::new_v4();
    let saying = |desk: &Desk, tenant: Uuid, user: &str, role: Value| {
        let mut claims = claims_of(&tenant.to_string(), user);
        claims["role"] = role;
        desk.token(&claims)
    };
    for role in ["owner", "admin", "member", "viewer", "manager"] {
        for user in [ada, stranger] {
            for tenant in [tenant, other] {
                let token = saying(&desk, tenant, &user.to_string(), json!(role));
                assert_eq!(desk.admits(&token), Principal::of(tenant, user, role));
            }
        }
    }
    let token = naming(&desk, &tenant.to_string(), &ada.to_string());
    assert_eq!(desk.admits(&token), Principal { role: None, ..desk.ada() });
    for role in ["superuser", "Owner", "owner ", " owner", "OWNER", "owner|x", "app", "admin'--", "\u{0}", "owner\u{0}"]
    {
        desk.refuses_own(&saying(&desk, tenant, &ada.to_string(), json!(role)), "claims");
    }
    for role in [json!(100), json!(["owner"]), json!({}), json!(true), json!("")] {
        desk.refuses_own(&saying(&desk, tenant, &ada.to_string(), role), "claims");
    }
    desk.refuses_own(&saying(&desk, tenant, "auth0|nobody", json!("owner")), "unknown");
    desk.refuses_own(&saying(&desk, stranger, &ada.to_string(), json!("owner")), "unknown");
    // What the token says is for this transaction: nobody became a member.
    assert_eq!(role_of(&mut desk.operator, tenant, stranger), None);
    assert_eq!(role_of(&mut desk.operator, tenant, ada).as_deref(), Some("member"));
    // Live again: the claim means nothing.
    let claimed = saying(&desk, tenant, &ada.to_string(), json!("owner"));
    desk.set("tenancy.jwt_membership", "live");
    assert_eq!(desk.admits(&claimed), desk.ada());
}

/// A trusted token's role is no membership: it gives no right over the tenant's members and credentials.
#[test]
fn a_trusted_role_without_a_membership_cannot_change_members() {
    let mut desk = Desk::new("jwt_trusted_actor");
    desk.set("tenancy.jwt_membership", "trusted");
    let ada = desk.ada;
    let mut claims = claims_of(&desk.tenant.to_string(), &Uuid::new_v4().to_string());
    claims["role"] = json!("owner");
    let token = desk.token(&claims);
    for call in [
        format!("change_role('{ada}', 'owner')"),
        format!("remove_member('{ada}')"),
        format!("issue_jwt('{ada}')"),
        "create_api_key('stolen')".to_owned(),
        "create_invitation('x@example.com', 'owner')".to_owned(),
    ] {
        let mut transaction = desk.app.transaction().expect("begin");
        rows(&mut transaction, AUTHENTICATE, &[&token]);
        fails(transaction.query(&format!("SELECT * FROM {call}"), &[]), "42501");
    }
}

/// For a tenant, the users of another do not exist, whoever trusts the token.
#[test]
fn a_trusted_token_cannot_name_a_user_at_home_in_another_tenant() {
    let mut desk = Desk::new("jwt_trusted_home");
    let (tenant, other) = (desk.tenant, desk.other);
    let carol = resident(&mut desk, other, None, "owner");
    desk.set("tenancy.jwt_membership", "trusted");
    let mut claims = claims_of(&tenant.to_string(), &carol.to_string());
    claims["role"] = json!("owner");
    desk.refuses_own(&desk.token(&claims), "unknown");
    claims["tenant_id"] = json!(other.to_string());
    assert_eq!(desk.admits(&desk.token(&claims)), Principal::of(other, carol, "owner"));
}

#[test]
fn the_tenants_state_decides_like_for_every_bind() {
    let mut desk = Desk::new("jwt_states");
    protected_table(&desk.database);
    let (tenant, token) = (desk.tenant, desk.token(&desk.claims()));
    desk.put_into_state(tenant, "provisioning");
    fails(authenticate(&mut desk.client, &token), "55000");
    desk.put_into_state(tenant, "moving");
    let mut transaction = desk.client.transaction().expect("begin");
    rows(&mut transaction, AUTHENTICATE, &[&token]);
    assert_eq!(count(&mut transaction, "notes"), 0);
    fails(transaction.batch_execute("INSERT INTO notes (body) VALUES ('x')"), "55000");
    drop(transaction);
    desk.put_into_state(tenant, "active");
    one::<Uuid>(&mut desk.operator, "SELECT suspend_tenant($1, mode => 'read_only')", &[&tenant]);
    let mut transaction = desk.client.transaction().expect("begin");
    rows(&mut transaction, AUTHENTICATE, &[&token]);
    assert_eq!(count(&mut transaction, "notes"), 0);
    fails(transaction.batch_execute("INSERT INTO notes (body) VALUES ('x')"), "25006");
    drop(transaction);
    one::<Uuid>(&mut desk.operator, "SELECT resume_tenant($1)", &[&tenant]);
    assert_eq!(desk.admits(&token), desk.ada());
    for (end, back) in [
        ("SELECT suspend_tenant($1)::text", "SELECT resume_tenant($1)::text"),
        ("SELECT cancel_tenant($1)::text", "SELECT restore_tenant($1)::text"),
        ("SELECT delete_tenant($1)::text", "SELECT restore_tenant($1)::text"),
    ] {
        one::<String>(&mut desk.operator, end, &[&tenant]);
        desk.refuses_own(&token, "tenant");
        one::<String>(&mut desk.operator, back, &[&tenant]);
        assert_eq!(desk.admits(&token), desk.ada());
    }
}

/// With a token of one tenant, a role of level client reaches no other, whatever it says.
#[test]
fn a_client_with_a_token_cannot_turn_to_another_tenant() {
    let mut desk = Desk::new("jwt_turn");
    protected_table(&desk.database);
    let (tenant, other, bob) = (desk.tenant, desk.other, desk.bob);
    for tenant in [tenant, other] {
        as_tenant(&mut desk.app, tenant, |tx| tx.execute("INSERT INTO notes (body) VALUES ('secret')", &[]))
            .expect("write");
    }
    let (token, second) = (desk.token(&desk.claims()), naming(&desk, &other.to_string(), &bob.to_string()));
    let name = desk.database.name().to_owned();
    for attack in [
        format!("SELECT set_tenant('{other}')"),
        format!("SELECT set_tenant('{other}', '{bob}')"),
        format!("SELECT rebind_tenant('{other}')"),
        format!("SET tenancy.context = '{other}|{bob}|jwt||owner||'"),
        format!("SELECT set_config('tenancy.context', '{other}||jwt||||', true)"),
        "SET tenancy.allow_rebind = on".to_owned(),
        "SET tenancy.jwt_membership = trusted".to_owned(),
        format!("ALTER DATABASE {name} SET tenancy.jwt_membership = trusted"),
        "SELECT * FROM tenancy.stored_jwt_keys".to_owned(),
        "SELECT * FROM tenancy.users".to_owned(),
        "SELECT * FROM tenancy.memberships".to_owned(),
        format!("SELECT issue_jwt('{bob}')"),
        "SELECT add_jwt_key('mine', 'HS256')".to_owned(),
        "SET ROLE app".to_owned(),
        "SET SESSION AUTHORIZATION app".to_owned(),
        format!("UPDATE notes SET tenant_id = '{other}'"),
        format!("INSERT INTO notes (tenant_id, body) VALUES ('{other}', 'planted')"),
    ] {
        let mut transaction = desk.client.transaction().expect("begin");
        rows(&mut transaction, AUTHENTICATE, &[&token]);
        fails(transaction.batch_execute(&attack), "42501");
    }
    for unbind in ["SELECT 1", "SELECT clear_tenant()", "RESET ALL", "DISCARD PLANS", "SET search_path = pg_temp"] {
        let mut transaction = desk.client.transaction().expect("begin");
        rows(&mut transaction, AUTHENTICATE, &[&token]);
        transaction.batch_execute(unbind).expect("a harmless statement");
        let mut attempt = transaction.transaction().expect("savepoint");
        fails(attempt.query("SELECT * FROM public.authenticate_jwt($1)", &[&second]), "55000");
        attempt.rollback().expect("roll back");
        let foreign = "SELECT count(*) FROM public.notes WHERE tenant_id <> $1";
        match transaction.query_one(foreign, &[&tenant]) {
            Ok(row) => assert_eq!(row.get::<_, i64>(0), 0),
            // After clear_tenant() nothing is bound.
            unbound => drop(fails(unbound, "42501")),
        }
    }
    // Bound inside a savepoint that is rolled back, the first one still counts.
    let mut transaction = desk.client.transaction().expect("begin");
    let mut inner = transaction.transaction().expect("savepoint");
    rows(&mut inner, AUTHENTICATE, &[&token]);
    inner.rollback().expect("roll back");
    fails(transaction.query(AUTHENTICATE, &[&second]), "55000");
    transaction.rollback().expect("roll back");
    assert_eq!(count(&mut desk.database.superuser(), "notes WHERE body <> 'secret' OR tenant_id IS NULL"), 0);
    assert_eq!(count(&mut desk.database.superuser(), "notes"), 2);
}

/// A second token of the same tenant may say more about who asks; a bad one changes nothing.
#[test]
fn a_refused_token_leaves_the_binding_as_it_was() {
    let mut desk = Desk::new("jwt_after");
    let token = desk.token(&desk.claims());
    let expired = desk.token(&desk.claims_with(json!({ "exp": now() - 600, "tenant_id": desk.other.to_string() })));
    let mut transaction = desk.client.transaction().expect("begin");
    rows(&mut transaction, AUTHENTICATE, &[&token]);
    let mut attempt = transaction.transaction().expect("savepoint");
    fails(attempt.query(AUTHENTICATE, &[&expired]), "28000");
    attempt.rollback().expect("roll back");
    assert_eq!(one::<Uuid>(&mut transaction, "SELECT current_tenant()", &[]), desk.tenant);
    assert_eq!(one::<Uuid>(&mut transaction, "SELECT current_user_id()", &[]), desk.ada);
}

/// What a session knows of the tenant from before is no excuse: neither in the middle of a transaction, nor under an old snapshot, nor when
/// its own change of the state was undone.
#[test]
fn a_suspension_counts_at_once_and_only_while_it_lasts() {
    let mut desk = Desk::new("jwt_suspend");
    let (tenant, token) = (desk.tenant, desk.token(&desk.claims()));
    let mut sessions: Vec<Client> = (0..3).map(|_| desk.database.connect("client")).collect();
    for state in ["suspended", "active", "provisioning", "active", "suspended", "active"] {
        let mut transactions: Vec<Transaction<'_>> = sessions
            .iter_mut()
            .map(|session| {
                let level = postgres::IsolationLevel::RepeatableRead;
                let mut transaction = session.build_transaction().isolation_level(level).start().expect("begin");
                one::<i64>(&mut transaction, "SELECT count(*) FROM pg_class", &[]);
                transaction
            })
            .collect();
        desk.put_into_state(tenant, state);
        for transaction in &mut transactions {
            let bound = transaction.query(AUTHENTICATE, &[&token]);
            match state {
                "active" => assert_eq!(bound.expect("bound").len(), 1),
                "provisioning" => drop(fails(bound, "55000")),
                _ => drop(fails(bound, "28000")),
            }
        }
    }
    let mut undone = desk.admin.transaction().expect("begin");
    for _ in 0..2 {
        let mut attempt = undone.transaction().expect("savepoint");
        one::<Uuid>(&mut attempt, "SELECT suspend_tenant($1)", &[&tenant]);
        fails(attempt.query(AUTHENTICATE, &[&token]), "28000");
        attempt.rollback().expect("roll back");
        let mut attempt = undone.transaction().expect("savepoint");
        assert_eq!(rows(&mut attempt, AUTHENTICATE, &[&token]).len(), 1);
        attempt.rollback().expect("roll back");
    }
    undone.rollback().expect("roll back");
    let mut suspending = desk.operator.transaction().expect("begin");
    one::<Uuid>(&mut suspending, "SELECT suspend_tenant($1)", &[&tenant]);
    super::admits(&mut desk.client, &token);
    suspending.rollback().expect("roll back");
    super::admits(&mut desk.client, &token);
}
