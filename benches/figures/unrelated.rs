//! What the hooks cost a table that has nothing to do with tenants: a server with the library against one without it.

use crate::pgbench::Run;
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave, seconds_each};
use crate::settings::Settings;
use crate::tables::options;
use harness::{Cluster, Database};

const ROWS: usize = 100_000;

const LOADED: &str = "with pg_tenancy";
const BARE: &str = "without";

const READ: &str = "SELECT amount FROM unrelated WHERE id = :id;";
const WRITE: &str = "UPDATE unrelated SET amount = amount + 1 WHERE id = :id;";

/// Reads without a client, so that nothing but the executor's own work is there to hide the hooks.
const LOOP: &str = "DO $$ DECLARE found int; BEGIN
    FOR number IN 1 .. 10000 LOOP
        SELECT amount INTO found FROM unrelated WHERE id = number;
    END LOOP;
END $$";

pub fn measure(settings: &Settings) -> Vec<Row> {
    let clusters = [options(), options().without_preload(), options().without_preload()].map(Cluster::start);
    let [loaded, bare, control] = &clusters;
    let databases =
        [loaded.database("loaded"), bare.empty_database("bare"), control.empty_database("control")].map(fill);
    let mut rows = Vec::new();
    for (figure, script) in [("reading an unrelated table", READ), ("writing an unrelated table", WRITE)] {
        let script = format!("\\set id random(1, {ROWS})\n{script}");
        let sides = databases.each_ref().map(|database| tps(database, &script, settings));
        rows.extend(compare(figure, Unit::Transactions, Bar::AtLeast(0.99), interleave(settings.fine_rounds, sides)));
    }
    let sides = databases.each_ref().map(looped);
    let figure = "10000 reads of an unrelated table in a PL/pgSQL loop";
    rows.extend(compare(figure, Unit::Seconds, Bar::None, interleave(settings.fine_rounds, sides)));
    rows
}

/// The second row compares two servers that are alike: as far as its ratio is from 1, so little says the first.
fn compare(figure: &str, unit: Unit, bar: Bar, [loaded, bare, control]: [Vec<f64>; 3]) -> [Row; 2] {
    let control_figure = "the same, control: how exact that is";
    [
        Row::new(figure, unit, (LOADED, &loaded), (BARE, &bare), bar),
        Row::new(control_figure, unit, (BARE, &control), (BARE, &bare), Bar::None),
    ]
}

fn fill(database: Database) -> Database {
    let mut superuser = database.superuser();
    execute(
        &mut superuser,
        &format!(
            "CREATE TABLE unrelated (id int PRIMARY KEY, amount int NOT NULL, body text NOT NULL) WITH (fillfactor = 50);
             INSERT INTO unrelated SELECT id, 0, repeat('x', 40) FROM generate_series(1, {ROWS}) AS id;
             GRANT SELECT, UPDATE ON unrelated TO app;"
        ),
    );
    execute(&mut superuser, "VACUUM (FREEZE, ANALYZE) unrelated");
    database
}

fn tps<'a>(database: &'a Database, script: &'a str, settings: &'a Settings) -> Side<'a> {
    let short = Settings { seconds: 1, ..*settings };
    Box::new(move |_| {
        execute(&mut database.superuser(), "VACUUM unrelated");
        Run { database, role: "app", script, variables: Vec::new() }.tps(&short)
    })
}

fn looped(database: &Database) -> Side<'_> {
    let mut client = database.connect("app");
    Box::new(move |_| seconds_each(&mut client, LOOP))
}
