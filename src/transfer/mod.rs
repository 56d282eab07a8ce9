//! Tenants as a whole, on their way from one place to another.
//!
//! - [`moving`]: between the isolations of one server.

pub mod moving;
