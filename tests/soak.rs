//! The tests that take long: what the sessions prove in moments, under load. Run by `make soak`.

#[path = "crash.rs"]
mod crash;
#[path = "pooling/storm.rs"]
mod storm;
#[path = "pooling/wire.rs"]
mod wire;

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

/// `kill -9` ten times in the middle of creates, changes, deletions, purges and writes.
#[test]
fn after_each_of_ten_crashes_every_tenant_is_in_a_legal_state() {
    crash::survive(10);
}
