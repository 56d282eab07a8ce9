//! Which rows a tenant's own database has a copy of.

use crate::database::found;
use crate::error::{Error, Result};
use crate::home;
use crate::json::Jsonb;
use crate::query;
use crate::sqltype::Name;
use pgrx::{Uuid, pg_sys};

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

const TENANTS: &str = "tenants";

/// Everything that is copied. A key that signs tokens stays where they are issued; one that also verifies them has to be there.
pub const COPIED: &[Copied] = &[
    all("plans", &["plan"]),
    all("plan_limits", &["plan", "resource", "period"]),
    all("plan_rate_limits", &["plan", "resource"]),
    all("metrics", &["metric"]),
    all("added_roles", &["role"]),
    Copied { table: "stored_jwt_keys", key: &["kid"], rows: "true", own: &["signing_key"] },
    all("limited_memberships", &["resource"]),
    Copied { table: TENANTS, key: &["id"], rows: "x.id = $1", own: &["moved_from"] },
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

/// One that is being made is told everything at the end of that.
const UNFINISHED: &str =
    "SELECT true FROM tenancy.tenant_databases WHERE tenant_id = $1 AND phase NOT IN ('filled', 'ready')";
const DATABASE: &str = "SELECT database_name FROM tenancy.tenants WHERE id = $1 AND isolation = 'database'";
/// What the registry will say of a tenant that is being moved to a database: that is made before.
const AS_MOVED: &str = " || CASE WHEN x.isolation <> 'database' THEN coalesce((SELECT pg_catalog.jsonb_build_object('isolation', 'database',
        'database_name', d.database_name, 'schema_name', d.schema_name, 'template', d.template)
    FROM tenancy.tenant_databases d WHERE d.tenant_id = x.id), '{}') ELSE '{}' END";
const DIGEST: &str = "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8')), 'hex')";
const LEVELS: &str =
    "SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.role, a.level) ORDER BY a.role, a.level), '[]')
    FROM tenancy.access a WHERE a.role_oid <> 0";

const LIMITS: &str =
    "SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(c.relname, l.resource, l.condition)
        ORDER BY c.relname, l.resource), '[]')
    FROM tenancy.limited_tables l JOIN pg_catalog.pg_class c ON c.oid = l.table_name AND NOT c.relispartition
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN tenancy.templates p ON p.schema_name = n.nspname
    JOIN tenancy.tenants t ON t.template = p.template WHERE t.id = $1";

/// What a tenant's own database is told.
pub struct Contents {
    /// The rows of each table, as an object of arrays, without numbers that a parser could round: PostgreSQL writes and reads it.
    pub rows: String,
    /// Roles with their levels, as an array of pairs.
    pub levels: String,
    /// By what the tenant's tables are limited: the name of the table, the resource, and which rows count.
    pub limits: String,
    pub digest: String,
}

/// The database of a tenant that has one of its own, or that is being made for it; None for another tenant, or none.
pub fn database_of(tenant: Uuid) -> Result<Option<pg_sys::Oid>> {
    if !query::current_rows(UNFINISHED, &[tenant.into()], |_| Ok(()))?.is_empty() {
        return Ok(None);
    }
    if let Some(database) = found::of(tenant)? {
        return Ok(Some(database));
    }
    let name = query::current_rows(DATABASE, &[tenant.into()], |row| row.get::<Name>(1))?.pop().flatten();
    name.map(|Name(name)| home::find(tenant, &name)).transpose()
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
        let limits = text(LIMITS, Some(tenant))?;
        let digest = query::value(DIGEST, &[format!("{rows}{levels}{limits}").into()])?;
        Ok(Self { rows, levels, limits, digest: digest.ok_or_else(|| Error::Internal("a digest is null".to_owned()))? })
    }
}

/// One statement, so that all is of one moment.
fn rows_of_all_tables() -> String {
    let tables: Vec<String> = COPIED
        .iter()
        .map(|Copied { table, key, rows, own }| {
            let key: Vec<String> = key.iter().map(|column| format!("x.{column}")).collect();
            let mut change: String = own.iter().map(|column| format!(" - '{column}'")).collect();
            if *table == TENANTS {
                change.push_str(AS_MOVED);
            }
            format!(
                "'{table}', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(x){change} ORDER BY {}), '[]') FROM tenancy.{table} x WHERE {rows})",
                key.join(", ")
            )
        })
        .collect();
    format!("SELECT pg_catalog.jsonb_build_object({})", tables.join(", "))
}
