//! The copy phase of a move of a tenant's rows, against COPY of the same rows out of one table and into another.

use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave};
use crate::settings::Settings;
use crate::tables::Bench;
use harness::{Uuid, one};
use std::time::Instant;

/// Tenants that share the table, so that one has many rows.
const TENANTS: usize = 4;

/// From the moment that the move was ordered until the rows, their indexes and keys were there.
const COPIED: &str = "SELECT extract(epoch FROM copied_at - started_at)::float8 FROM tenancy.moves
    WHERE tenant_id = $1 AND to_isolation = $2 AND phase = 'done' ORDER BY started_at DESC LIMIT 1";

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(TENANTS);
    bench.fill(settings.rows);
    // A template is made of all tables of a schema: what the other side has is in another.
    bench.prepare(
        "CREATE SCHEMA aside; ALTER TABLE plain SET SCHEMA aside; ALTER TABLE by_setting SET SCHEMA aside;
         CREATE TABLE aside.copied (LIKE aside.plain INCLUDING ALL)",
    );
    execute(&mut bench.database.connect("admin"), "SELECT derive_template('bench', 'public', 'bench_template')");
    let rows = settings.rows / TENANTS;
    let rate = |seconds: f64| rows as f64 / seconds;
    // There and back in one round: the tenant is where it was for the next one.
    let sides: [Side<'_>; 2] = [
        Box::new(|round| {
            let tenant = bench.tenant(round);
            let there = move_to(&bench, tenant, "schema");
            rate((there + move_to(&bench, tenant, "row")) / 2.0)
        }),
        Box::new(|round| rate(copy(&bench, bench.tenant(round)))),
    ];
    let [moved, copied] = interleave(settings.rounds, sides);
    vec![Row::new(
        &format!("copy phase of a move of {rows} rows, there and back"),
        Unit::Rows,
        ("CALL move_tenant(...)", &moved),
        ("COPY (SELECT ... WHERE tenant_id = ...) TO; COPY ... FROM", &copied),
        Bar::AtLeast(0.5),
    )]
}

/// The seconds that the copy took.
fn move_to(bench: &Bench, tenant: Uuid, to: &str) -> f64 {
    execute(&mut bench.database.connect("admin"), &format!("CALL move_tenant('{tenant}', '{to}', 'bench')"));
    let mut superuser = bench.database.superuser();
    execute(&mut superuser, "VACUUM guarded");
    one(&mut superuser, COPIED, &[&tenant, &to])
}

/// The same by hand, through a file on the server.
fn copy(bench: &Bench, tenant: Uuid) -> f64 {
    let mut superuser = bench.database.superuser();
    let file = std::env::temp_dir().join(format!("pg_tenancy_bench_move_{}", std::process::id()));
    let path = file.display();
    execute(&mut superuser, "TRUNCATE aside.copied");
    let begin = Instant::now();
    execute(&mut superuser, &format!("COPY (SELECT * FROM aside.plain WHERE tenant_id = '{tenant}') TO '{path}'"));
    execute(&mut superuser, &format!("COPY aside.copied FROM '{path}'"));
    let seconds = begin.elapsed().as_secs_f64();
    let _ = std::fs::remove_file(file);
    seconds
}
