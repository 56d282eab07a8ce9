//! Reading a tenant's month, however many events it has, and everything that is done to usage while a long snapshot is open elsewhere.

use crate::report::{Bar, Row, Unit};
use crate::rounds::{execute, seconds_each, seconds_once};
use crate::settings::Settings;
use crate::tables::{Bench, begin};
use harness::Client;

/// What an application that keeps its events in a table would ask each time.
const OWN_EVENTS: &str = "
CREATE TABLE own_events (tenant_id uuid NOT NULL, metric text COLLATE \"C\" NOT NULL, quantity numeric NOT NULL, occurred_at timestamptz NOT NULL);
GRANT SELECT ON own_events TO app;
";
const SUM: &str = "SELECT metric, sum(quantity), count(*) FROM own_events
    WHERE tenant_id = current_tenant() AND occurred_at >= '2026-01-01Z' AND occurred_at < '2026-02-01Z' GROUP BY metric";
const MONTH: &str = "SELECT * FROM monthly_usage('2026-01')";
/// Events of one month, in steps of so many.
const STEP: usize = 500_000;
/// Times that the month is five times this many events.
const EVENTS_PER_ROW: usize = 5;

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(3);
    bench.define(OWN_EVENTS);
    bench.prepare("SELECT create_metric('api_calls')");
    let events = settings.rows * EVENTS_PER_ROW;
    let mut app = bench.database.connect("app");
    let first = events.div_ceil(10);
    add(&bench, &mut app, first);
    let of_first = month(&bench, &mut app, settings, MONTH);
    add(&bench, &mut app, events - first);
    bench.prepare("CREATE INDEX ON own_events (tenant_id, metric, occurred_at) INCLUDE (quantity)");
    bench.prepare("VACUUM ANALYZE own_events");
    let of_all = month(&bench, &mut app, settings, MONTH);
    let own = month(&bench, &mut app, settings, SUM);
    let inverse = |values: &[f64]| values.iter().map(|seconds| 1.0 / seconds).collect::<Vec<_>>();
    vec![
        Row::new(
            &format!("a month of {events} events"),
            Unit::Transactions,
            ("monthly_usage", &inverse(&of_all)),
            ("sum over the events, by a covering index", &inverse(&own)),
            Bar::AtLeast(200.0),
        ),
        Row::new(
            &format!("monthly_usage of {events} events against {first}"),
            Unit::Seconds,
            ("monthly_usage", &of_all),
            ("of a tenth", &of_first),
            Bar::AtMost(1.5),
        ),
        under_snapshot(&bench, settings),
    ]
}

/// Records events of the first tenant, spread over the month, and writes the same by hand.
fn add(bench: &Bench, app: &mut Client, events: usize) {
    let rows = |events: usize| {
        format!(
            "SELECT '2026-01-01Z'::timestamptz + random() * interval '31 days' - interval '1 us' AS at FROM generate_series(1, {events})"
        )
    };
    for begun in (0..events).step_by(STEP) {
        let events = STEP.min(events - begun);
        begin(app, bench.tenant(0), true);
        execute(
            app,
            &format!("SELECT count(record_usage('api_calls', 1, occurred_at => at)) FROM ({}) AS e", rows(events)),
        );
        execute(app, "COMMIT");
        bench.prepare("SELECT rollup_usage()");
        bench.prepare(&format!(
            "INSERT INTO own_events SELECT '{}', 'api_calls', 1, at FROM ({}) AS e",
            bench.tenant(0),
            rows(events)
        ));
    }
    ["VACUUM tenancy.usage_inbox", "VACUUM ANALYZE tenancy.usage_buckets"]
        .into_iter()
        .for_each(|each| bench.prepare(each));
}

fn month(bench: &Bench, app: &mut Client, settings: &Settings, sql: &str) -> Vec<f64> {
    (0..settings.rounds)
        .map(|_| {
            begin(app, bench.tenant(0), true);
            let seconds = seconds_each(app, sql);
            execute(app, "COMMIT");
            seconds
        })
        .collect()
}

/// Half a million events go through the inbox, by ones and rolled up every tenth of them, and are read, with a snapshot open elsewhere that sees none
/// of it and without: how long each tenth takes.
fn under_snapshot(bench: &Bench, settings: &Settings) -> Row {
    let events = settings.rows / 2;
    let mut elsewhere = bench.database.connect("owner");
    let tenths = |tenant: usize| -> Vec<f64> {
        let mut app = bench.database.connect("app");
        (0..10)
            .map(|_| {
                let record = format!(
                    "BEGIN; SELECT set_tenant('{}'); SELECT count(record_usage('api_calls')) FROM generate_series(1, {}); COMMIT",
                    bench.tenant(tenant),
                    events / 1000
                );
                let recorded: f64 = (0..100).map(|_| seconds_once(&mut app, &record)).sum();
                let rolled_up = seconds_once(&mut bench.database.superuser(), "SELECT rollup_usage()");
                begin(&mut app, bench.tenant(tenant), true);
                let read = seconds_each(&mut app, "SELECT * FROM monthly_usage()") * 100.0;
                execute(&mut app, "COMMIT");
                recorded + rolled_up + read
            })
            .collect()
    };
    let without = tenths(1);
    execute(&mut elsewhere, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM own_events WHERE false");
    let with = tenths(2);
    execute(&mut elsewhere, "COMMIT");
    Row::new(
        &format!("{events} events recorded, rolled up, and read a thousand times"),
        Unit::Seconds,
        ("beside a long snapshot", &with),
        ("without", &without),
        Bar::AtMost(2.0),
    )
}
