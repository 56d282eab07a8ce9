//! Names of schemas.

use super::copy::Schema;
use crate::error::{Error, Result};
use pgrx::{Uuid, pg_sys};

/// What PostgreSQL cuts longer names to (NAMEDATALEN - 1).
const MAX_LENGTH: usize = 63;

const ID: &str = "{id}";
const SLUG: &str = "{slug}";

/// Fails unless the pattern gives each tenant a name of its own.
pub fn check_pattern(pattern: &str) -> Result<()> {
    if pattern.contains(ID) || pattern.contains(SLUG) {
        return check(&fill(pattern, Uuid::from_bytes([0; 16]), "x"));
    }
    Err(Error::invalid(
        format!("tenant_schema \"{pattern}\" would give every tenant the same schema"),
        "Put {id} or {slug} into it.",
    ))
}

/// The pattern's name for a tenant.
pub fn fill(pattern: &str, tenant: Uuid, slug: &str) -> String {
    pattern.replace(ID, &tenant.to_string()).replace(SLUG, slug)
}

/// Fails unless a schema can have this name.
pub fn check(name: &str) -> Result<()> {
    if name.trim().is_empty() || name.len() > MAX_LENGTH {
        return Err(Error::invalid(format!("a schema's name cannot be empty or longer than 63 bytes: \"{name}\""), ""));
    }
    if name.starts_with("pg_") || matches!(name, "information_schema" | "tenancy" | "public") {
        return Err(Error::invalid(format!("schema name \"{name}\" is reserved"), "Choose another one."));
    }
    Ok(())
}

/// Fails for schemas that are PostgreSQL's or our own.
pub fn check_ordinary(schema: &Schema) -> Result<()> {
    let is_system = schema.oid.to_u32() < pg_sys::FirstNormalObjectId && schema.name != "public";
    if is_system || matches!(schema.name.as_str(), "tenancy") || schema.name.starts_with("pg_") {
        return Err(Error::invalid(
            format!("schema \"{}\" cannot be a template", schema.name),
            "Put the tables into a schema of their own.",
        ));
    }
    Ok(())
}
