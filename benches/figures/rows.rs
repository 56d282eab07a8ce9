//! Reading a large table that many tenants share: scans, point reads, and transactions of one read.

use crate::pgbench::{Run, transaction};
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave, seconds_each};
use crate::settings::Settings;
use crate::tables::{Bench, assert_plan, begin};
use harness::{Client, Uuid, text};

const GUARDED: &str = "guarded table";
const EXPLICIT: &str = "explicit WHERE";
const POLICY: &str = "policy current_setting(…)::uuid";

/// Reads of a transaction that the point reads are measured by.
const READS: usize = 20;

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(settings.tenants);
    bench.fill(settings.rows);
    let size = format!("{} rows of {} tenants", settings.rows, settings.tenants);
    let own = settings.rows / settings.tenants;
    [
        scans(&bench, settings, &format!("scan of {size}"), &Way::FULL_SCAN),
        scans(&bench, settings, &format!("scan of {size}, 2 parallel workers"), &Way::PARALLEL_SCAN),
        scans(&bench, settings, &format!("a tenant's {own} of {size}, by index"), &Way::INDEX),
        reads(&bench, settings, &format!("transaction of {READS} point reads"), READS, Bar::AtLeast(0.97)),
        reads(&bench, settings, "transaction of one point read", 1, Bar::AtLeast(0.95)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How a scan is made to go.
struct Way {
    settings: &'static str,
    node: &'static str,
    bar: Bar,
}

impl Way {
    const FULL_SCAN: Way = Way {
        settings: "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off",
        node: "Seq Scan",
        bar: Bar::AtMost(1.05),
    };
    const PARALLEL_SCAN: Way = Way {
        settings: "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;
                   SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET min_parallel_table_scan_size = 0",
        node: "Parallel Seq Scan",
        bar: Bar::None,
    };
    const INDEX: Way = Way { settings: "SET enable_seqscan = off", node: "Index", bar: Bar::AtMost(1.05) };
}

fn scans(bench: &Bench, settings: &Settings, figure: &str, way: &Way) -> Vec<Row> {
    let scan = |table: &'static str, guarded: bool, explicit: bool| -> Side<'_> {
        let mut client = bench.database.connect("app");
        execute(&mut client, way.settings);
        Box::new(move |round| {
            let tenant = bench.tenant(round);
            let condition = if explicit { format!(" WHERE tenant_id = '{tenant}'") } else { String::new() };
            begin(&mut client, tenant, guarded);
            let sql = format!("SELECT count(*), sum(amount) FROM {table}{condition}");
            let own = (0..settings.rows).skip(bench.number(round)).step_by(settings.tenants).count();
            let seconds = measure_scan(&mut client, &sql, way, own);
            execute(&mut client, "COMMIT");
            seconds
        })
    };
    let sides = [scan("guarded", true, false), scan("plain", false, true), scan("by_setting", false, false)];
    let [ours, explicit, policy] = interleave(settings.fine_rounds, sides);
    vec![
        Row::new(figure, Unit::Seconds, (GUARDED, &ours), (EXPLICIT, &explicit), way.bar),
        Row::new(figure, Unit::Seconds, (GUARDED, &ours), (POLICY, &policy), Bar::None),
    ]
}

/// Measures the statement, after making sure of its plan and that it sees the tenant's rows and no others.
fn measure_scan(client: &mut Client, sql: &str, way: &Way, own: usize) -> f64 {
    assert_plan(client, sql, way.node);
    assert_eq!(text(client, sql), own.to_string(), "{sql}");
    seconds_each(client, sql)
}

/// Transactions that read single rows by key.
fn reads(bench: &Bench, settings: &Settings, figure: &str, times: usize, bar: Bar) -> Vec<Row> {
    let per_tenant = settings.rows / settings.tenants;
    let pick = format!("\\set id {} * random(0, {}) + :number", settings.tenants, per_tenant - 1);
    let script = |first: &str, read: &str| transaction(first, &pick, read, times);
    let set_config = "SELECT set_config('app.tenant', :tenant, true)";
    let scripts = [
        script("SELECT set_tenant(:tenant)", "SELECT amount FROM guarded WHERE id = :id"),
        script(set_config, "SELECT amount FROM plain WHERE tenant_id = :tenant AND id = :id"),
        script(set_config, "SELECT amount FROM by_setting WHERE id = :id"),
    ];
    assert_reads(bench, settings);
    let sides = scripts.map(|script| -> Side<'_> {
        Box::new(move |round| {
            let variables =
                vec![("tenant", bench.tenant(round).to_string()), ("number", bench.number(round).to_string())];
            Run { database: &bench.database, role: "app", script: &script, variables }.tps(settings)
        })
    });
    let [ours, explicit, policy] = interleave(settings.rounds, sides);
    vec![
        Row::new(figure, Unit::Transactions, (GUARDED, &ours), ("set_config and explicit WHERE", &explicit), bar),
        Row::new(figure, Unit::Transactions, (GUARDED, &ours), ("set_config and policy", &policy), Bar::None),
    ]
}

/// The ids that the scripts pick are those of the tenant's rows.
fn assert_reads(bench: &Bench, settings: &Settings) {
    let mut client = bench.database.connect("app");
    let tenant: Uuid = bench.tenant(1);
    begin(&mut client, tenant, true);
    let ids = format!("id % {} = {}", settings.tenants, bench.number(1));
    assert_eq!(text(&mut client, &format!("SELECT bool_and({ids}) FROM guarded")), "t");
    let read = format!("SELECT amount FROM guarded WHERE id = {}", bench.number(1));
    assert_plan(&mut client, &read, "Index");
    text(&mut client, &read);
    execute(&mut client, "COMMIT");
}
