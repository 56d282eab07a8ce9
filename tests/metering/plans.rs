//! What a plan says of its tenants' transactions: server settings that hold in them, and how many there may be at once.

use harness::{
    Client, Cluster, Database, GenericClient, Options, Uuid, as_tenant, bind, fails, one, simple, tenant, text,
    wait_until,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A database whose tenant's plan has these settings.
fn with_plan(label: &str, settings: &str) -> (Database, Uuid) {
    let database = Database::new(label);
    let mut operator = database.connect("operator");
    plan(&mut operator, settings);
    let tenant = one(&mut operator, "SELECT create_tenant('Limited', plan => 'limited')", &[]);
    (database, tenant)
}

#[track_caller]
fn plan(operator: &mut Client, settings: &str) {
    one::<String>(operator, "SELECT create_plan('limited', settings => $1::text::jsonb)", &[&settings]);
}

#[track_caller]
fn show(client: &mut impl GenericClient, name: &str) -> String {
    text(client, &format!("SHOW {name}"))
}

#[test]
fn a_plans_settings_hold_in_its_tenants_transactions_and_end_with_them() {
    let settings = r#"{"statement_timeout": "300ms", "work_mem": 8192, "lock_timeout": "7s", "hash_mem_multiplier": 1.5,
        "idle_in_transaction_session_timeout": "9min", "temp_file_limit": "100MB", "max_parallel_workers_per_gather": 0,
        "maintenance_work_mem": "32MB", "seats": 5, "theme": {"dark": true}, "work_mem_note": "own"}"#;
    let (database, tenant) = with_plan("plan_settings", settings);
    let other = harness::tenant(&mut database.connect("operator"));
    let mut app = database.connect("app");
    const SHOWN: [(&str, &str); 8] = [
        ("statement_timeout", "300ms"),
        ("work_mem", "8MB"),
        ("lock_timeout", "7s"),
        ("hash_mem_multiplier", "1.5"),
        ("idle_in_transaction_session_timeout", "9min"),
        ("temp_file_limit", "100MB"),
        ("max_parallel_workers_per_gather", "0"),
        ("maintenance_work_mem", "32MB"),
    ];
    let before = SHOWN.map(|(name, _)| show(&mut app, name));
    for _ in 0..2 {
        let mut tx = app.transaction().expect("begin");
        bind(&mut tx, tenant);
        for (name, value) in SHOWN {
            assert_eq!(show(&mut tx, name), value, "{name}");
        }
        fails(tx.batch_execute("SET temp_file_limit = -1"), "42501");
        drop(tx);
        let mut tx = app.transaction().expect("begin");
        bind(&mut tx, tenant);
        fails(tx.batch_execute("SELECT pg_sleep(5)"), "57014");
        drop(tx);
        assert_eq!(SHOWN.map(|(name, _)| show(&mut app, name)), before);
        // Of another plan, in the same session.
        as_tenant(&mut app, other, |tx| assert_eq!(SHOWN.map(|(name, _)| show(tx, name)), before));
    }
    // A savepoint takes them back with the binding; unbinding does, but for what the session has changed since.
    let mut tx = app.transaction().expect("begin");
    let mut savepoint = tx.savepoint("s").expect("savepoint");
    savepoint.batch_execute(&format!("SELECT set_tenant('{tenant}')")).expect("bind");
    assert_eq!(show(&mut savepoint, "work_mem"), "8MB");
    savepoint.rollback().expect("roll back");
    assert_eq!(show(&mut tx, "work_mem"), before[1]);
    bind(&mut tx, tenant);
    tx.batch_execute("SET LOCAL lock_timeout = '1s'; SELECT clear_tenant()").expect("unbind");
    assert_eq!(show(&mut tx, "work_mem"), before[1]);
    assert_eq!(show(&mut tx, "statement_timeout"), before[0]);
    assert_eq!(show(&mut tx, "lock_timeout"), "1s");
}

#[test]
fn a_rebinding_leaves_nothing_of_the_former_tenants_plan() {
    let (database, first) = with_plan("plan_rebind", r#"{"work_mem": "8MB", "lock_timeout": "7s"}"#);
    let mut operator = database.connect("operator");
    operator.batch_execute(r#"SELECT create_plan('other', settings => '{"work_mem": "16MB"}')"#).expect("plan");
    let second: Uuid = one(&mut operator, "SELECT create_tenant('Other', plan => 'other')", &[]);
    let third = tenant(&mut operator);
    let mut admin = database.connect("admin");
    let before = (show(&mut admin, "work_mem"), show(&mut admin, "lock_timeout"));
    let mut tx = admin.transaction().expect("begin");
    for _ in 0..2 {
        for (tenant, due) in [
            (first, ("8MB".to_owned(), "7s".to_owned())),
            (second, ("16MB".to_owned(), before.1.clone())),
            (third, before.clone()),
            (third, before.clone()),
        ] {
            one::<Uuid>(&mut tx, "SELECT rebind_tenant($1)", &[&tenant]);
            assert_eq!((show(&mut tx, "work_mem"), show(&mut tx, "lock_timeout")), due);
        }
    }
    tx.commit().expect("commit");
    assert_eq!((show(&mut admin, "work_mem"), show(&mut admin, "lock_timeout")), before);
}

#[test]
fn a_change_of_a_plans_settings_holds_from_the_next_binding_on() {
    let (database, tenant) = with_plan("plan_change", r#"{"work_mem": "8MB"}"#);
    let mut operator = database.connect("operator");
    let mut app = database.connect("app");
    let before = show(&mut app, "work_mem");
    as_tenant(&mut app, tenant, |tx| assert_eq!(show(tx, "work_mem"), "8MB"));
    plan(&mut operator, r#"{"work_mem": "9MB"}"#);
    as_tenant(&mut app, tenant, |tx| assert_eq!(show(tx, "work_mem"), "9MB"));
    one::<Uuid>(&mut operator, "SELECT change_plan($1, 'free')", &[&tenant]);
    as_tenant(&mut app, tenant, |tx| assert_eq!(show(tx, "work_mem"), before));
    one::<Uuid>(&mut operator, "SELECT change_plan($1, 'limited')", &[&tenant]);
    as_tenant(&mut app, tenant, |tx| assert_eq!(show(tx, "work_mem"), "9MB"));
    plan(&mut operator, "{}");
    as_tenant(&mut app, tenant, |tx| assert_eq!(show(tx, "work_mem"), before));
    // A value that was put there by hand, or dumped from another version, closes nobody out.
    let by_hand = r#"UPDATE tenancy.plans SET settings = '{"work_mem": "much", "lock_timeout": "7s", "max_concurrent_transactions": "x"}' WHERE plan = 'limited'"#;
    database.superuser().batch_execute(by_hand).expect("by hand");
    as_tenant(&mut app, tenant, |tx| {
        assert_eq!((show(tx, "work_mem"), show(tx, "lock_timeout")), (before.clone(), "7s".to_owned()));
    });
}

#[test]
fn settings_that_a_plan_cannot_have_are_refused_when_it_is_made() {
    let database = Database::new("plan_refused");
    let mut operator = database.connect("operator");
    for settings in [
        r#"{"work_mem": "much"}"#,
        r#"{"work_mem": null}"#,
        r#"{"work_mem": [1]}"#,
        r#"{"work_mem": {"a": 1}}"#,
        r#"{"work_mem": -1}"#,
        r#"{"work_mem": "99999999999999999999"}"#,
        r#"{"statement_timeout": -5}"#,
        r#"{"statement_timeout": "5 parsecs"}"#,
        r#"{"Work_Mem": "4MB"}"#,
        r#"{"search_path": "public"}"#,
        r#"{"role": "postgres"}"#,
        r#"{"session_authorization": "postgres"}"#,
        r#"{"row_security": "off"}"#,
        r#"{"shared_preload_libraries": ""}"#,
        r#"{"session_replication_role": "replica"}"#,
        r#"{"tenancy.context": "x"}"#,
        r#"{"tenancy.allow_rebind": true}"#,
        r#"{"max_concurrent_transactions": 0}"#,
        r#"{"max_concurrent_transactions": -1}"#,
        r#"{"max_concurrent_transactions": 1.5}"#,
        r#"{"max_concurrent_transactions": null}"#,
        r#"{"max_concurrent_transactions": [3]}"#,
        r#"{"max_concurrent_transactions": 99999999999}"#,
    ] {
        let create = "SELECT create_plan('limited', settings => $1::text::jsonb)";
        let made = operator.query(create, &[&settings]);
        assert!(made.is_err(), "{settings}");
        fails(made, "22023");
    }
    assert_eq!(text(&mut operator, "SELECT count(*) FROM tenancy.plans WHERE plan = 'limited'"), "0");
    let is_new = one::<i32>(&mut operator, "SELECT current_setting('server_version_num')::int", &[]) >= 170_000;
    let create = r#"SELECT create_plan('limited', settings => '{"transaction_timeout": "1min"}')"#;
    if is_new {
        operator.batch_execute(create).expect("a setting of PostgreSQL 17");
    } else {
        fails(operator.batch_execute(create), "22023");
    }
}

#[test]
fn a_plan_never_raises_what_a_superuser_has_bounded() {
    let (database, tenant) = with_plan("plan_temp_files", r#"{"temp_file_limit": "1GB"}"#);
    let bound = format!("ALTER DATABASE {} SET temp_file_limit = '10MB'", database.name());
    database.superuser().batch_execute(&bound).expect("bound");
    let mut app = database.connect("app");
    as_tenant(&mut app, tenant, |tx| assert_eq!(show(tx, "temp_file_limit"), "10MB"));
    plan(&mut database.connect("operator"), r#"{"temp_file_limit": -1}"#);
    as_tenant(&mut app, tenant, |tx| assert_eq!(show(tx, "temp_file_limit"), "10MB"));
    plan(&mut database.connect("operator"), r#"{"temp_file_limit": "5MB"}"#);
    as_tenant(&mut app, tenant, |tx| assert_eq!(show(tx, "temp_file_limit"), "5MB"));
}

#[test]
fn fifty_sessions_have_no_more_transactions_open_at_once_than_the_plan_allows() {
    const CAP: usize = 7;
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("plan_cap");
    let mut operator = database.connect("operator");
    plan(&mut operator, &format!(r#"{{"max_concurrent_transactions": {CAP}}}"#));
    let capped: Uuid = one(&mut operator, "SELECT create_tenant('Capped', plan => 'limited')", &[]);
    let beside: Uuid = one(&mut operator, "SELECT create_tenant('Beside', plan => 'limited')", &[]);
    let (open, most, bound, refused) =
        (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut clients: Vec<Client> = (0..50).map(|_| database.connect("app")).collect();
    std::thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            let (open, most, bound, refused) = (&open, &most, &bound, &refused);
            scope.spawn(move || {
                for round in 0..40 {
                    let mut tx = client.transaction().expect("begin");
                    match tx.query("SELECT set_tenant($1)", &[&capped]) {
                        Ok(_) => {
                            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            bound.fetch_add(1, Ordering::SeqCst);
                            // Again, and in a savepoint: it is the same transaction.
                            tx.batch_execute(&format!(
                                "SELECT set_tenant('{capped}'); SAVEPOINT s; SELECT set_tenant('{capped}')"
                            ))
                            .expect("bind again");
                            std::thread::sleep(Duration::from_millis((number as u64 + round) % 4));
                            open.fetch_sub(1, Ordering::SeqCst);
                            if round % 2 == 0 {
                                tx.commit().expect("commit")
                            } else {
                                tx.rollback().expect("roll back")
                            }
                        }
                        Err(error) => {
                            let fault = fails::<()>(Err(error), "53400");
                            assert!(fault.message().contains("has 7 transactions open"), "{fault}");
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    let [most, bound, refused] = [most, bound, refused].map(AtomicUsize::into_inner);
    assert_eq!(bound + refused, 50 * 40);
    assert!(most <= CAP, "{most} at once");
    assert!(most == CAP && refused > 0, "{most} at once, {refused} refused: nothing was tried");
    // Every place was given back, and the other tenant's are its own.
    let mut holders: Vec<Client> = (0..2 * CAP).map(|_| database.connect("app")).collect();
    for (number, holder) in holders.iter_mut().enumerate() {
        let tenant = if number < CAP { capped } else { beside };
        holder.batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}')")).expect("a place for each");
    }
    let mut late = database.connect("app");
    for tenant in [capped, beside] {
        fails(late.batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}')")), "53400");
        late.batch_execute("ROLLBACK").expect("roll back");
    }
    // A raised cap holds at once, a lowered one ends nothing.
    plan(&mut operator, r#"{"max_concurrent_transactions": 8}"#);
    late.batch_execute(&format!("BEGIN; SELECT set_tenant('{capped}')")).expect("one more");
    plan(&mut operator, r#"{"max_concurrent_transactions": 1}"#);
    late.batch_execute(&format!("SELECT set_tenant('{capped}'); COMMIT")).expect("it is there already");
    fails(late.batch_execute(&format!("BEGIN; SELECT set_tenant('{capped}')")), "53400");
}

#[test]
fn every_way_to_end_a_transaction_gives_its_place_back() {
    let cluster = Cluster::start(Options::new().set("max_prepared_transactions", "5"));
    let database = cluster.database("plan_cap_ends");
    let mut operator = database.connect("operator");
    plan(&mut operator, r#"{"max_concurrent_transactions": 1}"#);
    let tenant: Uuid = one(&mut operator, "SELECT create_tenant('Capped', plan => 'limited')", &[]);
    let other = harness::tenant(&mut operator);
    let set = format!("SELECT set_tenant('{tenant}')");
    let free = |what: &str| {
        let mut app = database.connect("app");
        wait_until(&format!("the place is free after {what}"), || {
            let is_free = app.batch_execute(&format!("BEGIN; {set}")).is_ok();
            app.batch_execute("ROLLBACK").expect("roll back");
            is_free
        });
    };
    let mut app = database.connect("app");
    for end in ["COMMIT", "ROLLBACK", "SELECT clear_tenant()", "RESET ALL", "PREPARE TRANSACTION 'p'", "SAVEPOINT s"] {
        app.batch_execute(&format!(
            "BEGIN; SAVEPOINT s; {set}; {}",
            if end == "SAVEPOINT s" { "ROLLBACK TO s" } else { end }
        ))
        .unwrap_or_else(|error| panic!("{end}: {error:?}"));
        if matches!(end, "SELECT clear_tenant()" | "RESET ALL" | "SAVEPOINT s") {
            // A savepoint could bring the tenant back without a bind, so the place stays taken until the transaction ends.
            fails(database.connect("app").batch_execute(&format!("BEGIN; {set}")), "53400");
            app.batch_execute("COMMIT").expect("commit");
        }
        free(end);
        app.batch_execute("ROLLBACK").expect("roll back");
    }
    app.batch_execute("ROLLBACK PREPARED 'p'").expect("roll back");
    fails(app.batch_execute(&format!("BEGIN; {set}; SELECT 1/0")), "22012");
    free("an error");
    app.batch_execute("ROLLBACK").expect("roll back");
    app.batch_execute(&format!("BEGIN; {set}")).expect("bind");
    drop(app);
    free("a lost connection");
    let mut app = database.connect("app");
    let pid = harness::backend_pid(&mut app);
    app.batch_execute(&format!("BEGIN; {set}")).expect("bind");
    one::<bool>(&mut database.superuser(), "SELECT pg_terminate_backend($1)", &[&pid]);
    free("pg_terminate_backend");
    // What the product does for the tenant takes none.
    let mut app = database.connect("app");
    app.batch_execute(&format!("BEGIN; {set}")).expect("bind");
    one::<Uuid>(&mut operator, "SELECT suspend_tenant($1, 'unpaid')", &[&other]);
    let mut late = database.connect("app");
    fails(late.batch_execute(&format!("BEGIN; {set}")), "53400");
    late.batch_execute("ROLLBACK; SELECT clear_tenant()").expect("the session lives");
    let refused = format!("SELECT refused_binds FROM tenancy.refusals WHERE tenant_id = '{tenant}'");
    assert!(text(&mut database.connect("monitor"), &refused).parse::<i64>().is_ok_and(|refused| refused > 0));
}

#[test]
fn parallel_workers_take_no_place_and_have_the_plans_settings() {
    let (database, tenant) = with_plan(
        "plan_parallel",
        r#"{"max_concurrent_transactions": 1, "max_parallel_workers_per_gather": 2, "work_mem": "8MB"}"#,
    );
    database.superuser().batch_execute("CREATE TABLE big AS SELECT i FROM generate_series(1, 100000) AS i; GRANT SELECT ON big TO app; ANALYZE big").expect("big");
    let mut app = database.connect("app");
    let force = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0";
    app.batch_execute(force).expect("force");
    as_tenant(&mut app, tenant, |tx| {
        let sql = "SELECT min(current_setting('work_mem')) || count(*) FROM big WHERE current_tenant() IS NOT NULL";
        let plan: Vec<String> =
            simple(tx, &format!("EXPLAIN {sql}")).into_iter().filter_map(|row| row[0].clone()).collect();
        assert!(plan.iter().any(|line| line.contains("Parallel Seq Scan")), "{plan:#?}");
        for _ in 0..3 {
            assert_eq!(text(tx, sql), "8MB100000");
        }
    });
}

#[test]
fn the_plans_of_five_kinds_of_application_can_be_loaded_again_and_again() {
    let database = Database::new("plan_presets");
    let mut operator = database.connect("operator");
    operator
        .batch_execute("SELECT create_plan('pro', settings => '{\"seats\": 5}', features => '{sso}'), set_plan_limit('pro', 'robots', 7)")
        .expect("a plan of one's own");
    for _ in 0..2 {
        for (preset, plans) in
            [("agent_platform", 4), ("workspaces", 4), ("crm", 1), ("capital_planning", 3), ("hybrid", 4)]
        {
            let loaded: i32 = one(&mut operator, "SELECT load_plans($1)", &[&preset]);
            assert_eq!(loaded, plans, "{preset}");
        }
    }
    let limits = "SELECT string_agg(concat_ws(' ', plan, resource, period, coalesce(max_value::text, '-')), ', ' ORDER BY plan, resource)
        FROM tenancy.plan_limits WHERE plan IN ('free', 'professional') AND resource <> 'concurrent_tasks'";
    assert_eq!(
        one::<String>(&mut operator, limits, &[]),
        "free agent_minutes month 1000, free agents total 5, free concurrent_workflows total 2, free members total 1, free tasks month 1000, \
         professional skus total 500, professional storage_gb total 10, professional users total 20"
    );
    let unlimited = "SELECT count(*) FROM tenancy.plan_limits WHERE plan = 'enterprise' AND resource IN ('agents', 'tasks', 'members') AND max_value IS NULL";
    assert_eq!(one::<i64>(&mut operator, unlimited, &[]), 3);
    let rate = "SELECT max_value FROM tenancy.plan_rate_limits WHERE plan = 'starter' AND resource = 'api_calls' AND period = 'hour'";
    assert_eq!(one::<i32>(&mut operator, rate, &[]), 1000);
    // What was there stays.
    let own = "SELECT p.settings ->> 'seats' || array_to_string(p.features, ',') || l.max_value
        FROM tenancy.plans p JOIN tenancy.plan_limits l USING (plan) WHERE plan = 'pro' AND resource = 'robots'";
    assert_eq!(one::<String>(&mut operator, own, &[]), "5sso7");
    for preset in ["NULL", "''", "'nothing'", "repeat('x', 100000)", "E'\\'; DROP TABLE tenancy.plans'"] {
        fails(operator.query(&format!("SELECT load_plans({preset})"), &[]), "22023");
    }
    fails(database.connect("app").query("SELECT load_plans('crm')", &[]), "42501");
}
