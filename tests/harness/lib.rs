//! What the tests, the soak test and the bench stand on: throwaway PostgreSQL clusters with the staged
//! library preloaded, a fresh database per test, sessions of the roles that users have, PgBouncer, and
//! assertions on SQLSTATEs.
//!
//! The tour: [`cluster`] is the server that most tests share and [`Cluster`] a private one; [`Database`] is
//! a fresh database on either; [`PgBouncer`] a pooler before a database; the functions of [`asserts`] and
//! [`fixtures`] are re-exported here. Nothing outlives the test process: see [`watcher`].

mod asserts;
mod cluster;
mod database;
mod fixtures;
mod notices;
mod pgbouncer;
mod random;
mod stage;
mod watcher;

pub use asserts::{count, fails, one, optional, rows, simple, text};
pub use cluster::{Cluster, Options, cluster};
pub use database::{Database, ROLES, Server};
pub use fixtures::{as_tenant, backend_pid, bind, protected_table, tenant, tenants, wait_for_lock, wait_until};
pub use notices::Notices;
pub use pgbouncer::{PgBouncer, PoolOptions};
pub use random::Random;
pub use stage::{free_port, run};

pub use postgres;
pub use postgres::error::DbError;
pub use postgres::{Client, GenericClient, Transaction};
pub use uuid::Uuid;
