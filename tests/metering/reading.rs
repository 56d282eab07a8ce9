//! Reading what was used: the same figures before, between and after rollups, by every aggregation and step, and of one's own tenant only.

use harness::{Client, Database, Uuid, as_tenant, bind, fails, one, simple, tenant, tenants};

const EVENTS: &str = "
    SELECT record_usage('calls', 2, occurred_at => '2026-10-31 23:59:59+00'),
           record_usage('calls', 3, occurred_at => '2026-11-01 00:00+00'),
           record_usage('calls', 0.5, occurred_at => '2026-11-01 00:14:59.999999+00'),
           record_usage('calls', 1, occurred_at => '2026-11-15 12:00+00'),
           record_usage('calls', 7, occurred_at => '2026-12-01 00:00+00'),
           record_usage('seats', 4, occurred_at => '2026-11-02 08:00+00'),
           record_usage('seats', 9, occurred_at => '2026-11-02 08:01+00'),
           record_usage('seats', 6, occurred_at => '2026-11-20 08:00+00'),
           record_usage('disk', 40, occurred_at => '2026-11-20 08:00+00'),
           record_usage('disk', 90, occurred_at => '2026-11-02 08:01+00'),
           record_usage('disk', 41, occurred_at => '2026-11-20 08:00+00'),
           record_usage('people', resource_id => '00000000-0000-4000-8000-000000000001', occurred_at => '2026-11-03 01:00+00'),
           record_usage('people', resource_id => '00000000-0000-4000-8000-000000000001', occurred_at => '2026-11-04 01:00+00'),
           record_usage('people', resource_id => '00000000-0000-4000-8000-000000000002', occurred_at => '2026-11-04 01:20+00')";

/// A database with a metric of each aggregation.
fn metrics(label: &str) -> Database {
    let database = Database::new(label);
    database
        .connect("operator")
        .batch_execute(
            "SELECT create_metric('calls', 'call'), create_metric('seats', 'seat', 'max'), create_metric('disk', 'GB', 'last'),
                    create_metric('people', aggregation => 'unique');
             SELECT set_plan_limit('free', 'calls', 10, 'month'), set_plan_limit('free', 'tasks', 5, 'month')",
        )
        .expect("metrics and limits");
    database
}

fn lines(app: &mut Client, tenant: Uuid, sql: &str) -> Vec<String> {
    let rows = as_tenant(app, tenant, |transaction| simple(transaction, sql));
    rows.into_iter()
        .map(|row| row.into_iter().map(|column| column.unwrap_or_else(|| "-".to_owned())).collect::<Vec<_>>().join(" "))
        .collect()
}

fn check_figures(app: &mut Client, tenant: Uuid, when: &str) {
    let november =
        lines(app, tenant, "SELECT metric, quantity, events, max_value, remaining FROM monthly_usage('2026-11')");
    let expected = ["calls 4.5 3 10 5.5", "disk 41 3 - -", "people 2 3 - -", "seats 9 3 - -", "tasks 0 0 5 5"];
    assert_eq!(november, expected, "{when}");
    let days = "SELECT to_char(bucket_start AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), quantity, events
        FROM usage_series('calls', 'day', '2026-10-01', '2027-01-01')";
    let expected = ["10-31 00:00 2 1", "11-01 00:00 3.5 2", "11-15 00:00 1 1", "12-01 00:00 7 1"];
    assert_eq!(lines(app, tenant, days), expected, "{when}");
    let steps = |metric: &str, step: &str| {
        format!("SELECT quantity FROM usage_series('{metric}', '{step}', '2026-11-01Z', '2026-12-01Z')")
    };
    assert_eq!(lines(app, tenant, &steps("calls", "15m")), ["3.5", "1"], "{when}");
    assert_eq!(lines(app, tenant, &steps("seats", "month")), ["9"], "{when}");
    assert_eq!(lines(app, tenant, &steps("seats", "day")), ["9", "6"], "{when}");
    assert_eq!(lines(app, tenant, &steps("disk", "day")), ["90", "41"], "{when}");
    assert_eq!(lines(app, tenant, &steps("people", "day")), ["1", "2"], "{when}");
    assert_eq!(lines(app, tenant, &steps("people", "hour")), ["1", "2"], "{when}");
    assert_eq!(lines(app, tenant, &steps("people", "15m")), ["1", "1", "1"], "{when}");
    assert_eq!(lines(app, tenant, &steps("people", "month")), ["2"], "{when}");
    let totals =
        "SELECT usage_total('calls', '2026-11-01Z', '2026-12-01Z'), usage_total('calls', '-infinity', 'infinity'),
        usage_total('seats', '2026-11-03Z', '2026-12-01Z'), usage_total('disk', '2026-11-01Z', '2026-11-03Z'),
        usage_total('people', '2026-11-01Z', '2026-11-04Z'), usage_total('calls', '2026-01-01Z', '2026-02-01Z'),
        usage_total('seats', '2026-01-01Z', '2026-02-01Z')";
    assert_eq!(lines(app, tenant, totals), ["4.5 13.5 6 90 1 0 -"], "{when}");
}

#[test]
fn figures_are_the_same_before_between_and_after_rollups() {
    let database = metrics("reading_same");
    let tenants = tenants(&mut database.connect("operator"), 2);
    let (tenant, other) = (tenants[0], tenants[1]);
    let mut app = database.connect("app");
    let mut admin = database.connect("admin");
    // Another tenant's use is nobody's business.
    as_tenant(&mut app, other, |transaction| drop(simple(transaction, EVENTS)));
    let events: Vec<&str> = EVENTS.trim().trim_start_matches("SELECT ").split(",\n").collect();
    for (number, event) in events.iter().enumerate() {
        as_tenant(&mut app, tenant, |transaction| drop(simple(transaction, &format!("SELECT {event}"))));
        if number % 3 == 1 {
            one::<i64>(&mut admin, "SELECT rollup_usage()", &[]);
        }
    }
    check_figures(&mut app, tenant, "partly rolled up");
    one::<i64>(&mut admin, "SELECT rollup_usage()", &[]);
    check_figures(&mut app, tenant, "rolled up");
    check_figures(&mut app, other, "rolled up at once");
    let third = harness::tenant(&mut database.connect("operator"));
    as_tenant(&mut app, third, |transaction| {
        simple(transaction, EVENTS);
        // Its own events, before it commits.
        let calls: String = one(transaction, "SELECT usage_total('calls', '2026-11-01Z', '2026-12-01Z')::text", &[]);
        assert_eq!(calls, "4.5");
    });
    check_figures(&mut app, third, "not rolled up");
    let of_operator: Vec<_> = simple(
        &mut database.connect("operator"),
        &format!("SELECT metric, quantity FROM tenant_usage('{tenant}', '2026-11') WHERE events > 0"),
    );
    assert_eq!(of_operator.len(), 4);
}

#[test]
fn steps_and_months_follow_the_zone() {
    let database = metrics("reading_zone");
    let alter = format!("ALTER DATABASE {} SET tenancy.time_zone = 'Asia/Kolkata'", database.name());
    database.superuser().batch_execute(&alter).expect("set the zone");
    let tenant = tenant(&mut database.connect("operator"));
    let mut app = database.connect("app");
    as_tenant(&mut app, tenant, |transaction| drop(simple(transaction, EVENTS)));
    for _ in 0..2 {
        let calls = lines(&mut app, tenant, "SELECT quantity FROM monthly_usage('2026-11') WHERE metric = 'calls'");
        assert_eq!(calls, ["6.5"], "the evening of 31 October in UTC is 1 November there");
        let days = "SELECT to_char(bucket_start AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), quantity
            FROM usage_series('calls', 'day', '2026-10-31Z', '2026-11-02Z')";
        assert_eq!(lines(&mut app, tenant, days), ["10-31 18:30 5.5"]);
        one::<i64>(&mut database.connect("admin"), "SELECT rollup_usage()", &[]);
    }
}

#[test]
fn nobody_reads_what_another_tenant_used() {
    let database = metrics("reading_others");
    let tenants = tenants(&mut database.connect("operator"), 2);
    let mut app = database.connect("app");
    as_tenant(&mut app, tenants[0], |transaction| drop(simple(transaction, EVENTS)));
    one::<i64>(&mut database.connect("admin"), "SELECT rollup_usage()", &[]);
    as_tenant(&mut app, tenants[0], |transaction| drop(simple(transaction, EVENTS)));
    assert_eq!(
        lines(&mut app, tenants[1], "SELECT metric, quantity FROM monthly_usage('2026-11') WHERE events > 0"),
        [""; 0]
    );
    assert_eq!(lines(&mut app, tenants[1], "SELECT usage_total('calls', '-infinity', 'infinity')"), ["0"]);
    for role in ["app", "client"] {
        for relation in [
            "usage_inbox",
            "usage_buckets",
            "usage_uniques",
            "usage_keys",
            "usage_keys_0",
            "quota_counters",
            "usage_progress",
            "usage_pending",
        ] {
            let mut session = database.connect(role);
            fails(session.query(&format!("SELECT * FROM tenancy.{relation}"), &[]), "42501");
        }
        let mut session = database.connect(role);
        fails(session.query("SELECT * FROM tenant_usage($1)", &[&tenants[0]]), "42501");
    }
    fails(app.query("SELECT * FROM monthly_usage()", &[]), "42501");
}

#[test]
fn senseless_questions_are_refused() {
    let database = metrics("reading_bad");
    let tenant = tenant(&mut database.connect("operator"));
    let mut app = database.connect("app");
    for (call, sqlstate) in [
        ("usage_total(NULL, now(), now())", "22023"),
        ("usage_total('calls', NULL, now())", "22023"),
        ("usage_total('calls', now(), NULL)", "22023"),
        ("usage_total('calls', 'tomorrow', 'today')", "22023"),
        ("usage_total('nothing', 'today', 'tomorrow')", "P0002"),
        ("usage_series('calls', NULL, 'today', 'tomorrow')", "22023"),
        ("usage_series('calls', 'week', 'today', 'tomorrow')", "22023"),
        ("usage_series('calls', 'day''; DROP', 'today', 'tomorrow')", "22023"),
        ("usage_series('nothing', 'day', 'today', 'tomorrow')", "P0002"),
        ("usage_series('calls', 'day', 'tomorrow', 'today')", "22023"),
        ("monthly_usage('2026')", "22023"),
        ("monthly_usage('2026-13')", "22023"),
        ("monthly_usage('2026-00')", "22023"),
        ("monthly_usage('0000-01')", "22023"),
        ("monthly_usage('+026-01')", "22023"),
        ("monthly_usage('2026-1')", "22023"),
        ("monthly_usage('')", "22023"),
        ("monthly_usage(repeat('9', 100000))", "22023"),
    ] {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        fails(transaction.query(&format!("SELECT {call}"), &[]), sqlstate);
    }
    let mut operator = database.connect("operator");
    fails(operator.query("SELECT tenant_usage(NULL)", &[]), "22023");
    fails(operator.query("SELECT tenant_usage(gen_random_uuid())", &[]), "P0002");
    fails(operator.query("SELECT tenant_usage($1, 'x')", &[&tenant]), "22023");
}
