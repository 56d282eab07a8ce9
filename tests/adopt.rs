//! A single-tenant application's tables become tables that tenants share: with all their rows, while it goes on.

pub mod fixtures;

mod chinook;
mod crash;
mod each;
mod fill;
mod keys;
mod online;
mod refused;
mod shapes;
mod tenants;
