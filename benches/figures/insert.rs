//! Inserting, one row at a time and in bulk.

use crate::pgbench::{Run, transaction};
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave, seconds_once};
use crate::settings::Settings;
use crate::tables::{Bench, begin, definition};

const GUARDED: &str = "guarded table";
const PLAIN: &str = "unprotected table";
const BAR: Bar = Bar::AtLeast(0.95);

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(settings.rounds + 1);
    bench.define(&["guarded", "plain"].map(definition).concat());
    bench.protect("guarded");
    vec![
        single(&bench, settings, "transaction of 20 single-row inserts", 20),
        single(&bench, settings, "transaction of one insert", 1),
        bulk(&bench, settings),
    ]
}

/// Each measurement begins with an empty table.
fn empty(bench: &Bench) {
    bench.prepare("TRUNCATE guarded, plain; CHECKPOINT");
}

fn single(bench: &Bench, settings: &Settings, figure: &str, times: usize) -> Row {
    let pick = "\\set amount random(1, 1000)";
    let body = "'a body of some forty characters, or so'";
    let scripts = [
        transaction(
            "SELECT set_tenant(:tenant)",
            pick,
            &format!("INSERT INTO guarded (amount, body) VALUES (:amount, {body})"),
            times,
        ),
        transaction(
            "SELECT set_config('app.tenant', :tenant, true)",
            pick,
            &format!("INSERT INTO plain (tenant_id, amount, body) VALUES (:tenant, :amount, {body})"),
            times,
        ),
    ];
    let sides = scripts.map(|script| -> Side<'_> {
        Box::new(move |round| {
            empty(bench);
            let variables = vec![("tenant", bench.tenant(round).to_string())];
            Run { database: &bench.database, role: "app", script: &script, variables }.tps(settings)
        })
    });
    let [ours, theirs] = interleave(settings.rounds, sides);
    Row::new(figure, Unit::Transactions, (GUARDED, &ours), (PLAIN, &theirs), BAR)
}

fn bulk(bench: &Bench, settings: &Settings) -> Row {
    let number = settings.bulk;
    let side = |guarded: bool| -> Side<'_> {
        let mut client = bench.database.connect("app");
        Box::new(move |round| {
            empty(bench);
            let tenant = bench.tenant(round);
            let rows = format!("id % 1000, repeat('x', 40) FROM generate_series(1, {number}) AS id");
            let insert = if guarded {
                format!("INSERT INTO guarded (amount, body) SELECT {rows}")
            } else {
                format!("INSERT INTO plain (tenant_id, amount, body) SELECT '{tenant}', {rows}")
            };
            begin(&mut client, tenant, guarded);
            let seconds = seconds_once(&mut client, &insert);
            execute(&mut client, "COMMIT");
            number as f64 / seconds
        })
    };
    let [ours, theirs] = interleave(settings.rounds, [side(true), side(false)]);
    let figure = format!("INSERT … SELECT of {number} rows");
    Row::new(&figure, Unit::Rows, (GUARDED, &ours), (PLAIN, &theirs), BAR)
}
