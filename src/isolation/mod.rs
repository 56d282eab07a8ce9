//! Where a tenant's rows live and how they are kept apart.

pub mod adopt;
mod keys;
pub mod row;
pub mod schema;
