//! Inserting into a table whose rows are limited, against the same table without the limit.

use crate::pgbench::{Run, transaction};
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, interleave};
use crate::settings::Settings;
use crate::tables::Bench;

const TABLES: &str = "
CREATE TABLE limited (id bigint GENERATED ALWAYS AS IDENTITY, tenant_id uuid NOT NULL, status text NOT NULL DEFAULT 'active', PRIMARY KEY (tenant_id, id));
CREATE TABLE conditional (LIKE limited INCLUDING ALL);
CREATE TABLE unlimited (LIKE limited INCLUDING ALL);
GRANT INSERT ON limited, conditional, unlimited TO app;
";
const LIMITS: &str =
    "SELECT set_plan_limit('free', 'rows', 100000000), set_plan_limit('free', 'active_rows', 100000000),
    limit_table('limited', 'rows'), limit_table('conditional', 'active_rows', $$status = 'active'$$)";
const BIND: &str = "SELECT set_tenant(:tenant)";

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(settings.rounds + 1);
    bench.define(TABLES);
    ["limited", "conditional", "unlimited"].into_iter().for_each(|table| bench.protect(table));
    bench.prepare(LIMITS);
    [("limited", "limit"), ("conditional", "limit with a condition")]
        .into_iter()
        .flat_map(|(table, name)| {
            [
                compare(&bench, settings, "an insert, in a transaction", 1, (table, name), Bar::AtMost(1.5)),
                compare(&bench, settings, "20 inserts, in a transaction", 20, (table, name), Bar::AtMost(1.5)),
            ]
        })
        .collect()
}

/// How long a transaction takes with the limit, as a multiple of how long it takes without: from empty tables, for another tenant each round.
fn compare(
    bench: &Bench,
    settings: &Settings,
    figure: &str,
    times: usize,
    (table, name): (&str, &str),
    bar: Bar,
) -> Row {
    let sides = [table, "unlimited"].map(|table| -> Side<'_> {
        let script = transaction(BIND, "", &format!("INSERT INTO {table} DEFAULT VALUES"), times);
        Box::new(move |round| {
            bench.prepare(&format!("TRUNCATE {table}; CHECKPOINT"));
            let variables = vec![("tenant", bench.tenant(round).to_string())];
            1.0 / Run { database: &bench.database, role: "app", script: &script, variables }.tps(settings)
        })
    });
    let [ours, theirs] = interleave(settings.rounds, sides);
    Row::new(figure, Unit::Seconds, (name, &ours), ("no limit", &theirs), bar)
}
