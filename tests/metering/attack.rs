//! What was tried against limits, usage, quotas, rates and workers, by roles that should not be able to.

use super::limit::fixtures::{COUNTED, Shop, refused, run_as};
use harness::*;
use std::thread;
use std::time::Duration;

/// A tenant on a plan that allows one transaction at once.
fn capped(database: &Database) -> Uuid {
    let mut operator = database.connect("operator");
    operator
        .batch_execute(r#"SELECT create_plan('capped', settings => '{"max_concurrent_transactions": 1}')"#)
        .expect("create the plan");
    one(&mut operator, "SELECT create_tenant('Capped', plan => 'capped')", &[])
}

/// Whether another session can bind the tenant now.
fn has_room(database: &Database, tenant: Uuid) -> bool {
    let mut app = database.connect("app");
    let mut transaction = app.transaction().expect("begin");
    match transaction.query_one("SELECT set_tenant($1)", &[&tenant]) {
        Ok(_) => true,
        Err(error) => {
            fails::<()>(Err(error), "53400");
            false
        }
    }
}

#[test]
fn no_text_for_a_condition_ends_the_server() {
    // Its own server: one that ends would take the other tests with it.
    let cluster = Cluster::start(Options::new());
    let shop = Shop::in_database(cluster.database("attack_condition"));
    let mut admin = shop.connect("admin");
    let senseless = [
        "*",
        "ALL *",
        "agents.*",
        "(agents).*",
        "DISTINCT *",
        "*, *",
        "DEFAULT",
        "$1",
        "count(*) > 1",
        "count(*) OVER () > 1",
        "GROUPING(status) = 1",
        "generate_series(1, 2) = 1",
        "(SELECT true)",
        "EXISTS (SELECT)",
        "id = ANY (ARRAY(SELECT 1))",
        "true; DROP TABLE agents",
        "true, false",
        "true AS y",
        "true FROM agents",
        "true WHERE true",
        "true ORDER BY 1",
        "true LIMIT 1",
        "true UNION SELECT true",
        "true FOR UPDATE",
        "CURRENT OF c",
        "ctid = '(0,1)'",
        "tableoid = 1",
        "agents IS NOT NULL",
        "1",
        "'x'",
        "status::timestamptz > '2020-01-01'",
        "status = current_user",
        "/* ",
        "",
    ];
    for condition in senseless {
        let refused = admin.query("SELECT limit_table('agents', 'senseless', $1)", &[&condition]);
        let fault = refused.expect_err(condition);
        assert!(fault.as_db_error().is_some(), "{condition}: the session ended: {fault:?}");
    }
    let deep = [format!("{}true{}", "(".repeat(4000), ")".repeat(4000)), format!("{}true", "NOT ".repeat(2000))];
    for condition in deep {
        let answer = admin.query("SELECT limit_table('agents', 'deep', $1)", &[&condition]);
        assert!(answer.is_ok_and(|rows| rows.len() == 1), "a deep condition");
    }
}

#[test]
fn the_settings_of_a_session_do_not_change_what_a_condition_means() {
    let shop = Shop::new("attack_settings");
    shop.connect("owner").batch_execute("ALTER TABLE agents ADD born date").expect("add a column");
    let mut admin = shop.connect("admin");
    one::<bool>(&mut admin, r"SELECT limit_table('agents', 'words', $$name ~ '^\w+$'$$)", &[]);
    admin.batch_execute("SET DateStyle = 'SQL, DMY'; SET IntervalStyle = sql_standard").expect("other styles");
    one::<bool>(&mut admin, "SELECT limit_table('agents', 'young', $$born >= date '2026-02-01'$$)", &[]);
    let tenant = shop.tenant(Some(1000));
    shop.set_limit(tenant, "words", Some(2));
    shop.set_limit(tenant, "young", Some(2));
    let mut app = shop.connect("app");
    app.batch_execute("SET standard_conforming_strings = off; SET escape_string_warning = off").expect("old strings");
    refused(&mut app, tenant, "INSERT INTO agents (name) SELECT 'a' || g FROM generate_series(1, 3) g", "54000");
    for style in ["SQL, MDY", "SQL, DMY", "German", "Postgres, MDY", "ISO, YMD"] {
        let mut app = shop.connect("app");
        app.batch_execute(&format!("SET DateStyle = '{style}'")).expect("a style");
        let born = |day: &str| {
            format!("INSERT INTO agents (born) SELECT to_date('{day}', 'YYYY-MM-DD') FROM generate_series(1, 3)")
        };
        refused(&mut app, tenant, &born("2026-02-01"), "54000");
        refused(&mut app, tenant, &born("2026-03-01"), "54000");
        assert_eq!(run_as(&mut app, tenant, &born("2026-01-31")), 3, "{style}");
    }
}

#[test]
fn a_renamed_tenant_column_leaves_the_limit_in_force() {
    let shop = Shop::new("attack_rename");
    let tenant = shop.tenant(Some(2));
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO agents (name) VALUES ('a')");
    let mut owner = shop.connect("owner");
    let renames = [
        "ALTER TABLE agents RENAME COLUMN tenant_id TO a",
        "ALTER VIEW agents RENAME COLUMN a TO b",
        "ALTER FOREIGN TABLE agents RENAME COLUMN b TO c",
        "ALTER MATERIALIZED VIEW agents RENAME COLUMN c TO tenant_id",
    ];
    for rename in renames {
        // Refused or followed.
        let _ = owner.batch_execute(rename);
        refused(&mut app, tenant, "INSERT INTO agents (name) VALUES ('b'), ('c')", "54000");
        let used: i64 = as_tenant(&mut app, tenant, |transaction| {
            one(transaction, "SELECT used::bigint FROM check_limit('agents')", &[])
        });
        assert_eq!(used, 1, "{rename}");
    }
}

#[test]
fn what_a_condition_uses_cannot_go_away_under_it_and_other_things_can() {
    let shop = Shop::new("attack_objects");
    let mut superuser = shop.database.superuser();
    superuser
        .batch_execute(
            "CREATE SCHEMA lib; GRANT USAGE, CREATE ON SCHEMA lib TO stranger, owner; GRANT USAGE ON SCHEMA lib TO app;
            SET ROLE stranger;
            CREATE TYPE lib.mood AS ENUM ('live', 'dead');
            CREATE TYPE lib.pair AS (a int, b text);
            CREATE FUNCTION lib.is_live(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN $1 = 'active'; END $$;
            CREATE FUNCTION lib.unrelated() RETURNS int LANGUAGE sql AS 'SELECT 1';
            RESET ROLE;
            SET ROLE owner;
            ALTER TABLE agents ADD mood lib.mood, ADD pair lib.pair;",
        )
        .expect("types and functions");
    let mut admin = shop.connect("admin");
    for (resource, condition) in
        [("moods", "mood = 'live'"), ("pairs", "(pair).b = 'live'"), ("lives", "lib.is_live(status)")]
    {
        one::<bool>(&mut admin, "SELECT limit_table('agents', $1, $2)", &[&resource, &condition]);
    }
    let tenant = shop.tenant(Some(1000));
    for resource in ["moods", "pairs", "lives"] {
        shop.set_limit(tenant, resource, Some(1000));
    }
    let mut stranger = shop.connect("stranger");
    let mut app = shop.connect("app");
    let changes = [
        "ALTER TYPE lib.mood RENAME VALUE 'live' TO 'alive'",
        "ALTER TYPE lib.mood RENAME TO moods",
        "ALTER TYPE lib.pair RENAME ATTRIBUTE b TO c",
        "ALTER TYPE lib.pair DROP ATTRIBUTE b",
        "DROP FUNCTION lib.is_live(text)",
        "ALTER FUNCTION lib.is_live(text) RENAME TO was_live",
    ];
    for change in changes {
        let _ = stranger.batch_execute(change);
        run_as(&mut app, tenant, "INSERT INTO agents (name) VALUES (gen_random_uuid()::text)");
        shop.connect("app").batch_execute("SELECT 1").expect("a new session");
        run_as(&mut shop.connect("app"), tenant, "INSERT INTO agents (name) VALUES (gen_random_uuid()::text)");
    }
    // Somebody's own things are not held up by it.
    stranger.batch_execute("ALTER FUNCTION lib.unrelated() RENAME TO other; DROP FUNCTION lib.other()").expect("own");
}

#[test]
fn statements_that_change_nothing_neither_make_counters_void_nor_hold_up_others() {
    let shop = Shop::new("attack_nothing");
    let tenant = shop.tenant(Some(10));
    run_as(&mut shop.connect("app"), tenant, "INSERT INTO agents (name) VALUES ('a')");
    assert_eq!(shop.counted(tenant), Some(1));
    let nothing = [
        "DROP FUNCTION IF EXISTS nope()",
        "DROP TYPE IF EXISTS nope",
        "DROP DOMAIN IF EXISTS nope",
        "DROP SCHEMA IF EXISTS nope",
        "DROP EXTENSION IF EXISTS nope",
        "DROP TABLE IF EXISTS nope",
        "ALTER VIEW IF EXISTS nope RENAME TO no",
        "ALTER TABLE IF EXISTS nope RENAME TO no",
    ];
    for role in ["client", "app", "stranger"] {
        let mut session = shop.connect(role);
        let mut transaction = session.transaction().expect("begin");
        for statement in nothing {
            transaction.batch_execute(statement).expect(statement);
        }
        let mut owner = shop.connect("owner");
        owner.batch_execute("SET lock_timeout = '2s'").expect("a timeout");
        let mut change = owner.transaction().expect("begin");
        change.batch_execute("ALTER TABLE agents ADD COLUMN more int").expect(role);
        change.rollback().expect("roll back");
        transaction.commit().expect("commit");
        assert_eq!(shop.counted(tenant), Some(1), "{role}");
    }
}

#[test]
fn a_tenant_column_that_equals_more_than_itself_is_no_way_around_a_limit() {
    let database = Database::new("attack_collation");
    database
        .connect("owner")
        .batch_execute(
            "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
            CREATE TABLE items (tenant_id text COLLATE loose, id int); GRANT SELECT, INSERT ON items TO app",
        )
        .expect("a table");
    let mut admin = database.connect("admin");
    if admin.batch_execute("SELECT protect_table('items'), limit_table('items', 'items')").is_err() {
        return;
    }
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    operator.batch_execute("SELECT set_plan_limit('free', 'items', 3)").expect("limit");
    let mut app = database.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    let insert = "INSERT INTO items SELECT upper(current_tenant()::text), g FROM generate_series(1, 4) g";
    assert!(transaction.batch_execute(insert).is_err(), "four rows of three");
}

#[test]
fn a_caught_error_in_a_users_trigger_does_not_refuse_what_fits() {
    let shop = Shop::new("attack_caught");
    shop.connect("owner")
        .batch_execute(
            "CREATE FUNCTION catches() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN BEGIN PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN NULL; END $$;
            CREATE TRIGGER aaa AFTER INSERT ON agents FOR EACH STATEMENT EXECUTE FUNCTION catches();
            CREATE TABLE deep (n int); GRANT ALL ON deep TO app;
            CREATE FUNCTION deeper() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF (SELECT max(n) FROM deep) > 40 THEN RAISE 'deep'; END IF;
                INSERT INTO deep SELECT max(n) + 1 FROM deep; RETURN NULL; END $$;
            CREATE TRIGGER d AFTER INSERT ON deep FOR EACH STATEMENT EXECUTE FUNCTION deeper();",
        )
        .expect("triggers");
    let tenant = shop.tenant(Some(3));
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO agents (name) VALUES ('a'), ('b'), ('c')");
    let exchange = "WITH i AS (INSERT INTO agents (name) VALUES (gen_random_uuid()::text) RETURNING id)
        DELETE FROM agents USING i WHERE agents.id = (SELECT min(id) FROM agents)";
    run_as(&mut app, tenant, exchange);
    fails(app.batch_execute("INSERT INTO deep VALUES (1)"), "P0001");
    run_as(&mut app, tenant, exchange);
    assert_eq!(shop.check(tenant), 3);
}

#[test]
fn rows_that_come_to_count_by_a_cascade_count() {
    let database = Database::new("attack_cascade");
    database
        .connect("owner")
        .batch_execute(
            "CREATE TABLE works (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id));
            CREATE TABLE parts (tenant_id uuid, id int, work int, PRIMARY KEY (tenant_id, id),
                FOREIGN KEY (tenant_id, work) REFERENCES works ON DELETE SET NULL (work));
            GRANT SELECT, INSERT, UPDATE, DELETE ON works, parts TO app",
        )
        .expect("tables");
    let mut admin = database.connect("admin");
    let limit =
        "SELECT protect_table('works') AND protect_table('parts') AND limit_table('parts', 'parts', 'work IS NULL')";
    assert!(one::<bool>(&mut admin, limit, &[]));
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    operator.batch_execute("SELECT set_plan_limit('free', 'parts', 3)").expect("limit");
    let mut app = database.connect("app");
    run_as(&mut app, tenant, "INSERT INTO works (id) VALUES (1)");
    run_as(&mut app, tenant, "INSERT INTO parts (id, work) SELECT g, 1 FROM generate_series(1, 4) g");
    refused(&mut app, tenant, "DELETE FROM works", "54000");
    run_as(&mut app, tenant, "DELETE FROM parts WHERE id = 1");
    run_as(&mut app, tenant, "DELETE FROM works");
    let counted: Option<i64> = optional(&mut database.superuser(), COUNTED, &[&tenant, &"parts"]);
    assert_eq!(counted.unwrap_or(3), 3);
}

#[test]
fn large_statements_are_counted_for_every_resource_beside_users_own_transition_tables() {
    let shop = Shop::new("attack_large");
    shop.connect("owner")
        .batch_execute(
            "CREATE FUNCTION reads() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM count(*) FROM news; RETURN NULL; END $$;
            CREATE TRIGGER aaa AFTER INSERT ON agents REFERENCING NEW TABLE AS news FOR EACH STATEMENT EXECUTE FUNCTION reads();
            CREATE TRIGGER zzz AFTER INSERT ON agents REFERENCING NEW TABLE AS news FOR EACH STATEMENT EXECUTE FUNCTION reads();",
        )
        .expect("triggers");
    let mut admin = shop.connect("admin");
    let limit = "SELECT limit_table('agents', 'named', 'name IS NOT NULL') AND limit_table('agents', 'all')";
    assert!(one::<bool>(&mut admin, limit, &[]));
    let tenant = shop.tenant(Some(100_000));
    shop.set_limit(tenant, "named", Some(100_000));
    shop.set_limit(tenant, "all", Some(100_000));
    let mut app = shop.connect("app");
    app.batch_execute("SET work_mem = '64kB'").expect("little memory");
    let statements = [
        "INSERT INTO agents (name, status) SELECT CASE WHEN g % 3 = 0 THEN g::text END,
            CASE WHEN g % 2 = 0 THEN 'active' ELSE 'gone' END FROM generate_series(1, 30000) g",
        "UPDATE agents SET status = CASE status WHEN 'active' THEN 'gone' ELSE 'active' END,
            name = CASE WHEN id % 5 = 1 THEN id::text END",
        "DELETE FROM agents WHERE id % 7 < 3",
    ];
    for statement in statements {
        run_as(&mut app, tenant, statement);
        let wrong = count(&mut admin, "verify_limits()");
        assert_eq!(wrong, 0, "{statement}");
        shop.check(tenant);
    }
}

#[test]
fn every_resource_that_members_are_limited_by_is_counted_or_refused() {
    let database = Database::new("attack_members");
    let mut admin = database.connect("admin");
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    let user: Uuid = as_tenant(&mut database.connect("app"), tenant, |transaction| {
        one(transaction, "SELECT create_user('a@example.com')", &[])
    });
    for number in 1..=12 {
        let resource = format!("seats{number}");
        if admin.query("SELECT limit_table('tenancy.memberships', $1)", &[&resource]).is_ok() {
            operator.execute("SELECT set_plan_limit('free', $1, 0)", &[&resource]).expect("limit");
        }
    }
    let resources = rows(&mut database.superuser(), "SELECT resource FROM tenancy.limited_memberships", &[]);
    for row in resources {
        let resource: String = row.get(0);
        operator.batch_execute("SELECT set_plan_limit('free', resource, 100) FROM tenancy.plan_limits").expect("room");
        operator.execute("SELECT set_plan_limit('free', $1, 0)", &[&resource]).expect("none");
        let fault = refused(&mut database.connect("app"), tenant, &format!("SELECT add_member('{user}')"), "54000");
        assert!(fault.message().contains(&resource), "{resource}: {}", fault.message());
    }
}

#[test]
fn a_capped_tenant_cannot_have_more_transactions_by_leaving_and_coming_back() {
    let database = Database::new("attack_cap");
    let tenant = capped(&database);
    for leave in ["SELECT clear_tenant()", "RESET ALL"] {
        let mut app = database.connect("app");
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        transaction.batch_execute(&format!("SAVEPOINT s; {leave}")).expect(leave);
        let other_entered = has_room(&database, tenant);
        let mut other = database.connect("app");
        let mut second = other.transaction().expect("begin");
        let entered = second.query_one("SELECT set_tenant($1)", &[&tenant]).is_ok();
        transaction.batch_execute("ROLLBACK TO s").expect("come back");
        let is_back: bool = one(&mut transaction, "SELECT current_setting('tenancy.context') <> ''", &[]);
        assert!(!(entered && is_back), "{leave}: two at once (room for a third: {other_entered})");
    }
}

#[test]
fn a_capped_tenants_room_is_free_after_every_end_of_a_transaction() {
    let database = Database::new("attack_room");
    let tenant = capped(&database);
    let bind = format!("SELECT set_tenant('{tenant}')");
    let ends = [
        format!("BEGIN; {bind}; COMMIT"),
        format!("BEGIN; {bind}; SELECT clear_tenant(); COMMIT"),
        format!("BEGIN; {bind}; RESET ALL; COMMIT"),
        format!("BEGIN; {bind}; RESET ALL; ROLLBACK"),
        format!("BEGIN; SAVEPOINT a; {bind}; ROLLBACK TO a; COMMIT"),
        format!("BEGIN; SAVEPOINT a; {bind}; ROLLBACK TO a; ROLLBACK"),
        format!("BEGIN; SAVEPOINT a; {bind}; RELEASE a; SAVEPOINT b; SELECT clear_tenant(); ROLLBACK TO b; COMMIT"),
        format!(
            "BEGIN; SAVEPOINT a; {bind}; ROLLBACK TO a; PREPARE TRANSACTION 'attack_room'; ROLLBACK PREPARED 'attack_room'"
        ),
        format!(
            "BEGIN; {bind}; SELECT clear_tenant(); PREPARE TRANSACTION 'attack_room'; ROLLBACK PREPARED 'attack_room'"
        ),
        format!("DO $$ BEGIN PERFORM set_tenant('{tenant}'); PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN NULL; END $$"),
    ];
    for end in ends {
        let mut app = database.connect("app");
        for statement in split(&end) {
            app.batch_execute(&statement).expect(&statement);
        }
        assert!(has_room(&database, tenant), "{end}");
    }
}

/// One statement after another; a DO is one.
fn split(script: &str) -> Vec<String> {
    if script.starts_with("DO") { vec![script.to_owned()] } else { script.split("; ").map(str::to_owned).collect() }
}

#[test]
fn what_is_consumed_while_a_period_is_not_limited_counts_when_it_is_again() {
    let database = Database::new("attack_quota");
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    let mut app = database.connect("app");
    let mut day = |max: &str| {
        operator.batch_execute(&format!("SELECT set_plan_limit('free', 'tokens', {max}, 'day')")).expect("limit");
    };
    database
        .connect("operator")
        .batch_execute("SELECT set_plan_limit('free', 'tokens', 1000, 'month')")
        .expect("limit the month");
    day("100");
    run_as(&mut app, tenant, "SELECT consume_quota('tokens', 30)");
    day("NULL");
    run_as(&mut app, tenant, "SELECT consume_quota('tokens', 50)");
    day("85");
    refused(&mut app, tenant, "SELECT consume_quota('tokens', 10)", "54000");
    run_as(&mut app, tenant, "SELECT consume_quota('tokens', 5)");
    refused(&mut app, tenant, "SELECT consume_quota('tokens', 1)", "54000");
}

#[test]
fn a_metric_can_be_asked_for_by_every_level_that_may_ask() {
    let database = Database::new("attack_metric");
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    operator
        .batch_execute("SELECT set_plan_limit('free', 'tokens', 10, 'month'), set_plan_limit('free', 'tokens', 3)")
        .expect("limits");
    let mut app = database.connect("app");
    run_as(&mut app, tenant, "SELECT record_usage('tokens', 2)");
    as_tenant(&mut app, tenant, |transaction| {
        // Operators of the caller's own are not those that the figures are made with.
        transaction.batch_execute("SET LOCAL search_path = pg_temp, public, pg_catalog").expect("a path");
        let left: String = one(transaction, "SELECT remaining::text FROM check_limit('tokens')", &[]);
        assert_eq!(left, "1");
        assert!(one::<bool>(transaction, "SELECT enforce_limit('tokens', 1)", &[]));
    });
    refused(&mut app, tenant, "SELECT enforce_limit('tokens', 2)", "54000");
}

#[test]
fn questions_can_be_asked_in_parallel_queries() {
    let shop = Shop::new("attack_parallel");
    let tenant = shop.tenant(Some(5));
    let mut operator = shop.connect("operator");
    operator
        .batch_execute(
            "SELECT set_plan_limit('free', 'tokens', 10, 'month'), set_plan_rate_limit('free', 'calls', 100)",
        )
        .expect("limits");
    let version: i32 = one(&mut operator, "SELECT current_setting('server_version_num')::int / 10000", &[]);
    let force = if version < 16 { "force_parallel_mode" } else { "debug_parallel_query" };
    let mut app = shop.connect("app");
    app.batch_execute(&format!("SET {force} = on")).expect("force");
    let questions = [
        "SELECT has_feature('x')",
        "SELECT * FROM check_limit('agents')",
        "SELECT * FROM check_limit('tokens')",
        "SELECT enforce_limit('agents')",
        "SELECT * FROM check_rate_limit('calls')",
        "SELECT * FROM usage_total('tokens', '-infinity', 'infinity')",
        "SELECT * FROM usage_series('tokens', 'day', '-infinity', 'infinity')",
        "SELECT * FROM monthly_usage()",
        "SELECT * FROM usage_period('month')",
        "SELECT count(*) FROM agents WHERE NOT has_feature('x')",
    ];
    for question in questions {
        as_tenant(&mut app, tenant, |transaction| {
            if let Err(error) = transaction.query(question, &[]) {
                panic!("{question}: {:?}", error.as_db_error());
            }
        });
    }
}

#[test]
fn a_client_does_not_stop_the_workers_by_a_name() {
    let cluster =
        Cluster::start(Options::new().set("tenancy.workers_enabled", "on").set("tenancy.worker_naptime", "1"));
    let database = cluster.database("attack_workers");
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    one::<String>(&mut operator, "SELECT create_metric('calls')", &[]);
    let named = |role: &str| {
        database.connect_with(role, |config| {
            config.application_name("pg_restore");
        })
    };
    let mut client = named("client").expect("connect");
    client.batch_execute("SELECT 1").expect("stay");
    let mut app = named("app").expect("connect");
    app.batch_execute("SET application_name = 'pg_restore'").expect("a name");
    run_as(&mut app, tenant, "SELECT record_usage('calls')");
    let mut superuser = database.superuser();
    wait_until("the workers have rolled up", || count(&mut superuser, "tenancy.usage_inbox") == 0);
    client.batch_execute("SELECT 1").expect("still there");
}

#[test]
fn an_aggregation_does_not_change_under_an_event_that_is_not_committed() {
    let database = Database::new("attack_aggregation");
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    one::<String>(&mut operator, "SELECT create_metric('calls')", &[]);
    let mut app = database.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    one::<bool>(&mut transaction, "SELECT record_usage('calls', 5)", &[]);
    let changed = thread::scope(|scope| {
        let change = scope.spawn(|| operator.batch_execute("SELECT create_metric('calls', NULL, 'unique')").is_ok());
        thread::sleep(Duration::from_millis(300));
        transaction.commit().expect("commit");
        change.join().expect("the operator's session")
    });
    let total = |app: &mut Client| -> Option<String> {
        as_tenant(app, tenant, |transaction| {
            one(transaction, "SELECT usage_total('calls', '-infinity', 'infinity')::text", &[])
        })
    };
    let before = total(&mut app);
    one::<i64>(&mut database.superuser(), "SELECT rollup_usage()", &[]);
    assert_eq!(total(&mut app), before, "a rollup changes no figure");
    assert!(!changed, "the metric has an event");
}

#[test]
fn whatever_dates_look_like_the_archive_has_its_months() {
    for style in ["Postgres, MDY", "SQL, DMY", "German", "ISO, MDY"] {
        let database = Database::new("attack_dates");
        let mut superuser = database.superuser();
        superuser
            .batch_execute(&format!(
                "ALTER DATABASE {0} SET DateStyle = '{style}'; ALTER DATABASE {0} SET standard_conforming_strings = off",
                database.name()
            ))
            .expect("a style");
        let mut operator = database.connect("operator");
        let tenant = tenant(&mut operator);
        one::<String>(&mut operator, "SELECT create_metric('calls')", &[]);
        run_as(&mut database.connect("app"), tenant, "SELECT record_usage('calls')");
        one::<i64>(&mut database.superuser(), "SELECT rollup_usage()", &[]);
        let of_month = "SELECT tableoid::regclass::text = 'tenancy_archive.usage_events_' || to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY_MM')
            FROM tenancy_archive.usage_events";
        assert!(one::<bool>(&mut database.superuser(), of_month, &[]), "{style}");
    }
}

#[test]
fn no_level_but_its_own_reaches_what_was_counted() {
    let database = Database::new("attack_levels");
    let forbidden = [
        "SELECT recount_limits()",
        "SELECT * FROM verify_limits()",
        "SELECT rollup_usage()",
        "SELECT * FROM tenant_usage(gen_random_uuid())",
        "SELECT trim_usage_keys()",
        "SELECT trim_usage_archive(0)",
        "SELECT limit_table('pg_class', 'x')",
        "SELECT unlimit_table('pg_class', 'x')",
        "SELECT set_plan_limit('free', 'x', NULL)",
        "SELECT set_tenant_limit(gen_random_uuid(), 'x', NULL)",
        "SELECT set_plan_rate_limit('free', 'x', NULL)",
        "SELECT create_metric('x')",
        "SELECT apply_subscription_grace()",
        "SELECT * FROM close_billing_period(gen_random_uuid())",
        "SELECT tenancy.count_rows()",
        "SELECT tenancy.stamp_usage()",
        "SELECT tenancy.forget_counts()",
        "SELECT * FROM tenancy.row_counters",
        "SELECT * FROM tenancy.quota_counters",
        "SELECT * FROM tenancy.usage_inbox",
        "SELECT * FROM tenancy.usage_pending",
        "SELECT * FROM tenancy.usage_buckets",
        "SELECT * FROM tenancy.usage_uniques",
        "SELECT * FROM tenancy.usage_keys",
        "SELECT * FROM tenancy.usage_progress",
        "SELECT * FROM tenancy.limited_tables",
        "SELECT * FROM tenancy.limited_resources",
        "SELECT * FROM tenancy.rate_limit_status",
        "SELECT * FROM tenancy.worker_runs",
        "SELECT * FROM tenancy.billing_adjustments",
        "LOCK TABLE tenancy.row_counters IN ACCESS SHARE MODE",
        "LOCK TABLE tenancy.plans IN SHARE MODE",
        "LOCK TABLE tenancy.metrics IN ROW EXCLUSIVE MODE",
        "SET session_replication_role = replica",
        "SET tenancy.time_zone = 'Europe/Berlin'",
        "SET temp_file_limit = -1",
    ];
    for role in ["app", "client", "stranger"] {
        let mut session = database.connect(role);
        for statement in forbidden {
            let mut transaction = session.transaction().expect("begin");
            fails(transaction.batch_execute(statement), "42501");
        }
    }
}
