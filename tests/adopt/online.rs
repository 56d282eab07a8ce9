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
