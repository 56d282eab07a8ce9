//! A database per tenant.

mod fixtures;
mod provisioning;
