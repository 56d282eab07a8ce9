//! The agent platform by sqlx and axum. The middleware in `bind` is what to copy; nothing else knows of tenants.

pub mod app;
pub mod bind;
pub mod fault;
pub mod models;
pub mod unnamed;
