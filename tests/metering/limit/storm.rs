//! Many sessions at once.

use super::fixtures::*;
use harness::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Fifty sessions fill a table to exactly its limit.
pub fn fill() {
    const SESSIONS: usize = 50;
    let shop = Shop::new("limit_fifty");
    let tenant = shop.tenant(Some(100));
    let (inserted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut app = shop.connect("app");
                for _ in 0..5 {
                    let mut transaction = app.transaction().expect("begin");
                    bind(&mut transaction, tenant);
                    match transaction.execute("INSERT INTO agents DEFAULT VALUES", &[]) {
                        Ok(_) => {
                            transaction.commit().expect("commit");
                            inserted.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            fails(Err::<(), _>(error), "54000");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    assert_eq!((inserted.into_inner(), refused.into_inner()), (100, 150));
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (100, Some(100)));
}

/// One thing that a session does to the rows of its tenant.
fn step(random: &mut Random, app: &mut Client, tenant: Uuid) -> Result<(), postgres::Error> {
    const STATEMENTS: [&str; 8] = [
        "INSERT INTO agents DEFAULT VALUES",
        "INSERT INTO agents SELECT FROM generate_series(1, 5)",
        "INSERT INTO agents (status) VALUES ('idle'), ('active')",
        "DELETE FROM agents WHERE id IN (SELECT id FROM agents ORDER BY random() LIMIT 3 FOR UPDATE SKIP LOCKED)",
        "UPDATE agents SET status = CASE status WHEN 'idle' THEN 'active' ELSE 'idle' END
            WHERE id IN (SELECT id FROM agents ORDER BY random() LIMIT 2 FOR UPDATE SKIP LOCKED)",
        "SAVEPOINT s; INSERT INTO agents DEFAULT VALUES; ROLLBACK TO s; INSERT INTO agents (status) VALUES ('idle')",
        "INSERT INTO agents (name) VALUES (floor(random() * 10)::text)
            ON CONFLICT (tenant_id, name) DO UPDATE SET status = CASE agents.status WHEN 'idle' THEN 'active' ELSE 'idle' END",
        "UPDATE agents SET name = name WHERE id IN (SELECT id FROM agents LIMIT 1 FOR UPDATE SKIP LOCKED)",
    ];
    let mut transaction = app.transaction()?;
    if random.below(4) == 0 {
        transaction.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")?;
    }
    transaction.query("SELECT set_tenant($1)", &[&tenant])?;
    for _ in 0..=random.below(2) {
        transaction.batch_execute(STATEMENTS[random.below(STATEMENTS.len())])?;
    }
    if random.below(5) == 0 { transaction.rollback() } else { transaction.commit() }
}

/// Deletes, status changes, rollbacks, upserts and changes of the limit, lifted and back, all mixed, by so many sessions of so many transactions.
pub fn mix(sessions: usize, transactions: usize) {
    let shop = Shop::new("limit_storm");
    let tenants = [shop.tenant(Some(20)), shop.tenant(Some(20))];
    let running = AtomicUsize::new(sessions);
    thread::scope(|scope| {
        for session in 0..sessions {
            let (shop, running) = (&shop, &running);
            scope.spawn(move || {
                let mut random = Random::new(session as u64);
                let mut app = shop.connect("app");
                for _ in 0..transactions {
                    let tenant = tenants[random.below(2)];
                    if let Err(error) = step(&mut random, &mut app, tenant) {
                        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                        // The limit; rows that others have locked or changed.
                        assert!(["54000", "40001", "40P01"].contains(&code.as_str()), "{error:?}");
                    }
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            let mut superuser = shop.database.superuser();
            while running.load(Ordering::Relaxed) > 0 {
                for max in [Some(20), None, Some(20)] {
                    shop.set_limit(tenants[1], "agents", max);
                    thread::sleep(std::time::Duration::from_millis(20));
                }
                superuser.batch_execute("SELECT count(*) FROM agents").expect("look");
                // A tenant that always has its limit is never seen above it.
                let above: i64 = one(&mut superuser, ACTUAL, &[&tenants[0]]);
                assert!(above <= 20, "{above} rows of 20");
            }
        });
    });
    for tenant in tenants {
        shop.check(tenant);
    }
    assert!(shop.check(tenants[0]) <= 20);
    assert_eq!(count(&mut shop.connect("admin"), "verify_limits()"), 0);
}

/// `kill -9` of the server in the middle of all that, so many times: afterwards the counters are the rows again, and the limit still holds.
pub fn survive(kills: u64) {
    let mut cluster = Cluster::start(Options::new().durable());
    let shop = Shop::in_database(cluster.database("limit_crash"));
    let tenants = [shop.tenant(Some(15)), shop.tenant(Some(15))];
    for round in 0..kills {
        thread::scope(|scope| {
            for session in 0..4 {
                let shop = &shop;
                scope.spawn(move || {
                    let mut random = Random::new(round * 10 + session + 1);
                    let mut app = shop.connect("app");
                    while !app.is_closed() {
                        // The server goes away in the middle.
                        drop(step(&mut random, &mut app, tenants[random_tenant(session)]));
                    }
                });
            }
            thread::sleep(std::time::Duration::from_millis(700));
            cluster.kill9();
        });
        cluster.start_again();
        assert_eq!(count(&mut shop.connect("admin"), "verify_limits()"), 0);
        for tenant in tenants {
            assert!(shop.check(tenant) <= 15);
        }
    }
    let mut app = shop.connect("app");
    run_as(&mut app, tenants[0], "DELETE FROM agents");
    run_as(&mut app, tenants[0], "INSERT INTO agents SELECT FROM generate_series(1, 15)");
    refused(&mut app, tenants[0], "INSERT INTO agents DEFAULT VALUES", "54000");
}

/// Sessions share two tenants.
fn random_tenant(session: u64) -> usize {
    usize::from(session % 2 == 1)
}

/// Transactions that count two resources in opposite orders wait for each other, and not in a circle.
pub fn oppose() {
    let shop = Shop::new("limit_orders");
    shop.connect("owner")
        .batch_execute("CREATE TABLE robots (tenant_id uuid); GRANT ALL ON robots TO app")
        .expect("create robots");
    shop.connect("admin")
        .batch_execute("SELECT protect_table('robots'); SELECT limit_table('robots', 'robots')")
        .expect("limit");
    // Limited in both, in one, in none.
    for (agents, robots) in [(Some(500), Some(500)), (None, Some(500)), (None, None)] {
        let tenant = shop.tenant(agents);
        shop.set_limit(tenant, "robots", robots);
        thread::scope(|scope| {
            for tables in [["agents", "robots"], ["robots", "agents"], ["agents", "robots"], ["robots", "agents"]] {
                let shop = &shop;
                scope.spawn(move || {
                    let mut app = shop.connect("app");
                    for _ in 0..40 {
                        as_tenant(&mut app, tenant, |transaction| {
                            for table in tables {
                                let insert = format!("INSERT INTO {table} (tenant_id) VALUES (DEFAULT)");
                                transaction.execute(&insert, &[]).expect("no deadlock");
                            }
                        });
                    }
                });
            }
        });
        assert_eq!(shop.check(tenant), 160);
    }
    assert_eq!(count(&mut shop.connect("admin"), "verify_limits()"), 0);
}
