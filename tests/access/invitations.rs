//! Invitations: a token shown once, accepted once, by nobody after it has ended.

use super::fixtures::{
    Call, Invitation, ROLES, all_fail, api_key, at_once, attempt, behind, bind_by_key, email, invitation, member,
    role_of, sqlstate, stored, user,
};
use harness::postgres::IsolationLevel;
use harness::postgres::types::ToSql;
use harness::{
    Client, Cluster, Database, Options, Uuid, as_tenant, bind, count, fails, one, rows, simple, tenant, wait_for_lock,
};
use serde_json::{Value, json};

const INVITE: &str = "SELECT * FROM create_invitation($1, $2)";
const ACCEPT: &str = "SELECT accept_invitation($1, $2)";
const REVOKE: &str = "SELECT revoke_invitation($1)";

/// A database with a tenant that has an owner, and sessions of levels app and operator.
fn one_tenant(label: &str) -> (Database, Client, Client, Uuid) {
    let database = Database::new(label);
    let [mut app, mut operator] = ["app", "operator"].map(|role| database.connect(role));
    let tenant = tenant(&mut operator);
    member(&mut app, tenant, "owner");
    (database, app, operator, tenant)
}

fn status(operator: &mut Client, invitation: Uuid) -> String {
    one(operator, "SELECT status FROM tenancy.invitations WHERE id = $1", &[&invitation])
}

/// Lets an invitation's time pass.
fn expire(database: &Database, invitation: Uuid) {
    const EXPIRE: &str = "UPDATE tenancy.stored_invitations SET created_at = now() - interval '8 days',
        expires_at = now() - interval '1 day' WHERE id = $1";
    assert_eq!(database.superuser().execute(EXPIRE, &[&invitation]).expect("let the time pass"), 1);
}

/// An invitation that a member makes.
fn invitation_by(app: &mut Client, tenant: Uuid, inviter: Uuid, role: &str) -> Invitation {
    let made = attempt(app, tenant, Some(inviter), INVITE, &[&email(), &role]);
    Invitation::from(&made.expect("invite")[0])
}

// ---------------------------------------------------------------------------------------------- the token

#[test]
fn the_token_makes_a_member_of_the_tenant_with_the_role_that_was_offered() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite");
    let mut client = database.connect("client");
    for role in ROLES {
        let invited = invitation(&mut app, tenant, &email(), role);
        assert_eq!(status(&mut operator, invited.id), "open");
        let person = user(&mut app);
        assert_eq!(one::<Uuid>(&mut client, ACCEPT, &[&invited.token, &person]), tenant);
        assert_eq!(role_of(&mut operator, tenant, person).as_deref(), Some(role));
        assert_eq!(status(&mut operator, invited.id), "accepted");
        let by: Uuid = one(&mut operator, "SELECT accepted_by FROM tenancy.invitations WHERE id = $1", &[&invited.id]);
        assert_eq!(by, person);
    }
}

#[test]
fn accepting_binds_nothing() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_unbound");
    let other = harness::tenant(&mut operator);
    let person = member(&mut app, other, "viewer");
    let invited = invitation(&mut app, tenant, "guest@example.com", "member");
    let mut client = database.connect("client");
    let mut transaction = client.transaction().expect("begin");
    assert_eq!(one::<Uuid>(&mut transaction, ACCEPT, &[&invited.token, &person]), tenant);
    assert_eq!(one::<Option<Uuid>>(&mut transaction, "SELECT current_tenant_or_null()", &[]), None);
    assert_eq!(count(&mut transaction, "tenancy.members"), 0);
    transaction.commit().expect("commit");

    let again = invitation(&mut app, tenant, "second@example.com", "member");
    let second = member(&mut app, other, "viewer");
    let found = attempt(&mut app, other, Some(second), ACCEPT, &[&again.token, &second]).expect("from another tenant");
    assert_eq!(found[0].get::<_, Uuid>(0), tenant);
    assert_eq!(role_of(&mut operator, tenant, second).as_deref(), Some("member"));
}

#[test]
fn only_the_hash_of_a_token_is_stored() {
    let (database, mut app, _, tenant) = one_tenant("invite_hash");
    let invited = invitation(&mut app, tenant, "guest@example.com", "member");
    let accepted = invitation(&mut app, tenant, "other@example.com", "member");
    let person = user(&mut app);
    one::<Uuid>(&mut app, ACCEPT, &[&accepted.token, &person]);
    fails(app.query(ACCEPT, &[&accepted.token, &person]), "28000");
    let mut superuser = database.superuser();
    const RELATIONS: &str = "SELECT oid::regclass FROM pg_class
        WHERE relnamespace = 'tenancy'::regnamespace AND relkind IN ('r', 'v', 'p', 'm')";
    let relations = simple(&mut superuser, RELATIONS);
    assert!(relations.len() > 10);
    for token in [&invited.token, &accepted.token] {
        assert!(token.starts_with("pti_") && token.len() == 4 + 43 + 6, "a token's form");
        let bytes: String = token.bytes().map(|byte| format!("{byte:02x}")).collect();
        for relation in relations.iter().filter_map(|row| row[0].as_ref()) {
            // The whole, its random part, a good half of that, and its bytes in a bytea.
            for part in [token, &token[4..], &token[4..30], &bytes] {
                let found = format!("{relation} t WHERE strpos(t::text, '{part}') > 0");
                assert_eq!(count(&mut superuser, &found), 0, "{relation} holds a part of a token");
            }
        }
        const HASHED: &str =
            "SELECT count(*) FROM tenancy.stored_invitations WHERE token_hash = sha256($1::text::bytea)";
        assert_eq!(one::<i64>(&mut superuser, HASHED, &[token]), 1, "SHA-256 of the text");
    }
    for role in ["client", "app", "operator", "admin"] {
        let mut session = database.connect(role);
        fails(session.query("SELECT token_hash FROM tenancy.stored_invitations", &[]), "42501");
        fails(session.query("SELECT token_hash FROM tenancy.invitations", &[]), "42703");
    }
}

#[test]
fn with_a_pepper_the_hash_alone_checks_no_token_and_older_invitations_stay() {
    const PEPPER: &str = "a pepper of at least thirty-two characters";
    let mut cluster = Cluster::start(Options::new());
    let database = cluster.database("invite_pepper");
    let tenant = tenant(&mut database.connect("operator"));
    let mut app = database.connect("app");
    let [older, ended] = [0; 2].map(|_| invitation(&mut app, tenant, &email(), "member"));
    cluster.configure("tenancy.api_key_pepper", PEPPER);
    cluster.restart();
    let mut app = database.connect("app");
    let newer = invitation(&mut app, tenant, &email(), "member");
    const PLAIN: &str = "SELECT count(*) FROM tenancy.stored_invitations WHERE token_hash = sha256($1::text::bytea)";
    let plain = |token: &str| one::<i64>(&mut database.superuser(), PLAIN, &[&token]);
    assert_eq!([&older, &ended, &newer].map(|invited| plain(&invited.token)), [1, 1, 0]);
    as_tenant(&mut app, tenant, |tx| one::<bool>(tx, REVOKE, &[&ended.id]));
    let mut client = database.connect("client");
    for invited in [&older, &newer] {
        let person = user(&mut app);
        assert_eq!(one::<Uuid>(&mut client, ACCEPT, &[&invited.token, &person]), tenant);
        fails(client.query(ACCEPT, &[&invited.token, &user(&mut app)]), "28000");
    }
    fails(client.query(ACCEPT, &[&ended.token, &user(&mut app)]), "28000");
    cluster.configure("tenancy.api_key_pepper", "another pepper of thirty-two characters");
    cluster.restart();
    let mut app = database.connect("app");
    let late = invitation(&mut app, tenant, &email(), "viewer");
    let person = user(&mut app);
    assert_eq!(one::<Uuid>(&mut app, ACCEPT, &[&late.token, &person]), tenant);
}

#[test]
fn no_other_text_is_taken_for_a_token() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_forged");
    let invited = invitation(&mut app, tenant, "guest@example.com", "owner");
    let key = api_key(&mut app, tenant, None, &["*"]);
    let person = user(&mut app);
    let token = invited.token.as_str();
    let mut forged = vec![
        String::new(),
        " ".to_owned(),
        "pti_".to_owned(),
        "%".to_owned(),
        "' OR true --".to_owned(),
        "\\".to_owned(),
        "\u{1f600}".to_owned(),
        format!("{token} "),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}0"),
        token[..token.len() - 1].to_owned(),
        token.to_lowercase(),
        token.to_uppercase(),
        token.replacen("pti_", "ptk_", 1),
        token.replacen("pti_", "PTI_", 1),
        token[4..].to_owned(),
        key.text.clone(),
        key.text.replacen("ptk_", "pti_", 1),
        invited.id.to_string(),
        "x".repeat(10_000_000),
        format!("pti_{}", "0".repeat(49)),
    ];
    for position in 4..token.len() {
        let mut bytes = token.as_bytes().to_vec();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        forged.push(String::from_utf8(bytes).expect("ASCII"));
    }
    let before = stored(&mut database.superuser());
    let mut client = database.connect("client");
    for text in &forged {
        let fault = fails(client.query(ACCEPT, &[text, &person]), "28000");
        assert_eq!(fault.message(), "invalid invitation", "no reason is told");
    }
    assert_eq!(stored(&mut database.superuser()), before);
    assert!(rows(&mut app, "SELECT * FROM verify_api_key($1)", &[&token]).is_empty(), "no key either");
    assert_eq!(one::<Uuid>(&mut client, ACCEPT, &[&token, &person]), tenant, "the session lives");
    assert_eq!(role_of(&mut operator, tenant, person).as_deref(), Some("owner"));
}

#[test]
fn refused_tokens_are_counted_by_reason_and_never_shown() {
    let (database, mut app, _, tenant) = one_tenant("invite_counted");
    let mut monitor = database.connect("monitor");
    let [expired, revoked] = ["a@example.com", "b@example.com"].map(|to| invitation(&mut app, tenant, to, "viewer"));
    expire(&database, expired.id);
    as_tenant(&mut app, tenant, |tx| one::<bool>(tx, REVOKE, &[&revoked.id]));
    let person = user(&mut app);
    const ATTEMPTS: &str = "SELECT coalesce(sum(attempts), 0)::bigint FROM tenancy.failed_attempts
        WHERE credential = 'invitation' AND reason = $1";
    let altered = format!("{}x", &expired.token[..expired.token.len() - 1]);
    let unknown = "pti_0000000000000000000000000000000000000000000";
    for (token, reason) in [(&expired.token, "expired"), (&revoked.token, "revoked"), (&altered, "checksum")] {
        let before: i64 = one(&mut monitor, ATTEMPTS, &[&reason]);
        fails(app.query(ACCEPT, &[token, &person]), "28000");
        assert!(one::<i64>(&mut monitor, ATTEMPTS, &[&reason]) > before, "{reason}");
    }
    fails(app.query(ACCEPT, &[&unknown, &person]), "28000");
    for token in [&expired.token, &revoked.token] {
        let shown = format!("tenancy.failed_attempts t WHERE strpos(t::text, '{}') > 0", &token[4..12]);
        assert_eq!(count(&mut monitor, &shown), 0);
    }
}

// ---------------------------------------------------------------------------------------------- how it ends

#[test]
fn an_invitation_ends_with_its_time() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_expiry");
    let invited = invitation(&mut app, tenant, "guest@example.com", "member");
    const WEEK: &str = "SELECT expires_at = created_at + interval '7 days' FROM tenancy.invitations WHERE id = $1";
    assert!(one::<bool>(&mut operator, WEEK, &[&invited.id]), "a week unless told");
    let person = user(&mut app);
    expire(&database, invited.id);
    assert_eq!(status(&mut operator, invited.id), "expired");
    fails(app.query(ACCEPT, &[&invited.token, &person]), "28000");
    assert_eq!(role_of(&mut operator, tenant, person), None);
    const MOMENT: &str = "SELECT * FROM create_invitation('short@example.com', expires_in => '1 microsecond')";
    let short = Invitation::from(&attempt(&mut app, tenant, None, MOMENT, &[]).expect("invite")[0]);
    fails(app.query(ACCEPT, &[&short.token, &person]), "28000");
}

#[test]
fn an_address_has_one_live_invitation_of_a_tenant_in_whatever_case() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_live");
    let other = harness::tenant(&mut operator);
    let first = invitation(&mut app, tenant, "Guest@Example.com", "member");
    let before = stored(&mut database.superuser());
    for again in ["guest@example.com", "GUEST@EXAMPLE.COM", "Guest@Example.com"] {
        fails(attempt(&mut app, tenant, None, INVITE, &[&again, &"viewer"]), "23505");
    }
    assert_eq!(stored(&mut database.superuser()), before);
    invitation(&mut app, other, "guest@example.com", "member");

    expire(&database, first.id);
    let second = invitation(&mut app, tenant, "guest@example.com", "viewer");
    assert_eq!(status(&mut operator, first.id), "revoked", "replaced");
    let person = user(&mut app);
    fails(app.query(ACCEPT, &[&first.token, &person]), "28000");
    as_tenant(&mut app, tenant, |tx| one::<bool>(tx, REVOKE, &[&second.id]));
    let third = invitation(&mut app, tenant, "guest@example.com", "admin");
    fails(app.query(ACCEPT, &[&second.token, &person]), "28000");
    one::<Uuid>(&mut app, ACCEPT, &[&third.token, &person]);
    assert_eq!(role_of(&mut operator, tenant, person).as_deref(), Some("admin"));
    as_tenant(&mut app, tenant, |tx| one::<bool>(tx, "SELECT remove_member($1)", &[&person]));
    let fourth = invitation(&mut app, tenant, "guest@example.com", "viewer");
    one::<Uuid>(&mut app, ACCEPT, &[&fourth.token, &person]);
}

#[test]
fn who_is_a_member_is_not_invited() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_member");
    let person = member(&mut app, tenant, "viewer");
    let address: String = one(&mut operator, "SELECT email FROM tenancy.users WHERE id = $1", &[&person]);
    fails(attempt(&mut app, tenant, None, INVITE, &[&address.to_uppercase(), &"admin"]), "23505");
    let invited = invitation(&mut app, tenant, "alias@example.com", "admin");
    let before = stored(&mut database.superuser());
    fails(app.query(ACCEPT, &[&invited.token, &person]), "23505");
    assert_eq!(stored(&mut database.superuser()), before, "neither promoted nor used up");
    assert_eq!(status(&mut operator, invited.id), "open");
}

#[test]
fn a_revoked_invitation_is_accepted_by_nobody() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_revoke");
    let other = harness::tenant(&mut operator);
    let invited = invitation(&mut app, tenant, "guest@example.com", "member");
    for stranger in [invited.id, Uuid::new_v4()] {
        fails(attempt(&mut app, other, None, REVOKE, &[&stranger]), "P0002");
    }
    assert_eq!(status(&mut operator, invited.id), "open");
    assert!(as_tenant(&mut app, tenant, |tx| one::<bool>(tx, REVOKE, &[&invited.id])));
    assert!(!as_tenant(&mut app, tenant, |tx| one::<bool>(tx, REVOKE, &[&invited.id])), "once");
    let person = user(&mut app);
    fails(database.connect("client").query(ACCEPT, &[&invited.token, &person]), "28000");
    let accepted = invitation(&mut app, tenant, "guest@example.com", "member");
    one::<Uuid>(&mut app, ACCEPT, &[&accepted.token, &person]);
    assert!(!as_tenant(&mut app, tenant, |tx| one::<bool>(tx, REVOKE, &[&accepted.id])), "accepted before");
    assert_eq!(role_of(&mut operator, tenant, person).as_deref(), Some("member"), "who stays a member");
}

#[test]
fn a_token_is_good_once() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_once");
    let invited = invitation(&mut app, tenant, "guest@example.com", "member");
    let [first, second] = [0; 2].map(|_| user(&mut app));
    let mut client = database.connect("client");
    let mut transaction = client.transaction().expect("begin");
    let mut inner = transaction.transaction().expect("savepoint");
    one::<Uuid>(&mut inner, ACCEPT, &[&invited.token, &first]);
    inner.rollback().expect("rollback to the savepoint");
    assert_eq!(one::<Uuid>(&mut transaction, ACCEPT, &[&invited.token, &first]), tenant, "not used by what was undone");
    transaction.commit().expect("commit");
    for person in [first, second] {
        fails(client.query(ACCEPT, &[&invited.token, &person]), "28000");
    }
    as_tenant(&mut app, tenant, |tx| one::<bool>(tx, "SELECT remove_member($1)", &[&first]));
    fails(client.query(ACCEPT, &[&invited.token, &first]), "28000");
    assert_eq!(role_of(&mut operator, tenant, first), None, "a removed member does not come back by it");
}

// ---------------------------------------------------------------------------------------------- who invites whom

#[test]
fn an_invitation_offers_and_revokes_no_more_than_the_inviters_own_role() {
    let (database, mut app, _, tenant) = one_tenant("invite_rank");
    for (own, role) in ROLES.into_iter().enumerate() {
        let inviter = member(&mut app, tenant, role);
        for (given, offered) in ROLES.into_iter().enumerate() {
            let result = attempt(&mut app, tenant, Some(inviter), INVITE, &[&email(), &offered]);
            let expected = if given >= own { "00000" } else { "42501" };
            assert_eq!(sqlstate(&result), expected, "{role} invites {offered}");
            let others = invitation(&mut app, tenant, &email(), offered);
            let before = stored(&mut database.superuser());
            let result = attempt(&mut app, tenant, Some(inviter), REVOKE, &[&others.id]);
            assert_eq!(sqlstate(&result), expected, "{role} revokes the invitation of {offered}");
            let unchanged = stored(&mut database.superuser()) == before;
            assert_eq!(unchanged, given < own, "{role} revokes the invitation of {offered}");
        }
    }
}

#[test]
fn who_was_demoted_removed_or_deleted_has_invited_nobody() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_demoted");
    let mut client = database.connect("client");
    for end in ["SELECT change_role($1, 'viewer')", "SELECT remove_member($1)", "SELECT delete_user($1)"] {
        let inviter = member(&mut app, tenant, "admin");
        let [high, low] = ["admin", "viewer"].map(|role| invitation_by(&mut app, tenant, inviter, role));
        if end.contains("delete_user") {
            one::<bool>(&mut operator, end, &[&inviter]);
        } else {
            as_tenant(&mut app, tenant, |tx| one::<bool>(tx, end, &[&inviter]));
        }
        let before = stored(&mut database.superuser());
        let accomplice = user(&mut app);
        fails(client.query(ACCEPT, &[&high.token, &accomplice]), "28000");
        assert_eq!(stored(&mut database.superuser()).len(), before.len() + 2, "only the user was made");
        assert_eq!(role_of(&mut operator, tenant, accomplice), None, "{end}");
        let result = client.query(ACCEPT, &[&low.token, &accomplice]);
        let still_offers = end.contains("viewer");
        assert_eq!(sqlstate(&result), if still_offers { "00000" } else { "28000" }, "a viewer offers that: {end}");
    }
}

#[test]
fn nobody_accepts_for_another_user() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_for_another");
    let other = harness::tenant(&mut operator);
    let [actor, victim] = [0; 2].map(|_| member(&mut app, other, "owner"));
    let invited = invitation(&mut app, tenant, "guest@example.com", "viewer");
    let key = api_key(&mut app, other, Some(actor), &["*"]);
    let before = stored(&mut database.superuser());
    fails(attempt(&mut app, other, Some(actor), ACCEPT, &[&invited.token, &victim]), "42501");
    let mut client = database.connect("client");
    let mut transaction = client.transaction().expect("begin");
    bind_by_key(&mut transaction, &key.text);
    fails(transaction.query(ACCEPT, &[&invited.token, &victim]), "42501");
    transaction.rollback().expect("rollback");
    assert_eq!(stored(&mut database.superuser()), before);
    let mut transaction = client.transaction().expect("begin");
    bind_by_key(&mut transaction, &key.text);
    assert_eq!(one::<Uuid>(&mut transaction, ACCEPT, &[&invited.token, &actor]), tenant);
    transaction.commit().expect("commit");
}

#[test]
fn a_user_at_home_elsewhere_and_one_nobody_knows_accept_nothing() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_home");
    let other = harness::tenant(&mut operator);
    const CREATE_AT_HOME: &str = "SELECT create_user('guest@example.com', tenant => $1)";
    let [elsewhere, here] = [other, tenant].map(|home| one::<Uuid>(&mut app, CREATE_AT_HOME, &[&home]));
    let invited = invitation(&mut app, tenant, "guest@example.com", "member");
    let before = stored(&mut database.superuser());
    for person in [elsewhere, Uuid::new_v4()] {
        fails(database.connect("client").query(ACCEPT, &[&invited.token, &person]), "P0002");
    }
    assert_eq!(stored(&mut database.superuser()), before);
    assert_eq!(one::<Uuid>(&mut app, ACCEPT, &[&invited.token, &here]), tenant, "not used up by them");
}

// ---------------------------------------------------------------------------------------------- the tenant's state

#[test]
fn a_closed_tenant_is_joined_by_nobody() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_state");
    let invited = invitation(&mut app, tenant, "guest@example.com", "member");
    let person = user(&mut app);
    let mut client = database.connect("client");
    for (close, reopen, state) in [
        ("suspend_tenant($1)", "resume_tenant($1)", "28000"),
        ("suspend_tenant($1, mode => 'read_only')", "resume_tenant($1)", "25006"),
        ("cancel_tenant($1)", "restore_tenant($1)", "28000"),
        ("delete_tenant($1)", "restore_tenant($1)", "28000"),
    ] {
        rows(&mut operator, &format!("SELECT {close}"), &[&tenant]);
        let before = stored(&mut database.superuser());
        fails(client.query(ACCEPT, &[&invited.token, &person]), state);
        assert_eq!(stored(&mut database.superuser()), before, "{close}");
        rows(&mut operator, &format!("SELECT {reopen}"), &[&tenant]);
    }
    for state in ["provisioning", "moving"] {
        let mut superuser = database.superuser();
        let put = |superuser: &mut Client, state: &str| {
            superuser.execute("UPDATE tenancy.tenants SET status = $2 WHERE id = $1", &[&tenant, &state]).expect("put");
        };
        put(&mut superuser, state);
        fails(client.query(ACCEPT, &[&invited.token, &person]), "55000");
        put(&mut superuser, "active");
    }
    assert_eq!(one::<Uuid>(&mut client, ACCEPT, &[&invited.token, &person]), tenant);
}

#[test]
fn a_tenant_that_is_being_closed_waits_for_who_is_joining_and_is_joined_by_nobody_after() {
    let (database, mut app, mut operator, _) = one_tenant("invite_closing");
    let closings: [(&str, &str); 3] = [
        ("SELECT suspend_tenant($1)", "28000"),
        ("SELECT suspend_tenant($1, mode => 'read_only')", "25006"),
        ("SELECT delete_tenant($1)::text", "28000"),
    ];
    for (closing, refused) in closings {
        let tenant = harness::tenant(&mut operator);
        let invited = [0; 2].map(|_| invitation(&mut app, tenant, &email(), "member"));
        let people = [0; 2].map(|_| user(&mut app));
        let early: [&(dyn ToSql + Sync); 2] = [&invited[0].token, &people[0]];
        let late: [&(dyn ToSql + Sync); 2] = [&invited[1].token, &people[1]];
        let close: [&(dyn ToSql + Sync); 1] = [&tenant];
        let close = Call::new(closing, &close).by("operator");
        behind(&database, Call::new(ACCEPT, &early).by("client"), close).expect("close");
        assert_eq!(role_of(&mut operator, tenant, people[0]).as_deref(), Some("member"), "{closing}");
        let reopen = if closing.contains("delete") { "restore_tenant" } else { "resume_tenant" };
        one::<Uuid>(&mut operator, &format!("SELECT {reopen}($1)"), &[&tenant]);
        fails(behind(&database, close, Call::new(ACCEPT, &late).by("client")), refused);
        assert_eq!(role_of(&mut operator, tenant, people[1]), None, "{closing}");
    }
}

// ---------------------------------------------------------------------------------------------- races

#[test]
fn of_two_sessions_inviting_one_address_one_does() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_race");
    for expired in [false, true] {
        for isolation in [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
            let address = email();
            if expired {
                let old = invitation(&mut app, tenant, &address, "viewer");
                expire(&database, old.id);
            }
            let shouted = address.to_uppercase();
            let [one_way, other_way]: [[&(dyn ToSql + Sync); 2]; 2] = [[&address, &"member"], [&shouted, &"member"]];
            let calls = [one_way, other_way];
            let calls: Vec<Call<'_>> = calls
                .iter()
                .map(|parameters| Call::new(INVITE, parameters).bound(tenant, None).isolated(isolation))
                .collect();
            let mut states: Vec<String> = at_once(&database, &calls).iter().map(sqlstate).collect();
            states.sort();
            let again = !matches!(isolation, IsolationLevel::ReadCommitted) && states[1] == "40001";
            assert!(states[0] == "00000" && (again || states[1] == "23505"), "{states:?}");
            let live = format!("tenancy.invitations WHERE email = '{address}' AND status = 'open'");
            assert_eq!(count(&mut operator, &live), 1);
        }
    }
}

#[test]
fn an_invitation_that_was_taken_back_by_a_rollback_is_in_nobodys_way() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_rollback");
    let mut session = database.connect("app");
    let mut transaction = session.transaction().expect("begin");
    bind(&mut transaction, tenant);
    rows(&mut transaction, INVITE, &[&"guest@example.com", &"member"]);
    let pid = harness::backend_pid(&mut app);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| attempt(&mut app, tenant, None, INVITE, &[&"guest@example.com", &"viewer"]));
        wait_for_lock(&mut operator, pid);
        transaction.rollback().expect("rollback");
        waiting.join().expect("the waiting session").expect("the address is free");
    });
    assert_eq!(count(&mut operator, "tenancy.invitations"), 1);
}

#[test]
fn of_sessions_accepting_one_invitation_one_does() {
    let (database, mut app, mut operator, tenant) = one_tenant("accept_race");
    for isolation in [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        for same_user in [true, false] {
            let invited = invitation(&mut app, tenant, &email(), "member");
            let first = user(&mut app);
            let people = [0; 4].map(|_| if same_user { first } else { user(&mut app) });
            let parameters: [[&(dyn ToSql + Sync); 2]; 4] = people.each_ref().map(|person| {
                let parameters: [&(dyn ToSql + Sync); 2] = [&invited.token, person];
                parameters
            });
            let calls: Vec<Call<'_>> = parameters
                .iter()
                .map(|parameters| Call::new(ACCEPT, parameters).by("client").isolated(isolation))
                .collect();
            let mut states: Vec<String> = at_once(&database, &calls).iter().map(sqlstate).collect();
            states.sort();
            assert_eq!(states[0], "00000");
            for state in &states[1..] {
                let again = !matches!(isolation, IsolationLevel::ReadCommitted) && state == "40001";
                assert!(again || state == "28000", "{states:?}");
            }
            let joined = people.iter().filter(|person| role_of(&mut operator, tenant, **person).is_some()).count();
            assert_eq!(joined, if same_user { people.len() } else { 1 });
            let accepted =
                format!("tenancy.audit_log WHERE action = 'invitation.accept' AND target = '{}'", invited.id);
            assert_eq!(count(&mut database.superuser(), &accepted), 1);
        }
    }
}

#[test]
fn of_two_invitations_one_user_accepts_one_at_a_time() {
    let (database, mut app, mut operator, tenant) = one_tenant("accept_two");
    let invited = ["viewer", "admin"].map(|role| invitation(&mut app, tenant, &email(), role));
    let person = user(&mut app);
    let [first, second]: [[&(dyn ToSql + Sync); 2]; 2] = [[&invited[0].token, &person], [&invited[1].token, &person]];
    let call = |parameters| Call::new(ACCEPT, parameters).by("client");
    fails(behind(&database, call(&first), call(&second)), "23505");
    assert_eq!(role_of(&mut operator, tenant, person).as_deref(), Some("viewer"));
    assert_eq!(status(&mut operator, invited[1].id), "open");
}

#[test]
fn accepting_and_revoking_at_once_end_in_one_of_the_two() {
    let (database, mut app, mut operator, tenant) = one_tenant("accept_revoke");
    let [first, second] = [0; 2].map(|_| invitation(&mut app, tenant, &email(), "member"));
    let people = [0; 2].map(|_| user(&mut app));
    let accept: [&(dyn ToSql + Sync); 2] = [&first.token, &people[0]];
    let revoke: [&(dyn ToSql + Sync); 1] = [&first.id];
    let accepting = Call::new(ACCEPT, &accept).by("client");
    let revoked = behind(&database, accepting, Call::new(REVOKE, &revoke).bound(tenant, None)).expect("revoke");
    assert!(!revoked[0].get::<_, bool>(0), "accepted before");
    assert_eq!(status(&mut operator, first.id), "accepted");
    assert!(role_of(&mut operator, tenant, people[0]).is_some());

    let accept: [&(dyn ToSql + Sync); 2] = [&second.token, &people[1]];
    let revoke: [&(dyn ToSql + Sync); 1] = [&second.id];
    let revoking = Call::new(REVOKE, &revoke).bound(tenant, None);
    fails(behind(&database, revoking, Call::new(ACCEPT, &accept).by("client")), "28000");
    assert_eq!(status(&mut operator, second.id), "revoked");
    assert_eq!(role_of(&mut operator, tenant, people[1]), None);
}

#[test]
fn an_address_is_invited_anew_only_when_its_invitation_has_been_accepted() {
    let (database, mut app, mut operator, tenant) = one_tenant("accept_replace");
    let address = email();
    let first = invitation(&mut app, tenant, &address, "member");
    let person = user(&mut app);
    let accept: [&(dyn ToSql + Sync); 2] = [&first.token, &person];
    let invite: [&(dyn ToSql + Sync); 2] = [&address, &"member"];
    let accepting = Call::new(ACCEPT, &accept).by("client");
    let replacing = Call::new(INVITE, &invite).bound(tenant, None);
    behind(&database, accepting, replacing).expect("the address is free when its invitation has been accepted");
    let open = format!("tenancy.invitations WHERE email = '{address}' AND status = 'open'");
    assert_eq!(count(&mut operator, &open), 1);
    assert_eq!(status(&mut operator, first.id), "accepted");
    let another = user(&mut app);
    fails(app.query(ACCEPT, &[&first.token, &another]), "28000");
}

// ---------------------------------------------------------------------------------------------- what is told of it

#[test]
fn metadata_comes_back_as_it_was_given() {
    let (database, mut app, mut operator, tenant) = one_tenant("invite_metadata");
    let numbers =
        "{\"big\": 123456789012345678901234567890.123456789, \"deep\": {\"a\": [1, null, {\"b\": \"\\u0027; --\"}]}}";
    const INVITE_WITH: &str = "SELECT * FROM create_invitation($1, metadata => $2::text::jsonb)";
    for given in ["{}", numbers, "{\"name\": \"名前 😀\", \"%\": \"\\\\\"}"] {
        let made = attempt(&mut app, tenant, None, INVITE_WITH, &[&email(), &given]).expect("invite");
        let id = Invitation::from(&made[0]).id;
        const SAME: &str = "SELECT metadata = $2::text::jsonb FROM tenancy.invitations WHERE id = $1";
        assert!(one::<bool>(&mut operator, SAME, &[&id, &given]), "{given}");
        const TOLD: &str = "SELECT (after -> 'metadata')::text = $2::text::jsonb::text FROM tenancy.audit_log
            WHERE action = 'invitation.create' AND target = $1::text";
        assert!(one::<bool>(&mut database.superuser(), TOLD, &[&id.to_string(), &given]), "{given}");
    }
    let made = attempt(&mut app, tenant, None, INVITE, &[&email(), &"viewer"]).expect("invite");
    let metadata: Value =
        one(&mut operator, "SELECT metadata FROM tenancy.invitations WHERE id = $1", &[&Invitation::from(&made[0]).id]);
    assert_eq!(metadata, json!({}));
}

#[test]
fn the_audit_log_tells_who_invited_and_who_came_and_no_token() {
    let (database, mut app, _, tenant) = one_tenant("invite_audit");
    let inviter = member(&mut app, tenant, "admin");
    let [kept, revoked] = [0; 2].map(|_| invitation_by(&mut app, tenant, inviter, "member"));
    attempt(&mut app, tenant, Some(inviter), REVOKE, &[&revoked.id]).expect("revoke");
    let person = user(&mut app);
    one::<Uuid>(&mut database.connect("client"), ACCEPT, &[&kept.token, &person]);
    let mut superuser = database.superuser();
    const TOLD: &str = "SELECT action || ' ' || coalesce(principal ->> 'user_id', '-') || ' ' || outer_user_name
        FROM tenancy.audit_log WHERE target = $1::text AND tenant_id = $2 ORDER BY id";
    let mut told = |invitation: Uuid| -> Vec<String> {
        rows(&mut superuser, TOLD, &[&invitation.to_string(), &tenant]).iter().map(|row| row.get(0)).collect()
    };
    let created = format!("invitation.create {inviter} app");
    assert_eq!(told(kept.id), [created.clone(), "invitation.accept - client".to_owned()]);
    assert_eq!(told(revoked.id), [created, format!("invitation.revoke {inviter} app")]);
}

// ---------------------------------------------------------------------------------------------- bad input

#[test]
fn bad_input_about_invitations_is_refused_and_writes_nothing() {
    let (database, mut app, _, tenant) = one_tenant("invite_input");
    let person = user(&mut app);
    let mut calls: Vec<(String, &str)> = [
        ("create_invitation(NULL)", "22023"),
        ("create_invitation('a@example.com', NULL)", "22023"),
        ("create_invitation('a@example.com', expires_in => NULL)", "22023"),
        ("create_invitation('a@example.com', metadata => NULL)", "22023"),
        ("create_invitation('a@example.com', expires_in => '0')", "22023"),
        ("create_invitation('a@example.com', expires_in => '-1 day')", "22023"),
        ("create_invitation('a@example.com', expires_in => '1 mon -31 days')", "22023"),
        ("create_invitation('a@example.com', expires_in => '367 days')", "22023"),
        ("create_invitation('a@example.com', expires_in => '178000000 years')", "22023"),
        ("create_invitation('a@example.com', expires_in => '-178000000 years')", "22023"),
        ("create_invitation('a@example.com', metadata => '[]')", "22023"),
        ("create_invitation('a@example.com', metadata => '\"x\"')", "22023"),
        ("create_invitation('a@example.com', metadata => 'null')", "22023"),
        ("create_invitation('a@example.com', metadata => '{')", "22P02"),
        ("revoke_invitation(NULL)", "22023"),
        ("revoke_invitation('x')", "22P02"),
        ("revoke_invitation(gen_random_uuid())", "P0002"),
        ("accept_invitation('pti_x', NULL)", "22023"),
        ("accept_invitation('pti_x', 'x')", "22P02"),
    ]
    .map(|(call, state)| (call.to_owned(), state))
    .to_vec();
    calls.push((format!("accept_invitation(NULL, '{person}')"), "22023"));
    for address in [
        "''",
        "'@'",
        "'a@'",
        "'@b'",
        "'a b@c'",
        "E'a\\n@c'",
        "repeat('a', 254) || '@b'",
        "repeat('a@', 5000000)",
        "'''; --'",
    ] {
        calls.push((format!("create_invitation({address})"), "22023"));
    }
    for role in
        ["''", "'OWNER'", "'owner '", "'%'", "E'own\\\\er'", "E'owner\\u0001'", "'owner''; --'", "repeat('x', 1000000)"]
    {
        calls.push((format!("create_invitation('a@example.com', {role})"), "22023"));
    }
    let calls: Vec<(&str, &str)> = calls.iter().map(|(call, state)| (call.as_str(), *state)).collect();
    all_fail(&database, "app", Some(tenant), &calls);
    all_fail(
        &database,
        "client",
        None,
        &[("accept_invitation(NULL, NULL)", "22023"), ("accept_invitation('', NULL)", "22023")],
    );
}
