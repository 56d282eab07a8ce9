//! What a tenant's own database is told by the control database, and what it reports to it.

#[path = "database_state/down.rs"]
mod down;
#[path = "database_state/fixtures.rs"]
pub mod fixtures;
#[path = "database_state/migrations.rs"]
mod migrations;
#[path = "database_state/refused.rs"]
mod refused;
#[path = "database_state/storm.rs"]
mod storm;
#[path = "database_state/up.rs"]
mod up;
