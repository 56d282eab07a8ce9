//! Moves that are ended before their end: sessions that are terminated, servers that are killed.

use super::fixtures::House;
use harness::*;
use std::time::Duration;

/// A tenant's content, known from before, must be there as a whole, in one place.
#[track_caller]
fn resume(house: &House, tenant: Uuid, content: &[Vec<Option<String>>]) {
    house.connect("admin").batch_execute("CALL resume_moves()").expect("resume");
    assert_eq!(house.content(tenant), content);
    house.assert_settled();
}

/// Kills the server at random moments of moves to one place after the other, and of what comes after them.
pub fn survive(accounts: i32, crashes: usize, ways: &[&str]) {
    let mut cluster = Cluster::start(Options::new());
    let house = House::without_template(cluster.database("move_crash"));
    house.derive();
    let (tenant, other) = (house.tenant("one", accounts), house.tenant("other", 20));
    let (content, others) = (house.content(tenant), house.content(other));
    house.superuser().batch_execute("CHECKPOINT").expect("write a checkpoint");
    let mut random = Random::new(7);
    let mut longest = Duration::from_millis(if ways.contains(&"database") { 1500 } else { 300 });
    let mut ways = ways.iter().cycle();
    let mut phases = std::collections::BTreeSet::new();
    let mut to = ways.next().expect("a way");
    for crash in 0..crashes {
        while house.place(tenant).starts_with(to) {
            to = ways.next().expect("a way");
        }
        let wait = longest.mul_f64(random.below(1000) as f64 / 1000.0);
        std::thread::scope(|scope| {
            let started = std::time::Instant::now();
            let call = scope.spawn(|| house.try_move(tenant, to));
            // A few of them to the very end.
            while started.elapsed() < wait && !call.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if call.is_finished() {
                longest = longest.min(started.elapsed()).max(Duration::from_millis(50));
            }
            cluster.kill9();
            let _ = call.join().expect("join");
        });
        cluster.start_again();
        let last = house.phases(tenant).split(' ').next_back().unwrap_or_default().to_owned();
        phases.insert(format!("{last}, then {}", house.place(tenant).split(' ').take(2).collect::<Vec<_>>().join(" ")));
        assert_eq!(house.content(tenant), content, "crash {crash}: readers");
        assert_eq!(house.content(other), others, "crash {crash}: others");
        resume(&house, tenant, &content);
        assert_eq!(house.content(other), others, "crash {crash}: others");
    }
    println!("what was met: {phases:?}");
    house.move_to(tenant, if house.place(tenant).starts_with("row") { "schema" } else { "row" });
    resume(&house, tenant, &content);
    let files = std::fs::read_dir(cluster.data().join("base/pgsql_tmp")).map(|files| files.count()).unwrap_or(0);
    assert_eq!(files, 0, "files are left");
}

#[test]
fn after_a_crash_a_tenant_is_in_one_place_as_a_whole() {
    survive(400, 3, &["schema", "row"]);
}

#[test]
fn after_a_crash_on_the_way_to_a_database_or_back_a_tenant_is_in_one_place_as_a_whole() {
    survive(100, 4, &["database", "row"]);
}

/// Lets a move come as far as its copy, and holds it there; gives its process.
fn halfway(house: &House, tenant: Uuid, holder: &mut postgres::Transaction) -> (std::thread::JoinHandle<()>, i32) {
    holder.batch_execute("LOCK TABLE tenancy.applied_migrations IN ACCESS EXCLUSIVE MODE").expect("lock");
    let mut admin = house.connect("admin");
    let pid = backend_pid(&mut admin);
    let call = format!("CALL move_tenant('{tenant}', 'schema')");
    let mover = std::thread::spawn(move || {
        admin.batch_execute(&call).expect_err("a move that is ended");
    });
    wait_for_lock(&mut house.superuser(), pid);
    (mover, pid)
}

#[test]
fn a_session_that_ends_in_mid_move_leaves_the_tenant_where_it_was() {
    let house = House::new("move_ended");
    let tenant = house.tenant("one", 3);
    let content = house.content(tenant);
    let (mut admin, mut superuser, mut other) = (house.connect("admin"), house.superuser(), house.superuser());
    for (end, is_taken_back) in [("pg_cancel_backend", true), ("pg_terminate_backend", false)] {
        let mut holder = superuser.transaction().expect("begin");
        let (mover, pid) = halfway(&house, tenant, &mut holder);
        assert_eq!(house.place(tenant), "row moving");
        assert_eq!(house.content(tenant), content);
        assert!(one::<bool>(&mut other, &format!("SELECT {end}($1)"), &[&pid]));
        mover.join().expect("join");
        holder.rollback().expect("rollback");
        if is_taken_back {
            assert_eq!(house.place(tenant), "row active");
            let error = "SELECT sqlstate || ' ' || error FROM tenancy.moves ORDER BY started_at DESC LIMIT 1";
            assert_eq!(one::<String>(&mut admin, error, &[]), "57014 canceling statement due to user request");
        } else {
            wait_until("the session has ended", || {
                count(&mut other, &format!("pg_stat_activity WHERE pid = {pid}")) == 0
            });
            assert_eq!(house.place(tenant), "row moving");
            let (mut again, notices) = house.database.connect_with_notices("admin");
            again.batch_execute(&format!("CALL move_tenant('{tenant}', 'schema')")).expect("call again");
            assert!(notices.contains("took back an interrupted move"), "{:?}", notices.messages());
            assert_eq!(house.phases(tenant), "failed failed done");
        }
        assert_eq!(house.content(tenant), content);
        house.assert_settled();
    }
}

#[test]
fn workers_take_back_and_clean_up_what_nobody_works_at() {
    let cluster = Cluster::start(Options::new().set("tenancy.workers_enabled", "on"));
    let house = House::without_template(cluster.database("move_workers"));
    house.derive();
    let (tenant, left, kept) = (house.tenant("one", 3), house.tenant("left", 3), house.tenant("kept", 3));
    let mut admin = house.connect("admin");
    admin.batch_execute(&format!("CALL move_tenant('{kept}', 'schema', clean => false)")).expect("move");
    // Of one that was moved and is to be cleaned, the session ended while it waited for a reader.
    let mut app = house.connect("app");
    let mut reader = app.transaction().expect("begin");
    bind(&mut reader, left);
    let mut mover = house.connect("admin");
    let pid = backend_pid(&mut mover);
    let call = format!("CALL move_tenant('{left}', 'schema')");
    let call = std::thread::spawn(move || mover.batch_execute(&call).expect_err("ended"));
    wait_until("the clean waits", || house.phases(left) == "clean");
    let mut superuser = house.superuser();
    let mut holder = superuser.transaction().expect("begin");
    holder.execute("SELECT pg_terminate_backend($1)", &[&pid]).expect("terminate");
    call.join().expect("join");
    let (mover, pid) = halfway(&house, tenant, &mut holder);
    holder.execute("SELECT pg_terminate_backend($1)", &[&pid]).expect("terminate");
    mover.join().expect("join");
    holder.rollback().expect("rollback");
    wait_until("the interrupted move is taken back", || house.place(tenant) == "row active");
    assert_eq!(house.phases(left), "clean", "a reader is there");
    reader.commit().expect("commit");
    wait_until("what is left is removed", || house.phases(left) == "done");
    assert_eq!(house.place(kept), format!("schema active tenant_{kept} left row"));
    assert_eq!((house.shared_rows(left), house.shared_rows(kept)), (0, 15));
}
