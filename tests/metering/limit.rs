//! Limits on the number of a tenant's live rows: never passed, whatever runs at once, and the counters are exact.

mod check;
pub mod fixtures;
mod members;
mod partitions;
mod schemas;
mod statements;
mod storm;
mod tables;
