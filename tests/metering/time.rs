//! The borders of hours, days and months: every quarter of an hour is in one of each, in every zone, whatever clocks are put forward or back.

use harness::{Client, Database, Uuid, as_tenant, fails, one, simple, tenant};

/// A database whose periods are of this zone, with a session of level app and a tenant.
fn in_zone(label: &str, zone: &str) -> (Database, Client, Uuid) {
    let database = Database::new(label);
    let alter = format!("ALTER DATABASE {} SET tenancy.time_zone = '{zone}'", database.name());
    database.superuser().batch_execute(&alter).expect("set the zone");
    let tenant = tenant(&mut database.connect("operator"));
    let app = database.connect("app");
    (database, app, tenant)
}

/// The period that a moment is in, both in UTC.
fn period(app: &mut Client, tenant: Uuid, period: &str, at: &str) -> (String, String) {
    let sql = format!(
        "SELECT to_char(period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), to_char(period_end AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')
         FROM usage_period('{period}', '{at}')"
    );
    let row = as_tenant(app, tenant, |transaction| simple(transaction, &sql)).remove(0);
    (row[0].clone().expect("start"), row[1].clone().expect("end"))
}

#[track_caller]
fn check(app: &mut Client, tenant: Uuid, kind: &str, at: &str, start: &str, end: &str) {
    assert_eq!(period(app, tenant, kind, at), (start.to_owned(), end.to_owned()), "the {kind} of {at}");
}

#[test]
fn borders_are_those_of_utc_unless_a_zone_is_set() {
    let database = Database::new("zone_utc");
    let tenant = tenant(&mut database.connect("operator"));
    let mut app = database.connect("app");
    app.batch_execute("SET timezone = 'Asia/Tokyo'").expect("the session's own zone has no say");
    check(&mut app, tenant, "hour", "2026-11-21 10:59:59.999999+00", "2026-11-21 10:00", "2026-11-21 11:00");
    check(&mut app, tenant, "hour", "2026-11-21 11:00+00", "2026-11-21 11:00", "2026-11-21 12:00");
    check(&mut app, tenant, "day", "2026-11-21 23:59+00", "2026-11-21 00:00", "2026-11-22 00:00");
    check(&mut app, tenant, "month", "2026-12-31 23:59+00", "2026-12-01 00:00", "2027-01-01 00:00");
    check(&mut app, tenant, "month", "2028-02-29 12:00+00", "2028-02-01 00:00", "2028-03-01 00:00");
    check(&mut app, tenant, "month", "1999-12-31 23:59+00", "1999-12-01 00:00", "2000-01-01 00:00");
}

#[test]
fn zones_of_half_and_quarter_hours_have_their_own_borders() {
    let (_database, mut app, tenant) = in_zone("zone_kolkata", "Asia/Kolkata");
    check(&mut app, tenant, "hour", "2026-11-21 10:29+00", "2026-11-21 09:30", "2026-11-21 10:30");
    check(&mut app, tenant, "day", "2026-11-21 18:29+00", "2026-11-20 18:30", "2026-11-21 18:30");
    check(&mut app, tenant, "month", "2026-11-30 18:30+00", "2026-11-30 18:30", "2026-12-31 18:30");
    let (_database, mut app, tenant) = in_zone("zone_kathmandu", "Asia/Kathmandu");
    check(&mut app, tenant, "hour", "2026-11-21 10:14+00", "2026-11-21 09:15", "2026-11-21 10:15");
    check(&mut app, tenant, "day", "2026-11-21 18:15+00", "2026-11-21 18:15", "2026-11-22 18:15");
}

#[test]
fn days_on_which_clocks_change_have_23_or_25_hours() {
    let (_database, mut app, tenant) = in_zone("zone_berlin", "Europe/Berlin");
    check(&mut app, tenant, "day", "2026-03-29 12:00+00", "2026-03-28 23:00", "2026-03-29 22:00");
    check(&mut app, tenant, "day", "2026-10-25 12:00+00", "2026-10-24 22:00", "2026-10-25 23:00");
    // The hour that is there twice is two hours.
    check(&mut app, tenant, "hour", "2026-10-25 00:30+00", "2026-10-25 00:00", "2026-10-25 01:00");
    check(&mut app, tenant, "hour", "2026-10-25 01:30+00", "2026-10-25 01:00", "2026-10-25 02:00");
    check(&mut app, tenant, "month", "2026-10-25 12:00+00", "2026-09-30 22:00", "2026-10-31 23:00");
    // Midnight is not there when clocks are put forward then, and twice when they are put back.
    let (_database, mut app, tenant) = in_zone("zone_sao_paulo", "America/Sao_Paulo");
    check(&mut app, tenant, "day", "2017-10-15 12:00+00", "2017-10-15 03:00", "2017-10-16 02:00");
    check(&mut app, tenant, "day", "2018-02-17 12:00+00", "2018-02-17 02:00", "2018-02-18 03:00");
}

#[test]
fn every_quarter_of_an_hour_is_in_one_hour_one_day_and_one_month() {
    // Clocks change at midnight, by half an hour, backwards over midnight, and once by a whole day.
    for (label, zone, from, to) in [
        ("part_lord_howe", "Australia/Lord_Howe", "2026-03-30", "2026-04-08"),
        ("part_lord_howe_2", "Australia/Lord_Howe", "2026-10-01", "2026-10-07"),
        ("part_azores", "Atlantic/Azores", "2026-10-20", "2026-11-03"),
        ("part_azores_2", "Atlantic/Azores", "2026-03-25", "2026-04-02"),
        ("part_havana", "America/Havana", "2026-10-29", "2026-11-04"),
        ("part_apia", "Pacific/Apia", "2011-12-25", "2012-01-03"),
        ("part_kathmandu", "Asia/Kathmandu", "2026-10-30", "2026-11-02"),
        ("part_new_york", "America/New_York", "2026-10-30", "2026-11-03"),
    ] {
        let (_database, mut app, tenant) = in_zone(label, zone);
        for kind in ["hour", "day", "month"] {
            let sql = format!(
                "SELECT count(*) FROM (
                    SELECT at, p.*, lead(p.period_start) OVER (ORDER BY at) AS next_start, lead(p.period_end) OVER (ORDER BY at) AS next_end
                    FROM generate_series('{from}'::timestamptz, '{to}', '15 minutes') AS at, usage_period('{kind}', at) AS p) AS q
                 WHERE NOT (at >= period_start AND at < period_end)
                    OR NOT (next_start = period_start AND next_end = period_end OR next_start = period_end)"
            );
            let astray: i64 = as_tenant(&mut app, tenant, |transaction| one(transaction, &sql, &[]));
            assert_eq!(astray, 0, "{zone}: quarters that are in no {kind}, or in two");
        }
    }
}

#[test]
fn nobody_but_an_administrator_moves_the_borders() {
    let (database, mut app, _) = in_zone("zone_set", "Asia/Kolkata");
    for role in ["app", "client", "operator"] {
        let mut session = database.connect(role);
        fails(session.batch_execute("SET tenancy.time_zone = 'UTC'"), "42501");
    }
    let shown: String = one(&mut app, "SHOW tenancy.time_zone", &[]);
    assert_eq!(shown, "Asia/Kolkata");
    for zone in ["Nowhere/Land", "", "UTC'; DROP TABLE x"] {
        let set = format!("SET tenancy.time_zone = '{}'", zone.replace('\'', "''"));
        fails(database.superuser().batch_execute(&set), "22023");
    }
}

#[test]
fn a_period_needs_a_kind_a_finite_moment_and_a_tenant() {
    let (_database, mut app, tenant) = in_zone("zone_bad", "UTC");
    fails(app.query("SELECT usage_period('hour')", &[]), "42501");
    for (call, sqlstate) in [
        ("usage_period(NULL)", "22023"),
        ("usage_period('week')", "22023"),
        ("usage_period('day', 'infinity')", "22023"),
        ("usage_period('day', '-infinity')", "22023"),
        ("usage_period('month', '294276-12-31 23:00')", "22023"),
        ("usage_period('month', '4714-11-24 00:00 BC')", "22023"),
    ] {
        let outcome = as_tenant_may_fail(&mut app, tenant, call);
        fails(outcome, sqlstate);
    }
    let (start, _) = period(&mut app, tenant, "month", "2026-11-21");
    assert_eq!(start, "2026-11-01 00:00");
}

fn as_tenant_may_fail(app: &mut Client, tenant: Uuid, call: &str) -> Result<(), postgres::Error> {
    let mut transaction = app.transaction().expect("begin");
    harness::bind(&mut transaction, tenant);
    transaction.batch_execute(&format!("SELECT {call}"))
}
