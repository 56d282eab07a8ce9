//! Limits on live rows, under load and through crashes.

#[path = "../metering/limit/fixtures.rs"]
#[allow(dead_code)]
mod fixtures;
#[path = "../metering/limit/storm.rs"]
#[allow(dead_code)]
mod storm;

#[test]
fn fifty_sessions_mix_all_they_can_for_long_and_the_limit_holds() {
    storm::mix(50, 400);
}

#[test]
fn after_each_of_ten_crashes_the_counters_are_the_rows() {
    storm::survive(10);
}
