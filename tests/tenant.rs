//! The registry: creating and changing tenants, the states between which they move, and what a change of state
//! means to the sessions that serve the tenant.

use crate::access::fixtures;
use harness::{
    Client, Cluster, Database, DbError, Options, Uuid, as_tenant, backend_pid, bind, count, fails, one, optional,
    protected_table, rows, simple, tenant, tenants, text, wait_for_lock, wait_until,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Every state that a tenant can be in.
const STATES: [&str; 7] = ["provisioning", "active", "read_only", "suspended", "moving", "cancelled", "deleted"];

/// Every call that changes a state, the states that it may start from, and the one that it leads to.
const TRANSITIONS: [(&str, &[&str], &str); 7] = [
    ("suspend_tenant($1, 'unpaid')", &["active", "read_only"], "suspended"),
    ("suspend_tenant($1, 'unpaid', terminate => true)", &["active", "read_only"], "suspended"),
    ("suspend_tenant($1, mode => 'read_only')", &["active", "suspended"], "read_only"),
    ("resume_tenant($1)", &["suspended", "read_only"], "active"),
    ("cancel_tenant($1, 'moved away')", &["active", "read_only", "suspended"], "cancelled"),
    ("delete_tenant($1)", &["provisioning", "active", "read_only", "suspended", "cancelled"], "deleted"),
    ("restore_tenant($1)", &["cancelled", "deleted"], "active"),
];

/// What text arguments are tried with.
const HOSTILE: [&str; 9] = [
    "'",
    "''; DROP TABLE tenancy.tenants; --",
    "%s %n %",
    "back\\slash",
    "\"quoted\"",
    "$1",
    "a\u{7}b",
    "line\nbreak",
    "\u{202e}gnp.exe",
];

/// A database with a session of level operator in it.
fn operated(label: &str) -> (Database, Client) {
    let database = Database::new(label);
    let operator = database.connect("operator");
    (database, operator)
}

/// Puts a tenant into a state, as no function does for some of them.
fn put(superuser: &mut Client, tenant: Uuid, state: &str) {
    const PUT: &str = "UPDATE tenancy.tenants SET status = $2,
        deleted_at = CASE WHEN $2 = 'deleted' THEN now() END,
        purge_after = CASE WHEN $2 = 'deleted' THEN now() + interval '30 days' END
        WHERE id = $1";
    assert_eq!(superuser.execute(PUT, &[&tenant, &state]).expect("put the tenant into a state"), 1);
}

fn status(observer: &mut Client, tenant: Uuid) -> String {
    one(observer, "SELECT status FROM tenancy.tenants WHERE id = $1", &[&tenant])
}

fn slug_of(observer: &mut Client, tenant: Uuid) -> String {
    one(observer, "SELECT slug FROM tenancy.tenants WHERE id = $1", &[&tenant])
}

/// The registry and the audit log, whole: what must not change when a call fails.
fn registry(superuser: &mut Client) -> Vec<Vec<Option<String>>> {
    simple(
        superuser,
        "SELECT to_jsonb(t) FROM tenancy.tenants t ORDER BY id; SELECT to_jsonb(p) FROM tenancy.plans p ORDER BY plan;
         SELECT to_jsonb(a) FROM tenancy.audit_log a ORDER BY id",
    )
}

/// Runs calls that must fail, each with its SQLSTATE; nothing is written, and the session goes on.
#[track_caller]
fn all_fail(database: &Database, role: &str, calls: &[(&str, &str)]) {
    let mut superuser = database.superuser();
    let mut client = database.connect(role);
    let before = registry(&mut superuser);
    for (call, sqlstate) in calls {
        let error = client.batch_execute(&format!("SELECT {call}")).err();
        let found = error.as_ref().and_then(|error| error.code()).map(|code| code.code().to_owned());
        let shown: String = call.chars().take(200).collect();
        assert_eq!(found.as_deref(), Some(*sqlstate), "{shown}: {error:?}");
        assert_eq!(one::<i32>(&mut client, "SELECT 1", &[]), 1, "the backend lives after {shown}");
    }
    assert_eq!(registry(&mut superuser), before, "something was written");
}

fn is_slug(slug: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&slug.len())
        && slug.bytes().all(allowed)
        && !slug.starts_with('-')
        && !slug.ends_with('-')
        && !slug.contains("--")
}

// ---------------------------------------------------------------------------------------------- states

#[test]
fn every_transition_leads_where_it_should_or_names_both_states() {
    let (database, mut operator) = operated("transitions");
    let mut superuser = database.superuser();
    let tenant = tenant(&mut operator);
    for (call, legal, to) in TRANSITIONS {
        for from in STATES {
            put(&mut superuser, tenant, from);
            let audited = count(&mut superuser, "tenancy.audit_log");
            let result = operator.execute(&format!("SELECT {call}"), &[&tenant]);
            if legal.contains(&from) {
                result.unwrap_or_else(|error| panic!("{call} from {from}: {error:?}"));
                assert_eq!(status(&mut superuser, tenant), to, "{call} from {from}");
                assert_eq!(count(&mut superuser, "tenancy.audit_log"), audited + 1, "{call} from {from}");
            } else {
                let fault = fails(result, "55000");
                let message = format!("a tenant that is {from} cannot become {to}");
                assert_eq!(fault.message(), message, "{call} from {from}");
                assert_eq!(status(&mut superuser, tenant), from, "{call} from {from}");
                assert_eq!(count(&mut superuser, "tenancy.audit_log"), audited, "{call} from {from}");
            }
        }
    }
}

#[test]
fn a_change_of_state_returns_the_tenant() {
    let (_database, mut operator) = operated("returned");
    let id = tenant(&mut operator);
    for call in ["suspend_tenant($1)", "resume_tenant($1)", "cancel_tenant($1)", "restore_tenant($1)"] {
        assert_eq!(one::<Uuid>(&mut operator, &format!("SELECT {call}"), &[&id]), id, "{call}");
    }
}

#[test]
fn a_reason_is_kept_as_long_as_its_state() {
    const REASON: &str = "SELECT status_reason FROM tenancy.tenants WHERE id = $1";
    let (_database, mut operator) = operated("reasons");
    let id = tenant(&mut operator);
    let reason = "ünpaid; 100% of 'it' \\ \"all\"";
    operator.execute("SELECT suspend_tenant($1, $2)", &[&id, &reason]).expect("suspend");
    assert_eq!(one::<Option<String>>(&mut operator, REASON, &[&id]).as_deref(), Some(reason));
    operator.execute("SELECT resume_tenant($1)", &[&id]).expect("resume");
    assert_eq!(one::<Option<String>>(&mut operator, REASON, &[&id]), None);
}

#[test]
fn deletion_says_when_the_tenant_may_be_purged_and_restoring_forgets_it() {
    const DELETED: &str = "SELECT deleted_at IS NOT NULL AND purge_after = deleted_at + '3 days'::interval
        FROM tenancy.tenants WHERE id = $1";
    const FORGOTTEN: &str = "SELECT deleted_at IS NULL AND purge_after IS NULL FROM tenancy.tenants WHERE id = $1";
    let (_database, mut operator) = operated("retention");
    let id = tenant(&mut operator);
    let returned: String = one(&mut operator, "SELECT delete_tenant($1, '3 days')::text", &[&id]);
    let kept: String = one(&mut operator, "SELECT purge_after::text FROM tenancy.tenants WHERE id = $1", &[&id]);
    assert_eq!(returned, kept);
    assert!(one::<bool>(&mut operator, DELETED, &[&id]));
    operator.execute("SELECT restore_tenant($1)", &[&id]).expect("restore");
    assert!(one::<bool>(&mut operator, FORGOTTEN, &[&id]));
}

#[test]
fn the_default_retention_is_thirty_days() {
    let (_database, mut operator) = operated("retention");
    let id = tenant(&mut operator);
    let days = "SELECT delete_tenant($1) = now() + interval '30 days'";
    assert!(one::<bool>(&mut operator, days, &[&id]));
}

#[test]
fn a_closed_tenant_is_not_bound_and_a_busy_one_asks_to_try_again() {
    let (database, mut operator) = operated("closed");
    let mut superuser = database.superuser();
    let id = tenant(&mut operator);
    let mut app = database.connect("app");
    for (state, sqlstate) in
        [("provisioning", "55000"), ("suspended", "42501"), ("cancelled", "42501"), ("deleted", "42501")]
    {
        put(&mut superuser, id, state);
        let fault = fails(app.batch_execute(&format!("BEGIN; SELECT set_tenant('{id}')")), sqlstate);
        assert!(fault.message().contains(state), "{fault}");
        app.batch_execute("ROLLBACK").expect("roll back");
        assert_eq!(simple(&mut app, "SELECT current_tenant_or_null()"), [[None]]);
    }
}

#[test]
fn lifecycle_calls_refuse_bad_arguments_and_write_nothing() {
    let (database, mut operator) = operated("bad_lifecycle");
    let id = tenant(&mut operator);
    let unknown = Uuid::new_v4();
    let known = format!("'{id}'");
    let mut calls: Vec<(String, &str)> = Vec::new();
    for function in ["suspend_tenant", "resume_tenant", "cancel_tenant", "delete_tenant", "restore_tenant"] {
        calls.push((format!("{function}('{unknown}')"), "P0002"));
        calls.push((format!("{function}(NULL)"), "22023"));
    }
    for terminate in ["true", "false"] {
        calls.push((format!("suspend_tenant('{unknown}', terminate => {terminate})"), "P0002"));
        for mode in ["''", "'BLOCKED'", "'active'", "'blocked; --'", "NULL", "repeat('x', 1000000)"] {
            calls.push((format!("suspend_tenant({known}, mode => {mode}, terminate => {terminate})"), "22023"));
        }
    }
    calls.push((format!("suspend_tenant({known}, terminate => NULL)"), "22023"));
    for retention in ["NULL", "'-1 second'", "'-100 years'", "'1 month -31 days'"] {
        calls.push((format!("delete_tenant({known}, {retention})"), "22023"));
    }
    calls.push((format!("change_plan({known}, 'nope')"), "P0002"));
    calls.push((format!("change_plan({known}, NULL)"), "22023"));
    calls.push((format!("change_plan('{unknown}', 'free')"), "P0002"));
    calls.push(("change_plan(NULL, 'free')".to_owned(), "22023"));
    let calls: Vec<(&str, &str)> = calls.iter().map(|(call, sqlstate)| (call.as_str(), *sqlstate)).collect();
    all_fail(&database, "operator", &calls);
}

#[test]
fn a_retention_beyond_all_time_is_an_error() {
    let (database, mut operator) = operated("eternal");
    let id = tenant(&mut operator);
    let error = operator.execute("SELECT delete_tenant($1, '300000 years')", &[&id]).expect_err("out of range");
    let code = error.code().expect("a SQLSTATE").code();
    assert!(["22008", "22023"].contains(&code), "{error:?}");
    assert_eq!(status(&mut database.superuser(), id), "active");
}

#[test]
fn a_megabyte_is_no_reason() {
    let (database, mut operator) = operated("long_reason");
    let id = tenant(&mut operator);
    let known = format!("'{id}'");
    let suspend = format!("suspend_tenant({known}, repeat('x', 1000000))");
    let cancel = format!("cancel_tenant({known}, repeat('x', 1000000))");
    all_fail(&database, "operator", &[(&suspend, "22023"), (&cancel, "22023")]);
}

#[test]
fn only_operators_and_admins_run_the_lifecycle() {
    let (database, mut operator) = operated("levels");
    let id = tenant(&mut operator);
    let known = format!("'{id}'");
    let calls = [
        "create_tenant('Mine')".to_owned(),
        "create_plan('mine')".to_owned(),
        format!("update_tenant({known}, name => 'Mine')"),
        format!("suspend_tenant({known})"),
        format!("resume_tenant({known})"),
        format!("cancel_tenant({known})"),
        format!("delete_tenant({known}, '0')"),
        format!("restore_tenant({known})"),
        format!("change_plan({known}, 'free')"),
    ];
    let calls: Vec<(&str, &str)> = calls.iter().map(|call| (call.as_str(), "42501")).collect();
    for role in ["app", "client", "monitor", "owner", "stranger"] {
        all_fail(&database, role, &calls);
    }
    let mut admin = database.connect("admin");
    let made: Uuid = one(&mut admin, "SELECT create_tenant('By an admin')", &[]);
    admin.execute("SELECT suspend_tenant($1)", &[&made]).expect("suspend as admin");
}

#[test]
fn nobody_below_a_superuser_writes_the_registry_past_its_functions() {
    let (database, mut operator) = operated("past_functions");
    let id = tenant(&mut operator);
    for role in ["app", "client", "monitor", "operator", "admin", "owner", "stranger"] {
        let mut client = database.connect(role);
        for statement in [
            format!("UPDATE tenancy.tenants SET status = 'active' WHERE id = '{id}'"),
            format!("DELETE FROM tenancy.tenants WHERE id = '{id}'"),
            "INSERT INTO tenancy.tenants (id, slug, name, plan, isolation) VALUES (gen_random_uuid(), 'x', 'x', 'free', 'row')"
                .to_owned(),
            "TRUNCATE tenancy.tenants CASCADE".to_owned(),
            "UPDATE tenancy.plans SET isolation = 'row'".to_owned(),
            "INSERT INTO tenancy.plans (plan) VALUES ('x')".to_owned(),
        ] {
            fails(client.batch_execute(&statement), "42501");
        }
    }
    assert_eq!(count(&mut database.superuser(), "tenancy.tenants"), 1);
}

// ---------------------------------------------------------------------------------------------- names and slugs

#[test]
fn a_tenant_is_created_with_its_first_owner() {
    let (database, mut operator) = operated("owner");
    let mut app = database.connect("app");
    let owner = fixtures::user(&mut app);
    let create = "SELECT create_tenant($1, owner => $2)";
    let both: Vec<Uuid> = ["One", "Two"].iter().map(|name| one(&mut operator, create, &[name, &owner])).collect();
    for &id in &both {
        assert_eq!(fixtures::role_of(&mut operator, id, owner).as_deref(), Some("owner"));
        let principal = fixtures::attempt(&mut app, id, Some(owner), "SELECT role FROM current_principal()", &[]);
        assert_eq!(principal.expect("bind")[0].get::<_, String>(0), "owner", "the owner may be bound at once");
    }
    assert_eq!(count(&mut operator, "tenancy.members"), 2);
    let nobody: Option<Uuid> = None;
    let id: Uuid = one(&mut operator, create, &[&"Three", &nobody]);
    assert_eq!(count(&mut operator, &format!("tenancy.memberships WHERE tenant_id = '{id}'")), 0);
}

#[test]
fn an_owner_who_cannot_be_one_leaves_no_tenant() {
    let (database, mut operator) = operated("no_owner");
    let mut app = database.connect("app");
    let other = tenant(&mut operator);
    let home: Uuid = one(&mut app, "SELECT create_user('home@example.com', tenant => $1)", &[&other]);
    let gone = fixtures::user(&mut app);
    assert!(one::<bool>(&mut operator, "SELECT delete_user($1)", &[&gone]));
    let calls = [Uuid::new_v4(), Uuid::nil(), home, gone, other]
        .map(|owner| format!("create_tenant('New', 'new', owner => '{owner}')"));
    let calls: Vec<(&str, &str)> = calls.iter().map(|call| (call.as_str(), "P0002")).collect();
    fixtures::all_fail(&database, "operator", None, &calls);
    assert!(one::<bool>(&mut app, "SELECT slug_available('new')", &[]), "nor a slug");
    // Nor does a good owner help a tenant that cannot be.
    let owner = fixtures::user(&mut app);
    let refused = [
        (format!("create_tenant('New', 'www', owner => '{owner}')"), "22023"),
        (format!("create_tenant('New', plan => 'none', owner => '{owner}')"), "P0002"),
        (format!("create_tenant('New', id => '{other}', owner => '{owner}')"), "23505"),
    ];
    let refused: Vec<(&str, &str)> = refused.iter().map(|(call, code)| (call.as_str(), *code)).collect();
    fixtures::all_fail(&database, "operator", None, &refused);
}

/// Whichever comes first: no tenant has an owner who does not exist.
#[test]
fn an_owner_who_is_deleted_meanwhile_owns_nothing() {
    const CREATE: &str = "SELECT create_tenant('New', 'new', owner => $1)";
    const DELETE: &str = "SELECT delete_user($1)";
    let (database, mut operator) = operated("vanishing_owner");
    let mut app = database.connect("app");
    for (first, second, code, created) in [(DELETE, CREATE, "P0002", 0), (CREATE, DELETE, "55000", 1)] {
        let owner = fixtures::user(&mut app);
        let parameters: [&(dyn harness::postgres::types::ToSql + Sync); 1] = [&owner];
        let [first, second] = [first, second].map(|sql| fixtures::Call::new(sql, &parameters).by("operator"));
        fails(fixtures::behind(&database, first, second), code);
        assert_eq!(count(&mut operator, "tenancy.tenants"), created);
        assert_eq!(
            count(&mut operator, &format!("tenancy.members WHERE user_id = '{owner}' AND role = 'owner'")),
            created
        );
    }
}

#[test]
fn a_slug_is_derived_from_the_name() {
    let (_database, mut operator) = operated("derived");
    for (name, slug) in [
        ("Acme Ltd", "acme-ltd"),
        ("  Müller & Söhne -- GmbH! ", "muller-sohne-gmbh"),
        ("O'Neil's Café", "oneils-cafe"),
        ("ALL_CAPS.and.dots", "all-caps-and-dots"),
        ("4711", "4711"),
        ("Привет Мир", "privet-mir"),
        ("Łódź", "lodz"),
    ] {
        let id: Uuid = one(&mut operator, "SELECT create_tenant($1)", &[&name]);
        assert_eq!(slug_of(&mut operator, id), slug, "{name}");
        let kept: String = one(&mut operator, "SELECT name FROM tenancy.tenants WHERE id = $1", &[&id]);
        assert_eq!(kept, name);
    }
}

#[test]
fn every_script_and_even_emoji_give_a_usable_slug() {
    let (_database, mut operator) = operated("scripts");
    let long = "é ".repeat(127);
    let edge = format!("{} tail", "x".repeat(62));
    let names = [
        "北京大学",
        "東京タワー",
        "서울 회사",
        "Αθήνα ΑΕ",
        "شركة",
        "חברה",
        "บริษัท",
        "कंपनी",
        "🦄",
        "🚀✨👩‍👩‍👧",
        "———",
        "?!*",
        "\u{200b}",
        "\u{e000}",
        "ß",
        "ﬁ",
        "İstanbul",
        "%",
        "\\",
        "'",
        &long,
        &edge,
    ];
    let mut slugs = HashSet::new();
    for name in names {
        let id: Uuid = one(&mut operator, "SELECT create_tenant($1)", &[&name]);
        let slug = slug_of(&mut operator, id);
        assert!(is_slug(&slug), "{name:?} gave {slug:?}");
        assert!(slugs.insert(slug.clone()), "{slug} twice");
        assert_eq!(one::<Option<Uuid>>(&mut operator, "SELECT find_tenant($1)", &[&slug]), Some(id));
    }
}

#[test]
fn a_name_that_would_be_a_reserved_slug_gets_another_one() {
    let (_database, mut operator) = operated("reserved");
    for name in ["Admin", "API", "www", "Root", "support", "Log-In / login"] {
        let id: Uuid = one(&mut operator, "SELECT create_tenant($1)", &[&name]);
        let slug = slug_of(&mut operator, id);
        assert!(is_slug(&slug), "{name}: {slug}");
        let available: bool = one(&mut operator, "SELECT slug_available($1)", &[&name.to_lowercase()]);
        assert!(!available, "{name}");
        assert_ne!(slug, name.to_lowercase());
    }
}

#[test]
fn a_derived_slug_that_is_taken_gets_a_suffix() {
    let (_database, mut operator) = operated("suffix");
    let longest = "x".repeat(63);
    for name in ["Acme", &longest] {
        let mut slugs = HashSet::new();
        for _ in 0..20 {
            let id: Uuid = one(&mut operator, "SELECT create_tenant($1)", &[&name]);
            let slug = slug_of(&mut operator, id);
            assert!(is_slug(&slug), "{slug}");
            assert!(slug.starts_with(&name.to_lowercase()[..4]), "{slug}");
            assert!(slugs.insert(slug));
        }
    }
}

/// Time-ordered ids begin alike, and the suffix is a piece of the id.
#[test]
fn derived_slugs_of_similar_ids_stay_apart() {
    let (_database, mut operator) = operated("uuid_seven");
    for number in 0..6 {
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number);
        let made: Uuid = one(&mut operator, "SELECT create_tenant('Acme', id => $1)", &[&id]);
        assert_eq!(made, id);
        let slug = slug_of(&mut operator, id);
        assert!(is_slug(&slug), "{slug}");
    }
}

#[test]
fn explicit_duplicates_are_refused_by_name() {
    let (database, mut operator) = operated("duplicates");
    let id: Uuid = one(&mut operator, "SELECT create_tenant('Acme', 'acme', external_id => 'crm-1')", &[]);
    let other: Uuid = one(&mut operator, "SELECT create_tenant('Other', 'other')", &[]);
    let mut superuser = database.superuser();
    let before = registry(&mut superuser);
    for (call, named) in [
        ("SELECT create_tenant('Acme', 'acme')".to_owned(), "acme".to_owned()),
        (format!("SELECT create_tenant('New', id => '{id}')"), id.to_string()),
        (format!("SELECT create_tenant('New', 'new', id => '{id}')"), id.to_string()),
        ("SELECT create_tenant('New', external_id => 'crm-1')".to_owned(), "crm-1".to_owned()),
        ("SELECT create_tenant('New', 'new', external_id => 'crm-1')".to_owned(), "crm-1".to_owned()),
        (format!("SELECT update_tenant('{other}', slug => 'acme')"), "acme".to_owned()),
        (format!("SELECT update_tenant('{other}', external_id => 'crm-1')"), "crm-1".to_owned()),
    ] {
        let fault = fails(operator.batch_execute(&call), "23505");
        assert!(fault.message().contains(&named), "{call}: {fault}");
    }
    assert_eq!(registry(&mut superuser), before);
}

#[test]
fn malformed_and_reserved_slugs_are_refused_everywhere() {
    let (database, mut operator) = operated("bad_slugs");
    let id = tenant(&mut operator);
    let mut superuser = database.superuser();
    let before = registry(&mut superuser);
    let too_long = "a".repeat(64);
    let megabyte = "a".repeat(1_000_000);
    let mut app = database.connect("app");
    let more = [
        "", "-a", "a-", "-", "Acme", "ä", "a_b", "a b", "a.b", " a", "a\n", "www", "api", "admin", &too_long, &megabyte,
    ];
    for slug in more.into_iter().chain(HOSTILE) {
        let shown: String = slug.chars().take(80).collect();
        let fault = fails(operator.query("SELECT create_tenant('Acme', $1)", &[&slug]), "22023");
        assert!(fault.message().len() < 500, "the message repeats all of {shown}");
        fails(operator.query("SELECT update_tenant($1, slug => $2)", &[&id, &slug]), "22023");
        assert!(!one::<bool>(&mut app, "SELECT slug_available($1)", &[&slug]), "{shown}");
        assert_eq!(one::<Option<Uuid>>(&mut app, "SELECT find_tenant($1)", &[&slug]), None, "{shown}");
        fails(app.query("SELECT set_tenant_by_slug($1)", &[&slug]), "P0002");
    }
    assert_eq!(registry(&mut superuser), before);
}

#[test]
fn an_error_does_not_echo_a_megabyte() {
    let (database, mut operator) = operated("echo");
    let id = tenant(&mut operator);
    let mut app = database.connect("app");
    let megabyte = "a".repeat(1_000_000);
    let short = |fault: DbError| assert!(fault.message().len() < 1_000, "{} bytes", fault.message().len());
    short(fails(operator.query("SELECT create_tenant('Acme', plan => $1)", &[&megabyte]), "P0002"));
    short(fails(operator.query("SELECT change_plan($1, $2)", &[&id, &megabyte]), "P0002"));
    short(fails(app.query("SELECT set_tenant_by_slug($1)", &[&megabyte]), "P0002"));
}

#[test]
fn names_and_external_ids_are_text_of_a_line() {
    let (database, mut operator) = operated("bad_names");
    let id = tenant(&mut operator);
    let mut superuser = database.superuser();
    let before = registry(&mut superuser);
    let too_long = "é".repeat(256);
    let megabyte = "x".repeat(1_000_000);
    for bad in ["", " ", "\t", "\u{a0}", "a\nb", "a\u{7}b", "a\u{1b}[2J", "\u{85}", &too_long, &megabyte] {
        fails(operator.query("SELECT create_tenant($1)", &[&bad]), "22023");
        fails(operator.query("SELECT create_tenant('Acme', external_id => $1)", &[&bad]), "22023");
        fails(operator.query("SELECT update_tenant($1, name => $2)", &[&id, &bad]), "22023");
        fails(operator.query("SELECT update_tenant($1, external_id => $2)", &[&id, &bad]), "22023");
    }
    fails(operator.batch_execute("SELECT create_tenant(NULL)"), "22023");
    assert_eq!(registry(&mut superuser), before);
}

#[test]
fn hostile_text_is_kept_as_it_is() {
    let (_database, mut operator) = operated("hostile_text");
    for hostile in HOSTILE.into_iter().filter(|hostile| !hostile.contains(char::is_control)) {
        let metadata = json!({ hostile: [hostile, { "nested": hostile }] });
        let id: Uuid =
            one(&mut operator, "SELECT create_tenant($1, metadata => $2, external_id => $1)", &[&hostile, &metadata]);
        let row = rows(&mut operator, "SELECT name, external_id, metadata FROM tenancy.tenants WHERE id = $1", &[&id]);
        assert_eq!(row[0].get::<_, String>(0), hostile);
        assert_eq!(row[0].get::<_, String>(1), hostile);
        assert_eq!(row[0].get::<_, Value>(2), metadata);
        let found: Option<Uuid> = one(&mut operator, "SELECT find_tenant(external_id => $1)", &[&hostile]);
        assert_eq!(found, Some(id), "{hostile}");
    }
    assert!(count(&mut operator, "tenancy.tenants") > 0);
}

// ---------------------------------------------------------------------------------------------- fields

#[test]
fn update_leaves_what_is_null() {
    const READ: &str = "SELECT to_jsonb(t) - 'updated_at' FROM tenancy.tenants t WHERE id = $1";
    let (_database, mut operator) = operated("update");
    let id: Uuid = one(
        &mut operator,
        "SELECT create_tenant('Acme', 'acme', metadata => '{\"a\": 1}', external_id => 'crm-1')",
        &[],
    );
    let mut expected: Value = one(&mut operator, READ, &[&id]);
    operator.execute("SELECT update_tenant($1)", &[&id]).expect("change nothing");
    assert_eq!(one::<Value>(&mut operator, READ, &[&id]), expected);
    for (argument, field, value) in [
        ("name => 'Acme Inc.'", "name", json!("Acme Inc.")),
        ("slug => 'acme-inc'", "slug", json!("acme-inc")),
        ("external_id => 'crm-2'", "external_id", json!("crm-2")),
        ("metadata => '{\"b\": [2]}'", "metadata", json!({ "b": [2] })),
        // To what it is already.
        ("slug => 'acme-inc'", "slug", json!("acme-inc")),
        ("external_id => 'crm-2'", "external_id", json!("crm-2")),
    ] {
        let updated: Uuid = one(&mut operator, &format!("SELECT update_tenant($1, {argument})"), &[&id]);
        assert_eq!(updated, id);
        expected[field] = value;
        assert_eq!(one::<Value>(&mut operator, READ, &[&id]), expected, "{argument}");
    }
    let moved = "SELECT updated_at > created_at FROM tenancy.tenants WHERE id = $1";
    assert!(one::<bool>(&mut operator, moved, &[&id]));
    fails(operator.query("SELECT update_tenant($1, name => 'x')", &[&Uuid::new_v4()]), "P0002");
    fails(operator.batch_execute("SELECT update_tenant(NULL, name => 'x')"), "22023");
}

/// JSON numbers have any length in PostgreSQL, and nesting may be deep.
#[test]
fn metadata_is_kept_to_the_last_digit() {
    let (database, mut operator) = operated("metadata");
    let mut superuser = database.superuser();
    let id = tenant(&mut operator);
    let mut altered = Vec::new();
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(300), "]".repeat(300));
    for metadata in [
        "{\"money\": 12345678901234567890.123456789}",
        "{\"big\": 1e400}",
        "{\"exact\": 0.1000}",
        "{\"id\": 9007199254740993, \"x\": 18446744073709551616}",
        deep.as_str(),
    ] {
        let shown: String = metadata.chars().take(60).collect();
        let same = "SELECT metadata::text = $2::text::jsonb::text FROM tenancy.tenants WHERE id = $1";
        let created = operator.query("SELECT create_tenant('Acme', metadata => $1::text::jsonb)", &[&metadata]);
        match created {
            Err(error) => altered.push(format!("create with {shown}: {error:?}")),
            Ok(rows) => {
                let id: Uuid = rows[0].get(0);
                if !one::<bool>(&mut operator, same, &[&id, &metadata]) {
                    altered.push(format!("created with {shown}"));
                }
            }
        }
        let put = "UPDATE tenancy.tenants SET metadata = $1::text::jsonb WHERE id = $2";
        superuser.execute(put, &[&metadata, &id]).expect("put metadata as a restore does");
        let updated = operator.execute("SELECT update_tenant($1, name => 'Other')", &[&id]);
        if let Err(error) = updated {
            altered.push(format!("update beside {shown}: {error:?}"));
        } else if !one::<bool>(&mut operator, same, &[&id, &metadata]) {
            altered.push(format!("updated beside {shown}"));
        }
    }
    assert!(altered.is_empty(), "{altered:#?}");
}

#[test]
fn metadata_is_an_object() {
    let (database, mut operator) = operated("no_object");
    let id = tenant(&mut operator);
    let mut calls = Vec::new();
    for metadata in ["'[]'", "'1'", "'\"x\"'", "'null'", "'true'"] {
        calls.push((format!("create_tenant('Acme', metadata => {metadata})"), "22023"));
        calls.push((format!("update_tenant('{id}', metadata => {metadata})"), "22023"));
        calls.push((format!("create_plan('pro', settings => {metadata})"), "22023"));
    }
    calls.push(("create_tenant('Acme', metadata => NULL)".to_owned(), "22023"));
    calls.push(("create_tenant('Acme', plan => NULL)".to_owned(), "22023"));
    calls.push(("create_tenant('Acme', id => NULL)".to_owned(), "22023"));
    let calls: Vec<(&str, &str)> = calls.iter().map(|(call, sqlstate)| (call.as_str(), *sqlstate)).collect();
    all_fail(&database, "operator", &calls);
}

#[test]
fn a_tenant_is_found_by_slug_or_external_id_and_by_nothing_else() {
    let (database, mut operator) = operated("find");
    let id: Uuid = one(&mut operator, "SELECT create_tenant('Acme', 'acme', external_id => 'crm-1')", &[]);
    let mut app = database.connect("app");
    for client in [&mut app, &mut operator] {
        for (call, found) in [
            ("find_tenant('acme')", Some(id)),
            ("find_tenant(slug => 'acme')", Some(id)),
            ("find_tenant(external_id => 'crm-1')", Some(id)),
            ("find_tenant('ACME')", None),
            ("find_tenant('acm')", None),
            ("find_tenant(external_id => 'CRM-1')", None),
            ("find_tenant(external_id => '')", None),
        ] {
            assert_eq!(one::<Option<Uuid>>(client, &format!("SELECT {call}"), &[]), found, "{call}");
        }
        for call in ["find_tenant()", "find_tenant(NULL, NULL)", "find_tenant('acme', 'crm-1')"] {
            fails(client.batch_execute(&format!("SELECT {call}")), "22023");
        }
        assert!(!one::<bool>(client, "SELECT slug_available('acme')", &[]));
        assert!(one::<bool>(client, "SELECT slug_available('free-one')", &[]));
        fails(client.batch_execute("SELECT slug_available(NULL)"), "22023");
    }
    for role in ["client", "monitor", "stranger"] {
        all_fail(&database, role, &[("find_tenant('acme')", "42501"), ("slug_available('acme')", "42501")]);
    }
}

#[test]
fn a_slug_becomes_free_when_its_tenant_takes_another_one() {
    let (_database, mut operator) = operated("freed");
    let first: Uuid = one(&mut operator, "SELECT create_tenant('Acme', 'acme')", &[]);
    operator.execute("SELECT update_tenant($1, slug => 'old-acme')", &[&first]).expect("rename");
    let second: Uuid = one(&mut operator, "SELECT create_tenant('Acme', 'acme')", &[]);
    assert_eq!(one::<Option<Uuid>>(&mut operator, "SELECT find_tenant('acme')", &[]), Some(second));
    assert_eq!(one::<Option<Uuid>>(&mut operator, "SELECT find_tenant('old-acme')", &[]), Some(first));
}

#[test]
fn an_application_sees_the_registry_row_of_its_bound_tenant_only() {
    let (database, mut operator) = operated("own_row");
    let both = tenants(&mut operator, 2);
    let mut app = database.connect("app");
    assert_eq!(count(&mut app, "tenancy.tenants"), 0);
    as_tenant(&mut app, both[0], |transaction| {
        let seen: Vec<Uuid> =
            rows(transaction, "SELECT id FROM tenancy.tenants", &[]).iter().map(|row| row.get(0)).collect();
        assert_eq!(seen, [both[0]]);
    });
    assert_eq!(count(&mut database.connect("client"), "tenancy.tenants"), 0);
    assert_eq!(count(&mut operator, "tenancy.tenants"), 2);
    assert_eq!(count(&mut database.connect("admin"), "tenancy.tenants"), 2);
    fails(database.connect("monitor").batch_execute("SELECT * FROM tenancy.tenants"), "42501");
    fails(database.connect("stranger").batch_execute("SELECT * FROM tenancy.tenants"), "42501");
    fails(app.batch_execute("SELECT * FROM tenancy.tenant_overview"), "42501");
}

#[test]
fn the_overview_shows_who_is_served_and_what_was_refused() {
    const OVERVIEW: &str = "SELECT backends, refused_binds FROM tenancy.tenant_overview WHERE id = $1";
    let (database, mut operator) = operated("overview");
    let both = tenants(&mut operator, 2);
    operator.execute("SELECT suspend_tenant($1)", &[&both[1]]).expect("suspend");
    let mut app = database.connect("app");
    fails(app.query("SELECT set_tenant($1)", &[&both[1]]), "42501");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, both[0]);
    let row = &rows(&mut operator, OVERVIEW, &[&both[0]])[0];
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 0));
    let row = &rows(&mut operator, OVERVIEW, &[&both[1]])[0];
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 1));
    transaction.commit().expect("commit");
    assert_eq!(rows(&mut operator, OVERVIEW, &[&both[0]])[0].get::<_, i64>(0), 0);
}

// ---------------------------------------------------------------------------------------------- plans

#[test]
fn plans_are_created_changed_and_given() {
    const PLAN: &str = "SELECT to_jsonb(p) - 'created_at' FROM tenancy.plans p WHERE plan = $1";
    const PLAN_OF: &str = "SELECT plan FROM tenancy.tenants WHERE id = $1";
    let (_database, mut operator) = operated("plans");
    let id = tenant(&mut operator);
    assert_eq!(one::<String>(&mut operator, PLAN_OF, &[&id]), "free");
    let made: String = one(&mut operator, "SELECT create_plan('pro', features => '{sso,\"a b\"}')", &[]);
    assert_eq!(made, "pro");
    let plan = json!({ "plan": "pro", "isolation": "row", "settings": {}, "features": ["sso", "a b"] });
    assert_eq!(one::<Value>(&mut operator, PLAN, &[&"pro"]), plan);
    operator.batch_execute("SELECT create_plan('pro', settings => '{\"seats\": 5}')").expect("replace");
    let plan = json!({ "plan": "pro", "isolation": "row", "settings": { "seats": 5 }, "features": [] });
    assert_eq!(one::<Value>(&mut operator, PLAN, &[&"pro"]), plan);
    let paying: Uuid = one(&mut operator, "SELECT create_tenant('Paying', plan => 'pro')", &[]);
    assert_eq!(one::<String>(&mut operator, PLAN_OF, &[&paying]), "pro");
    assert_eq!(one::<Uuid>(&mut operator, "SELECT change_plan($1, 'pro')", &[&id]), id);
    assert_eq!(one::<String>(&mut operator, PLAN_OF, &[&id]), "pro");
    operator.execute("SELECT change_plan($1, 'free')", &[&id]).expect("back to free");
    assert_eq!(one::<String>(&mut operator, PLAN_OF, &[&id]), "free");
}

#[test]
fn changing_to_the_free_plan_needs_no_creating() {
    let (_database, mut operator) = operated("free_plan");
    operator.batch_execute("SELECT create_plan('pro')").expect("create a plan");
    let id: Uuid = one(&mut operator, "SELECT create_tenant('Acme', plan => 'pro')", &[]);
    operator.execute("SELECT change_plan($1, 'free')", &[&id]).expect("change to free");
}

#[test]
fn plans_refuse_bad_arguments_and_what_this_version_lacks() {
    let (database, mut operator) = operated("bad_plans");
    tenant(&mut operator);
    let mut calls = vec![
        ("create_tenant('Acme', plan => 'nope')".to_owned(), "P0002"),
        ("create_tenant('Acme', plan => '')".to_owned(), "P0002"),
        ("create_tenant('Acme', isolation => 'schema')".to_owned(), "55000"),
        ("create_tenant('Acme', isolation => 'schema', template => 'nope')".to_owned(), "P0002"),
        ("create_tenant('Acme', isolation => 'row', template => 'nope')".to_owned(), "22023"),
        ("create_tenant('Acme', template => 'nope')".to_owned(), "22023"),
        ("create_tenant('Acme', schema_name => 'mine')".to_owned(), "22023"),
        ("create_tenant('Acme', isolation => 'database', schema_name => 'mine')".to_owned(), "55000"),
        ("create_tenant('Acme', isolation => 'database')".to_owned(), "55000"),
        ("create_tenant('Acme', isolation => 'database', template => 'nope')".to_owned(), "P0002"),
        ("create_tenant('Acme', isolation => 'Row')".to_owned(), "22023"),
        ("create_tenant('Acme', isolation => repeat('x', 1000000))".to_owned(), "22023"),
        ("create_plan('pro', 'rows')".to_owned(), "22023"),
        ("create_plan('pro', NULL)".to_owned(), "22023"),
        ("create_plan('pro', settings => NULL)".to_owned(), "22023"),
        ("create_plan('pro', features => NULL)".to_owned(), "22023"),
        ("create_plan('pro', features => '{a,NULL}')".to_owned(), "22023"),
        ("create_plan(NULL)".to_owned(), "22023"),
    ];
    for name in [
        "''",
        "'Pro'",
        "'-pro'",
        "'_pro'",
        "'a b'",
        "'ä'",
        "repeat('a', 64)",
        "repeat('a', 1000000)",
        "E'a\\nb'",
        "$$'; --$$",
    ] {
        calls.push((format!("create_plan({name})"), "22023"));
    }
    let calls: Vec<(&str, &str)> = calls.iter().map(|(call, sqlstate)| (call.as_str(), *sqlstate)).collect();
    all_fail(&database, "operator", &calls);
}

/// The isolation of a plan is what its new tenants get, unless the call says otherwise; those that are there stay what they are.
#[test]
fn a_plan_decides_the_isolation_of_its_new_tenants() {
    const KEPT: &str =
        "SELECT slug, isolation, schema_name IS NOT NULL AND to_regnamespace(quote_ident(schema_name)) IS NOT NULL
        FROM tenancy.tenants ORDER BY slug";
    let (database, mut operator) = operated("plan_isolation");
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE SCHEMA template AUTHORIZATION owner").expect("create a schema");
    database.connect("admin").batch_execute("SELECT register_template('t', 'template')").expect("register a template");
    operator
        .batch_execute(
            "SELECT create_plan('pro'); SELECT create_tenant('a', plan => 'pro');
             SELECT create_plan('pro', 'schema'); SELECT create_tenant('b', plan => 'pro');
             SELECT create_tenant('c', plan => 'pro', isolation => 'row'); SELECT create_tenant('d', isolation => 'schema');
             SELECT change_plan(find_tenant('a'), 'pro')",
        )
        .expect("create tenants");
    let kept: Vec<String> = simple(&mut superuser, KEPT)
        .into_iter()
        .map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(kept, ["a row f", "b schema t", "c row f", "d schema t"]);
}

#[test]
fn a_deleted_tenant_changes_no_plan() {
    let (database, mut operator) = operated("late_plan");
    let id = tenant(&mut operator);
    operator.execute("SELECT delete_tenant($1)", &[&id]).expect("delete");
    all_fail(&database, "operator", &[(&format!("change_plan('{id}', 'free')"), "55000")]);
}

#[test]
fn every_level_reads_the_plans() {
    let (database, mut operator) = operated("read_plans");
    operator.batch_execute("SELECT create_plan('pro')").expect("create a plan");
    for role in ["client", "app", "monitor", "operator", "admin"] {
        assert_eq!(count(&mut database.connect(role), "tenancy.plans"), 1, "{role}");
    }
}

// ---------------------------------------------------------------------------------------------- at once

/// All sessions wait for one lock, so that they start together.
fn at_once(cluster: &Cluster, database: &Database, sessions: usize, call: &str) -> Vec<Result<Uuid, Box<DbError>>> {
    const WAITING: &str = "pg_locks WHERE NOT granted AND relation = 'tenancy.tenants'::regclass";
    let mut gate = database.superuser();
    gate.batch_execute("BEGIN; LOCK TABLE tenancy.tenants IN SHARE MODE").expect("close the gate");
    let mut observer = database.superuser();
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sessions)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = database.connect("operator");
                    match client.query_one(call, &[]) {
                        Ok(row) => Ok(row.get(0)),
                        Err(error) => Err(Box::new(error.as_db_error().expect("an answer of the server").clone())),
                    }
                })
            })
            .collect();
        let due = i64::try_from(sessions).expect("a small number");
        wait_until("all sessions wait at the gate", || count(&mut observer, WAITING) == due);
        gate.batch_execute("COMMIT").expect("open the gate");
        threads.into_iter().map(|thread| thread.join().expect("a session's thread")).collect()
    });
    assert!(!cluster.log_contains("deadlock detected"), "a deadlock");
    results
}

#[test]
fn of_a_hundred_sessions_that_create_one_slug_one_wins() {
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("hundred");
    tenant(&mut database.connect("operator"));
    let results = at_once(&cluster, &database, 100, "SELECT create_tenant('Acme', 'acme')");
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for fault in lost.into_iter().filter_map(Result::err) {
        assert_eq!(fault.code().code(), "23505", "{fault}");
        assert!(fault.message().contains("acme"), "{fault}");
    }
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, "tenancy.tenants WHERE slug = 'acme'"), 1);
    assert_eq!(count(&mut superuser, "tenancy.audit_log WHERE target = 'acme'"), 1);
}

#[test]
fn sessions_that_create_one_external_id_learn_that_it_is_taken() {
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("external");
    tenant(&mut database.connect("operator"));
    let results = at_once(&cluster, &database, 12, "SELECT create_tenant('Acme', external_id => 'crm-1')");
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for fault in results.into_iter().filter_map(Result::err) {
        assert_eq!(fault.code().code(), "23505", "{fault}");
        assert!(fault.message().contains("crm-1"), "{fault}");
    }
}

#[test]
fn sessions_that_create_one_name_all_get_a_slug() {
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("names");
    tenant(&mut database.connect("operator"));
    let results = at_once(&cluster, &database, 30, "SELECT create_tenant('Acme')");
    for result in &results {
        assert!(result.is_ok(), "{result:?}");
    }
    assert_eq!(count(&mut database.superuser(), "tenancy.tenants WHERE slug ~ '^acme'"), 30);
}

/// Calls that some thread makes next, by its turn.
fn some_call(thread: usize, turn: usize) -> &'static str {
    const CALLS: [&str; 9] = [
        "suspend_tenant($1)",
        "resume_tenant($1)",
        "suspend_tenant($1, mode => 'read_only')",
        "cancel_tenant($1)",
        "restore_tenant($1)",
        "delete_tenant($1)",
        "change_plan($1, 'free')",
        "update_tenant($1, name => 'Renamed')",
        "suspend_tenant($1, terminate => true)",
    ];
    CALLS[(thread * 7 + turn * 5 + thread * turn) % CALLS.len()]
}

#[test]
fn lifecycle_calls_of_many_sessions_on_one_tenant_take_turns() {
    const CHAIN: &str = "SELECT before ->> 'status', after ->> 'status' FROM tenancy.audit_log
        WHERE tenant_id = $1 AND before ? 'status' ORDER BY id";
    let (database, mut operator) = operated("turns");
    let id = tenant(&mut operator);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let database = &database;
            scope.spawn(move || {
                let mut operator = database.connect("operator");
                for turn in 0..40 {
                    let call = some_call(thread, turn);
                    if let Err(error) = operator.execute(&format!("SELECT {call}"), &[&id]) {
                        let code = error.code().map(|code| code.code().to_owned());
                        assert_eq!(code.as_deref(), Some("55000"), "{call}: {error:?}");
                    }
                }
            });
        }
    });
    let mut state = "active".to_owned();
    for change in rows(&mut operator, CHAIN, &[&id]) {
        let (before, after): (String, String) = (change.get(0), change.get(1));
        assert_eq!(before, state, "each change starts where the one before it ended");
        let legal = TRANSITIONS.iter().any(|(_, from, to)| *to == after && from.contains(&before.as_str()));
        assert!(legal, "{before} to {after}");
        state = after;
    }
    assert_eq!(status(&mut operator, id), state);
}

// ---------------------------------------------------------------------------------------------- writers

/// Every call that closes a tenant to its writers, and what a writer that comes too late is told.
const CLOSINGS: [(&str, &str, &str); 4] = [
    ("suspend_tenant($1)", "suspended", "42501"),
    ("suspend_tenant($1, mode => 'read_only')", "read_only", "25006"),
    ("cancel_tenant($1)", "cancelled", "42501"),
    ("delete_tenant($1, '0')", "deleted", "42501"),
];

/// Every way to write a protected table, each of which would change a row.
const WRITES: [&str; 8] = [
    "INSERT INTO notes (body) VALUES ('late')",
    "UPDATE notes SET body = 'late'",
    "DELETE FROM notes",
    "MERGE INTO notes USING (VALUES (1)) AS v (x) ON true WHEN MATCHED THEN UPDATE SET body = 'late'",
    "WITH w AS (INSERT INTO notes (body) VALUES ('late') RETURNING 1) SELECT * FROM w",
    "INSERT INTO notes (body) SELECT 'late' FROM notes ON CONFLICT DO NOTHING",
    "DO $$ BEGIN INSERT INTO notes (body) VALUES ('late'); END $$",
    "EXECUTE late",
];

/// A database with the protected table notes and one tenant that has a note.
fn with_a_note(label: &str) -> (Database, Client, Uuid) {
    let (database, mut operator) = operated(label);
    protected_table(&database);
    let id = tenant(&mut operator);
    as_tenant(&mut database.connect("app"), id, |transaction| {
        transaction.execute("INSERT INTO notes (body) VALUES ('first')", &[]).expect("insert");
    });
    (database, operator, id)
}

fn bodies(superuser: &mut Client) -> Vec<String> {
    rows(superuser, "SELECT body FROM notes ORDER BY id", &[]).iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_change_of_state_waits_for_open_writes_which_then_commit() {
    for (closing, state, _) in CLOSINGS {
        let (database, mut operator, id) = with_a_note("open_write");
        let mut superuser = database.superuser();
        let mut app = database.connect("app");
        let mut writer = app.transaction().expect("begin");
        bind(&mut writer, id);
        writer.execute("INSERT INTO notes (body) VALUES ('in time')", &[]).expect("insert");
        let pid = backend_pid(&mut operator);
        std::thread::scope(|scope| {
            let close = scope.spawn(|| operator.execute(&format!("SELECT {closing}"), &[&id]));
            wait_for_lock(&mut superuser, pid);
            assert_eq!(status(&mut superuser, id), "active", "{closing}");
            writer.execute("INSERT INTO notes (body) VALUES ('still in time')", &[]).expect("go on writing");
            writer.commit().expect("commit");
            close.join().expect("join").expect("close the tenant");
        });
        assert_eq!(status(&mut superuser, id), state, "{closing}");
        assert_eq!(bodies(&mut superuser), ["first", "in time", "still in time"], "{closing}");
    }
}

#[test]
fn a_writer_that_bound_before_but_writes_after_is_refused() {
    for (closing, _, sqlstate) in CLOSINGS {
        let (database, mut operator, id) = with_a_note("late_write");
        let mut app = database.connect("app");
        app.batch_execute("PREPARE late AS INSERT INTO notes (body) VALUES ('late')").expect("prepare");
        for write in WRITES {
            let mut writer = app.transaction().expect("begin");
            bind(&mut writer, id);
            assert_eq!(count(&mut writer, "notes"), 1);
            operator.execute(&format!("SELECT {closing}"), &[&id]).expect("close the tenant at once");
            assert_eq!(count(&mut writer, "notes"), 1, "what is bound may go on reading");
            fails(writer.batch_execute(write), sqlstate);
            writer.rollback().expect("roll back");
            assert_eq!(bodies(&mut database.superuser()), ["first"], "{closing}, then {write}");
            put(&mut database.superuser(), id, "active");
        }
        // The client library is out of step after a COPY that fails, hence a session of its own.
        let mut app = database.connect("app");
        let mut writer = app.transaction().expect("begin");
        bind(&mut writer, id);
        operator.execute(&format!("SELECT {closing}"), &[&id]).expect("close the tenant at once");
        let copied = writer.copy_in("COPY notes (body) FROM STDIN").and_then(|mut copy| {
            std::io::Write::write_all(&mut copy, b"late\n").expect("write to the server");
            copy.finish()
        });
        fails(copied, sqlstate);
        drop(writer);
        assert_eq!(bodies(&mut database.superuser()), ["first"], "{closing}, then COPY");
    }
}

#[test]
fn a_first_write_waits_for_a_change_of_state_under_way() {
    for (end, sqlstate) in [("COMMIT", Some("42501")), ("ROLLBACK", None)] {
        let (database, mut operator, id) = with_a_note("under_way");
        let mut superuser = database.superuser();
        let mut app = database.connect("app");
        let pid = backend_pid(&mut app);
        let mut writer = app.transaction().expect("begin");
        bind(&mut writer, id);
        operator.batch_execute(&format!("BEGIN; SELECT suspend_tenant('{id}')")).expect("suspend");
        std::thread::scope(|scope| {
            let write = scope.spawn(move || {
                let result = writer.execute("INSERT INTO notes (body) VALUES ('second')", &[]);
                match sqlstate {
                    Some(sqlstate) => {
                        fails(result, sqlstate);
                    }
                    None => {
                        result.expect("write after all");
                        writer.commit().expect("commit");
                    }
                }
            });
            wait_for_lock(&mut superuser, pid);
            operator.batch_execute(end).expect("end the change of state");
            write.join().expect("the writer's thread");
        });
        let expected: &[&str] = if sqlstate.is_some() { &["first"] } else { &["first", "second"] };
        assert_eq!(bodies(&mut superuser), expected, "after {end}");
    }
}

#[test]
fn rolling_back_to_a_savepoint_frees_the_tenant_and_the_next_write_asks_again() {
    for (closing, _, sqlstate) in CLOSINGS {
        let (database, mut operator, id) = with_a_note("savepoint");
        operator.batch_execute("SET lock_timeout = '20s'").expect("set lock_timeout");
        let mut app = database.connect("app");
        let mut writer = app.transaction().expect("begin");
        bind(&mut writer, id);
        writer
            .batch_execute("SAVEPOINT s; INSERT INTO notes (body) VALUES ('undone'); ROLLBACK TO s")
            .expect("write and undo");
        operator.execute(&format!("SELECT {closing}"), &[&id]).expect("close the tenant without waiting");
        fails(writer.execute("INSERT INTO notes (body) VALUES ('late')", &[]), sqlstate);
        writer.rollback().expect("roll back");
        assert_eq!(bodies(&mut database.superuser()), ["first"], "{closing}");
    }
}

#[test]
fn a_savepoint_that_is_released_keeps_the_tenant_waiting() {
    let (database, mut operator, id) = with_a_note("released");
    let mut app = database.connect("app");
    let mut writer = app.transaction().expect("begin");
    bind(&mut writer, id);
    writer
        .batch_execute("SAVEPOINT s; INSERT INTO notes (body) VALUES ('kept'); RELEASE s")
        .expect("write in a savepoint");
    operator.batch_execute("SET lock_timeout = '50ms'").expect("set lock_timeout");
    fails(operator.execute("SELECT suspend_tenant($1)", &[&id]), "55P03");
    writer.commit().expect("commit");
    operator.execute("SELECT suspend_tenant($1)", &[&id]).expect("suspend");
    assert_eq!(bodies(&mut database.superuser()), ["first", "kept"]);
}

#[test]
fn a_change_of_state_that_waits_too_long_changes_nothing() {
    let (database, mut operator, id) = with_a_note("lock_timeout");
    let mut app = database.connect("app");
    let mut writer = app.transaction().expect("begin");
    bind(&mut writer, id);
    writer.execute("INSERT INTO notes (body) VALUES ('second')", &[]).expect("insert");
    let mut superuser = database.superuser();
    let before = registry(&mut superuser);
    operator.batch_execute("SET lock_timeout = '10ms'").expect("set lock_timeout");
    for (closing, ..) in CLOSINGS {
        fails(operator.execute(&format!("SELECT {closing}"), &[&id]), "55P03");
    }
    assert_eq!(registry(&mut superuser), before);
    writer.commit().expect("commit");
}

#[test]
fn a_prepared_transaction_holds_the_change_of_state_back() {
    let (database, mut operator, id) = with_a_note("prepared");
    let mut superuser = database.superuser();
    let mut app = database.connect("app");
    let name = database.name().to_owned();
    app.batch_execute(&format!(
        "BEGIN; SELECT set_tenant('{id}'); INSERT INTO notes (body) VALUES ('prepared'); PREPARE TRANSACTION '{name}'"
    ))
    .expect("prepare a transaction");
    let pid = backend_pid(&mut operator);
    std::thread::scope(|scope| {
        let suspend = scope.spawn(|| operator.execute("SELECT suspend_tenant($1)", &[&id]));
        wait_for_lock(&mut superuser, pid);
        assert_eq!(status(&mut superuser, id), "active");
        app.batch_execute(&format!("COMMIT PREPARED '{name}'")).expect("commit it");
        suspend.join().expect("join").expect("suspend");
    });
    assert_eq!(status(&mut superuser, id), "suspended");
    assert_eq!(bodies(&mut superuser), ["first", "prepared"]);
}

/// Nobody waits for a reader, and a reader waits for nobody.
#[test]
fn readers_never_wait() {
    let (database, mut operator, id) = with_a_note("readers");
    let mut bound_before = database.connect("app");
    let mut reader = bound_before.transaction().expect("begin");
    bind(&mut reader, id);
    assert_eq!(count(&mut reader, "notes"), 1);
    operator
        .batch_execute(&format!("SET lock_timeout = '10s'; BEGIN; SELECT suspend_tenant('{id}')"))
        .expect("suspend although a reader is bound");
    reader.batch_execute("SET LOCAL lock_timeout = '10s'").expect("set lock_timeout");
    assert_eq!(count(&mut reader, "notes"), 1);
    let mut newcomer = database.connect("app");
    newcomer.batch_execute("SET lock_timeout = '10s'").expect("set lock_timeout");
    as_tenant(&mut newcomer, id, |transaction| assert_eq!(count(transaction, "notes"), 1));
    operator.batch_execute("COMMIT").expect("commit");
    fails(newcomer.query("SELECT set_tenant($1)", &[&id]), "42501");
}

#[test]
fn one_tenants_writers_hold_back_no_other_tenant() {
    let (database, mut operator, id) = with_a_note("others");
    let other = tenant(&mut operator);
    let mut app = database.connect("app");
    let mut writer = app.transaction().expect("begin");
    bind(&mut writer, id);
    writer.execute("INSERT INTO notes (body) VALUES ('open')", &[]).expect("insert");
    operator.batch_execute("SET lock_timeout = '10s'").expect("set lock_timeout");
    operator.execute("SELECT suspend_tenant($1)", &[&other]).expect("suspend the other tenant");
    writer.commit().expect("commit");
}

/// Not even where a foreign key to the registry has locked the tenant's row for the writer.
#[test]
fn renaming_and_changing_the_plan_wait_for_no_writer() {
    let (database, mut operator) = operated("no_wait");
    database
        .connect("owner")
        .batch_execute("CREATE TABLE orders (tenant_id uuid, n int); GRANT SELECT, INSERT ON orders TO app")
        .expect("create a table");
    database.connect("admin").batch_execute("SELECT protect_table('orders', foreign_key => true)").expect("protect");
    let id = tenant(&mut operator);
    let mut app = database.connect("app");
    let mut writer = app.transaction().expect("begin");
    bind(&mut writer, id);
    writer.execute("INSERT INTO orders (n) VALUES (1)", &[]).expect("insert");
    operator.batch_execute("SET lock_timeout = '5s'").expect("set lock_timeout");
    operator.execute("SELECT change_plan($1, 'free')", &[&id]).expect("change the plan");
    operator.execute("SELECT update_tenant($1, 'Renamed', metadata => '{}')", &[&id]).expect("rename");
    writer.commit().expect("commit");
}

/// `transaction_read_only` is undone when the savepoint is released in which the tenant was bound.
#[test]
fn a_read_only_tenant_is_not_written_by_any_trick() {
    let (database, mut operator, id) = with_a_note("read_only");
    operator.execute("SELECT suspend_tenant($1, mode => 'read_only')", &[&id]).expect("make it read-only");
    let mut app = database.connect("app");
    app.batch_execute("PREPARE late AS INSERT INTO notes (body) VALUES ('late')").expect("prepare");
    let bound = format!("SELECT set_tenant('{id}')");
    let preludes = [
        format!("BEGIN; {bound}"),
        format!("BEGIN; SAVEPOINT s; {bound}; RELEASE s"),
        format!("BEGIN; SAVEPOINT s; SAVEPOINT t; {bound}; RELEASE t; RELEASE s; SAVEPOINT u"),
        format!(
            "BEGIN; DO $$ BEGIN BEGIN PERFORM set_tenant('{id}'); EXCEPTION WHEN division_by_zero THEN NULL; END; END $$"
        ),
        format!("BEGIN; SAVEPOINT s; {bound}; RELEASE s; SET LOCAL transaction_read_only = off"),
        format!("BEGIN; SAVEPOINT s; {bound}; RELEASE s; SET TRANSACTION READ WRITE"),
        format!("BEGIN; SAVEPOINT s; {bound}; RELEASE s; SELECT set_config('transaction_read_only', 'off', true)"),
    ];
    for prelude in &preludes {
        for write in WRITES {
            let read = simple(&mut app, &format!("{prelude}; SELECT count(*) FROM notes")).pop();
            assert_eq!(read, Some(vec![Some("1".to_owned())]), "{prelude}: reading goes on");
            fails(app.batch_execute(write), "25006");
            app.batch_execute("ROLLBACK").expect("roll back");
        }
    }
    for lift in
        ["SET transaction_read_only = off", "SET TRANSACTION READ WRITE", "SET LOCAL transaction_read_only = off"]
    {
        app.batch_execute(&format!("BEGIN; {bound}")).expect("bind");
        assert!(app.batch_execute(lift).is_err(), "{lift}");
        app.batch_execute("ROLLBACK").expect("roll back");
    }
    assert_eq!(bodies(&mut database.superuser()), ["first"]);
    operator.execute("SELECT resume_tenant($1)", &[&id]).expect("resume");
    as_tenant(&mut app, id, |transaction| {
        transaction.execute("INSERT INTO notes (body) VALUES ('second')", &[]).expect("write again");
    });
}

#[test]
fn a_read_only_tenant_leaves_the_session_writable_for_the_next_one() {
    let (database, mut operator, id) = with_a_note("after_read_only");
    let other = tenant(&mut operator);
    operator.execute("SELECT suspend_tenant($1, mode => 'read_only')", &[&id]).expect("make it read-only");
    let mut app = database.connect("app");
    as_tenant(&mut app, id, |transaction| assert_eq!(count(transaction, "notes"), 1));
    as_tenant(&mut app, other, |transaction| {
        transaction.execute("INSERT INTO notes (body) VALUES ('other')", &[]).expect("write for the other tenant");
    });
}

// ---------------------------------------------------------------------------------------------- terminate

#[test]
fn terminating_ends_the_tenants_sessions_and_no_others() {
    let (database, mut operator, id) = with_a_note("terminate");
    let other = tenant(&mut operator);
    let mut pooled = database.connect("app");
    as_tenant(&mut pooled, id, |transaction| assert_eq!(count(transaction, "notes"), 1));
    let mut reader = database.connect("app");
    reader.batch_execute(&format!("BEGIN; SELECT set_tenant('{id}')")).expect("bind a reader");
    let mut writer = database.connect("app");
    writer
        .batch_execute(&format!("BEGIN; SELECT set_tenant('{id}'); INSERT INTO notes (body) VALUES ('open')"))
        .expect("bind a writer");
    let mut neighbour = database.connect("app");
    neighbour
        .batch_execute(&format!("BEGIN; SELECT set_tenant('{other}'); INSERT INTO notes (body) VALUES ('other')"))
        .expect("bind a neighbour");
    let suspended: Uuid = one(&mut operator, "SELECT suspend_tenant($1, terminate => true)", &[&id]);
    assert_eq!(suspended, id);
    for (session, mut client) in [("reader", reader), ("writer", writer)] {
        let error = client.batch_execute("SELECT 1").expect_err("the session was ended");
        let code = error.code().map(|code| code.code().to_owned());
        assert!(client.is_closed() || code.as_deref() == Some("57P01"), "{session}: {error:?}");
    }
    neighbour.batch_execute("COMMIT").expect("the neighbour goes on");
    assert_eq!(text(&mut pooled, "SELECT 1"), "1", "an idle session goes on");
    assert_eq!(status(&mut operator, id), "suspended");
    assert_eq!(bodies(&mut database.superuser()), ["first", "other"]);
}

#[test]
fn a_refused_suspension_terminates_nobody() {
    let (database, mut operator, id) = with_a_note("no_terminate");
    let mut app = database.connect("app");
    let mut reader = app.transaction().expect("begin");
    bind(&mut reader, id);
    put(&mut database.superuser(), id, "cancelled");
    fails(operator.execute("SELECT suspend_tenant($1, terminate => true)", &[&id]), "55000");
    fails(operator.execute("SELECT suspend_tenant($1, mode => 'x', terminate => true)", &[&id]), "22023");
    assert_eq!(count(&mut reader, "notes"), 1);
}

#[test]
fn an_unknown_tenant_is_never_bound() {
    let database = Database::new("unknown");
    let mut app = database.connect("app");
    let found: Option<Uuid> = optional(&mut app, "SELECT id FROM tenancy.tenants LIMIT 1", &[]);
    assert_eq!(found, None);
    fails(app.query("SELECT set_tenant($1)", &[&Uuid::new_v4()]), "P0002");
    fails(app.query("SELECT set_tenant($1)", &[&Uuid::nil()]), "P0002");
}

// ---- states that backends remember --------------------------------------------------------------------------------------------

/// A session of level app that binds one tenant again and again: it remembers the tenant's state.
struct Binder {
    session: Client,
    id: Uuid,
}

impl Binder {
    fn new(database: &Database, id: Uuid) -> Binder {
        let mut binder = Binder { session: database.connect("app"), id };
        binder.admits("the beginning");
        binder
    }

    /// The SQLSTATE of a bind and a write now; 00000 when both succeed.
    fn attempt(&mut self) -> String {
        let id = self.id;
        let attempt = format!("BEGIN; SELECT set_tenant('{id}'); INSERT INTO notes (body) VALUES ('bound'); COMMIT");
        let code = fixtures::sqlstate(&self.session.batch_execute(&attempt));
        self.session.batch_execute("ROLLBACK").expect("end");
        code
    }

    /// Twice: what was read once is remembered.
    #[track_caller]
    fn admits(&mut self, after: &str) {
        self.answers("00000", after);
    }

    #[track_caller]
    fn answers(&mut self, code: &str, after: &str) {
        for _ in 0..2 {
            assert_eq!(self.attempt(), code, "after {after}");
        }
    }
}

/// A database with the protected table notes, two tenants, and a session that remembers the first.
fn remembered(label: &str) -> (Database, Client, [Uuid; 2], Binder) {
    let database = Database::new(label);
    protected_table(&database);
    let mut admin = database.connect("admin");
    let both = [tenant(&mut admin), tenant(&mut admin)];
    let binder = Binder::new(&database, both[0]);
    (database, admin, both, binder)
}

#[test]
fn a_session_that_remembers_a_tenant_hears_of_each_change() {
    let (database, mut admin, [id, _], mut binder) = remembered("heard");
    for (change, code) in [
        ("suspend_tenant('TENANT')", "42501"),
        ("suspend_tenant('TENANT', mode => 'read_only')", "25006"),
        ("resume_tenant('TENANT')", "00000"),
        ("cancel_tenant('TENANT')", "42501"),
        ("restore_tenant('TENANT')", "00000"),
        ("update_tenant('TENANT', name => 'Other')", "00000"),
        ("suspend_tenant('TENANT', mode => 'read_only')", "25006"),
        ("suspend_tenant('TENANT')", "42501"),
        ("resume_tenant('TENANT')", "00000"),
        ("delete_tenant('TENANT', '0')", "42501"),
    ] {
        let change = change.replace("TENANT", &id.to_string());
        admin.batch_execute(&format!("SELECT {change}")).expect("change");
        binder.answers(code, &change);
    }
    admin.batch_execute(&format!("CALL purge_tenant('{id}')")).expect("purge");
    binder.answers("P0002", "the purge");
    one::<Uuid>(&mut admin, "SELECT create_tenant('Again', id => $1)", &[&id]);
    binder.admits("creating it again");
    // Whoever changes the row, and however.
    let mut superuser = database.superuser();
    for (change, code) in [
        ("SET session_replication_role = replica; UPDATE tenancy.tenants SET status = 'suspended'", "42501"),
        ("UPDATE tenancy.tenants SET status = 'provisioning'", "55000"),
        ("MERGE INTO tenancy.tenants USING (SELECT) x ON true WHEN MATCHED THEN UPDATE SET status = 'moving'", "55000"),
        ("WITH x AS (UPDATE tenancy.tenants SET status = 'active' RETURNING 1) SELECT count(*) FROM x", "00000"),
        ("CREATE TEMP TABLE kept AS TABLE tenancy.tenants; DELETE FROM tenancy.tenants", "P0002"),
        ("INSERT INTO tenancy.tenants TABLE kept", "00000"),
        ("TRUNCATE tenancy.tenants", "P0002"),
        ("COPY tenancy.tenants FROM PROGRAM 'true'; INSERT INTO tenancy.tenants TABLE kept", "00000"),
        ("VACUUM FULL tenancy.tenants", "00000"),
        ("REINDEX TABLE CONCURRENTLY tenancy.tenants", "00000"),
    ] {
        for statement in change.split("; ") {
            superuser.batch_execute(statement).expect(statement);
        }
        binder.answers(code, change);
    }
    superuser.batch_execute("DROP EXTENSION pg_tenancy CASCADE; CREATE EXTENSION pg_tenancy").expect("make anew");
    superuser.batch_execute("SELECT grant_access('app', 'app')").expect("grant");
    binder.answers("P0002", "creating the extension anew");
}

/// A data-only restore may leave the trigger enabled for ordinary sessions only (`ENABLE TRIGGER ALL`), and a DBA may disable it.
#[test]
fn where_changes_are_not_announced_no_state_is_remembered() {
    let (database, _, _, mut binder) = remembered("unannounced");
    let mut superuser = database.superuser();
    superuser.batch_execute("SET session_replication_role = replica").expect("as logical replication applies changes");
    for trigger in [
        "ENABLE TRIGGER ALL",
        "ENABLE TRIGGER announce_change",
        "DISABLE TRIGGER announce_change",
        "ENABLE REPLICA TRIGGER announce_change",
        "DISABLE TRIGGER ALL",
        "ENABLE ALWAYS TRIGGER announce_change",
    ] {
        superuser.batch_execute(&format!("ALTER TABLE tenancy.tenants {trigger}")).expect(trigger);
        for (status, code) in [("active", "00000"), ("suspended", "42501"), ("active", "00000")] {
            superuser.execute("UPDATE tenancy.tenants SET status = $1", &[&status]).expect("update");
            binder.answers(code, trigger);
        }
    }
    superuser.batch_execute("ALTER TABLE tenancy.tenants DISABLE TRIGGER announce_truncate").expect("disable");
    binder.admits("DISABLE TRIGGER announce_truncate");
    superuser.batch_execute("TRUNCATE tenancy.tenants").expect("truncate");
    binder.answers("P0002", "an unannounced TRUNCATE");
}

#[test]
fn what_is_undone_is_not_remembered() {
    let (database, mut admin, [id, other], mut binder) = remembered("undone_states");
    let bind = format!("SELECT set_tenant('{id}')");
    let (suspend, resume) = (format!("SELECT suspend_tenant('{id}')"), format!("SELECT resume_tenant('{id}')"));
    for _ in 0..2 {
        admin.batch_execute(&format!("BEGIN; {bind}; SAVEPOINT s; {suspend}; SAVEPOINT t")).expect("suspend");
        fails(admin.batch_execute(&bind), "42501");
        admin.batch_execute("ROLLBACK TO t").expect("roll back");
        fails(admin.batch_execute(&bind), "42501");
        admin.batch_execute(&format!("ROLLBACK TO t; {resume}; {bind}; ROLLBACK TO t")).expect("resume");
        fails(admin.batch_execute(&bind), "42501");
        admin.batch_execute(&format!("ROLLBACK TO s; {bind}; COMMIT")).expect("what was before");
        binder.admits("a rollback to a savepoint");
        admin.batch_execute(&format!("BEGIN; {suspend}")).expect("suspend");
        // A reader is not disturbed before that is committed.
        as_tenant(&mut database.connect("app"), id, |tx| count(tx, "notes"));
        admin.batch_execute(&format!("ROLLBACK; BEGIN; {bind}; COMMIT")).expect("roll back");
        binder.admits("a rollback");
        let caught = format!(
            "DO $$ BEGIN
                BEGIN PERFORM suspend_tenant('{id}');
                    BEGIN PERFORM set_tenant('{id}'); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN END;
                    RAISE 'undo';
                EXCEPTION WHEN raise_exception THEN END;
                PERFORM set_tenant('{id}');
            END $$"
        );
        admin.batch_execute(&caught).expect("an exception block");
        binder.admits("an exception block");
    }
    // In one statement with the change.
    fails(admin.batch_execute(&format!("SELECT set_tenant(suspend_tenant('{id}'))")), "42501");
    binder.admits("a statement that failed");
    admin.batch_execute(&format!("SELECT suspend_tenant('{id}')")).expect("suspend");
    assert_eq!(text(&mut admin, &format!("SELECT set_tenant(resume_tenant('{id}'))")), id.to_string());
    binder.admits("a statement that resumed and bound");
    assert_eq!(text(&mut admin, &format!("SELECT set_tenant('{other}')")), other.to_string());
}

/// Nor is a row written for it.
#[test]
fn a_tenant_whose_creation_is_undone_is_not_remembered() {
    let (database, _, [other, _], _) = remembered("undone_creation");
    let mut superuser = database.superuser();
    superuser.batch_execute("GRANT INSERT ON notes TO admin").expect("grant");
    let mut admin = database.connect("admin");
    let id = Uuid::new_v4();
    let (create, bind) = (format!("SELECT create_tenant('New', id => '{id}')"), format!("SELECT set_tenant('{id}')"));
    let write = format!("BEGIN; {bind}; INSERT INTO notes (body) VALUES ('orphan'); COMMIT");
    for undone in [
        format!("BEGIN; {create}; {bind}; ROLLBACK"),
        format!("BEGIN; SAVEPOINT s; {create}; {bind}; SAVEPOINT t; ROLLBACK TO s; COMMIT"),
        format!(
            "BEGIN; SAVEPOINT s; {create}; SELECT suspend_tenant('{id}'); SELECT resume_tenant('{id}'); {bind}; ROLLBACK TO s; COMMIT"
        ),
        format!(
            "DO $$ BEGIN PERFORM create_tenant('New', id => '{id}'); PERFORM set_tenant('{id}'); RAISE 'undo';
             EXCEPTION WHEN raise_exception THEN END $$"
        ),
        format!("BEGIN; {create}; {bind}; PREPARE TRANSACTION 'gid_{id}'; ROLLBACK PREPARED 'gid_{id}'"),
    ] {
        for statement in undone.split_inclusive("; ").map(str::trim).filter(|_| !undone.starts_with("DO")) {
            admin.batch_execute(statement).expect(statement);
        }
        if undone.starts_with("DO") {
            admin.batch_execute(&undone).expect("an exception block");
        }
        assert_eq!(fixtures::sqlstate(&admin.batch_execute(&write)), "P0002", "{undone}");
        admin.batch_execute("ROLLBACK").expect("end");
        as_tenant(&mut admin, other, |tx| assert_eq!(one::<Uuid>(tx, "SELECT current_tenant()", &[]), other));
    }
    // While the transaction that creates it is still open, nobody else binds it.
    admin.batch_execute(&format!("BEGIN; {create}; {bind}")).expect("create");
    fails(database.connect("app").batch_execute(&bind), "P0002");
    admin.batch_execute("COMMIT").expect("commit");
    database.connect("app").batch_execute(&bind).expect("bind");
    assert_eq!(count(&mut superuser, "notes WHERE body = 'orphan'"), 0);
}

#[test]
fn a_prepared_change_of_state_counts_from_its_commit() {
    let (database, mut admin, [id, _], _) = remembered("prepared_states");
    let gid = format!("gid_{}", database.name());
    let mut reader = database.connect("app");
    let mut read = |tenant: Uuid| {
        let read = format!("BEGIN; SELECT set_tenant('{tenant}'); SELECT count(*) FROM notes; COMMIT");
        let code = fixtures::sqlstate(&reader.batch_execute(&read));
        reader.batch_execute("ROLLBACK").expect("end");
        code
    };
    let bind = format!("BEGIN; SELECT set_tenant('{id}'); COMMIT");
    for (end, code) in [("ROLLBACK PREPARED", "00000"), ("COMMIT PREPARED", "42501")] {
        let prepare = format!("BEGIN; SELECT suspend_tenant('{id}'); PREPARE TRANSACTION '{gid}'");
        admin.batch_execute(&prepare).expect("prepare");
        assert_eq!(read(id), "00000", "prepared, not committed");
        admin.batch_execute(&bind).expect("nor in the session that prepared it");
        database.superuser().batch_execute(&format!("{end} '{gid}'")).expect(end);
        assert_eq!(read(id), code, "{end}");
        assert_eq!(fixtures::sqlstate(&admin.batch_execute(&bind)), code, "{end}");
        admin.batch_execute("ROLLBACK").expect("end");
    }
}

/// A snapshot of long ago shows no state of long ago: whatever the isolation level, a bind is of now.
#[test]
fn an_old_snapshot_binds_no_suspended_tenant() {
    let (database, mut admin, [id, _], _) = remembered("old_snapshots");
    for level in ["REPEATABLE READ", "SERIALIZABLE", "REPEATABLE READ, READ ONLY"] {
        let mut session = database.connect("app");
        let bind = format!("SELECT set_tenant('{id}')");
        session
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; {bind}; SELECT count(*) FROM notes"))
            .expect("begin");
        admin.batch_execute(&format!("SELECT suspend_tenant('{id}')")).expect("suspend");
        fails(session.batch_execute(&bind), "42501");
        session.batch_execute("ROLLBACK").expect("roll back");
        session.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1")).expect("begin");
        admin.batch_execute(&format!("SELECT resume_tenant('{id}')")).expect("resume");
        session.batch_execute(&format!("{bind}; COMMIT")).expect("bind after all");
    }
}

/// Ids that a backend would remember at one place do not stand for each other.
#[test]
fn tenants_with_like_ids_are_told_apart() {
    let (database, mut admin, _, _) = remembered("like_ids");
    let ids: Vec<Uuid> = (0..40_u128).map(|n| Uuid::from_u128(n << 100 | 0x4000_8000_0000_0000_00aa)).collect();
    for id in &ids {
        one::<Uuid>(&mut admin, "SELECT create_tenant('Like', id => $1)", &[id]);
    }
    for id in ids.iter().step_by(2) {
        admin.execute("SELECT suspend_tenant($1)", &[id]).expect("suspend");
    }
    let mut app = database.connect("app");
    for _ in 0..3 {
        for (place, id) in ids.iter().enumerate() {
            let bound = app.query("SELECT set_tenant($1)", &[id]);
            assert_eq!(fixtures::sqlstate(&bound), if place % 2 == 0 { "42501" } else { "00000" }, "{id}");
        }
    }
}

/// From when a suspension is acknowledged until its end is asked for, no bind that begins succeeds, in any session.
#[test]
fn an_acknowledged_suspension_is_never_missed() {
    const ROUNDS: usize = 150;
    let (database, mut admin, [id, _], _) = remembered("never_missed");
    // Odd while the tenant is known to be suspended.
    let epoch = AtomicUsize::new(0);
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..3)
            .map(|_| {
                let (epoch, running, mut app) = (&epoch, &running, database.connect("app"));
                scope.spawn(move || {
                    let bind = app.prepare("SELECT set_tenant($1)").expect("prepare");
                    let (mut refused, mut admitted) = (0, 0);
                    while running.load(Ordering::SeqCst) {
                        let before = epoch.load(Ordering::SeqCst);
                        let code = fixtures::sqlstate(&app.query(&bind, &[&id]));
                        let during = epoch.load(Ordering::SeqCst) == before && before % 2 == 1;
                        assert!(!during || code == "42501", "bound ({code}) while the tenant was suspended");
                        refused += usize::from(during);
                        admitted += usize::from(code == "00000");
                    }
                    (refused, admitted)
                })
            })
            .collect();
        for _ in 0..ROUNDS {
            admin.execute("SELECT suspend_tenant($1)", &[&id]).expect("suspend");
            epoch.fetch_add(1, Ordering::SeqCst);
            one::<i32>(&mut admin, "SELECT 1", &[]);
            epoch.fetch_add(1, Ordering::SeqCst);
            admin.execute("SELECT resume_tenant($1)", &[&id]).expect("resume");
        }
        running.store(false, Ordering::SeqCst);
        let counts: Vec<(usize, usize)> =
            sessions.into_iter().map(|session| session.join().expect("a session")).collect();
        let (refused, admitted) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        assert!(refused > 10 && admitted > 10, "binds met both states: {counts:?}");
    });
}
