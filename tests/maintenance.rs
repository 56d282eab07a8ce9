//! Background workers: a launcher sends short-lived workers to the databases that have the extension, whatever becomes of databases, of the
//! extension, of tasks and of the server.

use harness::{
    Client, Cluster, Database, Options, Uuid, as_tenant, count, fails, one, optional, protected_table, rows, tenant,
    wait_until,
};
use std::time::{Duration, Instant};

const PURGE: &str = "expired tenants";
const TRIM: &str = "ended invitations";

const LAUNCHER: &str = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_tenancy launcher'";

/// A server whose workers look around every second.
fn eager() -> Options {
    Options::new().set("tenancy.workers_enabled", "on").set("tenancy.worker_naptime", "1")
}

fn launcher(superuser: &mut Client) -> Option<i32> {
    optional(superuser, LAUNCHER, &[])
}

fn runs(session: &mut Client, task: &str) -> i64 {
    one(session, "SELECT runs FROM tenancy.worker_status WHERE task = $1", &[&task])
}

/// Makes the task due, and has the launcher look at every database.
fn run_again(database: &Database, task: &str) {
    const DUE: &str = "UPDATE tenancy.worker_runs SET next_due_at = clock_timestamp() WHERE task = $1";
    let mut superuser = database.superuser();
    assert_eq!(superuser.execute(DUE, &[&task]).expect("make due"), 1, "{task} has not run");
    assert!(one::<bool>(&mut superuser, "SELECT pg_reload_conf()", &[]));
}

fn wait_for_run(session: &mut Client, task: &str, before: i64) {
    wait_until(&format!("{task} runs"), || runs(session, task) > before);
}

/// A tenant that is to be purged, with rows of a protected table.
fn expired_tenant(database: &Database, rows: usize) -> Uuid {
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    as_tenant(&mut database.connect("app"), tenant, |app| {
        app.batch_execute(&format!("INSERT INTO notes (body) SELECT 'x' FROM generate_series(1, {rows})"))
            .expect("write")
    });
    operator.execute("SELECT delete_tenant($1, '0')", &[&tenant]).expect("delete");
    tenant
}

fn is_gone(superuser: &mut Client, tenant: Uuid) -> bool {
    count(superuser, &format!("tenancy.tenants WHERE id = '{tenant}'")) == 0
}

#[test]
fn workers_do_what_is_due_in_every_database_with_the_extension() {
    let cluster = Cluster::start(eager());
    let databases = ["first", "second", "third"].map(|label| cluster.database(label));
    for database in &databases {
        protected_table(database);
        let (mut superuser, mut monitor) = (database.superuser(), database.connect("monitor"));
        wait_for_run(&mut monitor, PURGE, 0);
        let tenant = expired_tenant(database, 100);
        run_again(database, PURGE);
        wait_until("the expired tenant is purged", || is_gone(&mut superuser, tenant));
        assert_eq!(count(&mut superuser, "notes"), 0);
        wait_until("the purge is counted", || {
            one(&mut monitor, "SELECT done = 1 AND failures = 0 FROM tenancy.worker_status WHERE task = $1", &[&PURGE])
        });
    }
}

#[test]
fn workers_come_soon_after_create_extension_and_stay_away_after_drop() {
    let cluster = Cluster::start(eager());
    let database = cluster.empty_database("later");
    let mut superuser = database.superuser();
    // The database has been visited before, and found to be without.
    std::thread::sleep(Duration::from_secs(2));
    superuser.batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").expect("revoke");
    for _ in 0..2 {
        superuser.batch_execute("CREATE EXTENSION pg_tenancy").expect("create");
        let begun = Instant::now();
        wait_for_run(&mut superuser, PURGE, 0);
        assert!(begun.elapsed() < Duration::from_secs(20), "the first worker came after {:?}", begun.elapsed());
        superuser.batch_execute("DROP EXTENSION pg_tenancy CASCADE").expect("drop");
    }
    assert!(one::<bool>(&mut superuser, "SELECT pg_reload_conf()", &[]));
    std::thread::sleep(Duration::from_secs(2));
    let complaints =
        cluster.log().lines().filter(|line| line.contains("ERROR") || line.contains("pg_tenancy worker:")).count();
    assert_eq!(complaints, 0, "{}", cluster.log());
}

/// A dump that is half there must not be worked on: what a worker removes or adds up, the rest of the dump knows nothing of.
#[test]
fn workers_stay_away_while_a_dump_is_restored() {
    let cluster = Cluster::start(eager());
    let source = cluster.database("source");
    protected_table(&source);
    let tenant = expired_tenant(&source, 10);
    let dumped = source.tool("pg_dump", "postgres").output().expect("dump");
    assert!(dumped.status.success());
    let script = String::from_utf8(dumped.stdout).expect("text");
    for pg_restore in [false, true] {
        let target = cluster.empty_database("target");
        let mut superuser = target.superuser();
        superuser.batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").expect("revoke");
        // All rows are there, and the keys are not.
        const KEY: &str = "ALTER TABLE ONLY public.notes\n    ADD CONSTRAINT";
        let (before, after) = script.split_once(KEY).expect("the table's key");
        let script = format!("{before}SELECT pg_sleep(9);\n{KEY}{after}");
        if pg_restore {
            // Its sessions come and go; one is there for as long as the whole lasts.
            let mut restoring = target
                .connect_with("postgres", |config| {
                    config.application_name("pg_restore");
                })
                .expect("connect as pg_restore does");
            assert!(target.psql("postgres", &script).status.success());
            std::thread::sleep(Duration::from_secs(7));
            assert_eq!(count(&mut restoring, "notes"), 10);
            drop(restoring);
        } else {
            std::thread::scope(|scope| {
                let restore = scope.spawn(|| target.psql("postgres", &script));
                wait_until("the registry is restored", || {
                    superuser
                        .query_one("SELECT count(*) FROM tenancy.tenants", &[])
                        .is_ok_and(|row| row.get::<_, i64>(0) == 1)
                });
                std::thread::sleep(Duration::from_secs(6));
                assert!(!is_gone(&mut superuser, tenant), "purged while it was restored");
                assert!(restore.join().expect("join").status.success());
            });
        }
        wait_until("the tenant is purged", || is_gone(&mut superuser, tenant));
        assert_eq!(count(&mut superuser, "notes"), 0);
    }
}

/// What workers do can go on for ever: a tenant is purged that has many rows, and each batch is slow.
#[test]
fn a_database_in_which_workers_are_busy_is_dropped_without_force() {
    let cluster = Cluster::start(eager());
    let database = cluster.database("busy");
    protected_table(&database);
    let mut superuser = database.superuser();
    wait_for_run(&mut superuser, PURGE, 0);
    for _ in 0..3 {
        expired_tenant(&database, 30_000);
    }
    superuser
        .batch_execute(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.7); RETURN NULL; END$$;
             CREATE TRIGGER slowly AFTER DELETE ON notes FOR EACH STATEMENT EXECUTE FUNCTION slowly()",
        )
        .expect("slow");
    run_again(&database, PURGE);
    const WORKING: &str = "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'pg_tenancy worker' AND datname = $1 AND query = $2";
    let mut elsewhere = cluster.server().superuser();
    wait_until("a worker purges", || one(&mut elsewhere, WORKING, &[&database.name(), &PURGE]));
    drop(superuser);
    let begun = Instant::now();
    elsewhere.batch_execute(&format!("DROP DATABASE {}", database.name())).expect("drop");
    println!("dropped after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_long_purge_goes_on_from_visit_to_visit() {
    let cluster = Cluster::start(eager());
    let database = cluster.database("long");
    protected_table(&database);
    let mut superuser = database.superuser();
    wait_for_run(&mut superuser, PURGE, 0);
    superuser
        .batch_execute(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.9); RETURN NULL; END$$;
             CREATE TRIGGER slowly AFTER DELETE ON notes FOR EACH STATEMENT EXECUTE FUNCTION slowly()",
        )
        .expect("slow");
    let tenant = expired_tenant(&database, 60_000);
    let before = runs(&mut superuser, PURGE);
    run_again(&database, PURGE);
    wait_until("the tenant is purged", || is_gone(&mut superuser, tenant));
    wait_until("the last run is written down", || runs(&mut superuser, PURGE) > before + 2);
}

#[test]
fn a_task_that_fails_is_recorded_tried_later_and_stops_no_other() {
    let cluster = Cluster::start(eager());
    let database = cluster.database("failing");
    protected_table(&database);
    let (mut superuser, mut monitor) = (database.superuser(), database.connect("monitor"));
    wait_for_run(&mut monitor, TRIM, 0);
    superuser
        .batch_execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'out of order' USING ERRCODE = 'P0007'; END$$;
             CREATE TRIGGER fail BEFORE DELETE ON tenancy.stored_invitations FOR EACH ROW EXECUTE FUNCTION fail();
             INSERT INTO tenancy.stored_invitations (token_hash, tenant_id, email, role, metadata, expires_at)
             VALUES ('\\x00', gen_random_uuid(), 'ann@example.com', 'member', '{}', now() - interval '31 days');
             CREATE TRIGGER fail BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .expect("break");
    let (kept, gone) = (expired_tenant(&database, 3), tenant(&mut database.connect("operator")));
    superuser.execute("SELECT delete_tenant($1, '0')", &[&gone]).expect("delete");
    for failures in 1..=3 {
        run_again(&database, TRIM);
        const FAILED: &str = "SELECT failures_in_row = $2 FROM tenancy.worker_status WHERE task = $1";
        wait_until("it fails", || one(&mut monitor, FAILED, &[&TRIM, &failures]));
    }
    let status = rows(
        &mut monitor,
        "SELECT last_sqlstate, last_error, extract(epoch FROM next_due_at - last_finished_at)::int FROM tenancy.worker_status WHERE task = $1",
        &[&TRIM],
    );
    assert_eq!(status[0].get::<_, String>(0), "P0007");
    assert_eq!(status[0].get::<_, String>(1), "out of order");
    assert_eq!(status[0].get::<_, i32>(2), 240, "twice as long after each failure");
    // One tenant that cannot be purged is no reason not to purge the next.
    run_again(&database, PURGE);
    wait_until("the other tenant is purged", || is_gone(&mut superuser, gone));
    assert!(!is_gone(&mut superuser, kept));
    const SAID: &str = "SELECT coalesce(last_error LIKE '%was not purged: out of order', false) FROM tenancy.worker_status WHERE task = $1";
    wait_until("the failure is shown", || one(&mut monitor, SAID, &[&PURGE]));
    superuser.batch_execute("DROP FUNCTION fail() CASCADE").expect("mend");
    for task in [TRIM, PURGE] {
        run_again(&database, task);
        const WELL: &str =
            "SELECT failures_in_row = 0 AND last_error IS NOT NULL FROM tenancy.worker_status WHERE task = $1";
        wait_until("it succeeds", || one(&mut monitor, WELL, &[&task]));
    }
    assert!(is_gone(&mut superuser, kept));
}

#[test]
fn the_setting_pauses_all_workers() {
    let cluster = Cluster::start(eager().set("tenancy.workers_enabled", "off"));
    let database = cluster.database("paused");
    let (mut superuser, mut monitor) = (database.superuser(), database.connect("monitor"));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(runs(&mut monitor, PURGE), 0);
    assert!(!one::<bool>(&mut monitor, "SELECT bool_or(enabled) FROM tenancy.worker_status", &[]));
    assert!(launcher(&mut superuser).is_some());
    superuser.batch_execute("ALTER SYSTEM SET tenancy.workers_enabled = on").expect("enable");
    assert!(one::<bool>(&mut superuser, "SELECT pg_reload_conf()", &[]));
    wait_for_run(&mut monitor, PURGE, 0);
    superuser.batch_execute("ALTER SYSTEM SET tenancy.workers_enabled = off").expect("disable");
    assert!(one::<bool>(&mut superuser, "SELECT pg_reload_conf()", &[]));
    std::thread::sleep(Duration::from_secs(1));
    let before = runs(&mut monitor, PURGE);
    run_again(&database, PURGE);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(runs(&mut monitor, PURGE), before);
    for name in ["tenancy.workers_enabled", "tenancy.worker_naptime", "tenancy.max_workers"] {
        fails(superuser.batch_execute(&format!("SET {name} = 1")), "55P02");
    }
}

#[test]
fn launcher_and_workers_come_back_after_they_are_ended_and_after_crashes_of_the_server() {
    let mut cluster = Cluster::start(eager().durable());
    let database = cluster.database("crash");
    protected_table(&database);
    // PostgreSQL does not log what a sequence gives that was copied with its database since the last checkpoint.
    database.superuser().batch_execute("CHECKPOINT").expect("checkpoint");
    wait_for_run(&mut database.superuser(), PURGE, 0);
    let pid = launcher(&mut database.superuser()).expect("a launcher");
    assert!(one::<bool>(&mut database.superuser(), "SELECT pg_terminate_backend($1)", &[&pid]));
    let is_another = |found: Option<i32>| found.is_some_and(|found| found != pid);
    wait_until("another launcher runs", || is_another(launcher(&mut database.superuser())));
    const KNOWN: &str = "SELECT DISTINCT launcher_pid FROM tenancy.worker_status";
    let mut monitor = database.connect("monitor");
    wait_until("its process is known", || is_another(one(&mut monitor, KNOWN, &[])));
    for round in 0..3 {
        let tenant = expired_tenant(&database, 20_000);
        run_again(&database, PURGE);
        std::thread::sleep(Duration::from_millis(40 * round));
        cluster.kill9();
        cluster.start_again();
        let mut superuser = database.superuser();
        run_again(&database, PURGE);
        wait_until("the tenant is purged", || is_gone(&mut superuser, tenant));
    }
}

/// A crash of one process, which makes the postmaster begin anew with the others.
#[test]
fn a_worker_that_is_killed_takes_no_work_with_it() {
    let cluster = Cluster::start(eager().durable().set("restart_after_crash", "on"));
    let database = cluster.database("killed");
    wait_for_run(&mut database.superuser(), PURGE, 0);
    let pid = launcher(&mut database.superuser()).expect("a launcher");
    // SAFETY: sends a signal to a process of this test's own server.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    wait_until("another launcher runs", || {
        let session = database.connect_with("postgres", |_| {});
        session.is_ok_and(|mut session| {
            session.query_opt(LAUNCHER, &[]).ok().flatten().is_some_and(|row| row.get::<_, i32>(0) != pid)
        })
    });
    let before = runs(&mut database.superuser(), PURGE);
    run_again(&database, PURGE);
    wait_for_run(&mut database.superuser(), PURGE, before);
}

#[test]
fn no_more_workers_than_allowed_serve_many_databases() {
    const DATABASES: usize = 12;
    let options = eager().set("max_worker_processes", "3").set("tenancy.max_workers", "2");
    let cluster = Cluster::start(options.set("max_logical_replication_workers", "0"));
    let databases: Vec<Database> = (0..DATABASES).map(|_| cluster.database("many")).collect();
    let mut observer = cluster.server().superuser();
    let (mut most, mut served) = (0, 0);
    while served < DATABASES {
        const WORKERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_tenancy worker'";
        let deadline = Instant::now() + Duration::from_millis(300);
        while Instant::now() < deadline {
            most = most.max(one::<i64>(&mut observer, WORKERS, &[]));
        }
        served = databases.iter().filter(|database| runs(&mut database.superuser(), PURGE) > 0).count();
    }
    assert!(most <= 2, "{most} workers at once");
    assert!(!cluster.log_contains("no background worker can be started"), "{}", cluster.log());
}

#[test]
fn where_there_is_no_room_for_a_worker_the_launcher_says_so_and_waits() {
    let cluster = Cluster::start(eager().set("max_worker_processes", "1").set("max_logical_replication_workers", "0"));
    let database = cluster.database("no_room");
    wait_until("it is said", || cluster.log_contains("no background worker can be started now"));
    assert_eq!(runs(&mut database.superuser(), PURGE), 0);
    assert!(launcher(&mut database.superuser()).is_some());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(cluster.log().matches("no background worker can be started now").count(), 1);
}

#[test]
fn a_databases_owner_has_no_say_in_how_workers_work_there() {
    let cluster = Cluster::start(eager());
    let database = cluster.database("owned");
    protected_table(&database);
    let mut superuser = database.superuser();
    let name = database.name().to_owned();
    superuser
        .batch_execute(&format!(
            "CREATE SCHEMA evil;
             CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
             CREATE PROCEDURE evil.purge_expired_tenants() LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
             ALTER DATABASE {name} SET search_path = evil, pg_catalog;
             ALTER DATABASE {name} SET default_transaction_read_only = on;
             ALTER DATABASE {name} SET default_transaction_isolation = 'serializable';
             ALTER DATABASE {name} SET statement_timeout = '1ms';"
        ))
        .expect("set");
    let before = runs(&mut superuser, PURGE);
    superuser.batch_execute("SET default_transaction_read_only = off; SET statement_timeout = 0; SET default_transaction_isolation = 'read committed'; RESET search_path").expect("reset");
    superuser.batch_execute("UPDATE tenancy.worker_runs SET next_due_at = clock_timestamp()").expect("due");
    assert!(one::<bool>(&mut superuser, "SELECT pg_reload_conf()", &[]));
    wait_for_run(&mut superuser, PURGE, before);
    assert_eq!(count(&mut superuser, "tenancy.worker_status WHERE failures > 0"), 0);
}

/// Nothing of the workers holds a snapshot between two visits, or a table that someone wants to change.
#[test]
fn an_idle_launcher_holds_nothing() {
    let cluster = Cluster::start(eager());
    let database = cluster.database("idle");
    let mut superuser = database.superuser();
    wait_for_run(&mut superuser, PURGE, 0);
    const HOLDS: &str =
        "SELECT count(*) FILTER (WHERE backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR datid IS NOT NULL)
        FROM pg_stat_activity WHERE backend_type = 'pg_tenancy launcher'";
    for _ in 0..50 {
        assert_eq!(one::<i64>(&mut superuser, HOLDS, &[]), 0);
        std::thread::sleep(Duration::from_millis(20));
    }
}
