//! Isolation by schemas: each tenant has one of its own, an exact copy of a template.

use crate::level::Level;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[];
pub const RELATIONS: &[(Level, &str)] =
    &[(Level::Operator, "tenancy.templates"), (Level::Operator, "tenancy.applied_migrations")];

extension_sql_file!("../../../sql/schema.sql", name = "schema", requires = ["tenant", "guard"]);
