//! The figures, in groups that share a server.

pub mod create;
pub mod insert;
pub mod keys;
pub mod principal;
pub mod rows;
pub mod skew;
pub mod unrelated;
