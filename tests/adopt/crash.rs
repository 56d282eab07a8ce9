//! `kill -9` of the server in each phase of an adoption: a call afterwards comes to the same end.

use super::fixtures::*;
use harness::*;

/// Kills the server as soon as so many steps are done, and starts it again; false when the adoption was over before.
fn kill_after(cluster: &mut Cluster, shop: &Shop, steps: i64) -> bool {
    const DONE: &str = "SELECT coalesce(sum(steps_done), 0)::bigint FROM tenancy.adoptions WHERE finished_at IS NULL";
    let mut admin = shop.database.connect("admin");
    let mut observer = shop.database.superuser();
    let call = shop.call("");
    let finished = std::thread::scope(|scope| {
        let adoption = scope.spawn(move || admin.batch_execute(&call).is_ok());
        wait_until("so many steps are done", || {
            adoption.is_finished() || one::<i64>(&mut observer, DONE, &[]) >= steps
        });
        cluster.kill9();
        adoption.join().expect("join")
    });
    cluster.start_again();
    !finished
}

/// Kills one adoption after so many steps each time.
pub fn survive(label: &str, kills: impl IntoIterator<Item = i64>) -> usize {
    let mut cluster = Cluster::start(Options::new().durable());
    let whole = Shop::in_database(cluster.database(&format!("{label}_whole")));
    whole.adopt("").expect("adopt");
    let expected = definitions(&mut whole.database.superuser(), "shop");
    let shop = Shop::in_database(cluster.database(label));
    let mut superuser = shop.database.superuser();
    let before: Vec<_> = TABLES.map(|table| checksum(&mut superuser, table)).into();
    superuser.batch_execute("CHECKPOINT").expect("write a checkpoint");
    drop(superuser);
    let killed = kills.into_iter().take_while(|steps| kill_after(&mut cluster, &shop, *steps)).count();
    shop.adopt("").expect("finish");
    let mut superuser = shop.database.superuser();
    assert_eq!(definitions(&mut superuser, "shop"), expected);
    for (table, before) in TABLES.iter().zip(before) {
        assert_eq!(checksum(&mut superuser, table), before, "{table}");
        assert_eq!(count(&mut superuser, &format!("{table} WHERE tenant_id <> '{}'", shop.tenant)), 0);
    }
    assert_eq!(count(&mut superuser, "tenancy.adoptions WHERE finished_at IS NULL"), 0);
    assert_eq!(count(&mut superuser, "tenancy.protection_status WHERE intact"), 5);
    assert_eq!(count(&mut superuser, "pg_index WHERE NOT indisvalid"), 0);
    killed
}

#[test]
fn an_adoption_survives_a_crash_in_every_phase() {
    // Each call has what is left to do: columns, indexes, foreign keys, keys, protection.
    let killed = survive("adopt_crash", [2, 4, 5, 8, 6, 7, 3]);
    assert!(killed >= 6, "{killed} kills");
}
