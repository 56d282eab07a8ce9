//! The tests that take long: what the sessions prove in moments, under load. Run by `make soak`.

#[path = "soak/adopt.rs"]
mod adopt;
#[path = "crash.rs"]
mod crash;
#[path = "soak/crm.rs"]
mod crm;
#[path = "soak/databases.rs"]
mod databases;
#[path = "soak/figures.rs"]
mod figures;
#[path = "fleet/fixtures.rs"]
mod fixtures;
#[path = "fleet/storm.rs"]
mod fleet;
#[path = "access/key_fuzz.rs"]
mod key_fuzz;
#[path = "soak/limits.rs"]
mod limits;
#[path = "soak/moves.rs"]
mod moves;
#[path = "access/storm.rs"]
mod people;
#[path = "soak/rates.rs"]
mod rates;
#[path = "access/jwt/specimens.rs"]
mod specimens;
#[path = "pooling/storm.rs"]
mod storm;
#[path = "access/jwt/fuzz.rs"]
mod token_fuzz;
#[path = "metering/usage_storm.rs"]
mod usage_storm;
#[path = "pooling/wire.rs"]
mod wire;

use harness::*;
use storm::Storm;

#[test]
fn tenants_on_one_server_session_never_mix_in_a_hundred_thousand_transactions() {
    const TRANSACTIONS: usize = 100_000;
    let storm = Storm { tenants: 2, clients: 4, pool_size: 1, transactions: TRANSACTIONS, vanish_every: 0 };
    let outcome = storm::run(&storm);
    assert_eq!(outcome.transactions_by_session.into_values().collect::<Vec<_>>(), [TRANSACTIONS]);
    assert!(outcome.switches > TRANSACTIONS / 4, "the tenants took turns only {} times", outcome.switches);
}

#[test]
fn tenants_over_few_server_sessions_never_mix_though_thousands_of_clients_vanish() {
    const TRANSACTIONS: usize = 50_000;
    let storm = Storm { tenants: 20, clients: 20, pool_size: 4, transactions: TRANSACTIONS, vanish_every: 20 };
    let outcome = storm::run(&storm);
    assert_eq!(outcome.transactions_by_session.values().sum::<usize>(), TRANSACTIONS);
    assert!(outcome.switches > TRANSACTIONS / 4, "the tenants took turns only {} times", outcome.switches);
}

/// Eight sessions add, promote, demote, remove, invite, delete and give keys to the same five people, at every isolation level.
#[test]
fn whatever_sessions_do_to_the_same_people_for_long_the_state_is_legal() {
    let succeeded = people::run(8, 4_000);
    assert!(succeeded.len() > 13, "too little happened: {succeeded:?}");
}

/// `kill -9` ten times in the middle of creates, changes, deletions, purges and writes.
#[test]
fn after_each_of_ten_crashes_every_tenant_is_in_a_legal_state() {
    crash::survive(10);
}

/// A hundred thousand tenants are found, bound, listed and purged like ten.
#[test]
fn a_hundred_thousand_tenants_are_ordinary() {
    const TENANTS: i64 = 100_000;
    let database = Database::new("many_tenants");
    protected_table(&database);
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    operator
        .batch_execute(&format!("SELECT count(create_tenant('Tenant ' || i)) FROM generate_series(1, {TENANTS}) i"))
        .expect("create");
    assert_eq!(count(&mut operator, "tenancy.tenant_overview"), TENANTS);
    for number in (1..=TENANTS).step_by(997) {
        let mut transaction = app.transaction().expect("begin");
        let slug = format!("tenant-{number}");
        let bound: Uuid = one(&mut transaction, "SELECT set_tenant_by_slug($1)", &[&slug]);
        let named: String = one(&mut transaction, "SELECT slug FROM tenancy.tenants", &[]);
        assert_eq!(named, slug);
        one::<i64>(&mut transaction, "INSERT INTO notes (body) VALUES ($1) RETURNING id", &[&slug]);
        assert_eq!(one::<Uuid>(&mut transaction, "SELECT DISTINCT tenant_id FROM notes", &[]), bound);
        transaction.commit().expect("commit");
    }
    let gone: Uuid = one(&mut operator, "SELECT find_tenant('tenant-998')", &[]);
    operator.execute("SELECT delete_tenant($1)", &[&gone]).expect("delete");
    database.connect("admin").batch_execute(&format!("CALL purge_tenant('{gone}', force => true)")).expect("purge");
    assert_eq!(count(&mut database.superuser(), &format!("notes WHERE tenant_id = '{gone}'")), 0);
    assert_eq!(count(&mut operator, "tenancy.tenants"), TENANTS - 1);
}

#[test]
fn none_of_a_hundred_thousand_tokens_that_are_changed_at_random_is_believed() {
    token_fuzz::survive(100_000);
}

#[test]
fn a_hundred_thousand_damaged_keys_let_nobody_in() {
    key_fuzz::run(100_000);
}

#[test]
fn a_migration_that_fails_for_seven_of_a_thousand_tenants_is_mended_and_resumed() {
    fleet::mend(1_000, 7);
}

#[test]
fn after_each_of_three_crashes_each_of_a_thousand_tenants_is_migrated_once() {
    fleet::survive(1_000, 3);
}

/// Twenty writers, rollbacks, savepoints, two-phase commits, long transactions and keys used by many, while the rollup runs.
#[test]
fn a_million_events_are_added_up_exactly_though_the_server_is_killed_five_times() {
    usage_storm::run(&usage_storm::Storm { writers: 20, events: 1_000_000, kills: 5 });
}

/// What a tenant's schema costs does not grow with the number of tenants, for a session that makes them all.
#[test]
fn the_last_of_a_thousand_schemas_takes_no_longer_than_the_first() {
    const TENANTS: usize = 1_000;
    let cluster = Cluster::start(Options::new());
    let database = crm::template(&cluster);
    let taken = crm::create(&database, TENANTS);
    let [first, last] = crm::first_and_last(&taken);
    println!("a tenant with its schema: {first:.1?} in the first hundred, {last:.1?} in the last");
    assert!(
        last.as_secs_f64() <= 1.5 * first.as_secs_f64(),
        "{first:.1?} in the first hundred, {last:.1?} in the last"
    );
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, "tenancy.tenants WHERE schema_name IS NOT NULL"), TENANTS as i64);
    assert_eq!(count(&mut superuser, "pg_class WHERE relname = 'contacts' AND relkind = 'r'"), TENANTS as i64 + 1);
}

/// Printed for the README: `TENANCY_SCHEMAS=3000 make soak TESTS='--ignored --nocapture in_figures'`.
#[test]
#[ignore = "takes half an hour, and prints rather than proves"]
fn thousands_of_schemas_in_figures() {
    let tenants = std::env::var("TENANCY_SCHEMAS").ok().and_then(|number| number.parse().ok());
    figures::print(tenants.unwrap_or(3_000));
}
