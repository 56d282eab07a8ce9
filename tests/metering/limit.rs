//! Limits on the number of a tenant's live rows: never passed, whatever runs at once, and the counters are exact.

mod check;
pub mod fixtures;
mod members;
mod partitions;
mod schemas;
mod statements;
mod storm;
mod tables;

#[test]
fn fifty_sessions_fill_a_table_to_exactly_its_limit() {
    storm::fill();
}

#[test]
fn whatever_sessions_mix_the_count_is_that_of_the_rows_and_the_limit_holds() {
    storm::mix(8, 150);
}

#[test]
fn after_a_crash_the_counters_are_the_rows() {
    storm::survive(3);
}

#[test]
fn two_resources_in_opposite_orders_do_not_deadlock() {
    storm::oppose();
}
