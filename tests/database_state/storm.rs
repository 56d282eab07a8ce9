//! Changes while others are told, many databases, and a server that is killed.

use crate::database_state::fixtures::*;
use harness::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The limits of the tenant that a database knows.
fn limits(database: &Database, tenant: Uuid) -> String {
    content(database, &format!("tenancy.tenant_limits x WHERE tenant_id = '{tenant}'"))
}

/// Those who change and those who tell do so at the same time: what was committed last is there in the end.
#[test]
fn no_change_is_lost_to_those_who_tell_at_the_same_time() {
    let control = control(cluster());
    let own = Own::new(cluster(), &control, "acme");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let changers: Vec<_> = (0..3)
            .map(|who| {
                let (control, own) = (&control, &own);
                scope.spawn(move || {
                    let mut operator = control.connect("operator");
                    for turn in 1..=60 {
                        operator
                            .execute(
                                "SELECT set_tenant_limit($1, $2, $3::int)",
                                &[&own.tenant, &format!("r{who}"), &turn],
                            )
                            .expect("change");
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            let (control, stop) = (&control, &stop);
            scope.spawn(move || {
                let mut admin = control.connect("admin");
                while !stop.load(Ordering::Relaxed) {
                    admin.batch_execute("CALL sync_tenant_databases()").expect("sync");
                }
            });
        }
        for changer in changers {
            changer.join().expect("change");
        }
        stop.store(true, Ordering::Relaxed);
    });
    sync(&control);
    assert_eq!(limits(&own.database, own.tenant), limits(&control, own.tenant));
    assert_eq!(limits(&own.database, own.tenant).matches("\"max_value\": 60").count(), 3);
    assert_eq!(count(&mut control.superuser(), "tenancy.database_changes"), 0);
}

#[test]
fn twenty_databases_hear_of_a_plan_within_seconds() {
    let cluster = eager();
    let control = control(&cluster);
    let owns: Vec<Own> = (0..20).map(|number| Own::make(&cluster, &control, &format!("t{number}"))).collect();
    let hears = |max: i32| {
        let begun = std::time::Instant::now();
        control
            .connect("operator")
            .execute("SELECT set_plan_limit('enterprise', 'calls', $1::int, 'month')", &[&max])
            .expect("limit");
        for own in &owns {
            let mut superuser = own.superuser();
            let limit = format!("tenancy.plan_limits WHERE resource = 'calls' AND max_value = {max}");
            wait_until("a database hears", || count(&mut superuser, &limit) == 1);
        }
        begun.elapsed()
    };
    hears(7);
    let elapsed = hears(8);
    assert!(elapsed < std::time::Duration::from_secs(20), "{elapsed:?}");
}

/// Killed while it tells, reports and changes, the server ends with what was committed, on both sides.
#[test]
fn nothing_is_lost_when_the_server_is_killed() {
    let mut cluster = Cluster::start(
        Options::new().durable().set("tenancy.workers_enabled", "on").set("tenancy.worker_naptime", "1"),
    );
    let control = control(&cluster);
    let own = Own::new(&cluster, &control, "acme");
    // PostgreSQL logs nothing of a sequence that was copied with its database until it has used up what had been logged of the original.
    control.superuser().batch_execute("CHECKPOINT").expect("checkpoint");
    let mut recorded = 0;
    for round in 0..4 {
        let until = std::time::Instant::now() + std::time::Duration::from_millis(700 + 450 * round);
        let (mut operator, mut app) = (control.connect("operator"), own.app());
        while std::time::Instant::now() < until {
            let limit = one::<String>(
                &mut operator,
                "SELECT set_tenant_limit($1, 'agents', (random() * 1000)::int)",
                &[&own.tenant],
            );
            assert_eq!(limit, "agents");
            as_tenant(&mut app, own.tenant, |tx| tx.execute("SELECT record_usage('calls')", &[]).expect("record"));
            recorded += 1;
        }
        cluster.kill9();
        cluster.start_again();
    }
    wait_until("the last limit is there", || limits(&own.database, own.tenant) == limits(&control, own.tenant));
    let reported = || -> String {
        let sql = "SELECT coalesce(sum(quantity), 0)::bigint::text FROM tenancy.usage_buckets WHERE tenant_id = $1";
        one(&mut control.superuser(), sql, &[&own.tenant])
    };
    wait_until("all usage is reported", || reported() == recorded.to_string());
    assert_eq!(count(&mut own.superuser(), "tenancy_archive.usage_events"), i64::from(recorded));
    let directory = cluster.data().join("base/pgsql_tmp");
    wait_until("no file is left", || std::fs::read_dir(&directory).map(Iterator::count).unwrap_or_default() == 0);
    // One that a process wrote for another that had ended, and one that is not ours.
    let [orphan, other] = ["pgsql_tmp_tenancy_4194303.7", "pgsql_tmp4194303.7"].map(|name| directory.join(name));
    for file in [&orphan, &other] {
        std::fs::write(file, "left").expect("write");
    }
    sync(&control);
    assert_eq!((orphan.exists(), other.exists()), (false, true));
}
