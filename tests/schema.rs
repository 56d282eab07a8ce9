//! Isolation by schemas, under attack: what is promised of templates, of tenants' schemas and of whoever works on them.

pub mod arguments;
mod clones;
mod crash;
mod drift;
mod escalate;
pub mod fixtures;
mod lifecycle;
mod statistics;
mod storm;
