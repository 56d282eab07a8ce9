//! `kill -9` at any moment while databases of tenants are made and dropped.

#[path = "../database/crash.rs"]
mod crash;
#[path = "../database/fixtures.rs"]
mod fixtures;

#[test]
fn after_each_of_twenty_crashes_every_database_is_whole_or_not_there() {
    crash::survive(20);
}
