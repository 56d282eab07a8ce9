//! Rate limits: asking in shared memory against a row that every request updates, and against asking nothing.

use crate::pgbench::{Run, transaction};
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave};
use crate::settings::Settings;
use crate::tables::{Bench, options};

/// Sessions that ask for the same hot tenant.
const SESSIONS: usize = 8;
/// Requests of one transaction, where the binding is not what is measured.
const TIMES: usize = 100;

/// A limiter as users write it: a row per tenant and resource whose tokens come back with time.
const LIMITER: &str = "
CREATE TABLE limiter (tenant_id uuid, resource text, tokens numeric NOT NULL, refilled_at timestamptz NOT NULL, PRIMARY KEY (tenant_id, resource));
ALTER TABLE limiter SET (fillfactor = 50);
GRANT SELECT, UPDATE ON limiter TO app;
";
const UPDATE: &str = "UPDATE limiter
    SET tokens = least(2000000000, tokens + extract(epoch FROM clock_timestamp() - refilled_at) * 2000000000) - 1,
        refilled_at = clock_timestamp()
    WHERE tenant_id = :tenant AND resource = 'api'
      AND least(2000000000, tokens + extract(epoch FROM clock_timestamp() - refilled_at) * 2000000000) >= 1 RETURNING tokens";

/// One way to ask: its name, its statement, and what sets the statement's variables before each.
struct Way {
    name: &'static str,
    statement: &'static str,
    before: &'static str,
}

const CHECK: Way = Way { name: "check_rate_limit", statement: "SELECT * FROM check_rate_limit('api')", before: "" };
const OF_SUBJECT: Way = Way {
    name: "check_rate_limit of one of 10 000 subjects",
    statement: "SELECT * FROM check_rate_limit('api', 1, :subject)",
    before: "\\set subject random(1, 10000)",
};
const ENFORCE: Way = Way { name: "enforce_rate_limit", statement: "SELECT enforce_rate_limit('api')", before: "" };
const NOTHING: Way = Way { name: "SELECT 1", statement: "SELECT 1", before: "" };
const NOTHING_RANDOM: Way = Way { before: OF_SUBJECT.before, ..NOTHING };

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = start(Bench::start(settings.tenants));
    let durable = start(Bench::start_on(options().durable(), settings.tenants));
    let mut rows = against_rows(&bench, &durable, settings);
    rows.extend(against_nothing(&bench, settings));
    rows
}

fn start(bench: Bench) -> Bench {
    bench.define(LIMITER);
    bench.prepare("INSERT INTO limiter SELECT id, 'api', 2000000000, now() FROM tenancy.tenants");
    let limit = "SELECT set_plan_rate_limit('free', 'api', 2000000000, 'second')";
    execute(&mut bench.database.connect("operator"), limit);
    bench
}

/// A side that gives requests per second: a script with so many of them.
fn side<'a>(bench: &'a Bench, settings: &'a Settings, script: String, requests: usize) -> Side<'a> {
    Box::new(move |round| {
        let variables = vec![("tenant", bench.tenant(round).to_string())];
        Run { database: &bench.database, role: "app", script: &script, variables }.tps(settings) * requests as f64
    })
}

/// The script of transactions that bind a tenant and ask so often.
fn bound(way: &Way, times: usize) -> String {
    transaction("SELECT set_tenant(:tenant)", way.before, way.statement, times)
}

/// Eight sessions that ask for one tenant.
fn against_rows(bench: &Bench, durable: &Bench, settings: &Settings) -> Vec<Row> {
    let eight = &Settings { clients: SESSIONS, ..*settings };
    let alone = || format!("{UPDATE};\n");
    let in_transaction = || transaction("SELECT set_config('app.tenant', :tenant, true)", "", UPDATE, 1);
    let [ours, ours_durable, theirs, theirs_durable, one, one_theirs, one_theirs_durable] = interleave(
        settings.rounds,
        [
            side(bench, eight, bound(&CHECK, TIMES), TIMES),
            side(durable, eight, bound(&CHECK, TIMES), TIMES),
            side(bench, eight, alone(), 1),
            side(durable, eight, alone(), 1),
            side(durable, eight, bound(&CHECK, 1), 1),
            side(bench, eight, in_transaction(), 1),
            side(durable, eight, in_transaction(), 1),
        ],
    );
    let hot = "8 sessions ask for one tenant";
    let row = |figure: &str, ours: &[f64], name: &str, theirs: &[f64], bar| {
        Row::new(figure, Unit::Transactions, (CHECK.name, ours), (name, theirs), bar)
    };
    vec![
        row(hot, &ours_durable, "UPDATE … SET tokens, fsync on", &theirs_durable, Bar::AtLeast(20.0)),
        row(hot, &ours, "the same, fsync off", &theirs, Bar::None),
        row("the same, each a transaction", &one, "UPDATE … SET tokens, fsync on", &one_theirs_durable, Bar::None),
        row("the same, each a transaction", &one, "the same, fsync off", &one_theirs, Bar::None),
    ]
}

/// One session, in transactions of many requests.
fn against_nothing(bench: &Bench, settings: &Settings) -> Vec<Row> {
    let sides = [&CHECK, &ENFORCE, &NOTHING, &OF_SUBJECT, &NOTHING_RANDOM];
    let [check, enforce, nothing, of_subject, nothing_random] =
        interleave(settings.fine_rounds, sides.map(|way| side(bench, settings, bound(way, TIMES), TIMES)));
    let row = |way: &Way, ours: &[f64], theirs: &[f64], bar| {
        let figure = "a statement in a bound transaction";
        Row::new(figure, Unit::Transactions, (way.name, ours), (NOTHING.name, theirs), bar)
    };
    vec![
        row(&CHECK, &check, &nothing, Bar::AtLeast(0.85)),
        row(&ENFORCE, &enforce, &nothing, Bar::AtLeast(0.85)),
        row(&OF_SUBJECT, &of_subject, &nothing_random, Bar::None),
    ]
}
