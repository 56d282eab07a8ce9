//! Roles by rank: the four that are always there, and those that an installation adds.

use super::fixtures::{
    Call, ROLES, all_fail, at_once, attempt, behind, invitation, member, role_of, sqlstate, stored, user,
};
use harness::postgres::types::ToSql;
use harness::{Client, Database, Uuid, as_tenant, count, fails, one, tenant};

const ADD_ROLE: &str = "SELECT add_role($1, $2)";
const REMOVE_ROLE: &str = "SELECT remove_role($1)";
const ADD_MEMBER: &str = "SELECT add_member($1, $2)";

/// A database with a tenant that has an owner, and sessions of levels app and admin.
fn one_tenant(label: &str) -> (Database, Client, Client, Uuid) {
    let database = Database::new(label);
    let tenant = tenant(&mut database.connect("operator"));
    let [mut app, admin] = ["app", "admin"].map(|role| database.connect(role));
    member(&mut app, tenant, "owner");
    (database, app, admin, tenant)
}

/// The roles of system 3, of which `admin` and `viewer` are there already.
fn add_sales_roles(admin: &mut Client) {
    for (role, rank) in [("manager", 70), ("sales_rep", 50)] {
        assert_eq!(one::<String>(admin, ADD_ROLE, &[&role, &rank]), role);
    }
}

/// Whether the member has each role, in the order given.
fn has_roles(app: &mut Client, tenant: Uuid, user: Uuid, roles: &[&str]) -> Vec<bool> {
    let found = attempt(app, tenant, Some(user), "SELECT has_role(role) FROM unnest($1::text[]) role", &[&roles]);
    found.expect("has_role").iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_role_includes_those_below_it_and_none_above() {
    let (_database, mut app, _, tenant) = one_tenant("role_ranks");
    for (rank, role) in ROLES.into_iter().enumerate() {
        let person = member(&mut app, tenant, role);
        let expected: Vec<bool> = (0..ROLES.len()).map(|other| other >= rank).collect();
        assert_eq!(has_roles(&mut app, tenant, person, &ROLES), expected, "{role}");
        for (other, included) in ROLES.into_iter().zip(expected) {
            let result = attempt(&mut app, tenant, Some(person), "SELECT require_role($1)", &[&other]);
            assert_eq!(sqlstate(&result), if included { "00000" } else { "42501" }, "{role} requires {other}");
        }
        let found = attempt(&mut app, tenant, Some(person), "SELECT current_member_role()", &[]).expect("role");
        assert_eq!(found[0].get::<_, Option<String>>(0).as_deref(), Some(role));
    }
}

#[test]
fn added_roles_rank_between_the_others() {
    let (database, mut app, mut admin, tenant) = one_tenant("role_sales");
    add_sales_roles(&mut admin);
    let sales = ["admin", "manager", "sales_rep", "viewer"];
    let people = sales.map(|role| member(&mut app, tenant, role));
    for (rank, person) in people.into_iter().enumerate() {
        let expected: Vec<bool> = (0..sales.len()).map(|other| other >= rank).collect();
        assert_eq!(has_roles(&mut app, tenant, person, &sales), expected, "{}", sales[rank]);
        for (other, role) in sales.into_iter().enumerate() {
            let newcomer = user(&mut app);
            let result = attempt(&mut app, tenant, Some(person), ADD_MEMBER, &[&newcomer, &role]);
            let expected = if other >= rank { "00000" } else { "42501" };
            assert_eq!(sqlstate(&result), expected, "{} adds {role}", sales[rank]);
        }
    }
    const LISTED: &str =
        "SELECT array_agg(role || ' ' || rank || ' ' || built_in ORDER BY rank DESC) FROM tenancy.roles";
    for role in ["client", "app", "monitor", "operator", "admin"] {
        assert_eq!(
            one::<Vec<String>>(&mut database.connect(role), LISTED, &[]),
            [
                "owner 100 true",
                "admin 80 true",
                "manager 70 false",
                "member 60 true",
                "sales_rep 50 false",
                "viewer 40 true"
            ],
            "{role}"
        );
    }
}

#[test]
fn no_added_role_comes_up_to_the_owner() {
    let (_database, mut app, mut admin, tenant) = one_tenant("role_below_owner");
    for rank in [100, 101, i32::MAX] {
        fails(admin.query(ADD_ROLE, &[&"boss", &rank]), "22023");
    }
    one::<String>(&mut admin, ADD_ROLE, &[&"boss", &99]);
    let boss = member(&mut app, tenant, "boss");
    let owner: Uuid = one(&mut admin, "SELECT user_id FROM tenancy.members WHERE role = 'owner'", &[]);
    for (call, values) in [
        ("SELECT change_role($1, 'owner')", [boss]),
        ("SELECT change_role($1, 'viewer')", [owner]),
        ("SELECT remove_member($1)", [owner]),
    ] {
        fails(attempt(&mut app, tenant, Some(boss), call, &[&values[0]]), "42501");
    }
    assert_eq!(role_of(&mut admin, tenant, owner).as_deref(), Some("owner"));
    let last = attempt(&mut app, tenant, None, "SELECT remove_member($1)", &[&owner]);
    fails(last, "55000");
}

#[test]
fn who_has_no_role_has_none() {
    let (_database, mut app, _, tenant) = one_tenant("role_none");
    let unknown = Uuid::new_v4();
    for acting in [None, Some(unknown)] {
        for role in ROLES {
            let found =
                attempt(&mut app, tenant, acting, "SELECT has_role($1), current_member_role() IS NULL", &[&role]);
            let found = found.expect("has_role");
            assert!(!found[0].get::<_, bool>(0) && found[0].get::<_, bool>(1), "{acting:?} {role}");
            fails(attempt(&mut app, tenant, acting, "SELECT require_role($1)", &[&role]), "42501");
        }
    }
    assert!(!one::<bool>(&mut app, "SELECT has_role('viewer')", &[]), "unbound");
    fails(app.query("SELECT require_role('viewer')", &[]), "42501");
    assert_eq!(one::<Option<String>>(&mut app, "SELECT current_member_role()", &[]), None);
}

#[test]
fn a_changed_role_counts_from_the_next_transaction_on() {
    let (_database, mut app, _, tenant) = one_tenant("role_next");
    let person = member(&mut app, tenant, "member");
    for role in ["admin", "viewer", "owner", "member"] {
        attempt(&mut app, tenant, None, "SELECT change_role($1, $2)", &[&person, &role]).expect("change");
        let found = attempt(&mut app, tenant, Some(person), "SELECT current_member_role()", &[]).expect("role");
        assert_eq!(found[0].get::<_, String>(0), role);
    }
}

#[test]
fn a_role_in_use_is_not_removed() {
    let (database, mut app, mut admin, tenant) = one_tenant("role_in_use");
    add_sales_roles(&mut admin);
    let person = member(&mut app, tenant, "manager");
    let invited = invitation(&mut app, tenant, "rep@example.com", "sales_rep");
    let before = stored(&mut database.superuser());
    for role in ["manager", "sales_rep"] {
        fails(admin.query(REMOVE_ROLE, &[&role]), "55000");
    }
    for role in ROLES {
        fails(admin.query(REMOVE_ROLE, &[&role]), "P0002");
    }
    assert_eq!(stored(&mut database.superuser()), before);
    as_tenant(&mut app, tenant, |tx| one::<bool>(tx, "SELECT change_role($1, 'viewer')", &[&person]));
    as_tenant(&mut app, tenant, |tx| one::<bool>(tx, "SELECT revoke_invitation($1)", &[&invited.id]));
    let newcomer = user(&mut app);
    for role in ["manager", "sales_rep"] {
        assert!(one::<bool>(&mut admin, REMOVE_ROLE, &[&role]));
        fails(attempt(&mut app, tenant, None, ADD_MEMBER, &[&newcomer, &role]), "22023");
    }
    assert_eq!(count(&mut admin, "tenancy.roles"), 4);
}

#[test]
fn an_expired_invitation_keeps_no_role() {
    let (_database, mut app, mut admin, tenant) = one_tenant("role_expired");
    add_sales_roles(&mut admin);
    const INVITE: &str = "SELECT * FROM create_invitation('rep@example.com', 'sales_rep', '1 microsecond')";
    attempt(&mut app, tenant, None, INVITE, &[]).expect("an invitation that ends at once");
    assert!(one::<bool>(&mut admin, REMOVE_ROLE, &[&"sales_rep"]));
}

#[test]
fn a_role_that_is_about_to_be_used_is_not_removed() {
    let (database, mut app, mut admin, tenant) = one_tenant("role_race");
    let mut superuser = database.superuser();
    let newcomer = user(&mut app);
    let present = member(&mut app, tenant, "viewer");
    let uses: [(&str, &[&(dyn ToSql + Sync)]); 3] = [
        (ADD_MEMBER, &[&newcomer, &"manager"]),
        ("SELECT change_role($1, $2)", &[&present, &"manager"]),
        ("SELECT * FROM create_invitation($1, $2)", &[&"new@example.com", &"manager"]),
    ];
    one::<String>(&mut admin, ADD_ROLE, &[&"manager", &70]);
    for (call, parameters) in uses {
        let using = Call::new(call, parameters).bound(tenant, None);
        let removing = Call::new("SELECT remove_role('manager')", &[]).by("admin");
        fails(behind(&database, using, removing), "55000");
        superuser
            .batch_execute(
                "DELETE FROM tenancy.memberships WHERE role = 'manager';
                 DELETE FROM tenancy.stored_invitations WHERE role = 'manager'",
            )
            .expect("free the role");
    }
    let removing = Call::new("SELECT remove_role('manager')", &[]).by("admin");
    let late = user(&mut app);
    let using: [&(dyn ToSql + Sync); 2] = [&late, &"manager"];
    let result = behind(&database, removing, Call::new(ADD_MEMBER, &using).bound(tenant, None));
    fails(result, "22023");
    assert_eq!(role_of(&mut admin, tenant, late), None);
}

#[test]
fn of_two_admins_adding_a_role_at_once_one_does() {
    let (database, _, mut admin, _) = one_tenant("role_twice");
    let results = at_once(&database, &[Call::new("SELECT add_role('manager', 70)", &[]).by("admin"); 3]);
    let mut states: Vec<String> = results.iter().map(sqlstate).collect();
    states.sort();
    assert_eq!(states, ["00000", "23505", "23505"]);
    assert_eq!(count(&mut admin, "tenancy.roles"), 5);
    let results = at_once(&database, &[Call::new("SELECT remove_role('manager')", &[]).by("admin"); 3]);
    let mut states: Vec<String> = results.iter().map(sqlstate).collect();
    states.sort();
    assert_eq!(states, ["00000", "P0002", "P0002"]);
}

#[test]
fn bad_input_about_roles_is_refused_and_writes_nothing() {
    let (database, _, mut admin, tenant) = one_tenant("role_input");
    add_sales_roles(&mut admin);
    all_fail(
        &database,
        "admin",
        None,
        &[
            ("add_role(NULL, 50)", "22023"),
            ("add_role('x', NULL)", "22023"),
            ("add_role('', 50)", "22023"),
            ("add_role('Boss', 50)", "22023"),
            ("add_role('the boss', 50)", "22023"),
            ("add_role('9lives', 50)", "22023"),
            ("add_role('_x', 50)", "22023"),
            ("add_role('b\u{f6}ss', 50)", "22023"),
            ("add_role(E'boss\\n', 50)", "22023"),
            ("add_role('a''; DROP TABLE tenancy.users; --', 50)", "22023"),
            ("add_role('a%s', 50)", "22023"),
            ("add_role('a\\b', 50)", "22023"),
            ("add_role(repeat('x', 64), 50)", "22023"),
            ("add_role(repeat('x', 1000000), 50)", "22023"),
            ("add_role('x', 0)", "22023"),
            ("add_role('x', -1)", "22023"),
            ("add_role('x', 100)", "22023"),
            ("add_role('x', -2147483648)", "22023"),
            ("add_role('owner', 50)", "23505"),
            ("add_role('viewer', 99)", "23505"),
            ("add_role('manager', 99)", "23505"),
            ("remove_role(NULL)", "22023"),
            ("remove_role('')", "P0002"),
            ("remove_role('nobody')", "P0002"),
            ("remove_role(repeat('x', 1000000))", "P0002"),
        ],
    );
    let mut calls = Vec::new();
    for function in ["has_role", "require_role"] {
        for role in ["NULL", "''", "'nobody'", "'OWNER'", "'owner '", "'%'", "E'owner\\n'", "repeat('x', 1000000)"] {
            calls.push(format!("{function}({role})"));
        }
    }
    let calls: Vec<(&str, &str)> = calls.iter().map(|call| (call.as_str(), "22023")).collect();
    all_fail(&database, "app", Some(tenant), &calls);
    assert_eq!(count(&mut admin, "tenancy.roles"), 6);
}
