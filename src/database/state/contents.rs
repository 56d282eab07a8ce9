//! Which rows a tenant's own database has a copy of.

use crate::error::{Error, Result};
use crate::json::Jsonb;
use crate::query;
use crate::sqltype::Name;
use pgrx::Uuid;

/// A table, the columns that tell its rows apart, and which of its rows concern tenant `$1`. Each refers to nothing but those before it.
pub struct Copied {
    pub table: &'static str,
    pub key: &'static [&'static str],
    rows: &'static str,
    /// Columns that are the copy's own.
    pub own: &'static [&'static str],
}

const fn all(table: &'static str, key: &'static [&'static str]) -> Copied {
    Copied { table, key, rows: "true", own: &[] }
}

const fn of_tenant(table: &'static str, key: &'static [&'static str]) -> Copied {
    Copied { table, key, rows: "x.tenant_id = $1", own: &[] }
}

/// Everything that is copied. A key that signs tokens stays where they are issued; one that also verifies them has to be there.
pub const COPIED: &[Copied] = &[
    all("plans", &["plan"]),
    all("plan_limits", &["plan", "resource", "period"]),
    all("plan_rate_limits", &["plan", "resource"]),
    all("metrics", &["metric"]),
    all("added_roles", &["role"]),
    Copied { table: "stored_jwt_keys", key: &["kid"], rows: "true", own: &["signing_key"] },
    all("limited_memberships", &["resource"]),
    Copied { table: "tenants", key: &["id"], rows: "x.id = $1", own: &[] },
    of_tenant("subscriptions", &["tenant_id"]),
    of_tenant("tenant_limits", &["tenant_id", "resource", "period"]),
    of_tenant("tenant_rate_limits", &["tenant_id", "resource"]),
    Copied {
        table: "users",
        key: &["id"],
        rows: "(x.tenant_id = $1 OR x.id IN (SELECT m.user_id FROM tenancy.memberships m WHERE m.tenant_id = $1))",
        own: &["last_login_at"],
    },
    of_tenant("memberships", &["tenant_id", "user_id"]),
    of_tenant("stored_api_keys", &["id"]),
];

/// One that is still being made is told as its last step.
const TENANT: &str = "SELECT t.database_name, t.isolation = 'database' AND NOT EXISTS (
        SELECT FROM tenancy.tenant_databases d WHERE d.tenant_id = t.id AND d.phase NOT IN ('filled', 'ready'))
    FROM tenancy.tenants t WHERE t.id = $1";
const DIGEST: &str = "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8')), 'hex')";
const LEVELS: &str =
    "SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.role, a.level) ORDER BY a.role, a.level), '[]')
    FROM tenancy.access a WHERE a.role_oid <> 0";

/// What a tenant's own database is told.
pub struct Contents {
    /// The rows of each table, as an object of arrays, without numbers that a parser could round: PostgreSQL writes and reads it.
    pub rows: String,
    /// Roles with their levels, as an array of pairs.
    pub levels: String,
    pub digest: String,
}

/// The name of the database of a tenant that has one of its own; None for another tenant, or none.
pub fn database_of(tenant: Uuid) -> Result<Option<String>> {
    let found = query::current_rows(TENANT, &[tenant.into()], |row| Ok((row.get::<Name>(1)?, row.must::<bool>(2)?)))?;
    Ok(found.into_iter().next().and_then(|(name, is_database)| name.filter(|_| is_database)).map(|Name(name)| name))
}

fn text(sql: &str, tenant: Option<Uuid>) -> Result<String> {
    let args = tenant.map(|tenant| [tenant.into()]);
    let found = query::current_column::<Jsonb>(sql, args.as_ref().map_or(&[], |args| args.as_slice()))?;
    let text = found.into_iter().next().flatten().map(|rows| rows.as_str().to_owned());
    text.ok_or_else(|| Error::Internal("a state is null".to_owned()))
}

impl Contents {
    /// What is committed now.
    pub fn read(tenant: Uuid) -> Result<Self> {
        let rows = text(&rows_of_all_tables(), Some(tenant))?;
        let levels = text(LEVELS, None)?;
        let digest = query::value(DIGEST, &[format!("{rows}{levels}").into()])?;
        Ok(Self { rows, levels, digest: digest.ok_or_else(|| Error::Internal("a digest is null".to_owned()))? })
    }
}

/// One statement, so that all is of one moment.
fn rows_of_all_tables() -> String {
    let tables: Vec<String> = COPIED
        .iter()
        .map(|Copied { table, key, rows, own }| {
            let key: Vec<String> = key.iter().map(|column| format!("x.{column}")).collect();
            let own: String = own.iter().map(|column| format!(" - '{column}'")).collect();
            format!(
                "'{table}', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(x){own} ORDER BY {}), '[]') FROM tenancy.{table} x WHERE {rows})",
                key.join(", ")
            )
        })
        .collect();
    format!("SELECT pg_catalog.jsonb_build_object({})", tables.join(", "))
}
