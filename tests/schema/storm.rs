//! Many sessions at once, on the same tenants: legal states, expected errors, nothing that waits for ever.

use super::fixtures::*;
use harness::*;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What sessions of level operator and admin do to tenants `{a}` and `{b}`, at random.
const CALLS: &[&str] = &[
    "SELECT create_tenant('{a}', slug => '{a}', isolation => 'schema')",
    "SELECT create_tenant('{a}', slug => '{a}', isolation => 'schema')",
    "SELECT create_tenant('{a}', slug => '{a}', isolation => 'schema', schema_name => 'of_shared')",
    "SELECT create_tenant('{a}', slug => '{a}', isolation => 'row')",
    "SELECT create_tenant_schema(find_tenant('{a}'), 't')",
    "SELECT create_tenant_schema(find_tenant('{a}'), 't', 'of_shared')",
    "SELECT clone_tenant_schema(find_tenant('{a}'), find_tenant('{b}'))",
    "SELECT clone_tenant_schema(find_tenant('{a}'), find_tenant('{b}'))",
    "SELECT clone_tenant_schema(find_tenant('{a}'), find_tenant('{b}'), with_data => false)",
    "SELECT delete_tenant_schema(find_tenant('{a}'))",
    "SELECT delete_tenant(find_tenant('{a}'), '0')",
    "SELECT restore_tenant(find_tenant('{a}'))",
    "SELECT suspend_tenant(find_tenant('{a}'))",
    "SELECT suspend_tenant(find_tenant('{a}'), mode => 'read_only')",
    "SELECT resume_tenant(find_tenant('{a}'))",
    "SELECT update_tenant(find_tenant('{a}'), slug => '{b}')",
    "DO $$ BEGIN PERFORM delete_tenant_schema(find_tenant('{a}')); PERFORM create_tenant_schema(find_tenant('{b}'), 't'); END $$",
    "BEGIN; SELECT create_tenant_schema(find_tenant('{a}'), 't'); ROLLBACK",
    "CALL purge_expired_tenants()",
    "DO $$ BEGIN CALL purge_tenant(find_tenant('{a}')); END $$",
    "CALL migrate_tenants('t', workers => 2, lock_timeout_s => 1, max_attempts => 2)",
    "SELECT register_template('t', 'tpl', data_tables => '{stages}', tenant_schema => 'of_{slug}')",
    "SELECT register_template('t', 'tpl', data_tables => '{stages}', tenant_schema => 'tenant_{id}')",
    "SELECT unregister_template('t'); SELECT register_template('t', 'tpl', data_tables => '{stages}')",
    "SELECT count(*) FROM tenancy.differences()",
    "SELECT count(*) FROM tenant_statistics(true)",
];

/// What such a call may answer. 2BP01 never: nothing depends on these schemas from outside.
const EXPECTED: &[&str] =
    &["55000", "23505", "P0002", "22023", "40P01", "25001", "2D000", "55P03", "42501", "25006", "53400"];

const SLUGS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Lets sessions loose on the same few tenants; gives how often each SQLSTATE was answered.
fn rage(house: &House, seed: u64, sessions: u64, duration: Duration) -> BTreeMap<String, usize> {
    let (stop, answers) = (AtomicBool::new(false), Mutex::new(BTreeMap::<String, usize>::new()));
    let note = |call: &str, outcome: Result<(), postgres::Error>| {
        let answer = match outcome {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                let fault = error.as_db_error().unwrap_or_else(|| panic!("{call}: {error:?}"));
                let code = fault.code().code().to_owned();
                assert!(EXPECTED.contains(&code.as_str()), "{call}: {fault:?}");
                code
            }
        };
        *answers.lock().expect("no session panicked").entry(answer).or_insert(0) += 1;
    };
    std::thread::scope(|scope| {
        for number in 0..sessions {
            let (stop, note) = (&stop, &note);
            scope.spawn(move || {
                let mut random = Random::new(seed * 1000 + number + 1);
                let mut admin = house.connect("admin");
                while !stop.load(Ordering::Relaxed) {
                    let (a, b) = (*random.one_of(&SLUGS), *random.one_of(&SLUGS));
                    let call = random.one_of(CALLS).replace("{a}", a).replace("{b}", b);
                    note(&call, admin.batch_execute(&call));
                    let _ = admin.batch_execute("ROLLBACK");
                }
            });
        }
        for number in 0..2 {
            let (stop, note) = (&stop, &note);
            scope.spawn(move || {
                let mut random = Random::new(seed * 1000 + 500 + number);
                let mut app = house.connect("app");
                while !stop.load(Ordering::Relaxed) {
                    let slug = random.one_of(&SLUGS);
                    let write = format!(
                        "BEGIN; SELECT set_tenant_by_slug('{slug}');
                         INSERT INTO accounts (name) VALUES ('x'); INSERT INTO entries (account, amount) SELECT max(id), 1 FROM accounts; COMMIT"
                    );
                    // A tenant of isolation row has no such table.
                    let outcome = app.batch_execute(&write);
                    if !matches!(&outcome, Err(error) if error.code().is_some_and(|code| code.code() == "42P01")) {
                        note(&write, outcome);
                    }
                    let _ = app.batch_execute("ROLLBACK");
                }
            });
        }
        // On a busy machine it goes on until enough of it has succeeded to mean something.
        let end = Instant::now() + duration;
        let enough = || answers.lock().expect("no session panicked").get("ok").is_some_and(|number| *number > 20);
        wait_until("the storm is over", || Instant::now() > end && enough());
        stop.store(true, Ordering::Relaxed);
    });
    answers.into_inner().expect("no session panicked")
}

const WAITING: &str =
    "pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND a.datname = current_database()";

#[test]
fn whatever_many_sessions_do_to_the_same_tenants_leaves_legal_states() {
    let house = House::new("storm");
    let mut superuser = house.superuser();
    for (number, seed) in [11, 12, 13].into_iter().enumerate() {
        let version = format!("{number:03}");
        let add = format!("ALTER TABLE accounts ADD COLUMN c{number} text");
        one::<String>(&mut house.connect("admin"), "SELECT add_migration('t', $1, $2)", &[&version, &add]);
        let answers = rage(&house, seed, 5, Duration::from_millis(1500));
        wait_until("nobody waits for a lock", || count(&mut superuser, WAITING) == 0);
        assert!(answers.contains_key("ok"), "{answers:?}");
        let mut admin = house.connect("admin");
        // All templates have the same tenants, whoever forgot and registered it last.
        admin.batch_execute("CALL migrate_tenants('t')").expect("migrate what is left");
        house.assert_legal();
        let alive = "SELECT slug FROM tenancy.tenants WHERE status = 'active' AND schema_name IS NOT NULL ORDER BY 1";
        let mut app = house.connect("app");
        for row in rows(&mut superuser, alive, &[]) {
            let mut transaction = app.transaction().expect("begin");
            rows(&mut transaction, "SELECT set_tenant_by_slug($1)", &[&row.get::<_, String>(0)]);
            let off =
                "accounts a WHERE balance <> (SELECT coalesce(sum(amount), 0) FROM entries e WHERE e.account = a.id)";
            assert_eq!(count(&mut transaction, off), 0);
            transaction.batch_execute("INSERT INTO accounts (name) VALUES ('after')").expect("insert");
        }
    }
    // Everything can be ended.
    let mut admin = house.connect("admin");
    admin
        .batch_execute("SELECT delete_tenant(id, '0') FROM tenancy.tenants WHERE status <> 'deleted'")
        .expect("delete all");
    admin.batch_execute("CALL purge_expired_tenants()").expect("purge all");
    assert_eq!(count(&mut superuser, "tenancy.tenants"), 0);
    assert_eq!(count(&mut superuser, "pg_seclabel WHERE label LIKE 'tenant: %'"), 0);
    assert_eq!(count(&mut superuser, "tenancy.applied_migrations WHERE tenant_id IS NOT NULL"), 0);
    house.assert_legal();
}

#[test]
fn of_many_sessions_that_make_one_schema_one_wins() {
    let house = House::new("one_name");
    for round in 0..5 {
        let tenants: Vec<Uuid> = (0..6).map(|number| house.without_schema(&format!("t-{round}-{number}"))).collect();
        let name = format!("of_round_{round}");
        let won: usize = std::thread::scope(|scope| {
            let calls: Vec<_> = tenants
                .iter()
                .map(|tenant| {
                    let (name, mut operator) = (&name, house.connect("operator"));
                    scope.spawn(move || {
                        let make = "SELECT create_tenant_schema($1, 't', $2::text::name)";
                        match operator.query(make, &[tenant, name]) {
                            Ok(_) => 1,
                            outcome => usize::from(fails(outcome, "23505").message().is_empty()),
                        }
                    })
                })
                .collect();
            calls.into_iter().map(|call| call.join().expect("join")).sum()
        });
        assert_eq!(won, 1);
        house.assert_legal();
    }
    // And of those that give one tenant a schema of different names.
    let tenant = house.without_schema("wanted");
    let won: usize = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..6)
            .map(|number| {
                let mut operator = house.connect("operator");
                scope.spawn(move || {
                    let make = "SELECT create_tenant_schema($1, 't', $2::text::name)";
                    match operator.query(make, &[&tenant, &format!("of_wanted_{number}")]) {
                        Ok(_) => 1,
                        outcome => usize::from(fails(outcome, "23505").message().is_empty()),
                    }
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("join")).sum()
    });
    assert_eq!(won, 1);
    house.assert_legal();
}
