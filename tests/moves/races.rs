//! Moves against each other, against writers, and against everything else that changes a tenant.

use super::fixtures::House;
use harness::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Writers and readers that never stop while a tenant goes there and back: no row that was committed is lost, none is doubled, and nobody is told
/// anything but to try again. Gives how many rows were written and how many writes were refused.
pub fn storm(house: &House, tenant: Uuid, turns: usize) -> (usize, usize) {
    let done = AtomicBool::new(false);
    let (written, refused, reads) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let done = &done;
                scope.spawn(move || {
                    let mut app = house.connect("app");
                    let (mut committed, mut refused) = (Vec::new(), 0);
                    for turn in 0.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        let name = format!("w{writer} {turn}");
                        let write = |app: &mut Client| -> Result<(), postgres::Error> {
                            let mut transaction = app.transaction()?;
                            transaction.query("SELECT set_tenant($1)", &[&tenant])?;
                            if turn % 3 == 0 {
                                transaction.query("SELECT count(*) FROM accounts", &[])?;
                            }
                            transaction.execute("INSERT INTO accounts (name) VALUES ($1)", &[&name])?;
                            transaction.commit()
                        };
                        match write(&mut app) {
                            Ok(()) => committed.push(name),
                            Err(error) => {
                                assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{error:?}");
                                refused += 1;
                                std::thread::sleep(Duration::from_millis(1));
                            }
                        }
                    }
                    (committed, refused)
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let done = &done;
                scope.spawn(move || {
                    let mut app = house.connect("app");
                    let (mut reads, mut most) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        let mut transaction = app.transaction().expect("begin");
                        bind(&mut transaction, tenant);
                        let first = count(&mut transaction, "accounts");
                        let second = count(&mut transaction, "accounts");
                        transaction.commit().expect("commit");
                        // Nothing is ever deleted.
                        assert!(most <= first && first <= second, "{most} {first} {second}");
                        most = second;
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for turn in 0..turns {
            std::thread::sleep(Duration::from_millis(50));
            house.move_to(tenant, if turn % 2 == 0 { "schema" } else { "row" });
        }
        done.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        let mut refused = 0;
        for writer in writers {
            let (committed, busy) = writer.join().expect("join");
            written.extend(committed);
            refused += busy;
        }
        let reads: usize = readers.into_iter().map(|reader| reader.join().expect("join")).sum();
        (written, refused, reads)
    });
    assert!(reads > 0);
    let names: Vec<String> = as_tenant(&mut house.connect("app"), tenant, |app| {
        rows(app, "SELECT name FROM accounts WHERE name LIKE 'w%' ORDER BY 1", &[])
            .iter()
            .map(|row| row.get(0))
            .collect()
    });
    let mut expected = written;
    expected.sort();
    let mut found = names;
    found.sort();
    assert_eq!(found, expected);
    house.assert_settled();
    (expected.len(), refused)
}

#[test]
fn no_row_of_a_writer_that_never_stops_is_lost() {
    let house = House::new("move_storm");
    let tenant = house.tenant("one", 50);
    let (written, refused) = storm(&house, tenant, 6);
    assert!(written > 0 && refused > 0, "{written} written, {refused} refused");
}

#[test]
fn of_two_moves_of_a_tenant_one_wins() {
    let house = House::new("move_two");
    let tenant = house.tenant("one", 20);
    for to in ["schema", "row", "schema"] {
        let results: Vec<_> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| house.try_move(tenant, to))).collect();
            calls.into_iter().map(|call| call.join().expect("join")).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        for error in results.into_iter().filter_map(Result::err) {
            let fault = error.as_db_error().expect("an error of the server");
            assert_eq!(fault.code().code(), "55000");
            let says = ["is being moved by another session", "already", "is being made, copied"];
            assert!(says.iter().any(|says| fault.message().contains(says)), "{}", fault.message());
        }
        house.assert_settled();
    }
}

/// What else changes a tenant as a whole, and whether it can come before a move of it.
#[test]
fn a_move_and_a_delete_or_a_purge_exclude_each_other() {
    let house = House::new("move_against");
    let (mut superuser, mut operator, mut admin) =
        (house.superuser(), house.connect("operator"), house.connect("admin"));
    let tenant = house.tenant("one", 3);
    let mut holder = superuser.transaction().expect("begin");
    holder.batch_execute("LOCK TABLE tenancy.applied_migrations IN ACCESS EXCLUSIVE MODE").expect("lock");
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| house.try_move(tenant, "schema"));
        wait_until("the tenant moves", || house.place(tenant) == "row moving");
        for (change, what) in [
            ("delete_tenant($1)::text", "deleted"),
            ("suspend_tenant($1)::text", "suspended"),
            ("cancel_tenant($1)::text", "cancelled"),
        ] {
            let error = fails(operator.query(&format!("SELECT {change}"), &[&tenant]), "55000");
            assert_eq!(error.message(), format!("a tenant that is moving cannot become {what}"));
        }
        // Nobody waits, writers neither.
        let mut app = house.connect("app");
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        assert_eq!(count(&mut transaction, "accounts"), 3);
        fails(transaction.execute("INSERT INTO log (line) VALUES ('x')", &[]), "55000");
        transaction.rollback().expect("rollback");
        fails(admin.batch_execute(&format!("CALL purge_tenant('{tenant}', force => true)")), "55000");
        holder.rollback().expect("rollback");
        mover.join().expect("join").expect("move");
    });
    rows(&mut operator, "SELECT delete_tenant($1)", &[&tenant]);
    fails(house.try_move(tenant, "row"), "55000");
    admin.batch_execute(&format!("CALL purge_tenant('{tenant}', force => true)")).expect("purge");
    fails(house.try_move(tenant, "row"), "P0002");
    house.assert_settled();
}

#[test]
fn a_move_and_a_migration_of_the_fleet_take_turns() {
    let house = House::new("move_fleet");
    let tenants: Vec<Uuid> = (0..4).map(|number| house.tenant(&format!("t{number}"), 3)).collect();
    for tenant in &tenants[..3] {
        house.move_to(*tenant, "schema");
    }
    let mut admin = house.connect("admin");
    simple(
        &mut admin,
        "SELECT add_migration('grown', '001', 'ALTER TABLE accounts ADD COLUMN phone text DEFAULT ''none''')",
    );
    simple(&mut house.superuser(), "ALTER TABLE public.accounts ADD COLUMN phone text DEFAULT 'none'");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| house.connect("admin").batch_execute("CALL migrate_tenants('grown')"));
        let moves: Vec<_> = [(tenants[0], "row"), (tenants[1], "row"), (tenants[3], "schema")]
            .into_iter()
            .map(|(tenant, to)| {
                let house = &house;
                scope.spawn(move || {
                    // Who finds the schema taken is told, and comes again.
                    for _ in 0..200 {
                        match house.try_move(tenant, to) {
                            Ok(()) => return,
                            Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{error:?}"),
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    panic!("the move never came through");
                })
            })
            .collect();
        moves.into_iter().for_each(|call| call.join().expect("join"));
        run.join().expect("join").expect("migrate");
    });
    simple(&mut admin, "CALL migrate_tenants('grown')");
    for tenant in tenants {
        as_tenant(&mut house.connect("app"), tenant, |app| {
            assert_eq!(count(app, "accounts WHERE phone = 'none'"), 3);
        });
    }
    house.assert_settled();
}
