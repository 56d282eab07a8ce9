//! Members: who may add, promote, demote and remove whom, the last owner, and what is left of a member who was removed.

use super::fixtures::{
    ApiKey, Call, ROLES, all_fail, api_key, at_once, attempt, behind, bind_by_key, invitation, member, role_of,
    signing_key, sqlstate, stored, user,
};
use super::storm;
use harness::postgres::IsolationLevel;
use harness::postgres::types::ToSql;
use harness::{Client, Database, Uuid, as_tenant, bind, count, fails, one, rows, tenant};

const ADD: &str = "SELECT add_member($1, $2)";
const CHANGE: &str = "SELECT change_role($1, $2)";
const REMOVE: &str = "SELECT remove_member($1)";
const DELETE_USER: &str = "SELECT delete_user($1)";

const ISOLATIONS: [IsolationLevel; 3] =
    [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead, IsolationLevel::Serializable];

/// A database with a tenant, and sessions of levels app and operator.
fn one_tenant(label: &str) -> (Database, Client, Client, Uuid) {
    let database = Database::new(label);
    let [app, mut operator] = ["app", "operator"].map(|role| database.connect(role));
    let tenant = tenant(&mut operator);
    (database, app, operator, tenant)
}

fn owners(operator: &mut Client, tenant: Uuid) -> i64 {
    count(operator, &format!("tenancy.memberships WHERE tenant_id = '{tenant}' AND role = 'owner'"))
}

/// How many keys of these authenticate.
fn live(app: &mut Client, keys: &[&ApiKey]) -> usize {
    keys.iter().filter(|key| !rows(app, "SELECT * FROM verify_api_key($1)", &[&key.text]).is_empty()).count()
}

// ---------------------------------------------------------------------------------------------- what a rank allows

#[test]
fn a_member_gives_no_role_above_their_own() {
    let (database, mut app, mut operator, tenant) = one_tenant("member_give");
    member(&mut app, tenant, "owner");
    for (own, role) in ROLES.into_iter().enumerate() {
        let actor = member(&mut app, tenant, role);
        for (given, wanted) in ROLES.into_iter().enumerate() {
            let expected = if given >= own { "00000" } else { "42501" };
            let newcomer = user(&mut app);
            let result = attempt(&mut app, tenant, Some(actor), ADD, &[&newcomer, &wanted]);
            assert_eq!(sqlstate(&result), expected, "{role} adds {wanted}");
            let found = role_of(&mut operator, tenant, newcomer);
            assert_eq!(found.as_deref(), (given >= own).then_some(wanted), "{role} adds {wanted}");
        }
        let before = stored(&mut database.superuser());
        for wanted in &ROLES[..own] {
            fails(attempt(&mut app, tenant, Some(actor), CHANGE, &[&actor, wanted]), "42501");
        }
        assert_eq!(stored(&mut database.superuser()), before, "{role} promotes themselves");
    }
}

#[test]
fn a_member_changes_and_removes_nobody_above_them() {
    let (_database, mut app, mut operator, tenant) = one_tenant("member_change");
    member(&mut app, tenant, "owner");
    let actors = ROLES.map(|role| member(&mut app, tenant, role));
    for (own, actor) in actors.into_iter().enumerate() {
        for (target, role) in ROLES.into_iter().enumerate() {
            for (given, wanted) in ROLES.into_iter().enumerate() {
                let victim = member(&mut app, tenant, role);
                let allowed = target >= own && given >= own;
                let result = attempt(&mut app, tenant, Some(actor), CHANGE, &[&victim, &wanted]);
                let what = format!("{} makes {role} {wanted}", ROLES[own]);
                assert_eq!(sqlstate(&result), if allowed { "00000" } else { "42501" }, "{what}");
                let expected = if allowed { wanted } else { role };
                assert_eq!(role_of(&mut operator, tenant, victim).as_deref(), Some(expected), "{what}");
            }
            let victim = member(&mut app, tenant, role);
            let allowed = target >= own;
            let result = attempt(&mut app, tenant, Some(actor), REMOVE, &[&victim]);
            let what = format!("{} removes {role}", ROLES[own]);
            assert_eq!(sqlstate(&result), if allowed { "00000" } else { "42501" }, "{what}");
            assert_eq!(role_of(&mut operator, tenant, victim).is_none(), allowed, "{what}");
        }
    }
}

#[test]
fn a_member_may_step_down_and_leave_but_not_come_back() {
    let (_database, mut app, mut operator, tenant) = one_tenant("member_leave");
    member(&mut app, tenant, "owner");
    let person = member(&mut app, tenant, "owner");
    for role in &ROLES[1..] {
        attempt(&mut app, tenant, Some(person), CHANGE, &[&person, role]).expect("down");
        assert_eq!(role_of(&mut operator, tenant, person).as_deref(), Some(*role));
        fails(attempt(&mut app, tenant, Some(person), CHANGE, &[&person, &"owner"]), "42501");
    }
    attempt(&mut app, tenant, Some(person), REMOVE, &[&person]).expect("leave");
    fails(attempt(&mut app, tenant, Some(person), ADD, &[&person, &"viewer"]), "42501");
    assert_eq!(role_of(&mut operator, tenant, person), None);
}

#[test]
fn an_actor_is_what_they_are_now_and_not_what_they_were_when_bound() {
    let (database, mut app, mut operator, tenant) = one_tenant("member_stale");
    member(&mut app, tenant, "owner");
    let accomplice = user(&mut app);
    let calls: [(&str, &[&(dyn ToSql + Sync)]); 3] = [
        (ADD, &[&accomplice, &"admin"]),
        ("SELECT * FROM create_invitation('new@example.com', $1)", &[&"admin"]),
        (
            "SELECT * FROM create_api_key('k', user_id => (SELECT user_id FROM tenancy.members WHERE role = $1))",
            &[&"member"],
        ),
    ];
    member(&mut app, tenant, "member");
    for demotion in ["SELECT change_role($1, 'viewer')", REMOVE] {
        for isolation in ISOLATIONS {
            for (call, parameters) in calls {
                let actor = member(&mut app, tenant, "admin");
                let mut session = database.connect("app");
                let mut transaction = session.build_transaction().isolation_level(isolation).start().expect("begin");
                rows(&mut transaction, "SELECT set_tenant($1, $2), has_role('admin')", &[&tenant, &actor]);
                attempt(&mut app, tenant, None, demotion, &[&actor]).expect("demote");
                let found = sqlstate(&transaction.query(call, parameters));
                // A snapshot of before the demotion cannot be brought up to date: the transaction is to be tried again.
                let again = !matches!(isolation, IsolationLevel::ReadCommitted) && found == "40001";
                assert!(again || found == "42501", "{call} after {demotion}: {found}");
            }
        }
    }
    assert_eq!(role_of(&mut operator, tenant, accomplice), None);
    assert_eq!(count(&mut operator, "tenancy.invitations") + count(&mut operator, "tenancy.api_keys"), 0);
}

#[test]
fn who_is_no_member_acts_on_nothing() {
    let (database, mut app, _, tenant) = one_tenant("member_stranger");
    let owner = member(&mut app, tenant, "owner");
    let key = api_key(&mut app, tenant, None, &[]);
    let invited = invitation(&mut app, tenant, "guest@example.com", "viewer");
    signing_key(&mut database.connect("admin"), "k1");
    let newcomer = user(&mut app);
    let known = user(&mut app);
    fails(app.query("SELECT set_tenant($1, $2)", &[&tenant, &known]), "42501");
    let before = stored(&mut database.superuser());
    let unknown = Uuid::new_v4();
    for call in [
        format!("add_member('{newcomer}', 'viewer')"),
        format!("add_member('{newcomer}', 'owner')"),
        format!("change_role('{owner}', 'viewer')"),
        format!("remove_member('{owner}')"),
        "create_invitation('new@example.com', 'viewer')".to_owned(),
        format!("revoke_invitation('{}')", invited.id),
        "create_api_key('k')".to_owned(),
        format!("create_api_key('k', user_id => '{owner}')"),
        format!("rotate_api_key('{}')", key.id),
        format!("revoke_api_key('{}')", key.id),
        format!("issue_jwt('{owner}')"),
        format!("update_user('{owner}', 'mallory@example.com')"),
        format!("revoke_tokens('{owner}')"),
    ] {
        let result = attempt(&mut app, tenant, Some(unknown), &format!("SELECT * FROM {call}"), &[]);
        assert_eq!(sqlstate(&result), "42501", "a user whom nobody knows: {call}");
        let mut transaction = app.transaction().expect("begin");
        bind_by_key(&mut transaction, &key.text);
        let result = transaction.query(&format!("SELECT * FROM {call}"), &[]);
        assert_eq!(sqlstate(&result), "42501", "a key without a user: {call}");
    }
    assert_eq!(stored(&mut database.superuser()), before);
}

#[test]
fn a_credential_of_another_is_only_for_who_ranks_above() {
    let (database, mut app, _, tenant) = one_tenant("member_impersonate");
    member(&mut app, tenant, "owner");
    signing_key(&mut database.connect("admin"), "k1");
    let actors = ROLES.map(|role| member(&mut app, tenant, role));
    let victims = ROLES.map(|role| member(&mut app, tenant, role));
    for (own, actor) in actors.into_iter().enumerate() {
        for (target, victim) in victims.into_iter().enumerate() {
            let key = api_key(&mut app, tenant, Some(victim), &[]);
            let before = stored(&mut database.superuser());
            let calls: [(&str, Uuid, bool); 4] = [
                ("SELECT * FROM create_api_key('k', user_id => $1)", victim, target > own),
                ("SELECT issue_jwt($1)", victim, target > own),
                ("SELECT * FROM rotate_api_key($1, '1 day')", key.id, target > own),
                ("SELECT revoke_api_key($1)", key.id, target >= own),
            ];
            for (call, id, allowed) in calls {
                let result = attempt(&mut app, tenant, Some(actor), call, &[&id]);
                let expected = if allowed { "00000" } else { "42501" };
                assert_eq!(sqlstate(&result), expected, "{} of {}: {call}", ROLES[own], ROLES[target]);
            }
            if target < own {
                assert_eq!(stored(&mut database.superuser()), before, "nothing was written");
            }
        }
        attempt(&mut app, tenant, Some(actor), "SELECT * FROM create_api_key('k', user_id => $1)", &[&actor])
            .expect("one's own key");
        attempt(&mut app, tenant, Some(actor), "SELECT issue_jwt($1)", &[&actor]).expect("one's own token");
    }
}

#[test]
fn the_tenants_own_keys_are_not_for_its_lesser_members() {
    let (database, mut app, _, tenant) = one_tenant("member_tenant_key");
    member(&mut app, tenant, "owner");
    let key = api_key(&mut app, tenant, None, &["*"]);
    for role in ["member", "viewer"] {
        let actor = member(&mut app, tenant, role);
        let before = stored(&mut database.superuser());
        fails(attempt(&mut app, tenant, Some(actor), "SELECT * FROM create_api_key('k', '{*}')", &[]), "42501");
        fails(attempt(&mut app, tenant, Some(actor), "SELECT * FROM rotate_api_key($1, '1 day')", &[&key.id]), "42501");
        fails(attempt(&mut app, tenant, Some(actor), "SELECT revoke_api_key($1)", &[&key.id]), "42501");
        assert_eq!(stored(&mut database.superuser()), before, "{role}");
    }
    for role in ["owner", "admin"] {
        let actor = Some(member(&mut app, tenant, role));
        let made = attempt(&mut app, tenant, actor, "SELECT * FROM create_api_key('k')", &[]).expect("create");
        let made = ApiKey::from(&made[0]);
        let rotated =
            attempt(&mut app, tenant, actor, "SELECT * FROM rotate_api_key($1)", &[&made.id]).expect("rotate");
        let rotated = ApiKey::from(&rotated[0]);
        attempt(&mut app, tenant, actor, "SELECT revoke_api_key($1)", &[&rotated.id]).expect("revoke");
    }
    assert_eq!(live(&mut app, &[&key]), 1);
}

#[test]
fn a_limited_key_makes_no_wider_one() {
    let (database, mut app, _, tenant) = one_tenant("member_scopes");
    let owner = member(&mut app, tenant, "owner");
    let limited = api_key(&mut app, tenant, Some(owner), &["tenancy:manage", "workflows:*"]);
    let managing = api_key(&mut app, tenant, Some(owner), &["tenancy:*"]);
    let wide = api_key(&mut app, tenant, Some(owner), &["*"]);
    signing_key(&mut database.connect("admin"), "k1");
    let calls = |scopes: &str| {
        [
            format!("create_api_key('k', '{scopes}')"),
            format!("create_api_key('k', '{scopes}', user_id => '{owner}')"),
            format!("issue_jwt('{owner}', scopes => '{scopes}')"),
        ]
    };
    let attempt_by = |app: &mut Client, key: &ApiKey, call: &str| {
        let mut transaction = app.transaction().expect("begin");
        bind_by_key(&mut transaction, &key.text);
        let result = transaction.query(&format!("SELECT * FROM {call}"), &[]);
        sqlstate(&result)
    };
    let before = stored(&mut database.superuser());
    for (key, scopes) in [
        (&limited, "{*}"),
        (&limited, "{workflows:read,billing:read}"),
        (&limited, "{workflows}"),
        (&limited, "{workflow:read}"),
        (&managing, "{workflows:read}"),
        (&managing, "{*}"),
    ] {
        for call in calls(scopes) {
            assert_eq!(attempt_by(&mut app, key, &call), "42501", "{call}");
        }
    }
    for key in [&limited, &managing] {
        assert_eq!(attempt_by(&mut app, key, &format!("rotate_api_key('{}')", wide.id)), "42501");
    }
    assert_eq!(stored(&mut database.superuser()), before);
    for scopes in ["{workflows:read}", "{workflows:*,workflows:run}", "{}"] {
        for call in &calls(scopes)[1..] {
            assert_eq!(attempt_by(&mut app, &limited, call), "00000", "{call}");
        }
    }
    let mut transaction = app.transaction().expect("begin");
    bind_by_key(&mut transaction, &limited.text);
    let token: String = one(&mut transaction, "SELECT issue_jwt($1)", &[&owner]);
    transaction.commit().expect("commit");
    let mut transaction = app.transaction().expect("begin");
    let scopes: Vec<String> = one(&mut transaction, "SELECT scopes FROM authenticate_jwt($1)", &[&token]);
    assert_eq!(scopes, ["tenancy:manage", "workflows:*"], "a token has the scopes of the key that asked for it");
}

#[test]
fn a_key_of_an_owner_that_is_limited_manages_nobody() {
    let (database, mut app, _, tenant) = one_tenant("member_unscoped");
    let owner = member(&mut app, tenant, "owner");
    let victim = member(&mut app, tenant, "viewer");
    let newcomer = user(&mut app);
    let own = api_key(&mut app, tenant, Some(owner), &[]);
    let invited = invitation(&mut app, tenant, "guest@example.com", "viewer");
    signing_key(&mut database.connect("admin"), "k1");
    let key_of = |app: &mut Client, scopes: &[&str]| api_key(app, tenant, Some(owner), scopes);
    let limited = [
        key_of(&mut app, &[]),
        key_of(&mut app, &["workflows:*"]),
        key_of(&mut app, &["tenancy:read", "tenancy", "tenancy:managed", "manage"]),
    ];
    let before = stored(&mut database.superuser());
    let calls = [
        format!("add_member('{newcomer}', 'owner')"),
        format!("change_role('{victim}', 'owner')"),
        format!("remove_member('{victim}')"),
        "create_invitation('accomplice@example.com', 'owner')".to_owned(),
        format!("revoke_invitation('{}')", invited.id),
        format!("create_api_key('k', user_id => '{owner}')"),
        format!("rotate_api_key('{}')", own.id),
        format!("revoke_api_key('{}')", own.id),
        format!("issue_jwt('{owner}')"),
        format!("update_user('{owner}', 'mallory@example.com')"),
        format!("revoke_tokens('{owner}')"),
    ];
    for key in &limited {
        for call in &calls {
            let mut transaction = app.transaction().expect("begin");
            assert_eq!(bind_by_key(&mut transaction, &key.text).as_deref(), Some("owner"));
            let result = transaction.query(&format!("SELECT * FROM {call}"), &[]);
            assert_eq!(sqlstate(&result), "42501", "{call}");
        }
    }
    assert_eq!(stored(&mut database.superuser()), before);
    for scopes in [&["tenancy:manage"], &["tenancy:*"], &["*"]] {
        let key = key_of(&mut app, scopes);
        let person = user(&mut app);
        let mut transaction = app.transaction().expect("begin");
        bind_by_key(&mut transaction, &key.text);
        assert_eq!(one::<Uuid>(&mut transaction, ADD, &[&person, &"viewer"]), person);
    }
}

// ---------------------------------------------------------------------------------------------- the last owner

#[test]
fn the_last_owner_stays_whoever_asks() {
    let (database, mut app, mut operator, tenant) = one_tenant("last_owner");
    let owner = member(&mut app, tenant, "owner");
    for role in &ROLES[1..] {
        member(&mut app, tenant, role);
    }
    let before = stored(&mut database.superuser());
    for acting in [None, Some(owner)] {
        for role in &ROLES[1..] {
            fails(attempt(&mut app, tenant, acting, CHANGE, &[&owner, role]), "55000");
        }
        fails(attempt(&mut app, tenant, acting, REMOVE, &[&owner]), "55000");
        let same = attempt(&mut app, tenant, acting, CHANGE, &[&owner, &"owner"]).expect("what they are");
        assert!(!same[0].get::<_, bool>(0));
    }
    fails(operator.query(DELETE_USER, &[&owner]), "55000");
    assert_eq!(stored(&mut database.superuser()), before);
    let second = member(&mut app, tenant, "owner");
    attempt(&mut app, tenant, Some(second), REMOVE, &[&owner]).expect("one of two");
    fails(attempt(&mut app, tenant, Some(second), REMOVE, &[&second]), "55000");
    assert_eq!(owners(&mut operator, tenant), 1);
}

#[test]
fn an_owner_of_one_tenant_does_not_stand_for_anothers() {
    let (_database, mut app, mut operator, tenant) = one_tenant("last_owner_of_each");
    let other = harness::tenant(&mut operator);
    let owner = member(&mut app, tenant, "owner");
    member(&mut app, other, "owner");
    as_tenant(&mut app, other, |tx| one::<Uuid>(tx, ADD, &[&owner, &"owner"]));
    fails(attempt(&mut app, tenant, None, REMOVE, &[&owner]), "55000");
    fails(operator.query(DELETE_USER, &[&owner]), "55000");
    attempt(&mut app, other, None, REMOVE, &[&owner]).expect("the other tenant has another owner");
}

/// Ways to lose an owner: the statement with the owner as its parameter, and the role that runs it.
const LOSSES: [(&str, &str); 3] =
    [("SELECT change_role($1, 'viewer')", "app"), (REMOVE, "app"), (DELETE_USER, "operator")];

#[test]
fn of_two_sessions_that_take_the_last_two_owners_one_fails() {
    let (database, mut app, mut operator, _) = one_tenant("two_owners");
    let pairs = (0..LOSSES.len()).flat_map(|first| (0..LOSSES.len()).map(move |second| (first, second)));
    for (first, second) in pairs {
        for isolation in ISOLATIONS {
            // Under a snapshot of the transaction's own it is the same for each pair, the row has changed; and no user is deleted.
            let same = first == second && LOSSES[first].0 != DELETE_USER;
            if !same && !matches!(isolation, IsolationLevel::ReadCommitted) {
                continue;
            }
            let tenant = harness::tenant(&mut operator);
            let pair = [0; 2].map(|_| member(&mut app, tenant, "owner"));
            let parameters = pair.each_ref().map(|owner| [owner as &(dyn ToSql + Sync)]);
            let [leading, following] = [(first, &parameters[0]), (second, &parameters[1])].map(|(loss, owner)| {
                let (sql, role) = LOSSES[loss];
                let call = Call::new(sql, owner).by(role).isolated(isolation);
                if role == "app" { call.bound(tenant, None) } else { call }
            });
            let found = sqlstate(&behind(&database, leading, following));
            let again = !matches!(isolation, IsolationLevel::ReadCommitted) && found == "40001";
            assert!(again || found == "55000", "{}, {}: {found}", LOSSES[first].0, LOSSES[second].0);
            assert_eq!(owners(&mut operator, tenant), 1);
        }
    }
}

#[test]
fn two_owners_who_demote_each_other_do_not_both_succeed_nor_deadlock() {
    let (database, mut app, mut operator, _) = one_tenant("mutual");
    for isolation in ISOLATIONS {
        for sql in ["SELECT change_role($1, 'member')", REMOVE] {
            for _ in 0..2 {
                let tenant = harness::tenant(&mut operator);
                let pair = [0; 2].map(|_| member(&mut app, tenant, "owner"));
                let (left, right): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 1]) = ([&pair[0]], [&pair[1]]);
                let calls = [(&right, pair[0]), (&left, pair[1])]
                    .map(|(victim, acting)| Call::new(sql, victim).bound(tenant, Some(acting)).isolated(isolation));
                let results = at_once(&database, &calls);
                let mut states: Vec<String> = results.iter().map(sqlstate).collect();
                states.sort();
                assert_eq!(states[0], "00000", "{sql}: one succeeds, {states:?}");
                let again = !matches!(isolation, IsolationLevel::ReadCommitted) && states[1] == "40001";
                assert!(again || states[1] == "42501", "{sql}: {states:?}");
                assert_eq!(owners(&mut operator, tenant), 1);
            }
        }
    }
}

#[test]
fn a_crowd_of_owners_leaving_at_once_leaves_one() {
    let (database, mut app, mut operator, tenant) = one_tenant("exodus");
    let people = [0; 6].map(|_| member(&mut app, tenant, "owner"));
    let parameters = people.each_ref().map(|person| [person as &(dyn ToSql + Sync)]);
    let calls: Vec<Call<'_>> = people
        .iter()
        .zip(&parameters)
        .map(|(person, parameters)| Call::new(REMOVE, parameters).bound(tenant, Some(*person)))
        .collect();
    let results = at_once(&database, &calls);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), people.len() - 1);
    for result in results.into_iter().filter(Result::is_err) {
        fails(result, "55000");
    }
    assert_eq!(owners(&mut operator, tenant), 1);
}

#[test]
fn handing_over_and_demoting_the_heir_at_once_leaves_an_owner() {
    let (database, mut app, mut operator, _) = one_tenant("heir");
    const HAND_OVER: &str = "SELECT change_role($1, 'owner'), change_role($2, 'member')";
    for (sql, role) in LOSSES {
        let tenant = harness::tenant(&mut operator);
        let owner = member(&mut app, tenant, "owner");
        let heir = member(&mut app, tenant, "member");
        let parameters: [&(dyn ToSql + Sync); 2] = [&heir, &owner];
        let losing = Call::new(sql, &parameters[..1]).by(role);
        let losing = if role == "app" { losing.bound(tenant, None) } else { losing };
        let result = behind(&database, Call::new(HAND_OVER, &parameters).bound(tenant, None), losing);
        fails(result, "55000");
        assert_eq!(role_of(&mut operator, tenant, heir).as_deref(), Some("owner"), "{sql}");
    }
}

#[test]
fn of_two_sessions_adding_one_member_one_does() {
    let (database, mut app, mut operator, tenant) = one_tenant("add_twice");
    let newcomer = user(&mut app);
    let parameters: [&(dyn ToSql + Sync); 2] = [&newcomer, &"viewer"];
    let results = at_once(&database, &[Call::new(ADD, &parameters).bound(tenant, None); 3]);
    let mut states: Vec<String> = results.iter().map(sqlstate).collect();
    states.sort();
    assert_eq!(states, ["00000", "23505", "23505"]);
    assert_eq!(role_of(&mut operator, tenant, newcomer).as_deref(), Some("viewer"));
}

#[test]
fn what_a_savepoint_takes_back_never_was() {
    let (_database, mut app, mut operator, tenant) = one_tenant("member_savepoint");
    let [keeper, leaver] = [0; 2].map(|_| member(&mut app, tenant, "owner"));
    as_tenant(&mut app, tenant, |tx| {
        let mut inner = tx.transaction().expect("savepoint");
        assert!(one::<bool>(&mut inner, REMOVE, &[&keeper]));
        fails(inner.query(REMOVE, &[&leaver]), "55000");
        inner.rollback().expect("rollback to the savepoint");
        assert!(one::<bool>(tx, REMOVE, &[&leaver]), "the other owner is back");
    });
    assert_eq!(role_of(&mut operator, tenant, keeper).as_deref(), Some("owner"));
    assert_eq!(owners(&mut operator, tenant), 1);
}

#[test]
fn one_statement_takes_no_more_than_one_after_the_other_would() {
    let (database, mut app, mut operator, tenant) = one_tenant("one_statement");
    let pair = [0; 2].map(|_| member(&mut app, tenant, "owner"));
    let invited = invitation(&mut app, tenant, "guest@example.com", "viewer");
    let newcomers = [0; 2].map(|_| user(&mut app));
    let before = stored(&mut database.superuser());
    for (call, state) in [
        ("SELECT remove_member(user_id) FROM tenancy.members".to_owned(), "55000"),
        (format!("SELECT remove_member('{}'), change_role('{}', 'viewer')", pair[0], pair[1]), "55000"),
        (
            "WITH first AS MATERIALIZED (SELECT remove_member(user_id) FROM tenancy.members LIMIT 1)
             SELECT change_role(user_id, 'viewer') FROM first, unnest(ARRAY(SELECT user_id FROM tenancy.members)) user_id"
                .to_owned(),
            "55000",
        ),
        ("SELECT create_invitation('twice@example.com') FROM generate_series(1, 2)".to_owned(), "23505"),
        (format!("SELECT add_member('{}') FROM generate_series(1, 2)", newcomers[0]), "23505"),
        (format!("SELECT accept_invitation('{}', u) FROM unnest('{{{},{}}}'::uuid[]) u", invited.token, newcomers[0], newcomers[1]), "28000"),
    ] {
        let result = attempt(&mut app, tenant, None, &call, &[]);
        let found = sqlstate(&result);
        // Who was removed a moment ago is no member any more.
        assert!(found == state || found == "P0002" && call.starts_with("WITH"), "{call}: {found}");
        assert_eq!(stored(&mut database.superuser()), before, "{call}");
    }
    fails(operator.query("SELECT delete_user(user_id) FROM tenancy.members", &[]), "55000");
    assert_eq!(stored(&mut database.superuser()), before);
}

#[test]
fn what_a_snapshot_does_not_show_is_not_left_behind() {
    let (database, mut app, mut operator, tenant) = one_tenant("old_snapshot");
    member(&mut app, tenant, "owner");
    let mut admin = database.connect("admin");
    let mut superuser = database.superuser();
    one::<String>(&mut admin, "SELECT add_role('manager', 70)", &[]);
    for isolation in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let [keyed, joining, owning] = [0; 3].map(|_| user(&mut app));
        as_tenant(&mut app, tenant, |tx| one::<Uuid>(tx, ADD, &[&keyed, &"member"]));
        for (role, made_meanwhile, ended, state) in [
            ("app", format!("create_api_key('k', user_id => '{keyed}')"), format!("remove_member('{keyed}')"), "40001"),
            ("operator", format!("add_member('{joining}')"), format!("delete_user('{joining}')"), "55000"),
            (
                "operator",
                format!("create_tenant('Acme', owner => '{owning}')"),
                format!("delete_user('{owning}')"),
                "55000",
            ),
            (
                "admin",
                format!("add_member('{}', 'manager')", user(&mut app)),
                "remove_role('manager')".to_owned(),
                "55000",
            ),
        ] {
            let mut session = database.connect(role);
            let mut transaction = session.build_transaction().isolation_level(isolation).start().expect("begin");
            if role == "app" {
                bind(&mut transaction, tenant);
            }
            one::<i32>(&mut transaction, "SELECT 1", &[]);
            let sql = format!("SELECT * FROM {made_meanwhile}");
            if made_meanwhile.starts_with("create_tenant") {
                rows(&mut operator, &sql, &[]);
            } else {
                attempt(&mut app, tenant, None, &sql, &[]).expect("meanwhile");
            }
            fails(transaction.query(&format!("SELECT {ended}"), &[]), state);
            transaction.rollback().expect("rollback");
            storm::check(&mut superuser);
        }
        superuser.batch_execute("DELETE FROM tenancy.memberships WHERE role = 'manager'").expect("free the role");
    }
}

#[test]
fn whatever_sessions_do_to_the_same_people_at_once_the_state_is_legal() {
    let succeeded = storm::run(4, 60);
    assert!(succeeded.len() > 10, "too little happened: {succeeded:?}");
}

// ---------------------------------------------------------------------------------------------- who has left

#[test]
fn a_removed_members_keys_die_and_stay_dead() {
    let (_database, mut app, mut operator, tenant) = one_tenant("removed_keys");
    let other = harness::tenant(&mut operator);
    member(&mut app, tenant, "owner");
    let person = member(&mut app, tenant, "admin");
    as_tenant(&mut app, other, |tx| one::<Uuid>(tx, ADD, &[&person, &"viewer"]));
    let colleague = member(&mut app, tenant, "member");
    let own = [api_key(&mut app, tenant, Some(person), &["*"]), api_key(&mut app, tenant, Some(person), &[])];
    let rotated = attempt(&mut app, tenant, None, "SELECT * FROM rotate_api_key($1, '1 day')", &[&own[1].id]);
    let rotated = ApiKey::from(&rotated.expect("rotate")[0]);
    let theirs = [&own[0], &own[1], &rotated];
    let others = [
        &api_key(&mut app, other, Some(person), &[]),
        &api_key(&mut app, tenant, Some(colleague), &[]),
        &api_key(&mut app, tenant, None, &[]),
    ];
    assert_eq!((live(&mut app, &theirs), live(&mut app, &others)), (3, 3));
    assert!(as_tenant(&mut app, tenant, |tx| one::<bool>(tx, REMOVE, &[&person])));
    assert_eq!((live(&mut app, &theirs), live(&mut app, &others)), (0, 3));
    as_tenant(&mut app, tenant, |tx| one::<Uuid>(tx, ADD, &[&person, &"admin"]));
    assert_eq!(live(&mut app, &theirs), 0, "a member again, with keys of before");
    for key in theirs {
        fails(app.query("SELECT * FROM authenticate_api_key($1)", &[&key.text]), "28000");
        let rotation = attempt(&mut app, tenant, None, "SELECT * FROM rotate_api_key($1)", &[&key.id]);
        fails(rotation, "55000");
    }
    let fresh = api_key(&mut app, tenant, Some(person), &[]);
    assert_eq!(live(&mut app, &[&fresh]), 1);
    assert!(!as_tenant(&mut app, tenant, |tx| one::<bool>(tx, REMOVE, &[&Uuid::new_v4()])), "nobody");
}

#[test]
fn a_key_that_is_being_made_for_who_is_being_removed_is_dead() {
    let (database, mut app, mut operator, tenant) = one_tenant("removed_key_race");
    member(&mut app, tenant, "owner");
    const MAKE: &str = "SELECT * FROM create_api_key('k', user_id => $1)";
    let [first, second] = [0; 2].map(|_| member(&mut app, tenant, "member"));
    let parameters: [&(dyn ToSql + Sync); 2] = [&first, &second];
    let call = |sql, parameters| Call::new(sql, parameters).bound(tenant, None);
    fails(behind(&database, call(REMOVE, &parameters[..1]), call(MAKE, &parameters[..1])), "P0002");
    behind(&database, call(MAKE, &parameters[1..]), call(REMOVE, &parameters[1..])).expect("remove");
    assert_eq!(count(&mut operator, "tenancy.api_keys WHERE revoked_at IS NULL"), 0);
    for person in [first, second] {
        as_tenant(&mut app, tenant, |tx| one::<Uuid>(tx, ADD, &[&person, &"member"]));
    }
    assert_eq!(count(&mut operator, "tenancy.api_keys WHERE revoked_at IS NULL"), 0);
}

#[test]
fn a_removed_member_is_not_bound_and_neither_is_who_never_was_one() {
    let (_database, mut app, mut operator, tenant) = one_tenant("removed_bind");
    member(&mut app, tenant, "owner");
    let [removed, deleted] = [0; 2].map(|_| member(&mut app, tenant, "member"));
    let never = user(&mut app);
    as_tenant(&mut app, tenant, |tx| one::<bool>(tx, REMOVE, &[&removed]));
    assert!(one::<bool>(&mut operator, DELETE_USER, &[&deleted]));
    let slug: String = one(&mut operator, "SELECT slug FROM tenancy.tenants WHERE id = $1", &[&tenant]);
    for person in [removed, never] {
        fails(app.query("SELECT set_tenant($1, $2)", &[&tenant, &person]), "42501");
        fails(app.query("SELECT set_tenant_by_slug($1, $2)", &[&slug, &person]), "42501");
    }
    let unknown = attempt(&mut app, tenant, Some(deleted), "SELECT current_member_role()", &[]).expect("bind");
    assert_eq!(unknown[0].get::<_, Option<String>>(0), None, "whom nobody knows has no role");
}

// ---------------------------------------------------------------------------------------------- other tenants, other states

#[test]
fn another_tenants_members_invitations_and_keys_are_out_of_reach() {
    let (database, mut app, mut operator, tenant) = one_tenant("foreign_ids");
    let other = harness::tenant(&mut operator);
    let owner = member(&mut app, tenant, "owner");
    let [theirs, member_of_theirs] = ["owner", "viewer"].map(|role| member(&mut app, other, role));
    let key = api_key(&mut app, other, Some(theirs), &[]);
    let invited = invitation(&mut app, other, "guest@example.com", "viewer");
    signing_key(&mut database.connect("admin"), "k1");
    let before = stored(&mut database.superuser());
    for acting in [None, Some(owner)] {
        for (call, id) in [
            ("change_role($1, 'viewer')", theirs),
            ("change_role($1, 'owner')", member_of_theirs),
            ("revoke_invitation($1)", invited.id),
            ("rotate_api_key($1)", key.id),
            ("revoke_api_key($1)", key.id),
            ("create_api_key('k', user_id => $1)", theirs),
            ("issue_jwt($1)", theirs),
        ] {
            let result = attempt(&mut app, tenant, acting, &format!("SELECT * FROM {call}"), &[&id]);
            assert_eq!(sqlstate(&result), "P0002", "{call}");
        }
        let removed = attempt(&mut app, tenant, acting, REMOVE, &[&member_of_theirs]).expect("nobody of ours");
        assert!(!removed[0].get::<_, bool>(0));
    }
    assert_eq!(stored(&mut database.superuser()), before);
}

/// Every function of these domains that writes, with arguments that are in order.
fn writes(tenant: Uuid, owner: Uuid, member: Uuid, newcomer: Uuid, key: Uuid, invitation: Uuid) -> Vec<String> {
    vec![
        format!("create_user('new@example.com', tenant => '{tenant}')"),
        format!("update_user('{member}', name => 'New')"),
        format!("revoke_tokens('{member}')"),
        format!("add_member('{newcomer}')"),
        format!("change_role('{member}', 'viewer')"),
        format!("remove_member('{member}')"),
        "create_invitation('invited@example.com')".to_owned(),
        format!("revoke_invitation('{invitation}')"),
        "create_api_key('k')".to_owned(),
        format!("create_api_key('k', user_id => '{owner}')"),
        format!("rotate_api_key('{key}')"),
        format!("revoke_api_key('{key}')"),
    ]
}

#[test]
fn a_read_only_tenants_people_are_not_changed() {
    let (database, mut app, mut operator, tenant) = one_tenant("members_read_only");
    let owner = member(&mut app, tenant, "owner");
    let local = as_tenant(&mut app, tenant, |tx| {
        let local: Uuid = one(tx, "SELECT create_user('local@example.com', tenant => $1)", &[&tenant]);
        one::<Uuid>(tx, "SELECT add_member($1)", &[&local])
    });
    let newcomer = user(&mut app);
    let key = api_key(&mut app, tenant, None, &[]);
    let invited = invitation(&mut app, tenant, "guest@example.com", "viewer");
    one::<Uuid>(&mut operator, "SELECT suspend_tenant($1, mode => 'read_only')", &[&tenant]);
    let calls = writes(tenant, owner, local, newcomer, key.id, invited.id);
    let calls: Vec<(&str, &str)> = calls.iter().map(|call| (call.as_str(), "25006")).collect();
    all_fail(&database, "app", Some(tenant), &calls);
    let at_home = format!("create_user('new@example.com', tenant => '{tenant}')");
    let accept = format!("accept_invitation('{}', '{newcomer}')", invited.token);
    all_fail(&database, "app", None, &[(&at_home, "25006"), (&accept, "25006")]);
    as_tenant(&mut app, tenant, |tx| {
        for read in [
            "find_user('local@example.com')",
            "user_tenants(find_user('local@example.com'))",
            "tenancy.members",
            "tenancy.invitations",
            "tenancy.api_keys",
        ] {
            assert!(count(tx, read) > 0, "{read}");
        }
    });
    one::<Uuid>(&mut operator, "SELECT resume_tenant($1)", &[&tenant]);
    one::<Uuid>(&mut app, "SELECT accept_invitation($1, $2)", &[&invited.token, &newcomer]);
}

#[test]
fn a_tenant_that_was_closed_meanwhile_is_not_written_to() {
    let (database, mut app, mut operator, tenant) = one_tenant("members_closed");
    let owner = member(&mut app, tenant, "owner");
    let local = as_tenant(&mut app, tenant, |tx| {
        let local: Uuid = one(tx, "SELECT create_user('local@example.com', tenant => $1)", &[&tenant]);
        one::<Uuid>(tx, "SELECT add_member($1)", &[&local])
    });
    let newcomer = user(&mut app);
    let key = api_key(&mut app, tenant, None, &[]);
    let invited = invitation(&mut app, tenant, "guest@example.com", "viewer");
    // As a transaction that was bound before the tenant closed: no bind is made after.
    for call in writes(tenant, owner, local, newcomer, key.id, invited.id) {
        // Users are the installation's own, and what protects them is to go on whatever becomes of the tenant.
        if call.starts_with("update_user") || call.starts_with("revoke_tokens") {
            continue;
        }
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        one::<Uuid>(&mut operator, "SELECT suspend_tenant($1)", &[&tenant]);
        let before = stored(&mut database.superuser());
        let result = transaction.query(&format!("SELECT * FROM {call}"), &[]);
        assert_eq!(sqlstate(&result), "42501", "{call}");
        transaction.rollback().expect("rollback");
        assert_eq!(stored(&mut database.superuser()), before, "{call}");
        one::<Uuid>(&mut operator, "SELECT resume_tenant($1)", &[&tenant]);
    }
}

#[test]
fn without_a_tenant_nobodys_people_are_changed() {
    let (database, mut app, _, tenant) = one_tenant("members_unbound");
    let owner = member(&mut app, tenant, "owner");
    let key = api_key(&mut app, tenant, None, &[]);
    let invited = invitation(&mut app, tenant, "guest@example.com", "viewer");
    signing_key(&mut database.connect("admin"), "k1");
    let newcomer = user(&mut app);
    let mut calls = writes(tenant, owner, owner, newcomer, key.id, invited.id);
    calls.retain(|call| !["create_user", "update_user", "revoke_tokens"].iter().any(|free| call.starts_with(free)));
    calls.push(format!("issue_jwt('{owner}')"));
    calls.push("require_role('viewer')".to_owned());
    calls.push("require_scope('x')".to_owned());
    let calls: Vec<(&str, &str)> = calls.iter().map(|call| (call.as_str(), "42501")).collect();
    all_fail(&database, "app", None, &calls);
}

// ---------------------------------------------------------------------------------------------- what is told of it

#[test]
fn each_change_of_a_member_is_in_the_audit_log_with_who_did_it() {
    let (database, mut app, _, tenant) = one_tenant("member_audit");
    let owner = member(&mut app, tenant, "owner");
    let person = user(&mut app);
    let owner_acts: [(&str, &[&(dyn ToSql + Sync)]); 3] =
        [(ADD, &[&person, &"viewer"]), (CHANGE, &[&person, &"admin"]), (REMOVE, &[&person])];
    for (call, parameters) in owner_acts {
        attempt(&mut app, tenant, Some(owner), call, parameters).expect(call);
    }
    const TOLD: &str =
        "SELECT action || ' ' || coalesce(before ->> 'role', '-') || ' ' || coalesce(after ->> 'role', '-')
        FROM tenancy.audit_log WHERE target = $1::text AND action LIKE 'member.%' AND tenant_id = $2
            AND outer_user_name = 'app' AND principal ->> 'user_id' = $3::text ORDER BY id";
    let parameters: [&(dyn ToSql + Sync); 3] = [&person.to_string(), &tenant, &owner.to_string()];
    let told: Vec<String> = rows(&mut database.superuser(), TOLD, &parameters).iter().map(|row| row.get(0)).collect();
    assert_eq!(told, ["member.add - viewer", "member.change_role viewer admin", "member.remove admin -"]);
}

// ---------------------------------------------------------------------------------------------- bad input

#[test]
fn bad_input_about_members_is_refused_and_writes_nothing() {
    let (database, mut app, _, tenant) = one_tenant("member_input");
    let owner = member(&mut app, tenant, "owner");
    let known = user(&mut app);
    let nobody = Uuid::new_v4();
    let mut calls: Vec<(String, &str)> = vec![
        ("add_member(NULL)".to_owned(), "22023"),
        (format!("add_member('{known}', NULL)"), "22023"),
        (format!("add_member('{nobody}')"), "P0002"),
        (format!("add_member('{owner}')"), "23505"),
        (format!("add_member('{owner}', 'owner')"), "23505"),
        ("add_member('x')".to_owned(), "22P02"),
        ("change_role(NULL, 'viewer')".to_owned(), "22023"),
        (format!("change_role('{owner}', NULL)"), "22023"),
        (format!("change_role('{nobody}', 'viewer')"), "P0002"),
        (format!("change_role('{known}', 'viewer')"), "P0002"),
        ("remove_member(NULL)".to_owned(), "22023"),
        ("remove_member('''; --')".to_owned(), "22P02"),
    ];
    for role in [
        "''",
        "'OWNER'",
        "'owner '",
        "'%'",
        "'own\\er'",
        "E'owner\\u0001'",
        "'\u{1f600}'",
        "'owner''; --'",
        "repeat('x', 1000000)",
    ] {
        calls.push((format!("add_member('{known}', {role})"), "22023"));
        calls.push((format!("change_role('{owner}', {role})"), "22023"));
    }
    let calls: Vec<(&str, &str)> = calls.iter().map(|(call, state)| (call.as_str(), *state)).collect();
    all_fail(&database, "app", Some(tenant), &calls);
}
