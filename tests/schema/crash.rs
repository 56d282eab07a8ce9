//! `kill -9` of the server while schemas are made, cloned and dropped.

use super::fixtures::*;
use harness::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a call gave, or None when the server is gone; any other failure is the test's.
#[track_caller]
fn call(admin: &mut Client, sql: &str, arguments: &[&(dyn postgres::types::ToSql + Sync)]) -> Option<postgres::Row> {
    match admin.query_one(sql, arguments) {
        Ok(row) => Some(row),
        Err(error) => {
            let code = error.code().map(|code| code.code().to_owned());
            // Crashed, shut down, or no word of goodbye.
            assert!(code.as_deref().is_none_or(|code| code.starts_with("57P0")), "{sql}: {error:?}");
            None
        }
    }
}

/// Works until the server is gone; gives what was acknowledged: each tenant, and whether it has a schema.
fn work(house: &House, number: usize, done: &AtomicUsize) -> Vec<(Uuid, Option<bool>)> {
    let mut acknowledged: Vec<(Uuid, Option<bool>)> = Vec::new();
    let mut admin = house.connect("admin");
    for turn in 0.. {
        let slug = format!("t-{number}-{turn}");
        let create = "SELECT create_tenant($1, slug => $1, isolation => 'schema', template => 't')";
        let Some(row) = call(&mut admin, create, &[&slug]) else { break };
        let tenant: Uuid = row.get(0);
        acknowledged.push((tenant, Some(true)));
        let create = "SELECT create_tenant('copy', slug => $1, isolation => 'row')";
        let Some(row) = call(&mut admin, create, &[&format!("{slug}-c")]) else { break };
        let copy: Uuid = row.get(0);
        // Committed or not, nobody knows before the call answers.
        acknowledged.push((copy, None));
        if call(&mut admin, "SELECT clone_tenant_schema($1, $2)", &[&tenant, &copy]).is_none() {
            break;
        }
        acknowledged.pop();
        acknowledged.push((copy, Some(true)));
        let (ended, had) = acknowledged.swap_remove(turn % acknowledged.len());
        acknowledged.push((ended, None));
        let Some(row) = call(&mut admin, "SELECT delete_tenant_schema($1)", &[&ended]) else { break };
        assert_eq!(Some(row.get::<_, bool>(0)), had);
        acknowledged.pop();
        acknowledged.push((ended, Some(false)));
        done.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

#[test]
fn after_a_crash_a_schema_is_there_as_a_whole_or_not_at_all() {
    let mut cluster = Cluster::start(Options::new().durable());
    let house = House::in_database(cluster.database("schemas_crash"));
    house.superuser().batch_execute("CHECKPOINT").expect("write a checkpoint");
    let mut known: Vec<(Uuid, Option<bool>)> = Vec::new();
    for crash in 0..2_usize {
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let sessions: Vec<_> = (0..3)
                .map(|number| (&house, &done, number))
                .map(|(house, done, number)| scope.spawn(move || work(house, crash * 10 + number, done)))
                .collect();
            wait_until("enough was done", || done.load(Ordering::Relaxed) >= 6 + crash * 3);
            cluster.kill9();
            for session in sessions {
                known.extend(session.join().expect("join"));
            }
        });
        cluster.start_again();
        house.assert_legal();
        let mut superuser = house.superuser();
        for (tenant, has_schema) in &known {
            const HAS: &str = "SELECT schema_name IS NOT NULL FROM tenancy.tenants WHERE id = $1";
            let found: bool = one(&mut superuser, HAS, &[tenant]);
            assert!(has_schema.is_none_or(|known| known == found), "{tenant}");
        }
    }
    let mut admin = house.connect("admin");
    admin.batch_execute("SELECT delete_tenant(id, '0') FROM tenancy.tenants").expect("delete all");
    admin.batch_execute("CALL purge_expired_tenants()").expect("purge all");
    let mut superuser = house.superuser();
    assert_eq!(count(&mut superuser, "tenancy.tenants"), 0);
    assert_eq!(count(&mut superuser, "pg_namespace WHERE nspname ~ '^of_'"), 0);
    house.tenant("after");
    house.assert_legal();
}
