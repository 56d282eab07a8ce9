//! Every promise of pg_tenancy, proven by real sessions of the roles that users have: one module per domain.

mod access;
mod adopt;
mod audit;
mod authority;
mod backup;
mod context;
mod crash;
mod database;
mod dump;
mod examples;
mod fleet;
mod guard;
mod install;
mod maintenance;
mod metering;
mod pooling;
mod purge;
mod readme;
mod row;
mod scale;
mod schema;
mod schema_clone;
mod schema_guard;
mod secrecy;
mod standby;
mod tenant;
