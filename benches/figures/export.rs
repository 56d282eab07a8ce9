//! A tenant's rows out of the database and in again, against COPY of the same rows.

use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave};
use crate::settings::Settings;
use crate::tables::Bench;
use harness::{Database, Uuid, count};
use std::io::Read;
use std::time::Instant;

/// Tenants that share the table, so that one has many rows.
const TENANTS: usize = 4;

pub fn measure(settings: &Settings) -> Vec<Row> {
    let bench = Bench::start(TENANTS);
    bench.fill(settings.rows);
    bench.prepare(
        "CREATE TABLE export (seq bigint, kind text, name text, data text); ALTER TABLE export OWNER TO admin",
    );
    let rows = settings.rows / TENANTS;
    let rate = |seconds: f64| rows as f64 / seconds;
    let sides: [Side<'_>; 4] = [
        Box::new(|round| rate(read(&bench.database, "admin", &export(bench.tenant(round))))),
        Box::new(|round| rate(read(&bench.database, "postgres", &copy(bench.tenant(round))))),
        Box::new(|round| rate(load(&bench, bench.tenant(round), rows))),
        Box::new(|round| rate(copy_back(&bench, bench.tenant(round)))),
    ];
    let [exported, copied, imported, copied_back] = interleave(settings.rounds, sides);
    let figure = |what: &str| format!("{what} of {rows} rows of a tenant");
    vec![
        Row::new(
            &figure("export"),
            Unit::Rows,
            ("COPY (... export_tenant()) TO STDOUT", &exported),
            ("COPY (SELECT ... WHERE tenant_id = ...) TO STDOUT", &copied),
            Bar::AtLeast(0.5),
        ),
        Row::new(
            &figure("import in place"),
            Unit::Rows,
            ("CALL import_tenant(..., 'replace')", &imported),
            ("DELETE ... WHERE tenant_id = ...; COPY ... FROM", &copied_back),
            Bar::None,
        ),
    ]
}

fn export(tenant: Uuid) -> String {
    format!("COPY (SELECT seq, kind, name, data FROM export_tenant('{tenant}')) TO STDOUT")
}

fn copy(tenant: Uuid) -> String {
    format!("COPY (SELECT * FROM plain WHERE tenant_id = '{tenant}') TO STDOUT")
}

/// The seconds that it takes until all has arrived.
fn read(database: &Database, role: &str, copy: &str) -> f64 {
    let mut client = database.connect(role);
    execute(&mut client, "SELECT");
    let begin = Instant::now();
    let mut reader = client.copy_out(copy).expect("copy");
    let mut buffer = vec![0; 1 << 20];
    while reader.read(&mut buffer).expect("read") > 0 {}
    begin.elapsed().as_secs_f64()
}

/// The seconds of an import over the rows that are there.
fn load(bench: &Bench, tenant: Uuid, rows: usize) -> f64 {
    let mut admin = bench.database.connect("admin");
    execute(&mut admin, &format!("TRUNCATE export; INSERT INTO export SELECT * FROM export_tenant('{tenant}')"));
    let begin = Instant::now();
    execute(&mut admin, "CALL import_tenant('export', 'replace')");
    let seconds = begin.elapsed().as_secs_f64();
    let mut superuser = bench.database.superuser();
    assert_eq!(count(&mut superuser, &format!("guarded WHERE tenant_id = '{tenant}'")), rows as i64);
    execute(&mut superuser, "VACUUM guarded");
    seconds
}

/// The same by hand, out of a table.
fn copy_back(bench: &Bench, tenant: Uuid) -> f64 {
    let mut superuser = bench.database.superuser();
    let file = std::env::temp_dir().join(format!("pg_tenancy_bench_{}", std::process::id()));
    let path = file.display();
    execute(&mut superuser, &format!("COPY (SELECT * FROM plain WHERE tenant_id = '{tenant}') TO '{path}'"));
    let begin = Instant::now();
    execute(
        &mut superuser,
        &format!("BEGIN; DELETE FROM plain WHERE tenant_id = '{tenant}'; COPY plain FROM '{path}'; COMMIT"),
    );
    let seconds = begin.elapsed().as_secs_f64();
    execute(&mut superuser, "VACUUM plain");
    let _ = std::fs::remove_file(file);
    seconds
}
