//! The application goes on while its tables are adopted.

use super::fixtures::*;
use harness::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a writer saw: rows written, and its longest wait.
struct Seen {
    written: i64,
    longest: Duration,
}

/// Writes and reads as the single-tenant application does, naming no tenant, until told to stop.
fn write(database: &Database, stop: &AtomicBool) -> Seen {
    let mut app = database.connect("app");
    let pid = backend_pid(&mut app);
    let mut seen = Seen { written: 0, longest: Duration::ZERO };
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let mut transaction = app.transaction().expect("begin");
        let customer = "INSERT INTO shop.customers (email, region, served_by) VALUES ($1, 'r1', 2) RETURNING id";
        let id: i32 = one(&mut transaction, customer, &[&format!("w{}@{pid}.example.org", seen.written)]);
        transaction.execute("INSERT INTO shop.orders (customer) VALUES ($1)", &[&id]).expect("insert");
        transaction.execute("UPDATE shop.customers SET region = 'r2' WHERE id = $1", &[&id]).expect("update");
        transaction.commit().expect("commit");
        seen.longest = seen.longest.max(begin.elapsed());
        seen.written += 1;
    }
    seen
}

#[test]
fn an_application_that_names_no_tenant_goes_on_until_protection() {
    let shop = Shop::new("adopt_online");
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2).map(|_| scope.spawn(|| write(&shop.database, &stop))).collect();
        std::thread::sleep(Duration::from_millis(100));
        shop.adopt(", protect => false").expect("adopt");
        std::thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("join")).collect::<Vec<_>>()
    });
    let written: i64 = seen.iter().map(|seen| seen.written).sum();
    assert!(written > 20, "{written} written");
    let longest = seen.iter().map(|seen| seen.longest).max().expect("two");
    assert!(longest < Duration::from_secs(3), "a writer waited {longest:?}");
    let mut superuser = shop.database.superuser();
    assert_eq!(count(&mut superuser, "shop.customers"), 200 + written);
    assert_eq!(count(&mut superuser, &format!("shop.orders WHERE tenant_id = '{}'", shop.tenant)), 400 + written);
    assert_eq!(count(&mut superuser, "tenancy.protected_tables"), 0);
    // Now the application is told to bind; then comes the protection.
    shop.adopt("").expect("protect");
    assert_eq!(count(&mut superuser, "tenancy.protected_tables"), 5);
    let mut app = shop.database.connect("app");
    fails(app.batch_execute("INSERT INTO shop.customers (email) VALUES ('x')"), "42501");
    assert_eq!(as_tenant(&mut app, shop.tenant, |transaction| count(transaction, "shop.customers")), 200 + written);
}

#[test]
fn a_long_transaction_holds_the_adoption_up_and_nobody_else() {
    let shop = Shop::new("adopt_patient");
    let mut reader = shop.database.connect("app");
    let mut transaction = reader.transaction().expect("begin");
    assert_eq!(count(&mut transaction, "shop.customers"), 200);
    let (mut admin, notices) = shop.database.connect_with_notices("admin");
    let call = shop.call("");
    std::thread::scope(|scope| {
        let adoption = scope.spawn(move || admin.batch_execute(&call));
        wait_until("the adoption waits", || notices.contains("waiting for transactions that use shop.customers"));
        // Writers come through meanwhile.
        let stop = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&shop.database, &stop));
            std::thread::sleep(Duration::from_millis(600));
            stop.store(true, Ordering::Relaxed);
            writer.join().expect("join")
        });
        assert!(seen.written > 5, "{} written", seen.written);
        assert!(!adoption.is_finished());
        transaction.rollback().expect("roll back");
        adoption.join().expect("join").expect("adopt");
    });
    assert_eq!(count(&mut shop.database.superuser(), "tenancy.protection_status WHERE intact"), 5);
}

#[test]
fn two_adoptions_at_once_do_everything_once() {
    let shop = Shop::new("adopt_twice");
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..2).map(|_| scope.spawn(|| shop.adopt(""))).collect();
        for call in calls {
            call.join().expect("join").expect("adopt");
        }
    });
    let once = Shop::new("adopt_once");
    once.adopt("").expect("adopt");
    let found = [&shop, &once].map(|shop| definitions(&mut shop.database.superuser(), "shop"));
    assert_eq!(found[0], found[1]);
    assert_eq!(count(&mut shop.database.superuser(), "tenancy.audit_log WHERE action = 'table.adopted'"), 5);
}

/// A key that cannot be unique stops the adoption with PostgreSQL's reason; once mended, a call goes on.
#[test]
fn a_failed_step_is_mended_and_resumed() {
    let shop = Shop::new("adopt_mended");
    let mut superuser = shop.database.superuser();
    superuser
        .batch_execute(
            "SET session_replication_role = replica; INSERT INTO shop.customers (email, served_by) VALUES ('orphan', 99);",
        )
        .expect("an orphan that nobody noticed");
    let error = fails(shop.adopt(""), "23503");
    assert_eq!(error.constraint(), None, "an error that crossed a frame: {error:?}");
    assert!(error.message().contains("customers_served_by_fkey"), "{error:?}");
    assert_eq!(count(&mut superuser, "tenancy.adoptions WHERE finished_at IS NULL AND statement LIKE '%VALIDATE%'"), 1);
    superuser.batch_execute("DELETE FROM shop.customers WHERE email = 'orphan'").expect("mend");
    shop.adopt("").expect("adopt");
    assert_eq!(count(&mut superuser, "tenancy.adoptions WHERE finished_at IS NULL"), 0);
    assert_eq!(count(&mut superuser, "tenancy.protection_status WHERE intact"), 5);
}

/// PostgreSQL leaves an index that is not complete, and whoever ended the worker has told nobody.
#[test]
fn an_index_whose_worker_was_ended_is_not_taken_for_built() {
    const WORKER: &str = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE 'pg_tenancy: CREATE%INDEX%' AND wait_event_type = 'Lock'";
    let shop = Shop::new("adopt_ended");
    let mut superuser = shop.database.superuser();
    // An index is valid when nobody is left who sees what it does not know.
    let mut reader = shop.database.connect("owner");
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").expect("begin");
    let result = std::thread::scope(|scope| {
        let adoption = scope.spawn(|| shop.adopt(", keys => 'all'"));
        let mut worker = None;
        wait_until("a worker builds an index", || {
            worker = optional::<i32>(&mut superuser, WORKER, &[]);
            worker.is_some() || adoption.is_finished()
        });
        superuser.execute("SELECT pg_terminate_backend($1)", &[&worker]).expect("end it");
        reader.batch_execute("COMMIT").expect("commit");
        adoption.join().expect("join")
    });
    fails(result, "55000");
    assert_eq!(count(&mut superuser, "pg_index WHERE NOT indisvalid"), 1);
    shop.adopt(", keys => 'all'").expect("adopt");
    assert_eq!(count(&mut superuser, "pg_index WHERE NOT indisvalid"), 0);
    assert_eq!(count(&mut superuser, "tenancy.adoptions WHERE finished_at IS NULL"), 0);
}

/// The owner of a schema may drop what others have in it, and put a table of the same name there.
#[test]
fn a_table_that_is_put_in_the_place_of_one_that_is_adopted_is_left_alone() {
    let shop = Shop::new("adopt_swapped");
    let mut superuser = shop.database.superuser();
    superuser
        .batch_execute(
            "CREATE SCHEMA trap AUTHORIZATION stranger; GRANT ALL ON SCHEMA trap TO owner, admin; SET ROLE owner;
             CREATE TABLE trap.notes (id int, tenant_id uuid); INSERT INTO trap.notes SELECT n FROM generate_series(1, 3000) n;
             SET ROLE stranger; CREATE TABLE trap.victims (name text); GRANT ALL ON trap.victims TO PUBLIC;
             CREATE FUNCTION trap.bite() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO trap.victims VALUES (current_user); RETURN NEW; END$$;",
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
    let (mut admin, notices) = shop.database.connect_with_notices("admin");
    let call = format!("CALL adopt_table('trap.notes', '{}', batch_size => 1)", shop.tenant);
    let result = std::thread::scope(|scope| {
        let adoption = scope.spawn(move || admin.batch_execute(&call));
        wait_until("rows are filled", || notices.contains("UPDATE ONLY trap.notes") || adoption.is_finished());
        shop.database
            .connect("stranger")
            .batch_execute(
                "BEGIN; DROP TABLE trap.notes; CREATE TABLE trap.notes (id int, tenant_id uuid);
                 INSERT INTO trap.notes SELECT n FROM generate_series(1, 100) n; GRANT ALL ON trap.notes TO PUBLIC;
                 CREATE TRIGGER bite BEFORE UPDATE ON trap.notes FOR EACH ROW EXECUTE FUNCTION trap.bite();
                 ALTER TABLE trap.notes ENABLE ALWAYS TRIGGER bite; COMMIT",
            )
            .expect("swap");
        adoption.join().expect("join")
    });
    assert_eq!(count(&mut superuser, "trap.victims"), 0, "{:?}", notices.messages());
    fails(result, "55000");
}

#[test]
fn what_the_database_has_set_for_everyone_stops_no_index() {
    let shop = Shop::new("adopt_settings");
    let name = shop.database.name();
    let set = format!(
        "ALTER DATABASE \"{name}\" SET default_transaction_read_only = on; ALTER DATABASE \"{name}\" SET statement_timeout = '1ms'"
    );
    shop.database.superuser().batch_execute(&set).expect("set");
    let mut admin = shop.database.connect("admin");
    admin.batch_execute("SET default_transaction_read_only = off; SET statement_timeout = 0").expect("set");
    admin.batch_execute(&shop.call("")).unwrap_or_else(|error| panic!("{error:?}"));
}
