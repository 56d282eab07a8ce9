//! A cached plan that was made for another tenant: PostgreSQL plans a statement without parameters once for a session, and what
//! it knew of the first tenant's share of the table stays in the plan.

use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave, seconds_each};
use crate::settings::Settings;
use crate::tables::{Bench, begin, definition};
use harness::Uuid;

/// How the statement finds the tenant's rows, and when it is planned.
struct Way {
    prepare: &'static str,
    explicit: bool,
    mode: &'static str,
}

const GUARDED: &str = "PREPARE reading AS SELECT count(*), sum(amount) FROM guarded";
const EXPLICIT: &str = "PREPARE reading (uuid) AS SELECT count(*), sum(amount) FROM plain WHERE tenant_id = $1";

const WAYS: [Way; 3] = [
    Way { prepare: GUARDED, explicit: false, mode: "auto" },
    Way { prepare: GUARDED, explicit: false, mode: "force_custom_plan" },
    Way { prepare: EXPLICIT, explicit: true, mode: "auto" },
];

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(2);
    let (large, small) = (bench.tenants[0], bench.tenants[1]);
    bench.define(&["guarded", "plain"].map(definition).concat());
    bench.prepare(&format!(
        "INSERT INTO plain SELECT CASE WHEN id % 5000 = 0 THEN '{small}' ELSE '{large}' END::uuid, id, 1, repeat('x', 40)
         FROM generate_series(1, {}) AS id;
         INSERT INTO guarded SELECT * FROM plain;",
        settings.rows / 4,
    ));
    bench.protect("guarded");
    for table in ["guarded", "plain"] {
        bench.prepare(&format!("VACUUM (FREEZE, ANALYZE) {table}"));
    }
    [
        compare(&bench, settings, "small tenant, plan cached for a large one", large, small),
        compare(&bench, settings, "large tenant, plan cached for a small one", small, large),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn compare(bench: &Bench, settings: &Settings, figure: &str, planned_for: Uuid, read_by: Uuid) -> [Row; 2] {
    let sides = WAYS.each_ref().map(|way| -> Side<'_> {
        Box::new(move |_| {
            let mut client = bench.database.connect("app");
            let call = |tenant: Uuid| {
                if way.explicit { format!("EXECUTE reading ('{tenant}')") } else { "EXECUTE reading".to_owned() }
            };
            execute(&mut client, &format!("SET plan_cache_mode = {}; {}", way.mode, way.prepare));
            begin(&mut client, planned_for, !way.explicit);
            execute(&mut client, &format!("{}; COMMIT", call(planned_for)));
            begin(&mut client, read_by, !way.explicit);
            let seconds = seconds_each(&mut client, &call(read_by));
            execute(&mut client, "COMMIT");
            seconds
        })
    });
    let [cached, custom, explicit] = interleave(settings.rounds, sides);
    let custom = ("plan_cache_mode = force_custom_plan", &custom[..]);
    [
        Row::new(figure, Unit::Seconds, ("guarded, plan_cache_mode = auto", &cached), custom, Bar::None),
        Row::new(figure, Unit::Seconds, custom, ("explicit WHERE tenant_id = $1, auto", &explicit), Bar::None),
    ]
}
