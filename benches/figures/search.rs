//! Searches by operators that are not leakproof, in a table that many tenants share: by indexes that begin with the tenant.

use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave, seconds_each};
use crate::settings::Settings;
use crate::tables::{Bench, begin};
use harness::{Client, simple, text};

const TENANTS: usize = 100;

const TABLE: &str = "
CREATE TABLE NAME (tenant_id uuid NOT NULL, id bigint NOT NULL, name text NOT NULL, tags text[] NOT NULL, doc jsonb NOT NULL, words tsvector NOT NULL,
    PRIMARY KEY (tenant_id, id));
GRANT SELECT ON NAME TO app;
";

/// With the tenant's column first, and as users have them.
const INDEXES: &str = "
CREATE INDEX ON NAME (FIRST name text_pattern_ops);
CREATE INDEX ON NAME USING gin (FIRST name gin_trgm_ops);
CREATE INDEX ON NAME USING gin (FIRST tags);
CREATE INDEX ON NAME USING gin (FIRST doc jsonb_path_ops);
CREATE INDEX ON NAME USING gin (FIRST words);
";

/// What is searched for: a name, the condition of round N, and the plan's line that shows that an index serves it.
const SEARCHES: [(&str, &str, &str); 5] = [
    ("LIKE 'x%'", "name LIKE substr(md5('N'), 1, 4) || '%'", "name ~>=~"),
    ("trigrams, LIKE '%x%'", "name LIKE '%' || substr(md5('N'), 5, 6) || '%'", "name ~~"),
    ("array @>", "tags @> ARRAY['tag' || N % 500]", "tags @>"),
    ("jsonb @>", "doc @> jsonb_build_object('n', N % 500)", "doc @>"),
    ("full text @@", "words @@ to_tsquery('simple', 'word' || N % 500)", "words @@"),
];

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(TENANTS);
    bench.prepare("CREATE EXTENSION pg_trgm; CREATE EXTENSION btree_gin; SET maintenance_work_mem = '512MB'");
    // With fewer, no index is worth it.
    let rows = (settings.rows / 2).max(200_000);
    fill(&bench, rows);
    let size = format!("{rows} rows of {TENANTS} tenants");
    SEARCHES.into_iter().flat_map(|search| compare(&bench, settings, &size, search)).collect()
}

/// The same rows three times: `guarded` and `plain` with indexes that begin with the tenant, `alone` guarded with indexes that do not.
fn fill(bench: &Bench, rows: usize) {
    for table in ["plain", "guarded", "alone"] {
        bench.define(&TABLE.replace("NAME", table));
    }
    let ids = bench.tenants.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    bench.prepare(&format!(
        "INSERT INTO plain SELECT ('{{{ids}}}'::uuid[])[1 + i % {TENANTS}], i, md5((i / {TENANTS})::text) || ' ' || md5(i::text), ARRAY['tag' || i / {TENANTS} % 500, 'all'],
                jsonb_build_object('n', i / {TENANTS} % 500, 'id', i), to_tsvector('simple', 'word' || i / {TENANTS} % 500 || ' all')
         FROM generate_series(0, {last}) AS i;
         INSERT INTO guarded SELECT * FROM plain;
         INSERT INTO alone SELECT * FROM plain;",
        last = rows - 1,
    ));
    for (table, first) in [("plain", "tenant_id, "), ("guarded", "tenant_id, "), ("alone", "")] {
        let indexes = INDEXES.replace("NAME", table).replace("FIRST ", first);
        bench.define(&format!("SET maintenance_work_mem = '512MB'; {indexes}"));
        bench.prepare(&format!("VACUUM (FREEZE, ANALYZE) {table}"));
    }
    bench.protect("guarded");
    bench.protect("alone");
    bench.prepare("CHECKPOINT");
}

fn compare(bench: &Bench, settings: &Settings, size: &str, (name, condition, line): (&str, &str, &str)) -> Vec<Row> {
    let search = |table: &'static str, guarded: bool| -> Side<'_> {
        let mut client = bench.database.connect("app");
        let condition = condition.to_owned();
        Box::new(move |round| {
            let tenant = bench.tenant(round);
            let own = if guarded { String::new() } else { format!("tenant_id = '{tenant}' AND ") };
            let pattern = text(&mut client, &format!("SELECT {}", constant(&condition, round)));
            let sql =
                format!("SELECT count(*), max(name) FROM {table} WHERE {own}{}", with_constant(&condition, &pattern));
            begin(&mut client, tenant, guarded);
            if table != "alone" {
                assert_searched(&mut client, &sql, line);
            }
            assert_ne!(text(&mut client, &sql), "0", "{sql}");
            let seconds = seconds_each(&mut client, &sql);
            execute(&mut client, "COMMIT");
            seconds
        })
    };
    let sides = [search("guarded", true), search("plain", false), search("alone", true)];
    let [ours, explicit, alone] = interleave(settings.rounds, sides);
    let figure = format!("{name}, {size}");
    let ours = ("guarded, tenant first in index", ours.as_slice());
    vec![
        Row::new(&figure, Unit::Seconds, ours, ("same index, explicit WHERE", &explicit), Bar::AtMost(1.2)),
        Row::new(&figure, Unit::Seconds, ours, ("guarded, index without tenant", &alone), Bar::None),
    ]
}

/// The right side of the condition, for round N.
fn constant(condition: &str, round: usize) -> String {
    let (_, right) = split(condition);
    right.replace('N', &(round + 7).to_string())
}

/// The condition with the text of a constant in place of its right side, as an application's statement has it.
fn with_constant(condition: &str, constant: &str) -> String {
    let (left, _) = split(condition);
    format!("{left} '{}'", constant.replace('\'', "''"))
}

/// A condition before and after its operator.
fn split(condition: &str) -> (&str, &str) {
    let end = ["LIKE ", "@> ", "@@ "]
        .iter()
        .find_map(|operator| condition.find(operator).map(|at| at + operator.len()))
        .expect("an operator");
    (condition[..end].trim_end(), &condition[end..])
}

/// Panics unless an index is searched for more than the tenant.
fn assert_searched(client: &mut Client, sql: &str, line: &str) {
    let plan: Vec<String> =
        simple(client, &format!("EXPLAIN (COSTS OFF) {sql}")).into_iter().filter_map(|mut row| row.remove(0)).collect();
    let is_searched = plan.iter().any(|part| part.contains("Index Cond") && part.contains(line));
    assert!(is_searched, "no index for {line}: {sql}:\n{}", plan.join("\n"));
}
