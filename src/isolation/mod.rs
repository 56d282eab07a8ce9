//! Where a tenant's rows live and how they are kept apart.

pub mod row;

use crate::level::Level;

pub const FUNCTIONS: &[(Level, &str)] = row::FUNCTIONS;
pub const RELATIONS: &[(Level, &str)] = row::RELATIONS;
