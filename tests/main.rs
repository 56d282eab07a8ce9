//! Every promise of pg_tenancy, proven by real sessions of the roles that users have: one module per domain.

mod install;
mod pooling;
mod tenant;
