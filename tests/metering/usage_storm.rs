//! Writers that record at random while the rollup runs, others read, and the server is killed. Each event has a row in a user's table, written
//! in the same transaction: what the product adds up must be what is there, whenever one looks.

use harness::postgres::{Error, SimpleQueryMessage};
use harness::{Client, Cluster, Database, Options, Random, Uuid, count, one, rows, tenants, wait_until};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const METRICS: [&str; 2] = ["calls", "bytes"];

const LEDGER: &str = "
CREATE TABLE ledger (tenant_id uuid NOT NULL, metric text NOT NULL, quantity numeric NOT NULL, occurred_at timestamptz NOT NULL);
CREATE FUNCTION use_it(metric text, quantity numeric, key text, at timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT record_usage(metric, quantity, key, at) THEN
        RETURN false;
    END IF;
    INSERT INTO ledger VALUES (current_tenant(), metric, quantity, at);
    RETURN true;
END $$;
GRANT INSERT, SELECT ON ledger TO app;
";

/// Buckets where what the product has added up is not what the ledger says, in one snapshot.
const WRONG: &str = "
WITH ours AS (
    SELECT tenant_id, metric, bucket_start, sum(quantity) AS quantity, sum(events) AS events FROM (
        SELECT tenant_id, metric, bucket_start, quantity, events FROM tenancy.usage_buckets
        UNION ALL
        SELECT tenant_id, metric, date_bin('15 minutes', occurred_at, '2000-01-01Z'), quantity, 1 FROM tenancy.usage_pending) AS parts
    GROUP BY 1, 2, 3),
theirs AS (
    SELECT tenant_id, metric COLLATE \"C\" AS metric, date_bin('15 minutes', occurred_at, '2000-01-01Z') AS bucket_start,
           sum(quantity) AS quantity, count(*) AS events
    FROM ledger GROUP BY 1, 2, 3)
SELECT count(*) FROM ours FULL JOIN theirs USING (tenant_id, metric, bucket_start)
WHERE ours.quantity IS DISTINCT FROM theirs.quantity OR ours.events IS DISTINCT FROM theirs.events";

/// What the rollup has moved must be in the archive as it was.
const WRONG_ARCHIVE: &str = "
WITH events AS (
    SELECT tenant_id, metric, quantity, occurred_at FROM tenancy_archive.usage_events
    UNION ALL SELECT tenant_id, metric, quantity, occurred_at FROM tenancy.usage_inbox)
SELECT count(*) FROM ((TABLE events EXCEPT ALL SELECT tenant_id, metric, quantity, occurred_at FROM ledger)
    UNION ALL (SELECT tenant_id, metric, quantity, occurred_at FROM ledger EXCEPT ALL TABLE events)) AS difference";

/// What an application is told, against what the ledger says, in one snapshot.
const TOLD_WRONG: &str = "
SELECT metric FROM unnest($1::text[]) AS asked (metric)
WHERE usage_total(metric, '2026-01-01Z', '2100-01-01Z')
    <> (SELECT coalesce(sum(quantity), 0) FROM ledger l WHERE l.tenant_id = current_tenant() AND l.metric = asked.metric)";

/// How long one life of the server may last.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Events of one rollup after which writers wait for the next.
const MUCH: i64 = 20_000;

/// How much is done.
pub struct Storm {
    pub writers: usize,
    /// Of all writers together.
    pub events: usize,
    /// How often the server is killed.
    pub kills: usize,
}

struct World {
    tenants: Vec<Uuid>,
    recorded: AtomicUsize,
    /// Ends the sessions of one life of the server.
    stop: AtomicBool,
    transactions: AtomicUsize,
    checks: AtomicUsize,
    rollups: AtomicUsize,
    /// The rollup has so much to do that writers let it catch up: twenty of them on two cores would leave it none.
    is_behind: AtomicBool,
}

/// Runs the storm and leaves a database with events in the inbox, all of it checked.
pub fn run(storm: &Storm) -> (Cluster, Database) {
    let mut cluster = Cluster::start(Options::new().durable().set("max_prepared_transactions", "60"));
    let database = cluster.database("usage_storm");
    // Or a crash would set sequences back to where they were in the template (PostgreSQL logs a copied one late).
    database.superuser().batch_execute("CHECKPOINT").expect("checkpoint");
    let mut operator = database.connect("operator");
    for metric in METRICS {
        operator.execute("SELECT create_metric($1)", &[&metric]).expect("metric");
    }
    let world = World {
        tenants: tenants(&mut operator, 3),
        recorded: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        transactions: AtomicUsize::new(0),
        checks: AtomicUsize::new(0),
        rollups: AtomicUsize::new(0),
        is_behind: AtomicBool::new(false),
    };
    drop(operator);
    database.superuser().batch_execute(LEDGER).expect("ledger");
    for life in 0..=storm.kills {
        let goal = storm.events * (life + 1) / (storm.kills + 1);
        let [looks, rollups] = [&world.checks, &world.rollups].map(|number| number.load(Ordering::Relaxed));
        world.stop.store(false, Ordering::Relaxed);
        world.is_behind.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            for writer in 0..storm.writers {
                let (world, database) = (&world, &database);
                scope.spawn(move || write(world, database, (life * 1000 + writer) as u64));
            }
            let (world, database) = (&world, &database);
            scope.spawn(move || roll_up(world, database));
            scope.spawn(move || check(world, database));
            scope.spawn(move || ask(world, database));
            scope.spawn(move || hold_a_snapshot(world, database));
            wait_for(world, goal, looks, rollups);
            if life < storm.kills {
                cluster.kill9();
            }
            world.stop.store(true, Ordering::Relaxed);
        });
        if life < storm.kills {
            cluster.start_again();
        }
        end_prepared(&database);
        right(&mut database.superuser());
    }
    assert!(world.checks.load(Ordering::Relaxed) > storm.kills, "hardly anyone looked");
    assert!(world.rollups.load(Ordering::Relaxed) > storm.kills, "hardly anything was rolled up");
    // The last rollup may have left nothing.
    let late = format!("BEGIN; SELECT set_tenant('{}'); {}; COMMIT", world.tenants[0], some(&mut Random::new(1), 50));
    database.connect("app").batch_execute(&late).expect("record what stays in the inbox");
    let mut superuser = database.superuser();
    assert!(count(&mut superuser, "tenancy.usage_buckets") > 0 && count(&mut superuser, "tenancy.usage_inbox") > 0);
    right(&mut superuser);
    (cluster, database)
}

/// Checks that nothing is missing and nothing there twice.
#[track_caller]
pub fn right(superuser: &mut Client) {
    assert_eq!(one::<i64>(superuser, WRONG, &[]), 0, "buckets and inbox are not the events");
    assert_eq!(one::<i64>(superuser, WRONG_ARCHIVE, &[]), 0, "archive and inbox are not the events");
}

/// Until so much was recorded, and others have looked and rolled up a few times more.
fn wait_for(world: &World, events: usize, looks: usize, rollups: usize) {
    const A_FEW: usize = 3;
    let is_done = || {
        world.recorded.load(Ordering::Relaxed) >= events
            && world.checks.load(Ordering::Relaxed) >= looks + A_FEW
            && world.rollups.load(Ordering::Relaxed) >= rollups + A_FEW
    };
    let begin = Instant::now();
    while !is_done() {
        thread::sleep(Duration::from_millis(20));
        assert!(begin.elapsed() < PATIENCE, "nothing goes on any more");
    }
}

/// Whether a failure is the server's end, and no error of ours.
#[track_caller]
fn is_gone(error: &Error) -> bool {
    match error.code() {
        Some(code) => {
            let is_gone = ["57P01", "57P02", "57P03"].contains(&code.code());
            assert!(is_gone, "{error:?}");
            is_gone
        }
        None => true,
    }
}

fn write(world: &World, database: &Database, seed: u64) {
    let mut dice = Random::new(seed * 7919 + 1);
    let Ok(mut session) = database.config("app").connect(harness::postgres::NoTls) else { return };
    while !world.stop.load(Ordering::Relaxed) {
        if world.is_behind.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        match transaction(world, &mut session, &mut dice, seed) {
            Ok(committed) => {
                world.recorded.fetch_add(committed, Ordering::Relaxed);
            }
            Err(error) if is_gone(&error) => return,
            Err(_) => {}
        }
    }
}

/// One transaction of a few calls, which ends as it may; how many calls it committed.
fn transaction(world: &World, session: &mut Client, dice: &mut Random, seed: u64) -> Result<usize, Error> {
    let number = world.transactions.fetch_add(1, Ordering::Relaxed);
    let tenant = *dice.one_of(&world.tenants);
    session.batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}')"))?;
    let mut calls = 0;
    for _ in 0..=dice.below(4) {
        let many = 1 + dice.below(12);
        let kind = dice.below(6);
        let sql = match kind {
            0 => format!("SAVEPOINT s; {}; ROLLBACK TO s", some(dice, many)),
            1 => format!("SAVEPOINT s; {}; RELEASE s", some(dice, many)),
            2 => same_key(dice),
            _ => some(dice, many),
        };
        session.batch_execute(&sql)?;
        calls += if kind == 0 { 0 } else { many };
    }
    if dice.below(20) == 0 {
        thread::sleep(Duration::from_millis(dice.below(40) as u64));
    }
    match dice.below(10) {
        0 => session.batch_execute("ROLLBACK").map(|()| 0),
        1 => {
            let gid = format!("{seed}-{number}");
            session.batch_execute(&format!("PREPARE TRANSACTION '{gid}'"))?;
            thread::sleep(Duration::from_millis(dice.below(30) as u64));
            let end = if dice.below(2) == 0 { "COMMIT" } else { "ROLLBACK" };
            session.batch_execute(&format!("{end} PREPARED '{gid}'"))?;
            Ok(if end == "COMMIT" { calls } else { 0 })
        }
        _ => session.batch_execute("COMMIT").map(|()| calls),
    }
}

/// Events without a key, at any time of some weeks.
fn some(dice: &mut Random, many: usize) -> String {
    let (metric, quantity, spread) = (dice.one_of(&METRICS), dice.below(1000), 1 + dice.below(3_000_000));
    format!(
        "SELECT use_it('{metric}', {quantity} / 100.0 + i, NULL, '2026-10-01Z'::timestamptz + i * {spread} * interval '1 s')
         FROM generate_series(1, {many}) AS i"
    )
}

/// An event with one of few keys, which stand for the same whoever uses them.
fn same_key(dice: &mut Random) -> String {
    let key = dice.below(500);
    format!("SELECT use_it('calls', {key}, 'key {key}', '2026-10-01Z'::timestamptz + {key} * interval '1 min')")
}

fn roll_up(world: &World, database: &Database) {
    let Ok(mut admin) = database.config("admin").connect(harness::postgres::NoTls) else { return };
    while !world.stop.load(Ordering::Relaxed) {
        match admin.query_one("SELECT rollup_usage()", &[]) {
            Ok(row) => {
                let events: i64 = row.get(0);
                world.rollups.fetch_add(usize::from(events > 0), Ordering::Relaxed);
                world.is_behind.store(events > MUCH, Ordering::Relaxed);
            }
            Err(error) if is_gone(&error) => return,
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Looks again and again.
fn check(world: &World, database: &Database) {
    let Ok(mut superuser) = database.config("postgres").connect(harness::postgres::NoTls) else { return };
    while !world.stop.load(Ordering::Relaxed) {
        match superuser.query_one(WRONG, &[]) {
            Ok(row) => {
                assert_eq!(row.get::<_, i64>(0), 0, "a reader saw other sums than there are events");
                world.checks.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if is_gone(&error) => return,
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Asks as an application does.
fn ask(world: &World, database: &Database) {
    let Ok(mut app) = database.config("app").connect(harness::postgres::NoTls) else { return };
    for turn in 0.. {
        if world.stop.load(Ordering::Relaxed) {
            return;
        }
        let tenant = world.tenants[turn % world.tenants.len()];
        let asked = app
            .batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}')"))
            .and_then(|()| app.query(TOLD_WRONG, &[&METRICS.as_slice()]))
            .and_then(|rows| app.batch_execute("COMMIT").map(|()| rows));
        match asked {
            Ok(rows) => assert!(rows.is_empty(), "the application was told another total"),
            Err(error) if is_gone(&error) => return,
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A transaction that looks twice, with rollups between: at the same, and it is right.
fn hold_a_snapshot(world: &World, database: &Database) {
    let Ok(mut superuser) = database.config("postgres").connect(harness::postgres::NoTls) else { return };
    while !world.stop.load(Ordering::Relaxed) {
        let looks = superuser
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
            .and_then(|()| {
                let first = superuser.simple_query(WRONG)?;
                thread::sleep(Duration::from_millis(300));
                let second = superuser.simple_query(WRONG)?;
                superuser.batch_execute("COMMIT")?;
                Ok([first, second])
            });
        match looks {
            Ok(looks) => {
                for look in looks {
                    let is_right = |message: &SimpleQueryMessage| !matches!(message, SimpleQueryMessage::Row(row) if row.get(0) != Some("0"));
                    assert!(look.iter().all(is_right), "an old snapshot shows other sums than there were events");
                }
            }
            Err(error) if is_gone(&error) => return,
            Err(_) => {}
        }
    }
}

/// What was prepared when the server died, or when the storm ended, is committed or rolled back in the end.
fn end_prepared(database: &Database) {
    let mut superuser = database.superuser();
    let all =
        rows(&mut superuser, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid", &[]);
    for (number, row) in all.iter().enumerate() {
        let end = if number % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
        superuser.batch_execute(&format!("{end} PREPARED '{}'", row.get::<_, String>(0))).expect("end");
        right(&mut superuser);
    }
    wait_until("nobody writes", || count(&mut superuser, "pg_stat_activity WHERE usename IN ('app', 'admin')") == 0);
}
