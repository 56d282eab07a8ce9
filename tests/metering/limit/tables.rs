//! Putting limits on tables: what is refused, what is changed by DDL, what is kept.

use super::fixtures::*;
use harness::*;

#[test]
fn conditions_that_could_change_by_themselves_are_refused() {
    let shop = Shop::new("limit_conditions");
    let mut admin = shop.connect("admin");
    for (condition, sqlstate) in [
        ("now() > '2020-01-01'", "22023"),
        ("status = current_setting('x')", "22023"),
        ("random() > 0.5", "22023"),
        ("", "22023"),
        ("true) OR (true", "42601"),
        ("true FROM agents", "22023"),
        ("true, false", "22023"),
        ("status", "42804"),
        ("missing = 1", "42703"),
        ("id > (SELECT 1)", "0A000"),
        ("count(*) > 1", "42803"),
        ("ctid = '(0,1)'", "42P10"),
        ("tableoid > 0", "0A000"),
        ("agents IS NOT NULL", "0A000"),
        ("$1 = 1", "42P02"),
        ("status = 'x'; DROP TABLE agents", "42601"),
    ] {
        fails(admin.query("SELECT limit_table('agents', 'more', $1)", &[&condition]), sqlstate);
    }
    for (arguments, sqlstate) in [
        ("NULL, 'x'", "22023"),
        ("'agents', NULL", "22023"),
        ("'agents', 'Bad Name'", "22023"),
        ("'tenancy.tenants', 'x'", "55000"),
        ("'tenancy.memberships', 'x', 'true'", "0A000"),
    ] {
        fails(admin.query(&format!("SELECT limit_table({arguments})"), &[]), sqlstate);
    }
    shop.connect("owner").batch_execute("CREATE TABLE free (id int)").expect("create");
    fails(admin.query("SELECT limit_table('free', 'x')", &[]), "55000");
    fails(shop.connect("operator").query("SELECT limit_table('agents', 'x')", &[]), "42501");
}

#[test]
fn only_the_product_makes_its_triggers() {
    let shop = Shop::new("limit_trigger");
    let create = "CREATE TRIGGER t AFTER INSERT ON agents FOR EACH STATEMENT EXECUTE FUNCTION tenancy.count_rows('agents', 'true')";
    for role in ["owner", "app", "admin"] {
        fails(shop.connect(role).batch_execute(create), "42501");
    }
    for role in ["app", "client", "operator", "monitor", "admin", "owner"] {
        for table in ["row_counters", "limited_resources", "limited_memberships"] {
            fails(shop.connect(role).batch_execute(&format!("SELECT FROM tenancy.{table}")), "42501");
        }
    }
}

#[test]
fn a_column_that_a_condition_uses_stays_until_the_limit_is_taken_off() {
    let shop = Shop::new("limit_ddl");
    let tenant = shop.tenant(Some(1));
    let mut owner = shop.connect("owner");
    for change in ["DROP COLUMN status CASCADE", "RENAME status TO state"] {
        let fault = fails(owner.batch_execute(&format!("ALTER TABLE agents {change}")), "55000");
        assert!(fault.message().contains("limited"), "{fault:?}");
    }
    fails(owner.batch_execute("ALTER TABLE agents DROP COLUMN status"), "2BP01");
    owner
        .batch_execute("ALTER TABLE agents RENAME tenant_id TO whose; ALTER TABLE agents RENAME TO helpers")
        .expect("rename");
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO helpers DEFAULT VALUES");
    refused(&mut app, tenant, "INSERT INTO helpers DEFAULT VALUES", "54000");
    owner.batch_execute("ALTER TABLE helpers ADD note text; ALTER TABLE helpers DROP COLUMN name").expect("alter");
    refused(&mut app, tenant, "INSERT INTO helpers DEFAULT VALUES", "54000");
    let mut admin = shop.connect("admin");
    assert!(one::<bool>(&mut admin, "SELECT unlimit_table('helpers', 'agents')", &[]));
    assert!(!one::<bool>(&mut admin, "SELECT unlimit_table('helpers', 'agents')", &[]));
    owner.batch_execute("ALTER TABLE helpers RENAME status TO state").expect("rename");
    run_as(&mut app, tenant, "INSERT INTO helpers SELECT FROM generate_series(1, 3)");
    assert!(one::<bool>(&mut admin, "SELECT limit_table('helpers', 'agents', $$state = 'active'$$)", &[]));
    refused(&mut app, tenant, "INSERT INTO helpers DEFAULT VALUES", "54000");
    // Another condition in its place, with other rows.
    assert!(one::<bool>(&mut admin, "SELECT limit_table('helpers', 'agents', $$state = 'other'$$)", &[]));
    run_as(&mut app, tenant, "INSERT INTO helpers DEFAULT VALUES");
    run_as(&mut app, tenant, "INSERT INTO helpers (state) VALUES ('other')");
    refused(&mut app, tenant, "INSERT INTO helpers (state) VALUES ('other')", "54000");
}

#[test]
fn a_table_that_is_unprotected_and_protected_again_is_counted_anew() {
    let shop = Shop::new("limit_unprotect");
    let tenant = shop.tenant(Some(3));
    let (mut admin, mut app) = (shop.connect("admin"), shop.connect("app"));
    run_as(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES");
    admin.batch_execute("SELECT unprotect_table('agents')").expect("unprotect");
    app.execute("INSERT INTO agents (tenant_id) VALUES ($1)", &[&tenant]).expect("insert");
    admin.batch_execute("SELECT protect_table('agents')").expect("protect");
    run_as(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES");
    refused(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (3, Some(3)));
}

/// Two tables that count as one resource, and two resources of one table.
#[test]
fn tables_share_a_resource_and_a_table_has_several() {
    let shop = Shop::new("limit_several");
    shop.connect("owner")
        .batch_execute("CREATE TABLE robots (tenant_id uuid, status text DEFAULT 'active'); GRANT ALL ON robots TO app")
        .expect("create robots");
    let mut admin = shop.connect("admin");
    admin
        .batch_execute(
            "SELECT protect_table('robots'); SELECT limit_table('robots', 'agents'); SELECT limit_table('robots', 'robots')",
        )
        .expect("limit");
    let tenant = shop.tenant(Some(3));
    shop.set_limit(tenant, "robots", Some(2));
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO robots DEFAULT VALUES");
    run_as(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES");
    let both = "WITH a AS (INSERT INTO agents DEFAULT VALUES RETURNING id) INSERT INTO robots SELECT NULL FROM a";
    let fault = refused(&mut app, tenant, &both.replace("SELECT NULL", "(status) SELECT NULL"), "54000");
    assert!(fault.message().contains("agents (3)"), "{fault:?}");
    run_as(&mut app, tenant, "INSERT INTO robots DEFAULT VALUES");
    let fault = refused(&mut app, tenant, "DELETE FROM agents; INSERT INTO robots DEFAULT VALUES", "54000");
    assert!(fault.message().contains("robots (2)"), "{fault:?}");
    refused(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
    run_as(
        &mut app,
        tenant,
        "WITH gone AS (DELETE FROM robots RETURNING status) INSERT INTO agents (status) SELECT status FROM gone",
    );
    let counted =
        |resource: &str| -> Option<i64> { optional(&mut shop.database.superuser(), COUNTED, &[&tenant, &resource]) };
    assert_eq!((counted("agents"), counted("robots")), (Some(3), Some(0)));
}

#[test]
fn counters_are_verified_and_counted_anew() {
    let shop = Shop::new("limit_verify");
    let tenants = [shop.tenant(Some(9)), shop.tenant(Some(9))];
    let mut app = shop.connect("app");
    for tenant in tenants {
        run_as(&mut app, tenant, "INSERT INTO agents SELECT FROM generate_series(1, 4)");
    }
    let (mut admin, mut superuser) = (shop.connect("admin"), shop.database.superuser());
    const WRONG: &str = "SELECT tenant_id, resource, counted, actual FROM verify_limits()";
    assert!(rows(&mut admin, WRONG, &[]).is_empty());
    superuser
        .batch_execute(
            "ALTER TABLE agents DISABLE TRIGGER ALL; DELETE FROM agents; ALTER TABLE agents ENABLE TRIGGER ALL",
        )
        .expect("change rows unseen");
    assert_eq!(count(&mut admin, "verify_limits()"), 0, "DDL makes counters void");
    superuser
        .batch_execute(
            "UPDATE tenancy.row_counters SET used = 7, version = (SELECT version FROM tenancy.limited_resources)",
        )
        .expect("break");
    let wrong = rows(&mut admin, WRONG, &[]);
    assert_eq!(wrong.len(), 2);
    assert_eq!((wrong[0].get::<_, i64>(2), wrong[0].get::<_, i64>(3)), (7, 0));
    let mut operator = shop.connect("operator");
    fails(operator.query("SELECT recount_limits(gen_random_uuid())", &[]), "P0002");
    assert_eq!(one::<i64>(&mut operator, "SELECT recount_limits($1)", &[&tenants[0]]), 1);
    assert_eq!(count(&mut admin, "verify_limits()"), 1);
    assert_eq!(one::<i64>(&mut operator, "SELECT recount_limits()", &[]), 1);
    assert_eq!(count(&mut admin, "verify_limits()"), 0);
    for tenant in tenants {
        superuser
            .batch_execute("ALTER TABLE agents ENABLE ALWAYS TRIGGER tenancy_limit_agents_insert")
            .expect("enable");
        run_as(&mut app, tenant, "INSERT INTO agents SELECT FROM generate_series(1, 9)");
        refused(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
    }
}

#[test]
fn limits_are_dumped_and_counters_are_not() {
    let shop = Shop::new("limit_dump");
    let tenant = shop.tenant(Some(3));
    shop.connect("admin").batch_execute("SELECT limit_table('tenancy.memberships', 'members')").expect("limit");
    run_as(&mut shop.connect("app"), tenant, "INSERT INTO agents SELECT FROM generate_series(1, 2)");
    let dump = run(&mut shop.database.tool("pg_dump", "postgres"));
    let restored = cluster().empty_database("limit_restored");
    let output = restored.psql("postgres", &dump);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shop = Shop { database: restored };
    assert_eq!(count(&mut shop.database.superuser(), "tenancy.row_counters"), 0);
    assert_eq!(count(&mut shop.database.superuser(), "tenancy.limited_tables WHERE intact"), 2);
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES");
    refused(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (3, Some(3)));
}

#[test]
fn a_purge_leaves_no_counters() {
    let shop = Shop::new("limit_purge");
    let tenant = shop.tenant(Some(3));
    shop.connect("admin").batch_execute("SELECT limit_table('tenancy.memberships', 'members')").expect("limit");
    shop.set_limit(tenant, "members", Some(5));
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO agents SELECT FROM generate_series(1, 3)");
    let user: Uuid = one(&mut app, "SELECT create_user('someone@example.com')", &[]);
    as_tenant(&mut app, tenant, |transaction| one::<Uuid>(transaction, "SELECT add_member($1)", &[&user]));
    assert_eq!(count(&mut shop.database.superuser(), "tenancy.row_counters"), 2);
    let mut operator = shop.connect("operator");
    operator.query("SELECT delete_tenant($1)", &[&tenant]).expect("delete");
    shop.connect("admin").batch_execute(&format!("CALL purge_tenant('{tenant}', force => true)")).expect("purge");
    assert_eq!(count(&mut shop.database.superuser(), "tenancy.row_counters"), 0);
}
