//! The rollup: what it takes, where it puts it, and that nobody sees an event twice or not at all.

use super::recording::metered;
use super::usage_storm::{self, Storm};
use harness::{Client, Cluster, Database, Options, Uuid, as_tenant, count, fails, one, simple};

fn record(database: &Database, tenant: Uuid, call: &str) {
    as_tenant(&mut database.connect("app"), tenant, |transaction| {
        transaction.batch_execute(&format!("SELECT {call}")).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    });
}

fn roll_up(database: &Database) -> i64 {
    one(&mut database.connect("admin"), "SELECT rollup_usage()", &[])
}

fn sum(superuser: &mut Client) -> i64 {
    const SUM: &str = "SELECT (coalesce((SELECT sum(quantity) FROM tenancy.usage_buckets), 0)
        + coalesce((SELECT sum(quantity) FROM tenancy.usage_pending), 0))::bigint";
    one(superuser, SUM, &[])
}

/// Rollbacks, savepoints, prepared transactions, keys used by many, long transactions, rollups and a crash; then a dump with events in the
/// inbox, restored in a new cluster, where rollups have gone past the numbers that the events' transactions had.
#[test]
fn sums_are_those_of_the_committed_events_whenever_one_looks() {
    let (_cluster, database) = usage_storm::run(&Storm { writers: 8, events: 3_000, kills: 1 });
    restores(&database);
}

/// Restores what the storm left, into a cluster that has gone further.
fn restores(source: &Database) {
    let other = Cluster::start(Options::new());
    let target = other.empty_database("restored");
    let dump = source.tool("pg_dump", "postgres").args(["-F", "c"]).output().expect("dump");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let name = target.name().to_owned();
    let file = std::env::temp_dir().join(format!("{name}.{}.dump", std::process::id()));
    std::fs::write(&file, dump.stdout).expect("keep the dump");
    let restore = |section: &str| {
        let mut command = target.tool("pg_restore", "postgres");
        command.args(["--exit-on-error", "--section", section, "--dbname", &name]).arg(&file);
        assert!(command.status().expect("restore").success(), "{section}");
    };
    restore("pre-data");
    let mut superuser = target.superuser();
    // As workers would in the middle of a restore; and as if they had found something.
    assert_eq!(one::<i64>(&mut superuser, "SELECT rollup_usage()", &[]), 0);
    let newest: i64 = one(&mut source.superuser(), "SELECT max(txid) FROM tenancy.usage_inbox", &[]);
    let here: i64 = one(&mut superuser, "SELECT pg_current_xact_id()::text::bigint", &[]);
    for _ in here..=newest {
        superuser.batch_execute("SELECT pg_current_xact_id()").expect("go further than the other cluster");
    }
    superuser
        .batch_execute("INSERT INTO tenancy.usage_progress SELECT 7, pg_current_xact_id()::text::bigint + 1, '{}'")
        .expect("as if a rollup had found something");
    restore("data");
    restore("post-data");
    std::fs::remove_file(&file).expect("remove the dump");
    usage_storm::right(&mut superuser);
    assert!(one::<i64>(&mut superuser, "SELECT rollup_usage()", &[]) > 0);
    usage_storm::right(&mut superuser);
    assert_eq!(count(&mut superuser, "tenancy.usage_inbox"), 0);
    // Keys were restored, too.
    let key = "SELECT tenant_id FROM tenancy.usage_keys GROUP BY 1 ORDER BY count(*) DESC LIMIT 1";
    let tenant: Uuid = one(&mut superuser, key, &[]);
    let keys =
        "SELECT count(*) FROM generate_series(0, 499) AS key, LATERAL (SELECT record_usage('calls', key, 'key ' || key,
            '2026-10-01Z'::timestamptz + key * interval '1 min') AS new OFFSET 0) AS r WHERE NOT new";
    let known = count(&mut superuser, &format!("tenancy.usage_keys WHERE tenant_id = '{tenant}'"));
    superuser.batch_execute("SELECT grant_access('app', 'app')").expect("grant");
    let again: i64 = as_tenant(&mut target.connect("app"), tenant, |transaction| one(transaction, keys, &[]));
    assert_eq!(again, known);
}

/// Rows that name a transaction of another cluster, before and after what the rollup has left, come by SQL and are not overlooked.
#[test]
fn events_that_come_by_sql_are_given_the_running_transaction() {
    let database = Database::new("stamped");
    let tenant = metered(&database)[0];
    record(&database, tenant, "record_usage('calls', 1)");
    assert_eq!(roll_up(&database), 1);
    let mut superuser = database.superuser();
    for txid in ["3", "9000000000000", "NULL", "-1"] {
        superuser
            .batch_execute(&format!(
                "INSERT INTO tenancy.usage_inbox (tenant_id, txid, occurred_at, recorded_at, counted, metric, quantity)
                 VALUES ('{tenant}', {txid}, now(), now(), false, 'calls', 10)"
            ))
            .expect("insert");
    }
    assert_eq!(sum(&mut superuser), 41);
    assert_eq!(roll_up(&database), 4);
    assert_eq!(sum(&mut superuser), 41);
}

/// A rollup in a transaction that has recorded, and goes on to.
#[test]
fn a_transaction_that_rolls_up_its_own_events_loses_none() {
    let database = Database::new("own_events");
    let tenant = metered(&database)[0];
    let mut admin = database.connect("admin");
    let expect = |admin: &mut Client, events: i64| assert_eq!(one::<i64>(admin, "SELECT rollup_usage()", &[]), events);
    admin.batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}'), record_usage('calls', 1)")).expect("begin");
    expect(&mut admin, 1);
    // Others take numbers, so that ours is not the newest.
    record(&database, tenant, "record_usage('calls', 10)");
    expect(&mut admin, 1);
    admin
        .batch_execute("SELECT record_usage('calls', 100); SAVEPOINT s; SELECT record_usage('calls', 1000)")
        .expect("record");
    expect(&mut admin, 2);
    admin.batch_execute("ROLLBACK TO s; SELECT record_usage('calls', 10000)").expect("go on");
    admin.batch_execute("COMMIT").expect("commit");
    let mut superuser = database.superuser();
    assert_eq!(sum(&mut superuser), 10111);
    expect(&mut admin, 2);
    assert_eq!(sum(&mut superuser), 10111);
}

/// What a long transaction records is found when it commits, though later ones were rolled up long before; and what was taken is not read again.
#[test]
fn a_late_commit_is_found_and_what_was_taken_is_not_stepped_over() {
    let database = Database::new("late_commits");
    let tenant = metered(&database)[0];
    let mut superuser = database.superuser();
    let begin = format!("BEGIN; SELECT set_tenant('{tenant}'), record_usage('calls', 1)");
    let (mut long, mut snapshot) = (database.connect("app"), database.superuser());
    long.batch_execute(&begin).expect("begin");
    database.connect("app").batch_execute(&format!("{begin}; PREPARE TRANSACTION 'late_commits'")).expect("prepare");
    snapshot
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tenancy.tenants")
        .expect("begin");
    for _ in 0..3 {
        record(&database, tenant, "record_usage('calls') FROM generate_series(1, 2000)");
        assert_eq!(roll_up(&database), 2000);
    }
    let begun: i64 = one(&mut long, "SELECT pg_current_xact_id()::text::bigint", &[]);
    let others = "SELECT array_agg(transaction::text::bigint) FROM pg_prepared_xacts WHERE gid = 'late_commits'";
    let prepared: Vec<i64> = one(&mut superuser, others, &[]);
    let pending: Vec<i64> = one(&mut superuser, "SELECT pending FROM tenancy.usage_progress", &[]);
    assert!(pending.contains(&begun) && pending.contains(&prepared[0]), "{begun} and {prepared:?} run: {pending:?}");
    let plan = simple(
        &mut superuser,
        "SET enable_seqscan = off; EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) TABLE tenancy.usage_pending",
    );
    let plan: Vec<String> = plan.into_iter().filter_map(|mut row| row.remove(0)).collect();
    let buffers = plan.iter().find_map(|line| line.trim().strip_prefix("Buffers: shared hit=")).expect("buffers");
    let pages: usize = buffers.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
    // Each transaction that runs in the cluster, other tests' too, is looked for in the index.
    let most = 30 + 4 * pending.len();
    assert!(pages < most, "{pages} pages were read to find nothing of {}:\n{}", pending.len(), plan.join("\n"));
    assert_eq!(sum(&mut superuser), 6000);
    long.batch_execute("COMMIT").expect("commit");
    assert_eq!(sum(&mut superuser), 6001);
    assert_eq!(roll_up(&database), 1);
    superuser.batch_execute("COMMIT PREPARED 'late_commits'").expect("commit");
    assert_eq!(sum(&mut superuser), 6002);
    assert_eq!(roll_up(&database), 1);
    assert_eq!(sum(&mut superuser), 6002);
    assert_eq!(sum(&mut snapshot), 0, "and an old snapshot stays as it was");
}

#[test]
fn a_backlog_of_several_batches_is_taken_whole() {
    let database = Database::new("backlog");
    let tenant = metered(&database)[0];
    let begin = format!("BEGIN; SELECT set_tenant('{tenant}'), record_usage('calls', 1)");
    let mut long = database.connect("app");
    long.batch_execute(&begin).expect("begin");
    for _ in 0..3 {
        record(
            &database,
            tenant,
            "record_usage('calls', 1, occurred_at => '2026-11-01Z'::timestamptz + i * interval '1 s') FROM generate_series(1, 40000) AS i",
        );
    }
    let mut admin = database.connect("admin");
    // In one transaction, so that the batches see each other and our own.
    assert_eq!(one::<i64>(&mut admin, "SELECT rollup_usage()", &[]), 120_000);
    long.batch_execute("COMMIT").expect("commit");
    assert_eq!(one::<i64>(&mut admin, "SELECT rollup_usage()", &[]), 1);
    let mut superuser = database.superuser();
    assert_eq!(sum(&mut superuser), 120_001);
    assert_eq!(count(&mut superuser, "tenancy.usage_inbox"), 0);
    assert_eq!(count(&mut superuser, "tenancy_archive.usage_events"), 120_001);
}

#[test]
fn two_rollups_take_turns() {
    let database = Database::new("turns");
    let tenant = metered(&database)[0];
    record(&database, tenant, "record_usage('calls') FROM generate_series(1, 10)");
    let (mut first, mut second) = (database.connect("admin"), database.connect("admin"));
    first.batch_execute("BEGIN; SELECT rollup_usage()").expect("first");
    let pid = harness::backend_pid(&mut second);
    let waiting = std::thread::spawn(move || one::<i64>(&mut second, "SELECT rollup_usage()", &[]));
    harness::wait_for_lock(&mut database.superuser(), pid);
    first.batch_execute("ROLLBACK").expect("end");
    assert_eq!(waiting.join().expect("second"), 10);
    assert_eq!(sum(&mut database.superuser()), 10);
    fails(first.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT rollup_usage()"), "55000");
}

#[test]
fn the_archive_has_a_partition_for_each_month_and_one_for_the_rest() {
    let database = Database::new("archive");
    let tenant = metered(&database)[0];
    let mut superuser = database.superuser();
    assert_eq!(roll_up(&database), 0);
    let no_archive = "SELECT to_regnamespace('tenancy_archive') IS NULL";
    assert!(one::<bool>(&mut superuser, no_archive, &[]), "nothing is made before there is something to keep");
    for at in ["now()", "now() - interval '2 months'", "now() - interval '10 years'", "now() + interval '10 years'"] {
        record(
            &database,
            tenant,
            &format!("record_usage('calls', occurred_at => {at}, properties => '{{\"n\": 1.50}}')"),
        );
    }
    assert_eq!(roll_up(&database), 4);
    let of = "SELECT count(*) FROM tenancy_archive.usage_events WHERE tableoid::regclass::text = 'tenancy_archive.usage_events_' || to_char(";
    assert_eq!(one::<i64>(&mut superuser, &format!("{of} now() AT TIME ZONE 'UTC', 'YYYY_MM')"), &[]), 1);
    assert_eq!(
        one::<i64>(&mut superuser, &format!("{of} now() AT TIME ZONE 'UTC' - interval '2 months', 'YYYY_MM')"), &[]),
        1
    );
    assert_eq!(count(&mut superuser, "tenancy_archive.usage_events_default"), 2);
    assert_eq!(count(&mut superuser, "tenancy_archive.usage_events WHERE properties ->> 'n' = '1.50'"), 4);
    // Retention: what is detached stays, as a table of its own.
    let mut admin = database.connect("admin");
    assert_eq!(one::<i64>(&mut admin, "SELECT trim_usage_archive(2, detach => true)", &[]), 11);
    assert_eq!(count(&mut superuser, "tenancy_archive.usage_events"), 4);
    assert_eq!(one::<i64>(&mut admin, "SELECT trim_usage_archive(1, detach => true)", &[]), 1);
    assert_eq!(count(&mut superuser, "tenancy_archive.usage_events"), 3);
    assert_eq!(one::<i64>(&mut admin, "SELECT trim_usage_archive(0)", &[]), 1);
    assert_eq!(count(&mut superuser, "tenancy_archive.usage_events"), 2, "the month that runs, and what is to come");
    for call in ["NULL", "-1", "1201", "1, NULL"] {
        fails(admin.batch_execute(&format!("SELECT trim_usage_archive({call})")), "22023");
    }
    // The sums are as they were.
    assert_eq!(sum(&mut superuser), 4);
}

/// Whoever made the schema before the product did does not get its events, nor its rights.
#[test]
fn an_archive_of_someone_else_is_left_alone() {
    let database = Database::new("archive_trap");
    let tenant = metered(&database)[0];
    let mut superuser = database.superuser();
    record(&database, tenant, "record_usage('calls')");
    superuser.batch_execute("CREATE SCHEMA tenancy_archive AUTHORIZATION owner").expect("trap");
    let mut admin = database.connect("admin");
    fails(admin.batch_execute("SELECT rollup_usage()"), "55000");
    superuser
        .batch_execute(
            "ALTER SCHEMA tenancy_archive OWNER TO postgres; CREATE TABLE tenancy_archive.usage_events (a int);
             ALTER TABLE tenancy_archive.usage_events OWNER TO owner",
        )
        .expect("another trap");
    fails(admin.batch_execute("SELECT rollup_usage()"), "55000");
    superuser.batch_execute("DROP TABLE tenancy_archive.usage_events").expect("undo");
    assert_eq!(roll_up(&database), 1);
    assert_eq!(sum(&mut superuser), 1);
}
