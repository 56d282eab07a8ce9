//! Recording usage: what is recorded, once, for whom, and what is refused.

use harness::{
    Client, Cluster, Database, Options, Uuid, as_tenant, backend_pid, bind, count, fails, one, rows, tenant, tenants,
    text, wait_for_lock,
};

/// A database with metrics of every kind and two tenants.
pub fn metered(database: &Database) -> Vec<Uuid> {
    let mut operator = database.connect("operator");
    operator
        .batch_execute(
            "SELECT create_metric('calls', 'calls'), create_metric('seats', aggregation => 'unique'),
                    create_metric('load', aggregation => 'max'), create_metric('disk', 'GB', 'last')",
        )
        .expect("create metrics");
    tenants(&mut operator, 2)
}

/// The sum of a metric's events that are committed, by the buckets and the inbox.
fn total(database: &Database, tenant: Uuid, metric: &str) -> String {
    let sum = "SELECT coalesce(sum(quantity), 0)::text FROM (
            SELECT quantity FROM tenancy.usage_buckets WHERE tenant_id = $1 AND metric = $2
            UNION ALL SELECT quantity FROM tenancy.usage_pending WHERE tenant_id = $1 AND metric = $2) AS parts";
    one(&mut database.superuser(), sum, &[&tenant, &metric])
}

fn roll_up(database: &Database) -> i64 {
    one(&mut database.connect("admin"), "SELECT rollup_usage()", &[])
}

/// One call in a transaction of the tenant's that commits.
fn record(app: &mut Client, tenant: Uuid, call: &str) -> bool {
    as_tenant(app, tenant, |transaction| one(transaction, &format!("SELECT {call}"), &[]))
}

/// One call in a transaction of the tenant's, which must fail.
#[track_caller]
fn refused(app: &mut Client, tenant: Uuid, call: &str, sqlstate: &str) {
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    let error = fails(transaction.query(&format!("SELECT {call}"), &[]), sqlstate);
    assert!(!error.message().contains("request"), "{}", error.message());
}

#[test]
fn an_event_commits_and_rolls_back_with_its_transaction() {
    let database = Database::new("recorded");
    let [a, b] = metered(&database)[..] else { panic!("two tenants") };
    let mut app = database.connect("app");
    assert!(record(&mut app, a, "record_usage('calls')"));
    assert!(record(&mut app, b, "record_usage('calls', 0.25)"));
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, a);
    transaction
        .batch_execute("SELECT record_usage('calls', 10); SAVEPOINT s; SELECT record_usage('calls', 100, 'key')")
        .expect("record");
    transaction.batch_execute("ROLLBACK TO s; SELECT record_usage('calls', 1000, 'key')").expect("record again");
    assert_eq!(total(&database, a, "calls"), "1", "nothing is seen before it is committed");
    transaction.commit().expect("commit");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, a);
    transaction.batch_execute("SELECT record_usage('calls', 5, 'other key')").expect("record");
    transaction.rollback().expect("roll back");
    assert_eq!((total(&database, a, "calls").as_str(), total(&database, b, "calls").as_str()), ("1011", "0.25"));
    assert!(record(&mut app, a, "record_usage('calls', 5, 'other key')"), "a key that was rolled back is free");
}

#[test]
fn an_idempotency_key_records_one_event_however_often_it_is_sent() {
    let database = Database::new("idempotent");
    let [a, b] = metered(&database)[..] else { panic!("two tenants") };
    let mut app = database.connect("app");
    let full = "record_usage('calls', 2.50, 'request 1', '2026-03-01 10:00+00', '8e3f5a60-0000-4000-8000-00000000000a', '{\"a\": 1, \"b\": [2]}')";
    let again = "record_usage('calls', 2.5, 'request 1', '2026-03-01 11:00+01', '8e3f5a60-0000-4000-8000-00000000000a', '{\"b\": [2], \"a\": 1}')";
    assert!(record(&mut app, a, full));
    assert!(!record(&mut app, a, again));
    roll_up(&database);
    assert!(!record(&mut app, a, again), "also when the event has left the inbox");
    assert!(record(&mut app, b, full), "the other tenant's key is another");
    for other in [
        "record_usage('calls', 2.51, 'request 1', '2026-03-01 10:00+00', '8e3f5a60-0000-4000-8000-00000000000a', '{\"a\": 1, \"b\": [2]}')",
        "record_usage('disk', 2.5, 'request 1', '2026-03-01 10:00+00', '8e3f5a60-0000-4000-8000-00000000000a', '{\"a\": 1, \"b\": [2]}')",
        "record_usage('calls', 2.5, 'request 1', '2026-03-01 10:01+00', '8e3f5a60-0000-4000-8000-00000000000a', '{\"a\": 1, \"b\": [2]}')",
        "record_usage('calls', 2.5, 'request 1', '2026-03-01 10:00+00', NULL, '{\"a\": 1, \"b\": [2]}')",
        "record_usage('calls', 2.5, 'request 1', '2026-03-01 10:00+00', '8e3f5a60-0000-4000-8000-00000000000a')",
        "record_usage('calls', 2.5, 'request 1')",
    ] {
        refused(&mut app, a, other, "23505");
    }
    assert_eq!(total(&database, a, "calls"), "2.50");
    // An event that happens now is the same whenever it is sent.
    assert!(record(&mut app, a, "record_usage('calls', 1, 'request 2')"));
    assert!(!record(&mut app, a, "record_usage('calls', 1, 'request 2')"));
    assert!(!record(&mut app, a, "record_usage('calls', 1.000, 'request 2')"));
}

/// The second of two waits for the first, and records where that did not.
#[test]
fn of_two_sessions_with_one_key_one_records() {
    let database = Database::new("key_race");
    let tenant = metered(&database)[0];
    for (end, isolation, outcome) in [
        ("COMMIT", "READ COMMITTED", Ok(false)),
        ("ROLLBACK", "READ COMMITTED", Ok(true)),
        ("COMMIT", "REPEATABLE READ", Err("40001")),
        ("ROLLBACK", "SERIALIZABLE", Ok(true)),
    ] {
        let key = format!("{end} {isolation}");
        let (mut first, mut second) = (database.connect("app"), database.connect("app"));
        first
            .batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}'), record_usage('calls', 7, '{key}')"))
            .expect("first");
        let pid = backend_pid(&mut second);
        let waiting = std::thread::spawn({
            let key = key.clone();
            move || {
                second
                    .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT set_tenant('{tenant}')"))
                    .expect("begin");
                let recorded = second.query_one("SELECT record_usage('calls', 7, $1)", &[&key]);
                if recorded.is_ok() {
                    second.batch_execute("COMMIT").expect("commit");
                }
                recorded.map(|row| row.get::<_, bool>(0)).map_err(|error| error.code().expect("code").code().to_owned())
            }
        });
        wait_for_lock(&mut database.superuser(), pid);
        first.batch_execute(end).expect("end");
        assert_eq!(waiting.join().expect("second"), outcome.map_err(str::to_owned), "{key}");
    }
}

#[test]
fn a_batch_is_recorded_whole_or_not_at_all() {
    let database = Database::new("batches");
    let tenant = metered(&database)[0];
    let mut app = database.connect("app");
    let recorded = |app: &mut Client, events: &str| -> i64 {
        as_tenant(app, tenant, |transaction| one(transaction, &format!("SELECT record_usage_batch('{events}')"), &[]))
    };
    let events = r#"[{"metric": "calls", "quantity": 2, "idempotency_key": "b"}, {"metric": "calls"},
        {"metric": "calls", "quantity": 2.0, "idempotency_key": "b"}, {"metric": "disk", "quantity": 3, "idempotency_key": "a",
         "occurred_at": "2026-01-01T00:00:00Z", "resource_id": null, "properties": {"x": 1.10}}]"#;
    assert_eq!(recorded(&mut app, events), 3);
    assert_eq!(recorded(&mut app, events), 1, "what has no key is recorded again");
    assert_eq!(recorded(&mut app, "[]"), 0);
    assert_eq!(total(&database, tenant, "calls"), "4");
    for (events, sqlstate) in [
        (r#"[{"metric": "calls"}, {"metric": "calls", "idempotency_key": "a"}]"#, "23505"),
        (r#"[{"metric": "calls"}, {"metric": "nothing"}]"#, "P0002"),
        (r#"[{"metric": "calls"}, {"metric": "seats"}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "quantity": -1}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "quantity": "many"}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "quantity": "NaN"}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "quantity": 1e32}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "quantity": {"n": 1}}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "occurred_at": "yesterday, or so"}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "occurred_at": "infinity"}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "resource_id": "no uuid"}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "properties": [1]}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "idempotency_key": ""}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"metric": "calls", "quanttiy": 1}]"#, "22023"),
        (r#"[{"metric": "calls"}, {"quantity": 1}]"#, "22023"),
        (r#"[{"metric": "calls"}, 1]"#, "22023"),
        (r#"[{"metric": "calls"}, null]"#, "22023"),
        (r#"{"metric": "calls"}"#, "22023"),
        ("null", "22023"),
    ] {
        refused(&mut app, tenant, &format!("record_usage_batch('{events}')"), sqlstate);
    }
    assert_eq!(total(&database, tenant, "calls"), "4", "nothing of a refused batch is there");
}

/// Batches that hold the same keys in opposite orders wait for each other, and not in a circle.
#[test]
fn batches_with_the_same_keys_do_not_deadlock() {
    let database = Database::new("batch_storm");
    let tenant = metered(&database)[0];
    std::thread::scope(|scope| {
        for session in 0..4 {
            let database = &database;
            scope.spawn(move || {
                let mut app = database.connect("app");
                for round in 0..30 {
                    let order = if session % 2 == 0 { "ASC" } else { "DESC" };
                    let call = format!(
                        "SELECT record_usage_batch(jsonb_agg(jsonb_build_object('metric', 'calls', 'idempotency_key', {round} || '/' || i)
                                                   ORDER BY i {order})) FROM generate_series(1, 20) AS i"
                    );
                    as_tenant(&mut app, tenant, |transaction| one::<i64>(transaction, &call, &[]));
                }
            });
        }
    });
    assert_eq!(total(&database, tenant, "calls"), "600");
}

#[test]
fn what_is_malformed_is_refused_and_nothing_is_written() {
    let database = Database::new("malformed");
    let tenant = metered(&database)[0];
    let mut app = database.connect("app");
    let long = "x".repeat(300);
    for (call, sqlstate) in [
        ("record_usage(NULL)".to_owned(), "22023"),
        ("record_usage('calls', NULL)".to_owned(), "22023"),
        ("record_usage('nothing')".to_owned(), "P0002"),
        ("record_usage('')".to_owned(), "22023"),
        ("record_usage('Calls')".to_owned(), "22023"),
        ("record_usage('calls''; DROP TABLE tenancy.metrics; --')".to_owned(), "22023"),
        (format!("record_usage('{long}')"), "22023"),
        ("record_usage('seats')".to_owned(), "22023"),
        ("record_usage('calls', -0.0001)".to_owned(), "22023"),
        ("record_usage('calls', 'NaN')".to_owned(), "22023"),
        ("record_usage('calls', 'Infinity')".to_owned(), "22023"),
        ("record_usage('calls', '-Infinity')".to_owned(), "22023"),
        ("record_usage('calls', 1e32)".to_owned(), "22023"),
        ("record_usage('calls', 1e131071)".to_owned(), "22023"),
        ("record_usage('calls', 1e-33)".to_owned(), "22023"),
        ("record_usage('calls', 1e-16383)".to_owned(), "22023"),
        ("record_usage('calls', 1, '')".to_owned(), "22023"),
        (format!("record_usage('calls', 1, '{long}')"), "22023"),
        ("record_usage('calls', 1, E'a\\nb')".to_owned(), "22023"),
        ("record_usage('calls', occurred_at => 'infinity')".to_owned(), "22023"),
        ("record_usage('calls', occurred_at => '-infinity')".to_owned(), "22023"),
        ("record_usage('calls', occurred_at => '4000-01-01 BC')".to_owned(), "22023"),
        ("record_usage('calls', occurred_at => '1999-12-31 23:59:59.999999+00')".to_owned(), "22023"),
        ("record_usage('calls', occurred_at => '10000-01-01 00:00+00')".to_owned(), "22023"),
        ("record_usage('calls', properties => '1')".to_owned(), "22023"),
        ("record_usage('calls', properties => '[{}]')".to_owned(), "22023"),
        ("record_usage('calls', properties => jsonb_build_object('a', repeat('x', 17000)))".to_owned(), "22023"),
        ("record_usage_batch(NULL)".to_owned(), "22023"),
        ("record_duration(NULL, now(), now())".to_owned(), "22023"),
        ("record_duration('calls', NULL, now())".to_owned(), "22023"),
        ("record_duration('calls', now(), NULL)".to_owned(), "22023"),
        ("record_duration('calls', now(), now() - interval '1 us')".to_owned(), "22023"),
        ("record_duration('calls', '-infinity', now())".to_owned(), "22023"),
        ("record_duration('calls', now(), 'infinity')".to_owned(), "22023"),
        ("record_duration('nothing', now(), now())".to_owned(), "P0002"),
    ] {
        refused(&mut app, tenant, &call, sqlstate);
    }
    assert_eq!(count(&mut database.superuser(), "tenancy.usage_inbox"), 0);
    assert_eq!(count(&mut database.superuser(), "tenancy.usage_keys"), 0);
    // The greatest and the smallest, the earliest and the latest there are.
    for call in [
        "record_usage('calls', 99999999999999999999999999999999.99999999999999999999999999999999)",
        "record_usage('calls', 0)",
        "record_usage('calls', 1e-32, occurred_at => '2000-01-01 00:00+00')",
        "record_usage('calls', 1, 'Schlüssel 🔑', '9999-12-31 23:59:59.999999+00', properties => '{}')",
        "record_usage('calls', 0, properties => jsonb_build_object('a', repeat('x', 16000)))",
    ] {
        assert!(record(&mut app, tenant, call), "{call}");
    }
    let before = total(&database, tenant, "calls");
    assert_eq!(roll_up(&database), 5);
    assert_eq!(total(&database, tenant, "calls"), before);
    assert_eq!(before, "100000000000000000000000000000001.00000000000000000000000000000000");
}

#[test]
fn a_duration_is_recorded_in_whole_minutes_rounded_up() {
    let database = Database::new("durations");
    let tenant = metered(&database)[0];
    let mut app = database.connect("app");
    for (seconds, minutes) in [("0", "0"), ("0.000001", "1"), ("60", "1"), ("60.000001", "2"), ("5400", "90")] {
        let call = format!(
            "SELECT record_duration('calls', '2026-01-01', timestamptz '2026-01-01' + interval '{seconds} s')::text"
        );
        let recorded: String = as_tenant(&mut app, tenant, |transaction| one(transaction, &call, &[]));
        assert_eq!(recorded, minutes, "{seconds}");
    }
    assert_eq!(total(&database, tenant, "calls"), "94");
    let call = "SELECT record_duration('calls', '2026-01-01 00:00+00', '2026-01-01 00:59:30+00', 'job 1')::text";
    for _ in 0..2 {
        let recorded: String = as_tenant(&mut app, tenant, |transaction| one(transaction, call, &[]));
        assert_eq!(recorded, "60", "the minutes, also where they were recorded before");
    }
    assert_eq!(total(&database, tenant, "calls"), "154");
    let ended = "SELECT count(*) FROM tenancy.usage_inbox WHERE occurred_at = '2026-01-01 00:59:30+00'";
    assert_eq!(one::<i64>(&mut database.superuser(), ended, &[]), 1);
}

/// Who may record, for whom, and who may read what was recorded.
#[test]
fn usage_is_recorded_for_the_bound_tenant_and_its_tables_show_nobody_anything() {
    let database = Database::new("usage_closed");
    let [a, b] = metered(&database)[..] else { panic!("two tenants") };
    let mut app = database.connect("app");
    fails(app.batch_execute("SELECT record_usage('calls')"), "42501");
    fails(app.batch_execute("SELECT record_usage_batch('[{\"metric\": \"calls\"}]')"), "42501");
    fails(app.batch_execute("SELECT record_duration('calls', now(), now())"), "42501");
    assert!(record(&mut app, a, "record_usage('calls', 1, 'request')"));
    assert!(record(&mut app, b, "record_usage('calls', 2, 'request')"));
    for relation in [
        "usage_inbox",
        "usage_pending",
        "usage_buckets",
        "usage_uniques",
        "usage_keys",
        "usage_keys_0",
        "usage_progress",
        "quota_counters",
    ] {
        for role in ["app", "client", "operator", "monitor", "admin", "owner", "stranger"] {
            fails(database.connect(role).batch_execute(&format!("TABLE tenancy.{relation}")), "42501");
        }
    }
    roll_up(&database);
    for role in ["app", "client", "operator", "monitor", "admin", "owner", "stranger"] {
        fails(database.connect(role).batch_execute("TABLE tenancy_archive.usage_events"), "42501");
    }
    // Granted by mistake they show nothing.
    database
        .superuser()
        .batch_execute(
            "GRANT USAGE ON SCHEMA tenancy_archive TO app;
             GRANT ALL ON tenancy_archive.usage_events, tenancy.usage_inbox, tenancy.usage_buckets, tenancy.usage_keys TO app",
        )
        .expect("grant");
    as_tenant(&mut app, a, |transaction| {
        for relation in
            ["tenancy_archive.usage_events", "tenancy.usage_inbox", "tenancy.usage_buckets", "tenancy.usage_keys"]
        {
            assert_eq!(count(transaction, relation), 0, "{relation}");
        }
    });
    for role in ["client", "operator", "monitor", "stranger"] {
        let mut session = database.connect(role);
        for call in [
            "record_usage('calls')",
            "record_usage_batch('[]')",
            "record_duration('calls', now(), now())",
            "rollup_usage()",
            "trim_usage_archive(0)",
            "trim_usage_keys()",
        ] {
            fails(session.batch_execute(&format!("SELECT {call}")), "42501");
        }
    }
    fails(app.batch_execute("SELECT create_metric('own')"), "42501");
}

#[test]
fn usage_is_not_recorded_where_nothing_may_be_written() {
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("usage_read_only");
    let tenant = metered(&database)[0];
    let standby = cluster.standby();
    standby.catch_up_with(&cluster);
    let calls = [
        "record_usage('calls')",
        "record_usage('calls', 1, 'key')",
        "record_usage_batch('[{\"metric\": \"calls\"}]')",
        "record_duration('calls', now(), now())",
    ];
    let mut app = database.connect("app");
    let mut on_standby =
        standby.server().config(database.name(), "app").connect(harness::postgres::NoTls).expect("connect");
    for call in calls {
        let sql = format!("SELECT {call}");
        app.batch_execute(&format!("BEGIN READ ONLY; SELECT set_tenant('{tenant}')")).expect("begin");
        fails(app.batch_execute(&sql), "25006");
        app.batch_execute("ROLLBACK").expect("end");
        on_standby.batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}')")).expect("begin");
        fails(on_standby.batch_execute(&sql), "25006");
        on_standby.batch_execute("ROLLBACK").expect("end");
    }
    for call in ["rollup_usage()", "trim_usage_keys()"] {
        let mut admin =
            standby.server().config(database.name(), "admin").connect(harness::postgres::NoTls).expect("connect");
        fails(admin.batch_execute(&format!("SELECT {call}")), "25006");
    }
    one::<Uuid>(&mut database.connect("operator"), "SELECT suspend_tenant($1, 'unpaid', 'read_only')", &[&tenant]);
    for call in calls {
        refused(&mut app, tenant, call, "25006");
    }
    assert_eq!(count(&mut database.superuser(), "tenancy.usage_inbox"), 0);
}

#[test]
fn a_metric_keeps_its_aggregation_once_it_has_events() {
    let database = Database::new("metrics");
    let tenant = metered(&database)[0];
    let mut operator = database.connect("operator");
    assert_eq!(text(&mut operator, "SELECT create_metric('fresh', 'x', 'max')"), "fresh");
    let mut app = database.connect("app");
    refused(&mut app, tenant, "record_usage('later')", "P0002");
    operator
        .batch_execute("SELECT create_metric('fresh', aggregation => 'unique'), create_metric('later')")
        .expect("change");
    assert!(record(&mut app, tenant, "record_usage('later')"), "a session hears of a new metric");
    refused(&mut app, tenant, "record_usage('fresh')", "22023");
    assert!(record(&mut app, tenant, "record_usage('fresh', resource_id => gen_random_uuid())"));
    for turn in 0..2 {
        fails(operator.batch_execute("SELECT create_metric('fresh', aggregation => 'sum')"), "55000");
        if turn == 0 {
            roll_up(&database);
        }
    }
    operator.batch_execute("SELECT create_metric('fresh', 'heads', 'unique')").expect("another unit");
    let unit = "SELECT unit FROM tenancy.metrics WHERE metric = 'fresh'";
    assert_eq!(text(&mut database.connect("client"), unit), "heads");
    for call in [
        "create_metric(NULL)",
        "create_metric('')",
        "create_metric('Big')",
        "create_metric('a b')",
        "create_metric('calls', '')",
        "create_metric('calls', NULL, NULL)",
        "create_metric('calls', NULL, 'average')",
    ] {
        fails(operator.batch_execute(&format!("SELECT {call}")), "22023");
    }
    // What is limited over a period is measured.
    operator
        .batch_execute("SELECT set_plan_limit('free', 'emails', 5, 'month'), set_plan_limit('free', 'agents', 5)")
        .expect("limit");
    operator.execute("SELECT set_tenant_limit($1, 'texts', 5, 'day')", &[&tenant]).expect("limit");
    assert_eq!(count(&mut operator, "tenancy.metrics WHERE metric IN ('emails', 'texts')"), 2);
    assert_eq!(count(&mut operator, "tenancy.metrics WHERE metric = 'agents'"), 0);
}

#[test]
fn idempotency_keys_are_forgotten_after_their_days_and_not_before() {
    let database = Database::new("old_keys");
    let tenant = metered(&database)[0];
    let mut app = database.connect("app");
    for key in ["young", "old"] {
        assert!(record(&mut app, tenant, &format!("record_usage('calls', 1, '{key}')")));
    }
    let mut superuser = database.superuser();
    let age = "UPDATE tenancy.usage_keys SET recorded_at = now() - interval '35 days' + $2::text::interval
               WHERE key_hash = (substr(encode(sha256($1::text::bytea), 'hex'), 1, 32))::uuid";
    assert_eq!(superuser.execute(age, &[&"old", &"-1 minute"]).expect("age"), 1);
    assert_eq!(superuser.execute(age, &[&"young", &"1 hour"]).expect("age"), 1);
    assert_eq!(one::<i64>(&mut database.connect("admin"), "SELECT trim_usage_keys()", &[]), 1);
    assert!(!record(&mut app, tenant, "record_usage('calls', 1, 'young')"));
    assert!(record(&mut app, tenant, "record_usage('calls', 1, 'old')"));
    fails(superuser.batch_execute("ALTER SYSTEM SET tenancy.idempotency_days = 34"), "22023");
}

#[test]
fn nothing_is_left_of_a_purged_tenants_usage() {
    let database = Database::new("usage_purged");
    let [gone, stays] = metered(&database)[..] else { panic!("two tenants") };
    let mut app = database.connect("app");
    let mut superuser = database.superuser();
    let use_everything = |app: &mut Client| {
        for tenant in [gone, stays] {
            for at in ["now()", "now() - interval '3 months'", "'2010-01-01'"] {
                assert!(record(app, tenant, &format!("record_usage('calls', 1, 'key' || clock_timestamp(), {at})")));
                assert!(record(app, tenant, &format!("record_usage('seats', 1, NULL, {at}, gen_random_uuid())")));
            }
        }
    };
    use_everything(&mut app);
    roll_up(&database);
    one::<i64>(&mut database.connect("admin"), "SELECT trim_usage_archive(1, detach => true)", &[]);
    use_everything(&mut app);
    let relations = rows(
        &mut superuser,
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
         WHERE c.relkind IN ('r', 'p') AND relnamespace IN ('tenancy'::regnamespace, 'tenancy_archive'::regnamespace)
           AND c.relname <> 'audit_log'",
        &[],
    );
    let left = |superuser: &mut Client, tenant: Uuid| -> i64 {
        let of = |row: &harness::postgres::Row| {
            count(superuser, &format!("{} WHERE tenant_id = '{tenant}'", row.get::<_, String>(0)))
        };
        relations.iter().map(of).sum()
    };
    let before = left(&mut superuser, stays);
    assert!(left(&mut superuser, gone) > 20);
    database.connect("operator").execute("SELECT delete_tenant($1)", &[&gone]).expect("delete");
    database.connect("admin").batch_execute(&format!("CALL purge_tenant('{gone}', force => true)")).expect("purge");
    assert_eq!(left(&mut superuser, gone), 0);
    assert_eq!(left(&mut superuser, stays), before);
    let another = tenant(&mut database.connect("operator"));
    assert!(record(&mut app, another, "record_usage('calls')"));
}
