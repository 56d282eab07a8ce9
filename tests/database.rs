//! A database per tenant.

mod crash;
mod failures;
mod fixtures;
mod lifecycle;
mod pgbouncer;
mod provisioning;
