//! A cached plan that was made for another tenant: what PostgreSQL knew of that tenant's share of the table stays in the plan.
//!
//! Seen in PostgreSQL 15: a prepared statement without parameters is planned once for a session, whatever plan_cache_mode says;
//! one with parameters is planned anew a few times and then, in mode auto, perhaps once for all.

use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave, seconds_each};
use crate::settings::Settings;
use crate::tables::{Bench, begin, definition};
use harness::Uuid;

/// Executions for the first tenant: enough for PostgreSQL to settle on a plan for all.
const EXECUTIONS: usize = 8;

/// How a session comes to its plan.
struct Way {
    name: &'static str,
    /// Once for the session.
    prepare: &'static str,
    /// The statement that is executed; `{tenant}` stands for the tenant's id.
    call: &'static str,
    guarded: bool,
}

const CACHED: Way = Way {
    name: "prepared, no parameter",
    prepare: "PREPARE reading AS SELECT count(*), sum(amount) FROM guarded",
    call: "EXECUTE reading",
    guarded: true,
};
const CACHED_FORCED: Way = Way {
    name: "prepared, no parameter, force_custom_plan",
    prepare: "SET plan_cache_mode = force_custom_plan; PREPARE reading AS SELECT count(*), sum(amount) FROM guarded",
    ..CACHED
};
const UNPREPARED: Way =
    Way { name: "not prepared", prepare: "", call: "SELECT count(*), sum(amount) FROM guarded", guarded: true };
const PARAMETER: Way = Way {
    name: "prepared, one parameter",
    prepare: "PREPARE reading (int) AS SELECT count(*), sum(amount) FROM guarded WHERE amount >= $1",
    call: "EXECUTE reading (1)",
    guarded: true,
};
const PARAMETER_FORCED: Way = Way {
    name: "prepared, one parameter, force_custom_plan",
    prepare: "SET plan_cache_mode = force_custom_plan;
              PREPARE reading (int) AS SELECT count(*), sum(amount) FROM guarded WHERE amount >= $1",
    ..PARAMETER
};
const EXPLICIT: Way = Way {
    name: "explicit WHERE, both parameters",
    prepare: "PREPARE reading (uuid, int) AS
              SELECT count(*), sum(amount) FROM plain WHERE tenant_id = $1 AND amount >= $2",
    call: "EXECUTE reading ('{tenant}', 1)",
    guarded: false,
};

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(2);
    let (large, small) = (bench.tenants[0], bench.tenants[1]);
    fill(&bench, settings.rows / 4);
    [
        compare(&bench, settings, "small tenant, plan cached for a large one", large, small),
        compare(&bench, settings, "large tenant, plan cached for a small one", small, large),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One row in five thousand is the second tenant's, all others are the first one's.
fn fill(bench: &Bench, number: usize) {
    let (large, small) = (bench.tenants[0], bench.tenants[1]);
    bench.define(&["guarded", "plain"].map(definition).concat());
    bench.prepare(&format!(
        "INSERT INTO plain SELECT CASE WHEN id % 5000 = 0 THEN '{small}' ELSE '{large}' END::uuid, id, 1, repeat('x', 40)
         FROM generate_series(1, {number}) AS id;
         INSERT INTO guarded SELECT * FROM plain;"
    ));
    bench.protect("guarded");
    for table in ["guarded", "plain"] {
        bench.prepare(&format!("VACUUM (FREEZE, ANALYZE) {table}"));
    }
}

/// What the cached plan costs, and what each remedy brings.
fn compare(bench: &Bench, settings: &Settings, figure: &str, planned_for: Uuid, read_by: Uuid) -> Vec<Row> {
    let ways = [CACHED, CACHED_FORCED, UNPREPARED, PARAMETER, PARAMETER_FORCED, EXPLICIT];
    let sides = ways.each_ref().map(|way| -> Side<'_> { Box::new(move |_| seconds(bench, way, planned_for, read_by)) });
    let measured = interleave(settings.rounds, sides);
    let side = |way: usize| (ways[way].name, &measured[way][..]);
    let row = |ours, theirs| Row::new(figure, Unit::Seconds, side(ours), side(theirs), Bar::None);
    vec![row(0, 2), row(1, 2), row(3, 4), row(4, 5)]
}

/// A fresh session serves one tenant until its plan is made, then the other one, who is measured.
fn seconds(bench: &Bench, way: &Way, planned_for: Uuid, read_by: Uuid) -> f64 {
    let mut client = bench.database.connect("app");
    let call = |tenant: Uuid| way.call.replace("{tenant}", &tenant.to_string());
    execute(&mut client, way.prepare);
    begin(&mut client, planned_for, way.guarded);
    for _ in 0..EXECUTIONS {
        execute(&mut client, &call(planned_for));
    }
    execute(&mut client, "COMMIT");
    begin(&mut client, read_by, way.guarded);
    let seconds = seconds_each(&mut client, &call(read_by));
    execute(&mut client, "COMMIT");
    seconds
}
