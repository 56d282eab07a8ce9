//! Installing the extension: what it asks for first, and what it leaves open to whom.

use harness::{Client, Cluster, Database, Options, fails, one, rows, simple};

/// What PUBLIC may execute: reading one's own context, what policies call, and nothing else.
const PUBLIC_FUNCTIONS: [&str; 16] = [
    "assert_tenant",
    "current_member_role",
    "current_principal",
    "current_tenant",
    "current_tenant_key_bigint",
    "current_tenant_key_text",
    "current_tenant_or_null",
    "current_tenant_text",
    "current_user_id",
    "first_visible_tenant",
    "last_visible_tenant",
    "refuse_row",
    "nextval",
    "setval",
    "sees_all_tenants",
    "tenancy_guard",
];

const MEMBER_FUNCTIONS: &str = "
SELECT function.oid::regprocedure::text, function.proname::text
FROM pg_depend
JOIN pg_proc AS function ON function.oid = pg_depend.objid
WHERE pg_depend.classid = 'pg_proc'::regclass
  AND pg_depend.refclassid = 'pg_extension'::regclass
  AND pg_depend.deptype = 'e'
  AND pg_depend.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_tenancy')";

/// Names and argument lists of the extension's functions that meet a condition on `function`.
fn functions_where(client: &mut Client, condition: &str) -> Vec<(String, String)> {
    let functions = rows(client, &format!("{MEMBER_FUNCTIONS} AND {condition} ORDER BY 1"), &[]);
    functions.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn without_preload_create_extension_says_what_to_put_where() {
    let cluster = Cluster::start(Options::new().without_preload());
    let database = cluster.empty_database("unloaded");
    let mut superuser = database.superuser();
    let fault = fails(superuser.batch_execute("CREATE EXTENSION pg_tenancy"), "55000");
    assert_eq!(fault.message(), "pg_tenancy must be loaded via shared_preload_libraries");
    let hint = fault.hint().expect("a hint");
    assert!(hint.contains("shared_preload_libraries") && hint.contains("'pg_tenancy'"), "{hint}");
    assert!(hint.contains("restart"), "{hint}");
    assert_eq!(harness::count(&mut superuser, "pg_extension WHERE extname = 'pg_tenancy'"), 0);
}

#[test]
fn preloading_later_makes_the_same_create_extension_work() {
    let mut cluster = Cluster::start(Options::new().without_preload());
    cluster.configure("shared_preload_libraries", "pg_tenancy");
    cluster.restart();
    cluster.database("loaded").connect("app");
}

#[test]
fn functions_fail_clearly_when_the_server_comes_back_without_the_library() {
    let mut cluster = Cluster::start(Options::new());
    let database = cluster.database("forgotten");
    cluster.configure("shared_preload_libraries", "");
    cluster.restart();
    for call in ["SELECT current_tenant()", "SELECT set_tenant(gen_random_uuid())"] {
        let fault = fails(database.connect("app").batch_execute(call), "55000");
        assert!(fault.message().contains("shared_preload_libraries"), "{call}: {fault}");
    }
    let create = "SELECT create_tenant('Acme')";
    let fault = fails(database.connect("operator").batch_execute(create), "55000");
    assert!(fault.message().contains("shared_preload_libraries"), "{fault}");
}

#[test]
fn a_schema_where_public_may_create_is_refused() {
    let database = harness::cluster().empty_database("open_schema");
    let mut superuser = database.superuser();
    superuser.batch_execute("GRANT CREATE ON SCHEMA public TO PUBLIC").expect("grant");
    let fault = fails(superuser.batch_execute("CREATE EXTENSION pg_tenancy"), "42501");
    let hint = fault.hint().expect("a hint").to_owned();
    assert!(hint.contains("REVOKE CREATE ON SCHEMA public FROM PUBLIC"), "{hint}");
    superuser.batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").expect("revoke");
    superuser.batch_execute("CREATE EXTENSION pg_tenancy").expect("create the extension");
}

#[test]
fn functions_go_to_the_schema_that_is_named() {
    let database = harness::cluster().empty_database("own_schema");
    let mut superuser = database.superuser();
    superuser
        .batch_execute("CREATE SCHEMA \"Ten'ancy x\"; CREATE EXTENSION pg_tenancy SCHEMA \"Ten'ancy x\"")
        .expect("create the extension in a schema of its own");
    let elsewhere = "function.pronamespace NOT IN ('\"Ten''ancy x\"'::regnamespace, 'tenancy'::regnamespace)";
    assert_eq!(functions_where(&mut superuser, elsewhere), []);
    superuser.batch_execute("SET search_path = \"Ten'ancy x\"").expect("set search_path");
    let none: Option<harness::Uuid> = one(&mut superuser, "SELECT current_tenant_or_null()", &[]);
    assert_eq!(none, None);
}

#[test]
fn functions_are_not_executable_by_public_but_the_allow_list() {
    let database = Database::new("sealed");
    let mut superuser = database.superuser();
    let open = "has_function_privilege('stranger', function.oid, 'EXECUTE')";
    let mut names: Vec<String> = functions_where(&mut superuser, open).into_iter().map(|(_, name)| name).collect();
    names.dedup();
    let surplus: Vec<&String> = names.iter().filter(|name| !PUBLIC_FUNCTIONS.contains(&name.as_str())).collect();
    assert!(surplus.is_empty(), "PUBLIC may execute {surplus:?}");
    let missing: Vec<&&str> =
        PUBLIC_FUNCTIONS.iter().filter(|name| !names.iter().any(|other| other == **name)).collect();
    assert!(missing.is_empty(), "PUBLIC may not execute {missing:?}");
}

#[test]
fn tables_and_views_are_not_readable_by_public() {
    const READABLE: &str = "
        SELECT class.oid::regclass::text
        FROM pg_class AS class
        WHERE class.relnamespace = 'tenancy'::regnamespace
          AND class.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
          AND (has_table_privilege('stranger', class.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
               OR has_any_column_privilege('stranger', class.oid, 'SELECT, INSERT, UPDATE'))";
    let database = Database::new("closed");
    assert_eq!(simple(&mut database.superuser(), READABLE), Vec::<Vec<Option<String>>>::new());
}

#[test]
fn every_function_has_a_comment() {
    let database = Database::new("comments");
    let bare = "coalesce(obj_description(function.oid, 'pg_proc'), '') = ''";
    assert_eq!(functions_where(&mut database.superuser(), bare), []);
}

#[test]
fn every_table_and_view_has_a_comment() {
    const BARE: &str = "
        SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = 'tenancy'::regnamespace AND relkind IN ('r', 'p', 'v')
          AND coalesce(obj_description(oid, 'pg_class'), '') = ''";
    let database = Database::new("comments");
    assert_eq!(simple(&mut database.superuser(), BARE), Vec::<Vec<Option<String>>>::new());
}

/// A definer function whose search_path is the caller's runs what the caller put there.
#[test]
fn every_definer_function_pins_its_search_path() {
    let database = Database::new("definer");
    let loose = "function.prosecdef AND NOT coalesce(array_to_string(function.proconfig, ',') ~ 'search_path=', false)";
    assert_eq!(functions_where(&mut database.superuser(), loose), []);
}

/// Prisma fails on results of these types, so that no function returns them.
#[test]
fn no_function_returns_a_type_that_clients_cannot_read() {
    let database = Database::new("types");
    let unreadable = "function.prokind = 'f' AND (
        function.prorettype IN ('void'::regtype, 'interval'::regtype, 'regclass'::regtype,
                                'regrole'::regtype, 'name'::regtype)
        OR (function.prorettype = 'record'::regtype AND function.proargmodes IS NULL))";
    assert_eq!(functions_where(&mut database.superuser(), unreadable), []);
}

/// pg_upgrade refuses a database that stores them.
#[test]
fn no_table_stores_a_type_that_pg_upgrade_refuses() {
    const STORED: &str = "
        SELECT attribute.attrelid::regclass::text, attribute.attname
        FROM pg_attribute AS attribute JOIN pg_class AS class ON class.oid = attribute.attrelid
        WHERE class.relnamespace = 'tenancy'::regnamespace AND class.relkind IN ('r', 'p')
          AND attribute.atttypid IN ('regnamespace'::regtype, 'regproc'::regtype,
                                     'regprocedure'::regtype, 'regoper'::regtype)";
    let database = Database::new("types");
    assert_eq!(simple(&mut database.superuser(), STORED), Vec::<Vec<Option<String>>>::new());
}

#[test]
fn dropping_the_extension_leaves_nothing_of_it() {
    let database = harness::cluster().empty_database("dropped");
    let mut superuser = database.superuser();
    superuser
        .batch_execute("CREATE EXTENSION pg_tenancy; DROP EXTENSION pg_tenancy; CREATE EXTENSION pg_tenancy")
        .expect("create, drop and create the extension");
}
