//! Many tenants, bad data, crashes.

use super::fixtures::Fleet;
use harness::*;
use std::time::{Duration, Instant};

/// A migration that fails for `bad` of `tenants`, is mended and resumed.
pub fn mend(tenants: usize, bad: usize) {
    let fleet = Fleet::new("fleet", tenants);
    let mut superuser = fleet.superuser();
    let mut sick: Vec<usize> = (0..bad).map(|number| 1 + number * tenants / bad).collect();
    for number in &sick {
        superuser.batch_execute(&format!("INSERT INTO s_{number}.contacts (name) VALUES (NULL)")).expect("bad data");
    }
    fleet.add("001", "INSERT INTO log VALUES ('001'); ALTER TABLE contacts ALTER name SET NOT NULL", "");
    let (mut admin, notices) = fleet.database.connect_with_notices("admin");
    admin.batch_execute("CALL migrate_tenants('crm')").expect("migrate");
    assert!(notices.contains(&format!("{bad} tenants of template \"crm\" failed")), "{:?}", notices.messages());
    let not_applied = fleet.not("001", "applied");
    assert_eq!(not_applied.len(), bad, "{not_applied:?}");
    assert!(not_applied.iter().all(|status| status.contains("failed 23502")), "{not_applied:?}");
    assert_eq!(count(&mut superuser, "tenancy.applied_migrations"), (1 + tenants - bad) as i64);
    assert_eq!(fleet.entries("001"), (0, 1));
    for number in sick.drain(..) {
        superuser.batch_execute(&format!("DELETE FROM s_{number}.contacts")).expect("mend");
    }
    admin.batch_execute("CALL migrate_tenants('crm')").expect("migrate again");
    assert_eq!(fleet.not("001", "applied"), Vec::<String>::new());
    assert_eq!(fleet.entries("001"), (1, 1));
    let start = Instant::now();
    admin.batch_execute("CALL migrate_tenants('crm')").expect("migrate again");
    assert!(start.elapsed() < Duration::from_secs(1), "nothing to do took {:?}", start.elapsed());
    assert!(notices.contains("nothing is left to do"), "{:?}", notices.messages());
    assert_eq!(count(&mut superuser, "tenancy.migration_runs"), 2);
}

/// `kill -9` of the server in the middle of a run, and the call again: each tenant exactly once.
pub fn survive(tenants: usize, crashes: usize) {
    let mut cluster = Cluster::start(Options::new().durable());
    let fleet = Fleet::on(cluster.database("fleet"), tenants);
    fleet.superuser().batch_execute("CHECKPOINT").expect("write a checkpoint");
    for version in ["001", "002"] {
        fleet.add(
            version,
            &format!("INSERT INTO log VALUES ('{version}'); ALTER TABLE contacts ADD COLUMN c{version} text"),
            "",
        );
    }
    for crash in 1..=crashes {
        let mut superuser = fleet.superuser();
        // The run cannot end before the crash: someone reads the last tenant's table.
        let mut reader = fleet.superuser();
        let last: String = reader
            .query_one(
                "SELECT schema_name::text FROM tenancy.tenants WHERE schema_name IS NOT NULL ORDER BY id DESC LIMIT 1",
                &[],
            )
            .expect("read the last tenant")
            .get(0);
        let mut reading = reader.transaction().expect("begin");
        reading.batch_execute(&format!("SELECT FROM {last}.contacts")).expect("read");
        std::thread::scope(|scope| {
            let call = scope.spawn(|| fleet.migrate(""));
            let enough = (2 * tenants * crash / (crashes + 1)) as i64;
            wait_until("enough is done", || count(&mut superuser, "tenancy.applied_migrations") >= enough);
            cluster.kill9();
            assert!(call.join().expect("join").is_err());
        });
        drop(reading);
        cluster.start_again();
        let applied = count(&mut fleet.superuser(), "tenancy.applied_migrations");
        assert!(applied < 2 + 2 * tenants as i64, "the crash came too late: {applied}");
        assert!(fleet.entries("001").1 <= 1 && fleet.entries("002").1 <= 1);
    }
    fleet.migrate("").expect("migrate again");
    assert_eq!((fleet.entries("001"), fleet.entries("002")), ((1, 1), (1, 1)));
    assert_eq!(fleet.not("002", "applied"), Vec::<String>::new());
}
