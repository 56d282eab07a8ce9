//! Users: one person in many tenants, or at home in one; found before a tenant is known; changed and removed by whom.

use super::fixtures::{
    Call, ROLES, all_fail, api_key, at_once, attempt, behind, bind_by_key, email, invitation, member, role_of,
    signing_key, sqlstate, stored, user,
};
use harness::postgres::types::ToSql;
use harness::{
    Client, Database, Uuid, as_tenant, backend_pid, count, fails, one, optional, rows, simple, tenant, tenants,
    wait_for_lock,
};

const CREATE: &str = "SELECT create_user($1)";
const CREATE_AT_HOME: &str = "SELECT create_user($1, tenant => $2)";
const FIND: &str = "SELECT find_user($1)";
const UPDATE_EMAIL: &str = "SELECT update_user($1, email => $2)";
const REVOKE_TOKENS: &str = "SELECT revoke_tokens($1)";
const DELETE: &str = "SELECT delete_user($1)";

/// A database with two tenants, and sessions of levels app and operator.
fn two_tenants(label: &str) -> (Database, Client, Client, [Uuid; 2]) {
    let database = Database::new(label);
    let mut operator = database.connect("operator");
    let tenants = [tenant(&mut operator), tenant(&mut operator)];
    let app = database.connect("app");
    (database, app, operator, tenants)
}

/// Creates a user at home in the tenant and makes them a member; the backend itself does.
fn member_at_home(app: &mut Client, home: Uuid, role: &str) -> Uuid {
    as_tenant(app, home, |tx| {
        let user: Uuid = one(tx, CREATE_AT_HOME, &[&email(), &home]);
        one(tx, "SELECT add_member($1, $2)", &[&user, &role])
    })
}

fn email_of(operator: &mut Client, user: Uuid) -> String {
    one(operator, "SELECT email FROM tenancy.users WHERE id = $1", &[&user])
}

fn tokens_end(operator: &mut Client, user: Uuid) -> bool {
    one(operator, "SELECT tokens_not_before IS NOT NULL FROM tenancy.users WHERE id = $1", &[&user])
}

/// The tables of schema tenancy in which a text occurs anywhere.
fn tables_with(superuser: &mut Client, text: &str) -> Vec<String> {
    let tables = simple(
        superuser,
        "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'tenancy'::regnamespace AND relkind = 'r' ORDER BY 1",
    );
    let names = tables.into_iter().filter_map(|mut row| row.remove(0));
    names.filter(|table| count(superuser, &format!("{table} t WHERE strpos(t::text, '{text}') > 0")) > 0).collect()
}

// ---------------------------------------------------------------------------------------------- who is who

#[test]
fn an_address_names_one_user_of_many_tenants_in_whatever_case() {
    let (database, mut app, mut operator, _) = two_tenants("user_address");
    let mut superuser = database.superuser();
    let ada: Uuid = one(&mut app, "SELECT create_user('Ada.Lovelace@Example.COM', 'Ada')", &[]);
    assert_eq!(email_of(&mut operator, ada), "ada.lovelace@example.com");
    let before = stored(&mut superuser);
    for again in ["Ada.Lovelace@Example.COM", "ada.lovelace@example.com", "ADA.LOVELACE@EXAMPLE.COM"] {
        fails(app.query(CREATE, &[&again]), "23505");
        assert_eq!(one::<Option<Uuid>>(&mut app, FIND, &[&again]), Some(ada));
    }
    let composed = "J\u{dc}RGEN@B\u{dc}CHER.example";
    let juergen: Uuid = one(&mut app, CREATE, &[&composed]);
    assert_eq!(one::<Option<Uuid>>(&mut app, FIND, &[&"j\u{fc}rgen@b\u{fc}cher.example"]), Some(juergen));
    assert_eq!(stored(&mut superuser).len(), before.len() + 2, "one user, told of once");
}

#[test]
fn each_tenant_can_have_its_own_user_of_an_address() {
    let (_database, mut app, _, [a, b]) = two_tenants("user_homes");
    let everywhere: Uuid = one(&mut app, CREATE, &[&"ada@example.com"]);
    let in_a: Uuid = one(&mut app, CREATE_AT_HOME, &[&"Ada@example.com", &a]);
    let in_b: Uuid = one(&mut app, CREATE_AT_HOME, &[&"ada@Example.com", &b]);
    for home in [a, b] {
        fails(app.query(CREATE_AT_HOME, &[&"ADA@example.com", &home]), "23505");
    }
    const FIND_IN: &str = "SELECT find_user($1, tenant => $2)";
    let find_in = |app: &mut Client, address: &str, home: Uuid| one::<Option<Uuid>>(app, FIND_IN, &[&address, &home]);
    assert_eq!(one::<Option<Uuid>>(&mut app, FIND, &[&"ada@example.com"]), Some(everywhere));
    assert_eq!(find_in(&mut app, "ada@example.com", a), Some(in_a));
    assert_eq!(find_in(&mut app, "ada@example.com", b), Some(in_b));
    assert_eq!(as_tenant(&mut app, b, |tx| one::<Option<Uuid>>(tx, FIND, &[&"ada@example.com"])), Some(in_b));

    let everywhere: Uuid = one(&mut app, CREATE, &[&"grace@example.com"]);
    assert_eq!(find_in(&mut app, "grace@example.com", a), Some(everywhere), "one of no tenant, where it has none");
    one::<Uuid>(&mut app, CREATE_AT_HOME, &[&"only@example.com", &a]);
    assert_eq!(find_in(&mut app, "only@example.com", b), None);
    assert_eq!(one::<Option<Uuid>>(&mut app, FIND, &[&"only@example.com"]), None);
}

#[test]
fn a_user_at_home_in_one_tenant_does_not_exist_for_another() {
    let (database, mut app, mut operator, [a, b]) = two_tenants("user_at_home");
    let mut superuser = database.superuser();
    let user = member_at_home(&mut app, a, "owner");
    let before = stored(&mut superuser);
    fails(attempt(&mut app, b, None, "SELECT add_member($1)", &[&user]), "P0002");
    fails(app.query("SELECT set_tenant($1, $2)", &[&b, &user]), "42501");
    fails(operator.query("SELECT create_tenant('Mine', owner => $1)", &[&user]), "P0002");
    for call in [
        "update_user($1, 'mine@example.com')",
        "revoke_tokens($1)",
        "record_login($1)",
        "change_role($1, 'viewer')",
        "create_api_key('theirs', user_id => $1)",
        "issue_jwt($1)",
    ] {
        let result = attempt(&mut app, b, None, &format!("SELECT {call}"), &[&user]);
        assert_eq!(sqlstate(&result), "P0002", "{call}");
    }
    let removed = attempt(&mut app, b, None, "SELECT remove_member($1)", &[&user]).expect("nobody of b");
    assert!(!removed[0].get::<_, bool>(0));
    fails(attempt(&mut app, b, None, CREATE_AT_HOME, &[&"spy@example.com", &a]), "42501");
    assert_eq!(stored(&mut superuser), before, "nothing was written");
}

#[test]
fn a_user_is_found_by_the_id_that_an_identity_provider_gave() {
    let (_database, mut app, _, [a, b]) = two_tenants("user_external");
    const CREATE_EXTERNAL: &str = "SELECT create_user($1, external_id => $2, tenant => $3)";
    const FIND_EXTERNAL: &str = "SELECT find_user(external_id => $1, tenant => $2)";
    let none: Option<Uuid> = None;
    let ids =
        ["user_2NNEqL2nrIRdJ194ndJqAHwEfxC", "auth0|5f7c8ec7c33c6c004bbafe82", "google-oauth2|103547991597142817347"];
    for id in ids {
        let user: Uuid = one(&mut app, CREATE_EXTERNAL, &[&email(), &id, &none]);
        assert_eq!(one::<Option<Uuid>>(&mut app, FIND_EXTERNAL, &[&id, &none]), Some(user));
        assert_eq!(one::<Option<Uuid>>(&mut app, FIND_EXTERNAL, &[&id, &a]), Some(user));
        let other_case = id.to_uppercase();
        assert_eq!(one::<Option<Uuid>>(&mut app, FIND_EXTERNAL, &[&other_case, &none]), None, "an id has its case");
        let fault = fails(app.query(CREATE_EXTERNAL, &[&email(), &id, &none]), "23505");
        assert!(fault.message().starts_with("external id"), "{}", fault.message());
        let homes = [a, b].map(|home| one::<Uuid>(&mut app, CREATE_EXTERNAL, &[&email(), &id, &Some(home)]));
        for (home, user) in [a, b].into_iter().zip(homes) {
            assert_eq!(one::<Option<Uuid>>(&mut app, FIND_EXTERNAL, &[&id, &Some(home)]), Some(user));
        }
    }
    let late = user(&mut app);
    one::<Uuid>(&mut app, "SELECT update_user($1, external_id => 'user_late')", &[&late]);
    assert_eq!(one::<Option<Uuid>>(&mut app, FIND_EXTERNAL, &[&"user_late", &none]), Some(late));
    fails(app.query("SELECT update_user($1, external_id => $2)", &[&late, &ids[0]]), "23505");
}

#[test]
fn the_tenants_of_a_user_are_listed_before_one_is_bound() {
    let (_database, mut app, mut operator, [a, b]) = two_tenants("user_tenants");
    let [suspended, cancelled, deleted] = [0; 3].map(|_| tenant(&mut operator));
    let person = user(&mut app);
    for (tenant, role) in
        [(a, "owner"), (b, "viewer"), (suspended, "admin"), (cancelled, "member"), (deleted, "member")]
    {
        as_tenant(&mut app, tenant, |tx| one::<Uuid>(tx, "SELECT add_member($1, $2)", &[&person, &role]));
    }
    for (call, tenant) in [("suspend_tenant", suspended), ("cancel_tenant", cancelled)] {
        one::<Uuid>(&mut operator, &format!("SELECT {call}($1)"), &[&tenant]);
    }
    rows(&mut operator, "SELECT delete_tenant($1)", &[&deleted]);
    const LIST: &str = "SELECT tenant_id, role, status FROM user_tenants($1)";
    let mut found: Vec<(Uuid, String, String)> =
        rows(&mut app, LIST, &[&person]).iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected = [(a, "owner", "active"), (b, "viewer", "active"), (suspended, "admin", "suspended")];
    let mut expected = expected.map(|(tenant, role, status)| (tenant, role.to_owned(), status.to_owned())).to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(rows(&mut app, LIST, &[&Uuid::new_v4()]).is_empty());
    const NAMED: &str = "SELECT slug = (SELECT slug FROM tenancy.tenants WHERE id = tenant_id) FROM user_tenants($1)
        WHERE tenant_id = current_tenant()";
    assert!(as_tenant(&mut app, a, |tx| one::<bool>(tx, NAMED, &[&person])));
}

#[test]
fn the_last_login_is_noted_when_asked_for_and_when_a_token_is_issued() {
    let (database, mut app, mut operator, [a, b]) = two_tenants("user_login");
    signing_key(&mut database.connect("admin"), "k1");
    let [recorded, issued] = [0; 2].map(|_| member(&mut app, a, "member"));
    const LAST: &str = "SELECT last_login_at::text FROM tenancy.members WHERE tenant_id = $1 AND user_id = $2";
    for user in [recorded, issued] {
        assert_eq!(one::<Option<String>>(&mut operator, LAST, &[&a, &user]), None);
    }
    let when: String = one(&mut app, "SELECT record_login($1)::text", &[&recorded]);
    assert_eq!(one::<Option<String>>(&mut operator, LAST, &[&a, &recorded]), Some(when));
    fails(attempt(&mut app, b, None, "SELECT issue_jwt($1)", &[&issued]), "P0002");
    assert_eq!(one::<Option<String>>(&mut operator, LAST, &[&a, &issued]), None, "a failed login is none");
    as_tenant(&mut app, a, |tx| one::<String>(tx, "SELECT issue_jwt($1)", &[&issued]));
    assert!(one::<Option<String>>(&mut operator, LAST, &[&a, &issued]).is_some());
}

#[test]
fn a_tenant_and_its_first_owner_are_made_in_one_call() {
    let (database, mut app, mut operator, _) = two_tenants("first_owner");
    let mut superuser = database.superuser();
    let owner = user(&mut app);
    let made: Uuid = one(&mut operator, "SELECT create_tenant('Acme', owner => $1)", &[&owner]);
    assert_eq!(role_of(&mut operator, made, owner).as_deref(), Some("owner"));
    let before = stored(&mut superuser);
    fails(operator.query("SELECT create_tenant('Nobody''s', owner => $1)", &[&Uuid::new_v4()]), "P0002");
    assert_eq!(stored(&mut superuser), before, "no tenant without the owner that was asked for");
}

// ---------------------------------------------------------------------------------------------- whose to change

#[test]
fn what_is_not_given_of_a_user_stays() {
    let (_database, mut app, mut operator, _) = two_tenants("user_update");
    let id: Uuid = one(&mut app, "SELECT create_user('a@example.com', 'Ada', 'ext|1')", &[]);
    let shown = |operator: &mut Client| {
        rows(operator, "SELECT email, name, external_id FROM tenancy.users WHERE id = $1", &[&id])
            .iter()
            .map(|row| [row.get::<_, String>(0), row.get(1), row.get(2)])
            .collect::<Vec<_>>()
    };
    for (call, expected) in [
        ("update_user($1)", ["a@example.com", "Ada", "ext|1"]),
        ("update_user($1, NULL, NULL, NULL)", ["a@example.com", "Ada", "ext|1"]),
        ("update_user($1, name => 'Ada L.')", ["a@example.com", "Ada L.", "ext|1"]),
        ("update_user($1, email => 'ADA@Example.com')", ["ada@example.com", "Ada L.", "ext|1"]),
        ("update_user($1, external_id => 'Ext|2')", ["ada@example.com", "Ada L.", "Ext|2"]),
    ] {
        assert_eq!(one::<Uuid>(&mut app, &format!("SELECT {call}"), &[&id]), id);
        assert_eq!(shown(&mut operator), [expected.map(str::to_owned)], "{call}");
    }
    let other = user(&mut app);
    fails(app.query(UPDATE_EMAIL, &[&other, &"Ada@example.com"]), "23505");
    fails(app.query(UPDATE_EMAIL, &[&Uuid::new_v4(), &"new@example.com"]), "P0002");
}

#[test]
fn a_user_of_many_tenants_is_changed_by_nobody_in_a_tenant_but_themselves() {
    let (database, mut app, mut operator, [a, b]) = two_tenants("takeover");
    let victim = member(&mut app, b, "owner");
    as_tenant(&mut app, a, |tx| one::<Uuid>(tx, "SELECT add_member($1, 'viewer')", &[&victim]));
    let before = stored(&mut database.superuser());
    let mut attackers = ROLES.map(|role| Some(member(&mut app, a, role))).to_vec();
    attackers.push(None);
    let added = stored(&mut database.superuser()).len() - before.len();
    let before = stored(&mut database.superuser());
    assert!(added > 0);
    for attacker in attackers {
        for (call, value) in [("email => $2", "mallory@example.com"), ("external_id => $2", "x|1"), ("name => $2", "M")]
        {
            let update = format!("SELECT update_user($1, {call})");
            fails(attempt(&mut app, a, attacker, &update, &[&victim, &value]), "42501");
        }
        fails(attempt(&mut app, a, attacker, REVOKE_TOKENS, &[&victim]), "42501");
    }
    let strangers = user(&mut app);
    fails(attempt(&mut app, a, None, REVOKE_TOKENS, &[&strangers]), "42501");
    let with_stranger = stored(&mut database.superuser());
    assert_eq!(with_stranger.len(), before.len() + 2);
    assert!(before.iter().all(|row| with_stranger.contains(row)), "nothing of the victim changed");

    attempt(&mut app, a, Some(victim), UPDATE_EMAIL, &[&victim, &"new@example.com"]).expect("oneself");
    attempt(&mut app, a, Some(victim), REVOKE_TOKENS, &[&victim]).expect("oneself");
    assert_eq!(email_of(&mut operator, victim), "new@example.com");
    assert!(tokens_end(&mut operator, victim));
}

#[test]
fn a_user_of_the_tenant_is_changed_by_themselves_and_who_ranks_above() {
    let (database, mut app, mut operator, [a, _]) = two_tenants("home_takeover");
    member(&mut app, a, "owner");
    for (acting, own) in ROLES.into_iter().enumerate() {
        let actor = member_at_home(&mut app, a, own);
        for (target, role) in ROLES.into_iter().enumerate() {
            let victim = member_at_home(&mut app, a, role);
            let before = stored(&mut database.superuser());
            let changes: [(&str, &(dyn ToSql + Sync)); 4] = [
                (UPDATE_EMAIL, &email()),
                ("SELECT update_user($1, external_id => $2)", &format!("ext|{acting}|{target}")),
                ("SELECT update_user($1, name => $2)", &"New"),
                ("SELECT revoke_tokens($1) WHERE $2::text IS NULL", &None::<String>),
            ];
            for (call, value) in changes {
                let result = attempt(&mut app, a, Some(actor), call, &[&victim, value]);
                let expected = if acting < target { "00000" } else { "42501" };
                assert_eq!(sqlstate(&result), expected, "{own} changes {role}: {call}");
            }
            let written = stored(&mut database.superuser()) != before;
            assert_eq!(written, acting < target, "{own} changes {role}");
        }
        attempt(&mut app, a, Some(actor), UPDATE_EMAIL, &[&actor, &email()]).expect("oneself");
    }
    let removed = member_at_home(&mut app, a, "viewer");
    as_tenant(&mut app, a, |tx| one::<bool>(tx, "SELECT remove_member($1)", &[&removed]));
    attempt(&mut app, a, None, UPDATE_EMAIL, &[&removed, &"gone@example.com"]).expect("the backend itself");
    assert_eq!(email_of(&mut operator, removed), "gone@example.com");
}

#[test]
fn a_key_without_a_user_changes_nobody() {
    let (database, mut app, _, [a, _]) = two_tenants("key_takeover");
    let victim = member_at_home(&mut app, a, "viewer");
    let key = api_key(&mut app, a, None, &["*"]);
    let before = stored(&mut database.superuser());
    for call in ["update_user($1, 'mallory@example.com')", "update_user($1, external_id => 'm')", "revoke_tokens($1)"] {
        let mut transaction = app.transaction().expect("begin");
        assert_eq!(bind_by_key(&mut transaction, &key.text), None);
        fails(transaction.query(&format!("SELECT {call}"), &[&victim]), "42501");
    }
    assert_eq!(stored(&mut database.superuser()), before);
}

// ---------------------------------------------------------------------------------------------- the end of a user

#[test]
fn nothing_tells_of_a_deleted_user() {
    let (database, mut app, mut operator, [a, b]) = two_tenants("user_delete");
    let mut superuser = database.superuser();
    member(&mut app, a, "owner");
    let person: Uuid = one(&mut app, "SELECT create_user('first@gone.example', 'Ada Gone', 'gone|ext')", &[]);
    let invited = invitation(&mut app, a, "first@gone.example", "member");
    one::<Uuid>(&mut app, "SELECT accept_invitation($1, $2)", &[&invited.token, &person]);
    let key = api_key(&mut app, a, Some(person), &[]);
    one::<Uuid>(&mut app, "SELECT update_user($1, 'second@gone.example', 'Ada Left', 'gone|other')", &[&person]);
    invitation(&mut app, b, "second@gone.example", "admin");
    assert!(one::<bool>(&mut operator, DELETE, &[&person]));
    for trace in ["second@gone.example", "Ada Gone", "Ada Left", "gone|ext", "gone|other", "first@gone.example"] {
        assert_eq!(tables_with(&mut superuser, trace), [""; 0], "{trace}");
    }
    assert_eq!(role_of(&mut operator, a, person), None);
    assert!(rows(&mut app, "SELECT * FROM verify_api_key($1)", &[&key.text]).is_empty());
    assert!(rows(&mut app, "SELECT * FROM user_tenants($1)", &[&person]).is_empty());
    assert!(!one::<bool>(&mut operator, DELETE, &[&person]), "once");
    assert!(!one::<bool>(&mut operator, DELETE, &[&Uuid::new_v4()]));
    let again: Uuid = one(&mut app, CREATE, &[&"second@gone.example"]);
    assert_ne!(again, person, "the address is free");
}

#[test]
fn deleting_one_tenants_user_leaves_what_others_have_of_the_address() {
    let (database, mut app, mut operator, [a, b]) = two_tenants("user_delete_home");
    let mut superuser = database.superuser();
    let local: Uuid = one(&mut app, CREATE_AT_HOME, &[&"same@example.com", &a]);
    let everywhere: Uuid = one(&mut app, CREATE, &[&"same@example.com"]);
    let invited = invitation(&mut app, b, "same@example.com", "member");
    const AUDITED: &str =
        "tenancy.audit_log WHERE action = 'invitation.create' AND after ->> 'email' = 'same@example.com'";
    assert_eq!(count(&mut superuser, AUDITED), 1);
    assert!(one::<bool>(&mut operator, DELETE, &[&local]));
    assert_eq!(count(&mut superuser, AUDITED), 1, "what b's log tells of its invitation");
    let joined: Uuid = one(&mut app, "SELECT accept_invitation($1, $2)", &[&invited.token, &everywhere]);
    assert_eq!(joined, b);
}

#[test]
fn deleting_the_last_owner_of_a_tenant_fails_whole() {
    let (database, mut app, mut operator, [a, b]) = two_tenants("user_delete_owner");
    let owner = member(&mut app, a, "owner");
    as_tenant(&mut app, b, |tx| one::<Uuid>(tx, "SELECT add_member($1, 'viewer')", &[&owner]));
    invitation(&mut app, b, "later@example.com", "member");
    one::<Uuid>(&mut app, UPDATE_EMAIL, &[&owner, &"later@example.com"]);
    let before = stored(&mut database.superuser());
    fails(operator.query(DELETE, &[&owner]), "55000");
    assert_eq!(stored(&mut database.superuser()), before);
    member(&mut app, a, "owner");
    assert!(one::<bool>(&mut operator, DELETE, &[&owner]), "not the last one");
}

#[test]
fn a_purged_tenant_takes_its_own_people_with_it_and_no_others() {
    let (database, mut app, mut operator, [a, b]) = two_tenants("user_purge");
    let mut superuser = database.superuser();
    let shared: Uuid = one(&mut app, "SELECT create_user('shared@example.com')", &[]);
    let mut kept = Vec::new();
    for tenant in [a, b] {
        as_tenant(&mut app, tenant, |tx| one::<Uuid>(tx, "SELECT add_member($1, 'owner')", &[&shared]));
        let local = member_at_home(&mut app, tenant, "viewer");
        kept.extend([local.to_string(), api_key(&mut app, tenant, Some(local), &[]).id.to_string()]);
        kept.push(invitation(&mut app, tenant, "guest@example.com", "viewer").id.to_string());
    }
    rows(&mut operator, "SELECT delete_tenant($1, '0')", &[&a]);
    database.connect("admin").batch_execute(&format!("CALL purge_tenant('{a}')")).expect("purge");
    let (gone, kept) = kept.split_at(3);
    let people = ["tenancy.users", "tenancy.memberships", "tenancy.stored_api_keys", "tenancy.stored_invitations"];
    for id in gone {
        let found = tables_with(&mut superuser, id);
        assert!(people.iter().all(|table| !found.iter().any(|name| name == table)), "{id} in {found:?}");
    }
    for id in kept {
        assert!(people.iter().any(|table| tables_with(&mut superuser, id).iter().any(|name| name == table)), "{id}");
    }
    assert_eq!(rows(&mut app, "SELECT * FROM user_tenants($1)", &[&shared]).len(), 1);
    assert_eq!(one::<Option<Uuid>>(&mut app, FIND, &[&"shared@example.com"]), Some(shared));
}

#[test]
fn a_database_that_could_not_hold_every_name_is_refused() {
    let database = Database::new("user_encoding");
    let name = format!("{}_latin", database.name());
    let mut maintenance = database.superuser();
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    maintenance.batch_execute(&create).expect("create a database");
    let mut latin = database.connect_with("postgres", |config| _ = config.dbname(&name)).expect("connect");
    let refused = latin.batch_execute("CREATE EXTENSION pg_tenancy");
    maintenance.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).expect("drop the database");
    fails(refused, "0A000");
}

// ---------------------------------------------------------------------------------------------- races

#[test]
fn of_two_users_with_one_address_at_once_one_is_made() {
    let (database, _, mut operator, [a, _]) = two_tenants("user_race");
    for (round, home) in [None, Some(a), None, Some(a)].into_iter().enumerate() {
        let address = format!("race{round}@example.com");
        let create: &str = "SELECT create_user($1, tenant => $2)";
        let results = at_once(&database, &[Call::new(create, &[&address, &home]); 4]);
        let mut states: Vec<String> = results.iter().map(sqlstate).collect();
        states.sort();
        assert_eq!(states, ["00000", "23505", "23505", "23505"]);
        assert_eq!(count(&mut operator, &format!("tenancy.users WHERE email = '{address}'")), 1);
    }
}

#[test]
fn an_address_that_someone_else_is_about_to_have_is_taken() {
    let (database, mut app, mut operator, _) = two_tenants("user_update_race");
    let [first, second] = [0; 2].map(|_| user(&mut app));
    let wanted = "wanted@example.com";
    let update = [first, second].map(|user| (user, wanted));
    let [one_call, other_call] = &update;
    let one_call: [&(dyn ToSql + Sync); 2] = [&one_call.0, &one_call.1];
    let other_call: [&(dyn ToSql + Sync); 2] = [&other_call.0, &other_call.1];
    let result = behind(&database, Call::new(UPDATE_EMAIL, &one_call), Call::new(UPDATE_EMAIL, &other_call));
    fails(result, "23505");
    assert_eq!(email_of(&mut operator, first), wanted);
    let third = "third@example.com";
    let result = behind(&database, Call::new(UPDATE_EMAIL, &[&first, &third]), Call::new(CREATE, &[&third]));
    fails(result, "23505");
    assert_eq!(count(&mut operator, "tenancy.users WHERE email = 'third@example.com'"), 1);
}

#[test]
fn a_user_who_is_being_deleted_joins_no_tenant() {
    let (database, mut app, mut operator, [a, _]) = two_tenants("delete_join_race");
    const ADD: &str = "SELECT add_member($1)";
    let gone = user(&mut app);
    let delete = [&gone as &(dyn ToSql + Sync)];
    let result = behind(&database, Call::new(DELETE, &delete).by("operator"), Call::new(ADD, &delete).bound(a, None));
    fails(result, "P0002");
    assert_eq!(role_of(&mut operator, a, gone), None);

    let joined = user(&mut app);
    let parameters = [&joined as &(dyn ToSql + Sync)];
    let add = Call::new(ADD, &parameters).bound(a, None);
    behind(&database, add, Call::new(DELETE, &parameters).by("operator")).expect("deleted with the new membership");
    assert_eq!(role_of(&mut operator, a, joined), None);
}

#[test]
fn a_tenant_that_is_being_created_keeps_the_owner_who_is_being_deleted() {
    let (database, mut app, mut operator, _) = two_tenants("delete_owner_race");
    let owner = user(&mut app);
    let id = Uuid::new_v4();
    const CREATE_TENANT: &str = "SELECT create_tenant('Acme', id => $1, owner => $2)";
    let parameters: [&(dyn ToSql + Sync); 2] = [&id, &owner];
    let create = Call::new(CREATE_TENANT, &parameters).by("operator");
    let result = behind(&database, create, Call::new(DELETE, &parameters[1..]).by("operator"));
    fails(result, "55000");
    assert_eq!(role_of(&mut operator, id, owner).as_deref(), Some("owner"));
}

#[test]
fn accepting_and_deleting_wait_for_each_other_in_no_circle() {
    let (database, mut app, mut operator, [a, _]) = two_tenants("accept_delete_race");
    for _ in 0..5 {
        let address = email();
        let person: Uuid = one(&mut app, CREATE, &[&address]);
        let invited = invitation(&mut app, a, &address, "member");
        let accept: [&(dyn ToSql + Sync); 2] = [&invited.token, &person];
        let calls = [
            Call::new("SELECT accept_invitation($1, $2)", &accept).by("client"),
            Call::new(DELETE, &accept[1..]).by("operator"),
        ];
        let results = at_once(&database, &calls);
        let accepted = sqlstate(&results[0]);
        assert!(["00000", "28000", "P0002"].contains(&accepted.as_str()), "{accepted}");
        assert_eq!(sqlstate(&results[1]), "00000");
        assert_eq!(role_of(&mut operator, a, person), None);
    }
}

#[test]
fn changing_and_deleting_wait_for_each_other_in_no_circle() {
    let (database, mut app, mut operator, [a, _]) = two_tenants("update_delete_race");
    let mut superuser = database.superuser();
    const HOLD: &str = "SELECT FROM tenancy.memberships WHERE user_id = $1 FOR UPDATE";
    for change in [UPDATE_EMAIL, "SELECT revoke_tokens($1) WHERE $2::text <> ''"] {
        let person = member_at_home(&mut app, a, "member");
        let mut holder = superuser.transaction().expect("begin");
        rows(&mut holder, HOLD, &[&person]);
        let [app_pid, operator_pid] = [&mut app, &mut operator].map(backend_pid);
        let mut observer = database.superuser();
        let address = email();
        let states = std::thread::scope(|scope| {
            let changing = scope.spawn(|| sqlstate(&attempt(&mut app, a, None, change, &[&person, &address])));
            wait_for_lock(&mut observer, app_pid);
            let deleting = scope.spawn(|| sqlstate(&operator.query(DELETE, &[&person])));
            wait_for_lock(&mut observer, operator_pid);
            holder.commit().expect("let both go on");
            [changing, deleting].map(|running| running.join().expect("a session"))
        });
        assert_eq!(states, ["00000", "00000"], "{change}");
        assert_eq!(role_of(&mut operator, a, person), None);
    }
}

// ---------------------------------------------------------------------------------------------- who sees what

#[test]
fn a_bound_client_sees_its_own_tenants_people_and_nothing_else() {
    let (database, mut app, mut operator, [a, b]) = two_tenants("user_sees");
    let key = api_key(&mut app, a, None, &[]);
    for tenant in [a, b] {
        member(&mut app, tenant, "owner");
        api_key(&mut app, tenant, None, &[]);
        invitation(&mut app, tenant, "guest@example.com", "viewer");
    }
    const VIEWS: [(&str, i64); 3] = [("members", 1), ("invitations", 1), ("api_keys", 2)];
    for role in ["client", "app"] {
        let mut session = database.connect(role);
        for (view, expected) in VIEWS {
            let view = format!("tenancy.{view}");
            assert_eq!(count(&mut session, &view), 0, "{role} unbound: {view}");
            let mut transaction = session.transaction().expect("begin");
            bind_by_key(&mut transaction, &key.text);
            assert_eq!(count(&mut transaction, &view), expected, "{role}: {view}");
            assert_eq!(count(&mut transaction, &format!("{view} WHERE tenant_id <> current_tenant()")), 0);
            let leak = format!("{view} WHERE 1 / (tenant_id = '{a}')::int = 1 OR tenant_id = '{b}'");
            assert_eq!(count(&mut transaction, &leak), expected, "no condition runs on another tenant's row");
        }
        for table in [
            "users",
            "memberships",
            "added_roles",
            "stored_invitations",
            "stored_api_keys",
            "stored_jwt_keys",
            "api_key_usage",
            "jwt_keys",
        ] {
            fails(session.query(&format!("SELECT * FROM tenancy.{table}"), &[]), "42501");
        }
        for change in ["UPDATE tenancy.members SET role = 'owner'", "DELETE FROM tenancy.api_keys"] {
            assert!(session.batch_execute(change).is_err(), "{role}: {change}");
        }
        assert_eq!(count(&mut session, "pg_stats WHERE schemaname = 'tenancy' AND tablename <> 'tenants'"), 0);
    }
    for (view, expected) in VIEWS {
        let expected = if view == "api_keys" { 3 } else { expected * 2 };
        assert_eq!(count(&mut operator, &format!("tenancy.{view}")), expected, "operator: {view}");
    }
}

#[test]
fn each_function_is_for_its_level_alone() {
    let database = Database::new("user_levels");
    const APP: [&str; 16] = [
        "create_user('a@example.com')",
        "find_user('a@example.com')",
        "update_user(gen_random_uuid())",
        "user_tenants(gen_random_uuid())",
        "record_login(gen_random_uuid())",
        "revoke_tokens(gen_random_uuid())",
        "add_member(gen_random_uuid())",
        "change_role(gen_random_uuid(), 'owner')",
        "remove_member(gen_random_uuid())",
        "create_invitation('a@example.com')",
        "revoke_invitation(gen_random_uuid())",
        "create_api_key('k')",
        "rotate_api_key(gen_random_uuid())",
        "revoke_api_key(gen_random_uuid())",
        "issue_jwt(gen_random_uuid())",
        "set_tenant(gen_random_uuid())",
    ];
    const ADMIN: [&str; 4] =
        ["add_role('boss', 99)", "remove_role('boss')", "add_jwt_key('k', 'HS256')", "remove_jwt_key('k')"];
    let refused = |role: &str, calls: &[&str]| {
        let calls: Vec<(&str, &str)> = calls.iter().map(|call| (*call, "42501")).collect();
        all_fail(&database, role, None, &calls);
    };
    for role in ["client", "monitor", "stranger"] {
        refused(role, &APP);
        refused(role, &ADMIN);
        refused(role, &["delete_user(gen_random_uuid())"]);
    }
    for role in ["app", "operator"] {
        refused(role, &ADMIN);
    }
    refused("app", &["delete_user(gen_random_uuid())", "create_tenant('Mine')"]);
    refused("stranger", &["accept_invitation('pti_x', gen_random_uuid())", "has_role('owner')", "has_scope('x')"]);
}

// ---------------------------------------------------------------------------------------------- bad input

#[test]
fn bad_input_about_users_is_refused_and_writes_nothing() {
    let (database, mut app, _, [a, _]) = two_tenants("user_input");
    let known = user(&mut app);
    let foreign = Uuid::new_v4();
    let [update, foreign_home] = [format!("update_user('{known}'"), format!("'a@example.com', tenant => '{foreign}'")];
    let mut calls: Vec<(String, &str)> = [
        ("create_user(NULL)", "22023"),
        ("create_user('a@example.com', id => NULL)", "22023"),
        ("create_user('a@example.com', name => '')", "22023"),
        ("create_user('a@example.com', name => E'a\\nb')", "22023"),
        ("create_user('a@example.com', name => repeat('n', 256))", "22023"),
        ("create_user('a@example.com', external_id => ' ')", "22023"),
        ("create_user('a@example.com', external_id => E'a\\u0007')", "22023"),
        ("create_user('a@example.com', external_id => repeat('n', 1000000))", "22023"),
        ("find_user()", "22023"),
        ("find_user(NULL, NULL)", "22023"),
        ("find_user('a@example.com', 'ext')", "22023"),
        ("update_user(NULL, name => 'x')", "22023"),
        ("user_tenants(NULL)", "22023"),
        ("record_login(NULL)", "22023"),
        ("revoke_tokens(NULL)", "22023"),
        ("record_login(gen_random_uuid())", "P0002"),
        ("revoke_tokens(gen_random_uuid())", "P0002"),
        ("update_user(gen_random_uuid(), name => 'x')", "P0002"),
        ("update_user('nonsense', name => 'x')", "22P02"),
    ]
    .map(|(call, state)| (call.to_owned(), state))
    .to_vec();
    calls.push((format!("create_user({foreign_home})"), "P0002"));
    calls.push((format!("create_user('b@example.com', id => '{known}')"), "23505"));
    for address in [
        "''",
        "' '",
        "'@'",
        "'a@'",
        "'@example.com'",
        "'no address'",
        "'a b@example.com'",
        "E'a\\tb@example.com'",
        "E'a@example.com\\n'",
        "E'a\\u0001@example.com'",
        "E'a@exa\\u00a0mple.com'",
        "repeat('a', 254) || '@b.c'",
        "repeat('a', 1000000) || '@b.c'",
        "'''; DROP TABLE tenancy.users; --'",
    ] {
        calls.push((format!("create_user({address})"), "22023"));
        calls.push((format!("{update}, email => {address})"), "22023"));
    }
    let calls: Vec<(&str, &str)> = calls.iter().map(|(call, state)| (call.as_str(), *state)).collect();
    all_fail(&database, "app", None, &calls);
    let deletes = [("delete_user(NULL)", "22023"), ("delete_user('x')", "22P02")];
    all_fail(&database, "operator", None, &deletes);
    let elsewhere = format!("create_user('a@example.com', tenant => '{foreign}')");
    all_fail(&database, "app", Some(a), &[(&elsewhere, "42501")]);
}

#[test]
fn hostile_texts_are_kept_as_they_are() {
    let (_database, mut app, mut operator, _) = two_tenants("user_hostile");
    for (number, text) in [
        "'; DROP TABLE tenancy.users; --",
        "%s%n%%",
        "back\\slash",
        "\"quoted\"",
        "$1",
        "\u{202e}gnp",
        "名前",
        "\u{1f600}",
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("{}{number}@example.com", text.replace(' ', "").to_lowercase());
        let id: Uuid = one(&mut app, "SELECT create_user($1, $2, $3)", &[&address, &text, &text]);
        assert_eq!(one::<Option<Uuid>>(&mut app, FIND, &[&address]), Some(id));
        assert_eq!(one::<Option<Uuid>>(&mut app, "SELECT find_user(external_id => $1)", &[&text]), Some(id));
        assert_eq!(one::<String>(&mut operator, "SELECT name FROM tenancy.users WHERE id = $1", &[&id]), text);
    }
    for pattern in ["%", "_%@example.com", "%@%", "' OR true --", ".*", ""] {
        assert_eq!(optional::<Option<Uuid>>(&mut app, FIND, &[&pattern]), Some(None), "{pattern}");
    }
    let huge = "x".repeat(1_000_000);
    assert_eq!(one::<Option<Uuid>>(&mut app, FIND, &[&huge]), None);
    assert_eq!(tenants(&mut operator, 1).len(), 1, "everything is still there");
}
