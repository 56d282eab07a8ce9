//! Limits on the number of a tenant's live rows: never passed, whatever runs at once, and the counters are exact.

pub mod fixtures;
mod statements;
mod storm;
