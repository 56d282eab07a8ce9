//! The figures, in groups that share a server.

pub mod adopt;
pub mod clone;
pub mod create;
pub mod export;
pub mod fleet;
pub mod insert;
pub mod keys;
pub mod limits;
pub mod months;
#[path = "move.rs"]
pub mod moving;
pub mod principal;
pub mod rates;
pub mod rows;
pub mod schemas;
pub mod search;
pub mod skew;
pub mod unrelated;
pub mod usage;
