//! Out of one cluster, into another, and out again.

use super::*;

/// What the product knows of a tenant besides its rows. As the bound application, then as an operator.
const KNOWN: &str = "
    SELECT add_member(create_user('Ada@example.com', 'Ada \"O''Hara\"', 'ext:1'), 'owner');
    SELECT add_member(create_user('bob@example.com', tenant => current_tenant()), 'chief');
    SELECT record_login(id) FROM tenancy_users;
    SELECT create_invitation('new@example.com', 'viewer', metadata => '{\"a\": 1.50}');
    SELECT create_api_key('the robots', '{agents:read}', now() + interval '1 day');
    SELECT revoke_api_key((create_api_key('old')).key_id);
    SELECT record_usage('calls', 1.50, 'key ' || n, now() - n * interval '7 days', properties => '{\"x\": \"\\\\\"}') FROM generate_series(1, 9) AS n;
    SELECT record_usage('calls', 1, 'once');
    SELECT record_usage('visitors', resource_id => gen_random_uuid()) FROM generate_series(1, 3)";

fn prepare(database: &Database) {
    const SETUP: &str = "SELECT create_plan('gold'); SELECT create_metric('calls', 'calls'); SELECT create_metric('visitors', aggregation => 'unique');
        SELECT set_plan_limit('gold', 'calls', 1000, 'month')";
    database.connect("operator").batch_execute(SETUP).unwrap_or_else(|error| panic!("{error:?}"));
    one::<String>(&mut database.connect("admin"), "SELECT add_role('chief', 70)", &[]);
}

fn tell(database: &Database, tenant: Uuid) {
    let mut app = database.connect("app");
    as_tenant(&mut app, tenant, |tx| {
        for statement in KNOWN.split(";\n").filter(|statement| !statement.contains("tenancy_users")) {
            tx.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    });
    let mut operator = database.connect("operator");
    for statement in [
        "SELECT change_plan($1, 'gold')::text",
        "SELECT update_tenant($1, external_id => 'crm:1', metadata => '{\"ring\": [0, 12345678901234567890.10]}')::text",
        "SELECT set_tenant_limit($1, 'agents', 7)",
        "SELECT set_tenant_rate_limit($1, 'api', 5, 'minute')",
        "SELECT set_subscription($1, 'active', date_trunc('day', now()) - interval '3 days', date_trunc('day', now()) + interval '20 days')::text",
        "SELECT metric FROM close_billing_period($1, to_char(now() - interval '2 months', 'YYYY-MM')) LIMIT 1",
        "SELECT suspend_tenant($1, 'unpaid', 'read_only')::text",
    ] {
        rows(&mut operator, statement, &[&tenant]);
    }
}

#[track_caller]
fn assert_identical(found: &[Record], expected: &[Record]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn an_export_loads_into_another_cluster_and_comes_out_the_same() {
    let (here, there) =
        (cluster(), Cluster::start(Options::new().set("timezone", "Asia/Kathmandu").set("bytea_output", "escape")));
    let (from, to) = (shop(here, "export_from"), shop(&there, "export_to"));
    prepare(&from);
    prepare(&to);
    let acme = filled(&from, "acme");
    let globex = filled(&from, "globex");
    tell(&from, acme);
    let exported = export(&from, acme);
    assert_identical(&export(&from, acme), &exported);
    // What the rollup has taken is written as what it has not.
    one::<i64>(&mut from.connect("admin"), "SELECT rollup_usage()", &[]);
    assert_identical(&export(&from, acme), &exported);
    let all: String = exported.iter().map(|record| record.3.as_str()).collect();
    assert!(!all.contains(&globex.to_string()), "another tenant's rows");

    // Somebody else is there already, and the trigger would change what is loaded.
    to.superuser()
        .batch_execute("SELECT setval('shop.customers_id_seq', 1000), setval('shop.bills_no_seq', 1000)")
        .expect("set");
    let other = filled(&to, "other");
    to.superuser().batch_execute(TRIGGER).expect("create the trigger");
    let others = picture(&to, Some(other));
    import(&to, &exported, "").unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(picture(&to, Some(acme)), picture(&from, Some(acme)));
    assert_eq!(picture(&to, Some(other)), others);
    assert_eq!(count(&mut to.superuser(), "shop.fired"), 0);
    assert_identical(&export(&to, acme), &exported);

    // It is alive there: its keys go on where they were, and its key opens the door once it is resumed.
    one::<Uuid>(&mut to.connect("operator"), "SELECT resume_tenant($1)", &[&acme]);
    as_tenant(&mut to.connect("app"), acme, |tx| {
        assert_eq!(count(tx, "shop.customers"), 54);
        tx.batch_execute("INSERT INTO shop.customers (name) SELECT 'more ' || n FROM generate_series(1, 60) AS n")
            .expect("go on");
        fails(
            tx.savepoint("s").expect("savepoint").batch_execute("INSERT INTO shop.people (id, team) VALUES (9, 9)"),
            "23503",
        );
        let total = "SELECT usage_total('calls', now() - interval '1 year', now() + interval '1 day') = 14.5";
        assert!(one::<bool>(tx, total, &[]));
        assert!(!one::<bool>(tx, "SELECT record_usage('calls', 1, 'once')", &[]), "an event that was told before");
    });
    let known: String = one(
        &mut to.superuser(),
        "SELECT string_agg(email || ' ' || role || ' ' || (u.tenant_id IS NOT NULL), ', ' ORDER BY email) FROM tenancy.memberships m
         JOIN tenancy.users u ON u.id = m.user_id WHERE m.tenant_id = $1",
        &[&acme],
    );
    assert_eq!(known, "ada@example.com owner false, bob@example.com chief true");
}

/// The schema that tenants get one like: the shop without its guard.
const TEMPLATE: &str = "
    CREATE SCHEMA crm AUTHORIZATION owner; GRANT USAGE ON SCHEMA crm TO app;
    SET ROLE owner; SET search_path = crm;
    CREATE TYPE state AS ENUM ('new', 'paid');
    CREATE TABLE countries (code text PRIMARY KEY);
    CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL UNIQUE, parent int REFERENCES customers, country text REFERENCES countries);
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int NOT NULL REFERENCES customers, state state[] DEFAULT '{new}',
        twice int GENERATED ALWAYS AS (2) STORED);
    CREATE MATERIALIZED VIEW kept AS SELECT count(*) AS n FROM customers;
    INSERT INTO countries VALUES ('CH'), ('DE');
    GRANT ALL ON ALL TABLES IN SCHEMA crm TO app; GRANT USAGE ON ALL SEQUENCES IN SCHEMA crm TO app;
    RESET ROLE; RESET search_path;
    SELECT register_template('crm', 'crm', '{countries}')";

#[test]
fn a_schema_of_a_tenants_own_comes_out_the_same() {
    let (from, to) = (shop(cluster(), "schema_from"), shop(cluster(), "schema_to"));
    for database in [&from, &to] {
        database.superuser().batch_execute(TEMPLATE).unwrap_or_else(|error| panic!("{error:?}"));
    }
    let create = "SELECT create_tenant('Acme', isolation => 'schema', schema_name => $1::text::name)";
    let acme: Uuid = one(&mut from.connect("operator"), create, &[&"It's \"acme\""]);
    as_tenant(&mut from.connect("app"), acme, |tx| {
        tx.batch_execute(
            "DELETE FROM countries WHERE code = 'DE'; INSERT INTO countries VALUES ('AT');
             INSERT INTO customers (name, country) SELECT 'customer ' || i, 'AT' FROM generate_series(1, 20) AS i;
             UPDATE customers SET parent = 1;
             INSERT INTO orders (customer, state) SELECT id, '{paid,new}' FROM customers; DELETE FROM orders WHERE id > 15;
             INSERT INTO shop.people (id) VALUES (7)",
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
    });
    let exported = export(&from, acme);
    import(&to, &exported, "isolation => 'schema'").unwrap_or_else(|error| panic!("{error:?}"));
    assert_identical(&export(&to, acme), &exported);
    as_tenant(&mut to.connect("app"), acme, |tx| {
        assert_eq!(one::<i64>(tx, "INSERT INTO orders (customer) VALUES (20) RETURNING id", &[]), 21);
        assert_eq!(one::<String>(tx, "SELECT string_agg(code, ',' ORDER BY code) FROM countries", &[]), "AT,CH");
        assert_eq!(one::<i64>(tx, "SELECT n FROM kept", &[]), 20);
        assert_eq!(count(tx, "shop.people"), 1);
    });
}

#[test]
fn rows_that_are_known_by_keys_of_the_applications_own_come_along() {
    let (from, to) = (Database::new("keys_from"), Database::new("keys_to"));
    for database in [&from, &to] {
        let tables = "CREATE TABLE orgs (id bigint PRIMARY KEY, name text); CREATE TABLE notes (org int NOT NULL, id int, body text, PRIMARY KEY (org, id),
            FOREIGN KEY (org) REFERENCES orgs); GRANT ALL ON orgs, notes TO app";
        database.connect("owner").batch_execute(tables).expect("create the tables");
        let protect = "SELECT protect_table('orgs', 'id', external_id => true); SELECT protect_table('notes', 'org', external_id => true)";
        database.connect("admin").batch_execute(protect).unwrap_or_else(|error| panic!("{error:?}"));
    }
    let create = "SELECT create_tenant('Org ' || $1::text, external_id => $1)";
    let mut tenants = ["42", "43"].map(|key| one::<Uuid>(&mut from.connect("operator"), create, &[&key])).into_iter();
    let (acme, other) = (tenants.next().expect("a tenant"), tenants.next().expect("another"));
    for tenant in [acme, other] {
        as_tenant(&mut from.connect("app"), tenant, |tx| {
            tx.batch_execute("INSERT INTO orgs (name) VALUES ('mine'); INSERT INTO notes (id, body) SELECT n, 'note ' || n FROM generate_series(1, 5) AS n").expect("fill");
        });
    }
    let exported = export(&from, acme);
    import(&to, &exported, "").unwrap_or_else(|error| panic!("{error:?}"));
    assert_identical(&export(&to, acme), &exported);
    as_tenant(&mut to.connect("app"), acme, |tx| {
        assert_eq!(count(tx, "notes WHERE org = 42"), 5);
        tx.batch_execute("UPDATE notes SET body = 'spoilt'").expect("spoil");
    });
    import(&to, &exported, "'replace'").unwrap_or_else(|error| panic!("{error:?}"));
    assert_identical(&export(&to, acme), &exported);
    assert_eq!(count(&mut to.superuser(), "notes"), 5);
}

#[test]
fn an_export_is_of_one_moment() {
    let database = shop(cluster(), "one_moment");
    let acme: Uuid = one(&mut database.connect("operator"), "SELECT create_tenant('Acme')", &[]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut app = database.connect("app");
            let mut number = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                as_tenant(&mut app, acme, |tx| {
                    let pair = format!("INSERT INTO shop.teams (id) VALUES ({number}); INSERT INTO shop.people (id, team) VALUES ({number}, {number})");
                    tx.batch_execute(&pair).expect("write a pair");
                });
            }
            number
        });
        let mut seen = 0;
        while seen < 200 {
            let exported = export(&database, acme);
            let rows = |table: &str| -> usize {
                let parts = exported.iter().filter(|record| record.1 == "rows" && record.2 == table);
                parts.map(|record| record.3.lines().count()).sum()
            };
            assert_eq!(rows("teams"), rows("people"));
            seen = rows("teams");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().expect("the writer")
    });
    assert!(written >= 200);
}

#[test]
fn a_tenant_comes_with_more_than_its_plan_allows() {
    let database = shop(cluster(), "over_limit");
    let acme = filled(&database, "acme");
    let exported = export(&database, acme);
    one::<bool>(&mut database.connect("admin"), "SELECT limit_table('shop.customers', 'customers')", &[]);
    rows(&mut database.connect("operator"), "SELECT set_plan_limit('free', 'customers', 10)", &[]);
    import(&database, &exported, "'replace'").unwrap_or_else(|error| panic!("{error:?}"));
    let mut app = database.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, acme);
    let used: i64 = one(&mut transaction, "SELECT used::bigint FROM check_limit('customers')", &[]);
    assert_eq!(used, 54);
    fails(transaction.batch_execute("INSERT INTO shop.customers (name) VALUES ('one more')"), "54000");
}
