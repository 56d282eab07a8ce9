//! Billing: every event is billed once, whenever it comes, in months of the calendar and of the subscription.

use harness::{
    Client, Database, Random, Uuid, as_tenant, backend_pid, bind, count, fails, one, simple, tenant, text,
    wait_for_lock,
};

fn record(app: &mut Client, tenant: Uuid, metric: &str, quantity: &str, at: &str) {
    as_tenant(app, tenant, |app| {
        let sql = format!("SELECT record_usage('{metric}', {quantity}, occurred_at => '{at}')");
        assert!(one::<bool>(app, &sql, &[]));
    });
}

/// A database with a metric of each aggregation, and a tenant.
fn metrics(label: &str) -> (Database, Uuid) {
    let database = Database::new(label);
    let mut operator = database.connect("operator");
    operator
        .batch_execute(
            "SELECT create_metric('calls', 'call'), create_metric('seats', 'seat', 'max'), create_metric('disk', 'GB', 'last'),
                    create_metric('people', aggregation => 'unique');
             SELECT set_plan_limit('free', 'calls', 10, 'month')",
        )
        .expect("metrics");
    let tenant = tenant(&mut operator);
    (database, tenant)
}

fn lines(operator: &mut Client, tenant: Uuid, month: &str) -> Vec<String> {
    let sql = format!(
        "SELECT metric, kind, to_char(period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), quantity, events, max_value
         FROM close_billing_period('{tenant}', {month})"
    );
    let rows = simple(operator, &sql).into_iter();
    rows.map(|row| row.into_iter().map(|column| column.unwrap_or_else(|| "-".to_owned())).collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn a_closed_month_stays_as_it_is_and_what_comes_after_is_adjusted_once() {
    let (database, tenant) = metrics("close");
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    for (metric, quantity, at) in [
        ("calls", "2", "2025-10-31 23:59:59+00"),
        ("calls", "3", "2025-11-01 00:00+00"),
        ("calls", "0.5", "2025-10-01 00:00+00"),
        ("seats", "4", "2025-10-02 00:00+00"),
        ("seats", "9", "2025-10-03 00:00+00"),
        ("disk", "40", "2025-10-20 00:00+00"),
    ] {
        record(&mut app, tenant, metric, quantity, at);
    }
    let october = [
        "calls usage 2025-10-01 00:00 2.5 2 10",
        "disk usage 2025-10-01 00:00 40 1 -",
        "seats usage 2025-10-01 00:00 9 2 -",
    ];
    assert_eq!(lines(&mut operator, tenant, "'2025-10'"), october);
    database.connect("admin").batch_execute("SELECT rollup_usage()").expect("roll up");
    assert_eq!(lines(&mut operator, tenant, "'2025-10'"), october);
    // Late events: a sum grows, a maximum and the last one change or not.
    record(&mut app, tenant, "calls", "7", "2025-10-15 00:00+00");
    record(&mut app, tenant, "seats", "5", "2025-10-15 00:00+00");
    record(&mut app, tenant, "disk", "30", "2025-10-21 00:00+00");
    assert_eq!(lines(&mut operator, tenant, "'2025-10'"), october);
    let pending = "SELECT string_agg(concat_ws(' ', metric, quantity, events), ', ' ORDER BY metric) FROM tenancy.billing_adjustments WHERE billed_with IS NULL";
    assert_eq!(text(&mut operator, pending), "calls 7.0 1, disk -10 1, seats 0 1");
    let november = [
        "calls usage 2025-11-01 00:00 3 1 10",
        "calls adjustment 2025-10-01 00:00 7.0 1 10",
        "disk adjustment 2025-10-01 00:00 -10 1 -",
        "seats adjustment 2025-10-01 00:00 0 1 -",
    ];
    assert_eq!(lines(&mut operator, tenant, "'2025-11'"), november);
    assert_eq!(lines(&mut operator, tenant, "'2025-11'"), november);
    assert_eq!(lines(&mut operator, tenant, "'2025-10'"), october);
    assert_eq!(count(&mut operator, "tenancy.billing_adjustments WHERE billed_with IS NULL"), 0);
    assert_eq!(count(&mut operator, "tenancy.billing_adjustments"), 3);
    assert_eq!(lines(&mut operator, tenant, "'2025-12'"), Vec::<String>::new());
}

#[test]
fn without_a_month_the_oldest_is_closed_that_is_not() {
    let (database, tenant) = metrics("oldest");
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    record(&mut app, tenant, "calls", "1", "2025-10-15 00:00+00");
    record(&mut app, tenant, "calls", "2", "2025-12-15 00:00+00");
    assert_eq!(lines(&mut operator, tenant, "NULL"), ["calls usage 2025-10-01 00:00 1 1 10"]);
    assert_eq!(lines(&mut operator, tenant, "NULL"), Vec::<String>::new(), "November is closed, empty");
    // An event of before everything has a month of its own, which comes first.
    record(&mut app, tenant, "calls", "4", "2025-03-15 00:00+00");
    assert_eq!(lines(&mut operator, tenant, "NULL"), ["calls usage 2025-03-01 00:00 4 1 10"]);
    assert_eq!(lines(&mut operator, tenant, "NULL"), ["calls usage 2025-12-01 00:00 2 1 10"]);
    let closed = "SELECT string_agg(to_char(period_start AT TIME ZONE 'UTC', 'YYYY-MM'), ' ' ORDER BY period_start) FROM tenancy.billing_periods";
    assert_eq!(text(&mut operator, closed), "2025-03 2025-10 2025-11 2025-12");
}

#[test]
fn what_is_not_over_or_not_a_month_is_not_closed() {
    let (database, tenant) = metrics("not_over");
    let mut operator = database.connect("operator");
    let this: String = text(&mut operator, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')");
    for (month, sqlstate) in [
        (this.as_str(), "55000"),
        ("2999-01", "55000"),
        ("2025-13", "22023"),
        ("2025-1", "22023"),
        ("", "22023"),
        ("'; DROP TABLE tenancy.billing_lines; --", "22023"),
    ] {
        fails(operator.execute("SELECT close_billing_period($1, $2)", &[&tenant, &month]), sqlstate);
        if sqlstate == "22023" {
            fails(operator.execute("SELECT export_billing_period($1, $2)", &[&tenant, &month]), sqlstate);
        }
    }
    fails(operator.execute("SELECT close_billing_period($1)", &[&tenant]), "55000");
    fails(operator.execute("SELECT export_billing_period($1, '2025-10')", &[&tenant]), "55000");
    for call in ["close_billing_period", "pending_adjustments"] {
        fails(operator.batch_execute(&format!("SELECT {call}(gen_random_uuid())")), "P0002");
        fails(operator.batch_execute(&format!("SELECT {call}(NULL)")), "22023");
    }
    let mut transaction = operator
        .build_transaction()
        .isolation_level(harness::postgres::IsolationLevel::RepeatableRead)
        .start()
        .expect("begin");
    fails(transaction.execute("SELECT close_billing_period($1, '2025-10')", &[&tenant]), "55000");
    drop(transaction);
    assert_eq!(count(&mut operator, "tenancy.billing_periods"), 0);
}

#[test]
fn months_follow_the_subscription_and_the_zone() {
    let (database, tenant) = metrics("anchored");
    let name = database.name().to_owned();
    database
        .superuser()
        .batch_execute(&format!("ALTER DATABASE {name} SET tenancy.time_zone = 'Europe/Berlin'"))
        .expect("set");
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    let other = harness::tenant(&mut operator);
    operator
        .execute(
            "SELECT set_subscription($1, 'active', '2025-08-31 10:00 Europe/Berlin', '2025-09-30 10:00 Europe/Berlin', follows_period => true)",
            &[&tenant],
        )
        .expect("subscribe");
    for tenant in [tenant, other] {
        // Clocks are put back on 26 October.
        for (quantity, at) in [
            ("1", "2025-09-30 09:59 Europe/Berlin"),
            ("2", "2025-09-30 10:00 Europe/Berlin"),
            ("4", "2025-10-31 09:59 Europe/Berlin"),
            ("8", "2025-10-31 10:00 Europe/Berlin"),
            ("16", "2025-11-01 00:00 Europe/Berlin"),
        ] {
            record(&mut app, tenant, "calls", quantity, at);
        }
    }
    assert_eq!(lines(&mut operator, tenant, "'2025-08'"), ["calls usage 2025-08-31 08:00 1 1 10"]);
    assert_eq!(lines(&mut operator, tenant, "'2025-09'"), ["calls usage 2025-09-30 08:00 6 2 10"]);
    assert_eq!(lines(&mut operator, tenant, "'2025-10'"), ["calls usage 2025-10-31 09:00 24 2 10"]);
    assert_eq!(lines(&mut operator, other, "'2025-09'"), ["calls usage 2025-08-31 22:00 3 2 10"]);
    assert_eq!(lines(&mut operator, other, "'2025-10'"), ["calls usage 2025-09-30 22:00 12 2 10"]);
    assert_eq!(lines(&mut operator, other, "'2025-11'"), ["calls usage 2025-10-31 23:00 16 1 10"]);
}

/// From the calendar to the subscription and back: periods neither overlap nor leave out anything.
#[test]
fn whatever_months_follow_each_event_is_billed_once() {
    let (database, tenant) = metrics("schemes");
    let (mut operator, mut app, mut admin) =
        (database.connect("operator"), database.connect("app"), database.connect("admin"));
    let mut random = Random::new(7);
    let mut recorded = 0;
    for round in 0..40 {
        match random.below(6) {
            0 => {
                let start =
                    format!("2025-{:02}-{:02} {:02}:07Z", 1 + random.below(12), 1 + random.below(28), random.below(24));
                let set = format!(
                    "SELECT set_subscription('{tenant}', 'active', '{start}', timestamptz '{start}' + interval '1 month', follows_period => true)"
                );
                // A period before the one that was set last is as good.
                operator.batch_execute(&set).expect("follow the subscription");
            }
            1 => operator
                .batch_execute(&format!("SELECT set_subscription('{tenant}', 'active', follows_period => false)"))
                .expect("follow the calendar"),
            2 => admin.batch_execute("SELECT rollup_usage()").expect("roll up"),
            3 => {
                let month = format!("2025-{:02}", 1 + random.below(12));
                match operator.query("SELECT * FROM close_billing_period($1, $2)", &[&tenant, &month]) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{error:?}"),
                }
            }
            4 => drop(operator.query("SELECT * FROM close_billing_period($1)", &[&tenant]).expect("close the oldest")),
            _ => {}
        }
        for _ in 0..3 {
            let at = format!(
                "2025-{:02}-{:02} {:02}:{:02}Z",
                1 + random.below(12),
                1 + random.below(28),
                random.below(24),
                random.below(60)
            );
            record(&mut app, tenant, "calls", "1", &at);
            recorded += 1;
        }
        assert_eq!(recorded, 3 * (round + 1));
    }
    // Until nothing is left that is over.
    loop {
        match operator.query("SELECT * FROM close_billing_period($1)", &[&tenant]) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{error:?}");
                break;
            }
        }
    }
    let billed = "SELECT (sum(quantity), sum(events))::text FROM tenancy.billing_lines";
    assert_eq!(text(&mut operator, billed), format!("({recorded},{recorded})"));
    assert_eq!(count(&mut operator, "tenancy.billing_adjustments WHERE billed_with IS NULL"), 0);
    const OVERLAP: &str = "tenancy.billing_periods a JOIN tenancy.billing_periods b
        ON a.period_start < b.period_start AND b.period_start < a.period_end";
    assert_eq!(count(&mut operator, OVERLAP), 0);
}

/// A transaction that began before the close and commits after it.
#[test]
fn what_commits_after_the_close_is_adjusted() {
    let (database, tenant) = metrics("late_commit");
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    let mut writing = app.transaction().expect("begin");
    bind(&mut writing, tenant);
    writing.batch_execute("SELECT record_usage('calls', 5, occurred_at => '2025-10-15Z')").expect("record");
    assert_eq!(lines(&mut operator, tenant, "'2025-10'"), Vec::<String>::new());
    writing.commit().expect("commit");
    assert_eq!(lines(&mut operator, tenant, "'2025-11'"), ["calls adjustment 2025-10-01 00:00 5 1 10"]);
}

/// Two that close the same month get the same rows.
#[test]
fn closes_of_one_tenant_wait_for_each_other() {
    let (database, tenant) = metrics("race");
    let (mut operator, mut other, mut app) =
        (database.connect("operator"), database.connect("operator"), database.connect("app"));
    record(&mut app, tenant, "calls", "5", "2025-10-15Z");
    let mut closing = operator.transaction().expect("begin");
    assert_eq!(closing.query("SELECT * FROM close_billing_period($1, '2025-10')", &[&tenant]).expect("close").len(), 1);
    let pid = backend_pid(&mut other);
    let mut superuser = database.superuser();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lines(&mut other, tenant, "'2025-10'"));
        wait_for_lock(&mut superuser, pid);
        closing.commit().expect("commit");
        assert_eq!(waiting.join().expect("join"), ["calls usage 2025-10-01 00:00 5 1 10"]);
    });
    assert_eq!(count(&mut superuser, "tenancy.billing_lines"), 1);
}

/// While events are recorded and rolled up all the time, by sessions that commit late or never.
#[test]
fn under_load_every_event_is_billed_once() {
    let (database, tenant) = metrics("billing_load");
    const WRITERS: u64 = 6;
    let committed: i64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|seed| {
                let database = &database;
                scope.spawn(move || {
                    let (mut app, mut random, mut committed) = (database.connect("app"), Random::new(seed), 0);
                    for _ in 0..150 {
                        let mut transaction = app.transaction().expect("begin");
                        bind(&mut transaction, tenant);
                        let at = format!("2025-{:02}-10Z", 1 + random.below(12));
                        transaction
                            .batch_execute(&format!("SELECT record_usage('calls', occurred_at => '{at}')"))
                            .expect("record");
                        if random.below(4) > 0 {
                            transaction.commit().expect("commit");
                            committed += 1;
                        }
                    }
                    committed
                })
            })
            .collect();
        let (mut operator, mut admin) = (database.connect("operator"), database.connect("admin"));
        for month in 1..=11 {
            operator
                .execute("SELECT close_billing_period($1, $2)", &[&tenant, &format!("2025-{month:02}")])
                .expect("close");
            admin.batch_execute("SELECT rollup_usage()").expect("roll up");
        }
        writers.into_iter().map(|writer| writer.join().expect("join")).sum()
    });
    let mut operator = database.connect("operator");
    operator.execute("SELECT close_billing_period($1, '2025-12')", &[&tenant]).expect("close");
    let billed = "SELECT (sum(quantity), sum(events))::text FROM tenancy.billing_lines";
    assert_eq!(text(&mut operator, billed), format!("({committed},{committed})"));
}

#[test]
fn an_export_is_the_same_every_time() {
    let (database, tenant) = metrics("export");
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    operator.execute("SELECT set_subscription($1, 'active', NULL, NULL, 'cus_1', 'sub_1'), update_tenant($1, external_id => 'org_1')", &[&tenant]).expect("set");
    record(&mut app, tenant, "calls", "5", "2025-10-15Z");
    record(&mut app, tenant, "seats", "3", "2025-10-15Z");
    lines(&mut operator, tenant, "'2025-10'");
    let export = format!("SELECT * FROM export_billing_period('{tenant}', '2025-10')");
    let rows = simple(&mut operator, &export);
    assert_eq!(rows.len(), 2);
    let known: Vec<&str> = rows[0][..7].iter().map(|value| value.as_deref().unwrap_or("-")).collect();
    assert_eq!(known, [tenant.to_string().as_str(), "org_1", "cus_1", "sub_1", "calls", "call", "5"]);
    record(&mut app, tenant, "calls", "5", "2025-10-15Z");
    assert_eq!(simple(&mut operator, &export), rows);
    assert_eq!(count(&mut operator, &format!("(SELECT DISTINCT idempotency_key FROM ({export}) AS e) AS d")), 2);
}

#[test]
fn a_tenant_sees_its_own_bills_and_a_purge_forgets_them() {
    let (database, tenant) = metrics("bills");
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    let other = harness::tenant(&mut operator);
    for tenant in [tenant, other] {
        record(&mut app, tenant, "calls", "5", "2025-10-15Z");
        operator.execute("SELECT set_subscription($1, 'active')", &[&tenant]).expect("subscribe");
        lines(&mut operator, tenant, "'2025-10'");
    }
    for table in ["billing_periods", "billing_lines"] {
        let owner =
            as_tenant(&mut app, tenant, |app| one::<Uuid>(app, &format!("SELECT tenant_id FROM tenancy.{table}"), &[]));
        assert_eq!(owner, tenant);
        assert_eq!(count(&mut app, &format!("tenancy.{table}")), 0);
        fails(database.connect("client").batch_execute(&format!("TABLE tenancy.{table}")), "42501");
        fails(app.batch_execute(&format!("DELETE FROM tenancy.{table}")), "42501");
    }
    fails(app.execute("SELECT close_billing_period($1)", &[&tenant]), "42501");
    operator.execute("SELECT delete_tenant($1, '0')", &[&tenant]).expect("delete");
    database.connect("admin").batch_execute(&format!("CALL purge_tenant('{tenant}')")).expect("purge");
    for table in ["subscriptions", "billing_periods", "billing_lines"] {
        let left: Vec<Uuid> = harness::rows(&mut operator, &format!("SELECT tenant_id FROM tenancy.{table}"), &[])
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(left, [other]);
    }
}
