//! Quotas: what is consumed never passes the limit, by however many sessions, and every unit of it can be consumed.

use harness::{
    Client, Cluster, Database, Options, Uuid, as_tenant, backend_pid, bind, cluster, count, fails, one, tenant,
    wait_for_lock,
};
use std::sync::Barrier;
use std::thread;

/// A tenant of plan free that may use `max` of tokens each month.
fn limited(database: &Database, max: &str) -> Uuid {
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    operator.batch_execute(&format!("SELECT set_plan_limit('free', 'tokens', {max}, 'month')")).expect("limit tokens");
    tenant
}

/// Consumes in a transaction of its own: what remains.
fn consume(app: &mut Client, tenant: Uuid, quantity: &str) -> Result<Option<String>, postgres::Error> {
    let mut transaction = app.transaction()?;
    bind(&mut transaction, tenant);
    let remains = transaction.query_one(&format!("SELECT consume_quota('tokens', {quantity})::text"), &[])?.get(0);
    transaction.commit()?;
    Ok(remains)
}

fn used(app: &mut Client, tenant: Uuid) -> String {
    as_tenant(app, tenant, |transaction| {
        one(transaction, "SELECT usage_total('tokens', '-infinity', 'infinity')::text", &[])
    })
}

#[test]
fn what_is_consumed_by_fifty_sessions_is_the_quota_exactly() {
    let database = Database::new("quota_fifty");
    let tenant = limited(&database, "200");
    let start = Barrier::new(50);
    let granted: usize = thread::scope(|scope| {
        let sessions: Vec<_> = (0..50)
            .map(|session| {
                let (database, start) = (&database, &start);
                scope.spawn(move || {
                    let mut app = database.connect("app");
                    start.wait();
                    let mut granted = 0;
                    for attempt in 0..8 {
                        // Some undo what they were granted, which others can have then.
                        if (session + attempt) % 4 == 0 {
                            let mut transaction = app.transaction().expect("begin");
                            bind(&mut transaction, tenant);
                            match transaction.query_one("SELECT consume_quota('tokens')", &[]) {
                                Ok(_) => transaction.rollback().expect("roll back"),
                                Err(error) => drop(fails::<()>(Err(error), "54000")),
                            }
                        }
                        match consume(&mut app, tenant, "1") {
                            Ok(_) => granted += 1,
                            Err(error) => drop(fails::<()>(Err(error), "54000")),
                        }
                    }
                    granted
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().expect("a session")).sum()
    });
    assert_eq!(granted, 200);
    assert_eq!(used(&mut database.connect("app"), tenant), "200");
}

#[test]
fn a_quota_counts_what_was_recorded_otherwise_in_every_place() {
    let database = Database::new("quota_mixed");
    let tenant = limited(&database, "10");
    let mut app = database.connect("app");
    let mut superuser = database.superuser();
    assert_eq!(consume(&mut app, tenant, "2").expect("consume").as_deref(), Some("8"));
    as_tenant(&mut app, tenant, |transaction| {
        one::<bool>(transaction, "SELECT record_usage('tokens', 3)", &[]);
    });
    // Both in the inbox.
    assert_eq!(consume(&mut app, tenant, "1").expect("consume").as_deref(), Some("4"));
    one::<i64>(&mut superuser, "SELECT rollup_usage()", &[]);
    // Both in buckets.
    assert_eq!(consume(&mut app, tenant, "1").expect("consume").as_deref(), Some("3"));
    as_tenant(&mut app, tenant, |transaction| {
        one::<bool>(transaction, "SELECT record_usage('tokens', 1)", &[]);
        // In the same transaction, too.
        let remains: String = one(transaction, "SELECT consume_quota('tokens')::text", &[]);
        assert_eq!(remains, "1");
    });
    // The counter is only a memory.
    superuser.batch_execute("DELETE FROM tenancy.quota_counters").expect("forget");
    assert_eq!(consume(&mut app, tenant, "0.5").expect("consume").as_deref(), Some("0.5"));
    fails(consume(&mut app, tenant, "0.6"), "54000");
    assert_eq!(consume(&mut app, tenant, "0.5").expect("consume").as_deref(), Some("0"));
    let refused = fails(consume(&mut app, tenant, "1"), "54000");
    assert_eq!(refused.message(), "limit reached for tokens (10)");
    assert!(refused.hint().is_some_and(|hint| hint.contains("pgrade")));
    assert_eq!(used(&mut app, tenant), "10.0");
}

#[test]
fn the_tightest_of_several_periods_counts() {
    let database = Database::new("quota_periods");
    let tenant = limited(&database, "100");
    let mut operator = database.connect("operator");
    operator
        .batch_execute(
            "SELECT set_plan_limit('free', 'tokens', 5, 'day'); SELECT set_plan_limit('free', 'tokens', NULL, 'hour')",
        )
        .expect("more limits");
    let mut app = database.connect("app");
    assert_eq!(consume(&mut app, tenant, "5").expect("consume").as_deref(), Some("0"));
    fails(consume(&mut app, tenant, "1"), "54000");
    // The tenant's own limit comes before its plan's, at once.
    operator.execute("SELECT set_tenant_limit($1, 'tokens', 7, 'day')", &[&tenant]).expect("override");
    assert_eq!(consume(&mut app, tenant, "1").expect("consume").as_deref(), Some("1"));
    operator.execute("SELECT set_tenant_limit($1, 'tokens', NULL, 'day')", &[&tenant]).expect("unlimit");
    assert_eq!(consume(&mut app, tenant, "90").expect("consume").as_deref(), Some("4"));
    operator.execute("SELECT unset_tenant_limit($1, 'tokens')", &[&tenant]).expect("take back");
    fails(consume(&mut app, tenant, "1"), "54000");
    operator.batch_execute("SELECT set_plan_limit('free', 'tokens', NULL, 'day'); SELECT set_plan_limit('free', 'tokens', NULL, 'month')").expect("unlimit");
    assert_eq!(consume(&mut app, tenant, "1000").expect("consume"), None);
    assert_eq!(used(&mut app, tenant), "1096");
}

#[test]
fn a_limit_that_is_lowered_while_a_session_waits_holds_for_it() {
    let database = Database::new("quota_lowered");
    let tenant = limited(&database, "10");
    let mut first = database.connect("app");
    let mut second = database.connect("app");
    let mut operator = database.connect("operator");
    let mut holder = first.transaction().expect("begin");
    bind(&mut holder, tenant);
    one::<Option<String>>(&mut holder, "SELECT consume_quota('tokens', 4)::text", &[]);
    let pid = backend_pid(&mut second);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| consume(&mut second, tenant, "4"));
        wait_for_lock(&mut database.superuser(), pid);
        operator.batch_execute("SELECT set_plan_limit('free', 'tokens', 5, 'month')").expect("lower");
        holder.commit().expect("commit");
        fails(waiting.join().expect("the waiting session"), "54000");
    });
    assert_eq!(consume(&mut second, tenant, "1").expect("the last").as_deref(), Some("0"));
}

#[test]
fn savepoints_prepared_transactions_and_isolation_levels_count_what_they_keep() {
    let database = Database::new("quota_transactions");
    let tenant = limited(&database, "10");
    let mut app = database.connect("app");
    as_tenant(&mut app, tenant, |transaction| {
        one::<String>(transaction, "SELECT consume_quota('tokens', 1)::text", &[]);
        let mut savepoint = transaction.savepoint("s").expect("savepoint");
        let remains: String = one(&mut savepoint, "SELECT consume_quota('tokens', 5)::text", &[]);
        assert_eq!(remains, "4");
        savepoint.rollback().expect("roll back");
        let remains: String = one(transaction, "SELECT consume_quota('tokens', 1)::text", &[]);
        assert_eq!(remains, "8");
    });
    // An old snapshot hides nothing from the counter.
    let mut other = database.connect("app");
    let mut old =
        other.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().expect("begin");
    bind(&mut old, tenant);
    one::<i64>(&mut old, "SELECT 1::bigint", &[]);
    consume(&mut app, tenant, "6").expect("consume");
    let remains: String = one(&mut old, "SELECT consume_quota('tokens', 1)::text", &[]);
    assert_eq!(remains, "1");
    fails(old.query("SELECT consume_quota('tokens', 2)", &[]), "54000");
    drop(old);
    assert_eq!(consume(&mut app, tenant, "1").expect("consume").as_deref(), Some("1"));
    // Many calls in one statement see one another.
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    fails(transaction.query("SELECT consume_quota('tokens') FROM generate_series(1, 2)", &[]), "54000");
}

#[test]
fn prepared_consumption_holds_its_part_until_it_is_decided() {
    let cluster = Cluster::start(Options::new().set("max_prepared_transactions", "5"));
    let database = cluster.database("quota_prepared");
    let tenant = limited(&database, "10");
    let mut app = database.connect("app");
    for (end, remains) in [("ROLLBACK", "9"), ("COMMIT", "1")] {
        app.batch_execute(&format!(
            "BEGIN; SELECT set_tenant('{tenant}'); SELECT consume_quota('tokens', 7); PREPARE TRANSACTION 'p'"
        ))
        .expect("prepare");
        let mut other = database.connect("app");
        other.batch_execute("SET lock_timeout = '200ms'").expect("set");
        fails(consume(&mut other, tenant, "1"), "55P03");
        app.batch_execute(&format!("{end} PREPARED 'p'")).expect(end);
        assert_eq!(consume(&mut app, tenant, "1").expect("consume").as_deref(), Some(remains), "{end}");
    }
}

#[test]
fn hostile_and_senseless_consumption_is_refused_and_writes_nothing() {
    let database = Database::new("quota_bad");
    let tenant = limited(&database, "10");
    let mut operator = database.connect("operator");
    operator
        .batch_execute("SELECT create_metric('peak', aggregation => 'max'); SELECT create_metric('free_for_all')")
        .expect("metrics");
    let mut app = database.connect("app");
    fails(app.query("SELECT consume_quota('tokens')", &[]), "42501");
    for (call, sqlstate) in [
        ("consume_quota(NULL)", "22023"),
        ("consume_quota('tokens', NULL)", "22023"),
        ("consume_quota('tokens', -1)", "22023"),
        ("consume_quota('tokens', 'NaN')", "22023"),
        ("consume_quota('tokens', 'Infinity')", "22023"),
        ("consume_quota('tokens', 11)", "54000"),
        ("consume_quota('tokens', 1e31)", "54000"),
        ("consume_quota('tokens', 1e100000)", "22023"),
        ("consume_quota('peak')", "22023"),
        ("consume_quota('nothing')", "P0002"),
        ("consume_quota('free_for_all')", "P0002"),
        ("consume_quota('')", "22023"),
        ("consume_quota(repeat('x', 100000))", "22023"),
        ("consume_quota(E'\\'; DROP TABLE tenancy.tenants; --')", "22023"),
    ] {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        fails(transaction.query(&format!("SELECT {call}"), &[]), sqlstate);
    }
    let mut read_only = app.build_transaction().read_only(true).start().expect("begin");
    bind(&mut read_only, tenant);
    fails(read_only.query("SELECT consume_quota('tokens')", &[]), "25006");
    drop(read_only);
    assert_eq!(used(&mut app, tenant), "0");
    assert_eq!(count(&mut database.superuser(), "tenancy.quota_counters"), 0);
    assert!(cluster().server().superuser().query("SELECT 1", &[]).is_ok());
}
