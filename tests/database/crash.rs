//! `kill -9` of the server while databases are made and dropped. What a process has written the system keeps when that is killed, so that the
//! servers need no fsync, which would make most of the time that they take to recover.

use super::fixtures::*;
use harness::{Client, Cluster, Database, Options, Random, Uuid, as_tenant, count, one, optional, wait_until};
use std::time::{Duration, Instant};

const PHASE: &str = "SELECT phase FROM tenancy.tenant_databases WHERE tenant_id = $1";

/// A database that was just copied has pages of sequences that a crash would take back (PostgreSQL's own, until a checkpoint).
fn shop_on_disk(cluster: &Cluster, label: &str) -> Database {
    let control = shop(cluster, label);
    control.superuser().batch_execute("CHECKPOINT").expect("write a checkpoint");
    control
}

fn connect_again(control: &Database, role: &str) -> Client {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match control.connect_with(role, |_| {}) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < end, "{error:?}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the tenant's database is in this phase, or behind it.
fn wait_for_phase(observer: &mut Client, tenant: Uuid, phase: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match optional::<String>(observer, PHASE, &[&tenant]) {
            Some(found) if found == phase || found == "ready" => return,
            None if phase == "dropping" => return,
            _ => assert!(Instant::now() < end, "{phase} does not come"),
        }
    }
}

#[test]
fn after_a_crash_in_any_phase_a_database_is_made_once_and_nothing_is_left_behind() {
    let mut cluster = Cluster::start(eager());
    let control = shop_on_disk(&cluster, "phases");
    let mut tenants = Vec::new();
    for (phase, delay_ms) in
        [("creating", 0), ("creating", 25), ("installing", 0), ("installing", 60), ("filling", 0), ("filled", 0)]
    {
        let tenant = register(&mut connect_again(&control, "operator"), &format!("{phase} {delay_ms}"));
        tenants.push(tenant);
        wait_for_phase(&mut control.superuser(), tenant, phase);
        std::thread::sleep(Duration::from_millis(delay_ms));
        cluster.kill9();
        cluster.start_again();
    }
    drop(connect_again(&control, "postgres"));
    for tenant in &tenants {
        wait_for_state(&control, *tenant, "active");
    }
    whole(&control, &tenants);
}

/// Each tenant has its database, and there is nothing else of the kind.
fn whole(control: &Database, tenants: &[Uuid]) {
    for tenant in tenants {
        as_tenant(&mut connect(control, *tenant, "app"), *tenant, |app| {
            assert_eq!(count(app, "stages"), 2);
            app.batch_execute("INSERT INTO orders DEFAULT VALUES").expect("write");
        });
    }
    let mut superuser = control.superuser();
    let mut expected: Vec<String> = tenants.iter().map(|tenant| home(*tenant)).collect();
    expected.sort();
    assert_eq!(homes(&mut superuser), expected);
    // Workers hand files to each other, as long as they are at work.
    wait_until("no file is left", || strays(&mut superuser).is_empty());
    assert_eq!(count(&mut superuser, "tenancy.provisioning WHERE phase <> 'ready' OR problem IS NOT NULL"), 0);
}

#[test]
fn after_a_crash_a_purge_goes_on_and_leaves_no_database() {
    let mut cluster = Cluster::start(Options::new());
    let control = shop_on_disk(&cluster, "purges");
    let kept = provisioned(&control, "Kept");
    for (phase, delay_ms) in [("dropping", 0), ("dropping", 30)] {
        let tenant = provisioned(&control, &format!("Gone {delay_ms}"));
        control.connect("operator").execute("SELECT delete_tenant($1, '0')", &[&tenant]).expect("delete");
        let mut observer = control.superuser();
        let mut admin = control.connect("admin");
        std::thread::scope(|scope| {
            scope.spawn(move || admin.execute("CALL purge_tenant($1)", &[&tenant]));
            wait_for_phase(&mut observer, tenant, phase);
            std::thread::sleep(Duration::from_millis(delay_ms));
            cluster.kill9();
        });
        cluster.start_again();
        let mut admin = connect_again(&control, "admin");
        if one::<bool>(&mut admin, "SELECT count(*) > 0 FROM tenancy.tenants WHERE id = $1", &[&tenant]) {
            admin.execute("CALL purge_tenant($1)", &[&tenant]).expect("go on");
        }
        whole(&control, &[kept]);
    }
}

/// One that was registered and purged in between, with the crash while its database was made, leaves no files.
#[test]
fn what_a_crash_leaves_of_a_database_that_never_was_goes_with_its_tenant() {
    let mut cluster = Cluster::start(eager());
    let control = shop_on_disk(&cluster, "stray");
    let tenant = register(&mut control.connect("operator"), "Acme");
    wait_for_phase(&mut control.superuser(), tenant, "creating");
    std::thread::sleep(Duration::from_millis(10));
    cluster.kill9();
    cluster.configure("tenancy.workers_enabled", "off");
    cluster.start_again();
    let mut operator = connect_again(&control, "operator");
    operator.execute("SELECT delete_tenant($1, '0')", &[&tenant]).expect("delete");
    control.connect("admin").execute("CALL purge_tenant($1)", &[&tenant]).expect("purge");
    whole(&control, &[]);
}

/// Crashes at random moments, while tenants come and go. Used by the soak test.
#[allow(dead_code, reason = "the soak test's")]
pub fn survive(crashes: usize) {
    let mut random = Random::new(crashes as u64);
    let mut cluster = Cluster::start(eager());
    let control = shop_on_disk(&cluster, "survive");
    let (mut tenants, mut leaving) = (Vec::new(), Vec::new());
    for crash in 0..crashes {
        let mut operator = connect_again(&control, "operator");
        for number in 0..2 {
            tenants.push(register(&mut operator, &format!("Tenant {crash} {number}")));
        }
        if crash % 3 == 2 {
            let tenant = tenants.remove(random.below(tenants.len()));
            operator.execute("SELECT delete_tenant($1, '0')", &[&tenant]).expect("delete");
            leaving.push(tenant);
        }
        let mut admin = connect_again(&control, "admin");
        std::thread::scope(|scope| {
            // Cut short, and gone on with after the next crash.
            scope.spawn(|| admin.batch_execute("CALL purge_expired_tenants()"));
            std::thread::sleep(Duration::from_millis(random.number() % 1200));
            cluster.kill9();
        });
        cluster.start_again();
    }
    connect_again(&control, "admin").batch_execute("CALL purge_expired_tenants()").expect("purge");
    for tenant in &tenants {
        wait_for_state(&control, *tenant, "active");
    }
    whole(&control, &tenants);
    for tenant in leaving {
        assert_eq!(count(&mut control.superuser(), &format!("tenancy.tenants WHERE id = '{tenant}'")), 0);
    }
}
