//! What a run has to do: which schemas, and what comes next for each.

use super::run::{Direction, Run};
use crate::error::Result;
use crate::query::{self, Row};
use crate::sqltype::Name;
use pgrx::datum::DatumWithOid;
use pgrx::{Uuid, pg_sys};

/// The schemas of one phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Template,
    Canaries,
    Tenants,
}

impl Phase {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Template, "template"), (Self::Canaries, "canaries"), (Self::Tenants, "tenants")];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(phase, _)| phase)
    }
}

/// A schema that has something to do: a tenant's, or the template's own.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub tenant: Option<Uuid>,
    /// How often this run has failed at it.
    pub attempts: i32,
}

/// A target at one attempt.
pub type Key = ([u8; 16], i32);

impl Target {
    pub fn key(&self) -> Key {
        (self.tenant.map_or([0; 16], |tenant| *tenant.as_bytes()), self.attempts)
    }
}

/// In each of these: `$1` the template, `$2` the run, `$3` the position that a rollback goes back to (0 for migrating), `$4` the canaries' metadata.
///
/// Tenants follow their template: they get what it has. A database that is being made gets that with the rest.
const TENANTS_UP: &str = "SELECT p.id, coalesce(f.attempts, 0) FROM (
        SELECT DISTINCT t.id FROM tenancy.tenants t
        JOIN tenancy.applied_migrations v ON v.template = $1 AND v.tenant_id IS NULL
        JOIN tenancy.migrations m ON m.template = $1 AND m.version = v.version
        WHERE t.template = $1 AND t.schema_name IS NOT NULL AND t.purge_started_at IS NULL
          AND NOT (t.isolation = 'database' AND t.status = 'provisioning') AND ($4::jsonb IS NULL OR t.metadata @> $4) AND m.position > $3
          AND NOT EXISTS (SELECT FROM tenancy.applied_migrations a WHERE a.template = $1 AND a.tenant_id = t.id AND a.version = v.version)
    ) AS p LEFT JOIN tenancy.failed_migrations f ON f.template = $1 AND f.tenant_id = p.id AND f.run_id = $2
    ORDER BY p.id";
const TENANTS_DOWN: &str = "SELECT p.id, coalesce(f.attempts, 0) FROM (
        SELECT DISTINCT t.id FROM tenancy.tenants t
        JOIN tenancy.applied_migrations a ON a.template = $1 AND a.tenant_id = t.id
        JOIN tenancy.migrations m ON m.template = $1 AND m.version = a.version
        WHERE t.template = $1 AND t.schema_name IS NOT NULL AND t.purge_started_at IS NULL
          AND NOT (t.isolation = 'database' AND t.status = 'provisioning') AND ($4::jsonb IS NULL OR t.metadata @> $4) AND m.position > $3
    ) AS p LEFT JOIN tenancy.failed_migrations f ON f.template = $1 AND f.tenant_id = p.id AND f.run_id = $2
    ORDER BY p.id";
const TEMPLATE_UP: &str = "SELECT NULL::uuid, coalesce(max(f.attempts), 0) FROM tenancy.migrations m
    LEFT JOIN tenancy.failed_migrations f ON f.template = $1 AND f.tenant_id IS NULL AND f.run_id = $2
    WHERE m.template = $1 AND m.position > $3 AND $4::jsonb IS NULL
      AND NOT EXISTS (SELECT FROM tenancy.applied_migrations a WHERE a.template = $1 AND a.tenant_id IS NULL AND a.version = m.version)
    HAVING count(*) > 0";
const TEMPLATE_DOWN: &str = "SELECT NULL::uuid, coalesce(max(f.attempts), 0) FROM tenancy.migrations m
    JOIN tenancy.applied_migrations a ON a.template = $1 AND a.tenant_id IS NULL AND a.version = m.version
    LEFT JOIN tenancy.failed_migrations f ON f.template = $1 AND f.tenant_id IS NULL AND f.run_id = $2
    WHERE m.template = $1 AND m.position > $3 AND $4::jsonb IS NULL
    HAVING count(*) > 0";

/// What a run still has to do in a phase, what has failed included.
pub fn pending(run: &Run, phase: Phase) -> Result<Vec<Target>> {
    let sql = match (phase, run.direction) {
        (Phase::Template, Direction::Up) => TEMPLATE_UP,
        (Phase::Template, Direction::Down) => TEMPLATE_DOWN,
        (_, Direction::Up) => TENANTS_UP,
        (_, Direction::Down) => TENANTS_DOWN,
    };
    let canary = if phase == Phase::Canaries { run.canary.clone() } else { None };
    let args: [DatumWithOid; 4] = [run.template.clone().into(), run.id.into(), run.position.into(), canary.into()];
    query::current_rows(sql, &args, |row| Ok(Target { tenant: row.get(1)?, attempts: row.must(2)? }))
}

/// The next thing to do to a target.
pub struct Step {
    /// The schema; None when it is not there any more.
    pub schema: Option<pg_sys::Oid>,
    pub schema_name: String,
    /// What people call the target.
    pub called: String,
    /// Who owns the template's schema; None when that is not there any more.
    pub owner: Option<pg_sys::Oid>,
    pub version: String,
    pub sql: Option<String>,
    pub verify_sql: Option<String>,
    pub transactional: bool,
    /// Whether nothing comes after it.
    pub is_last: bool,
    /// How often this run has failed at it.
    pub attempts: i32,
    /// The database of its own that the schema is in; None for this one.
    pub database: Option<String>,
}

/// What comes next for a target, with `$4` the run, `$1` the template, `$2` the tenant and `$3` the position that a rollback goes back to, 0 for
/// migrating.
const NEXT_FOR_TENANT_UP: &str = "SELECT n.oid, t.schema_name::text, 'tenant ' || t.slug, s.nspowner, m.version, m.sql, m.verify_sql, m.transactional, m.remaining = 1,
        coalesce((SELECT f.attempts FROM tenancy.failed_migrations f
            WHERE f.template = $1 AND f.tenant_id = $2 AND f.version = m.version AND f.run_id = $4), 0),
        CASE t.isolation WHEN 'database' THEN t.database_name END
    FROM tenancy.tenants t
    JOIN tenancy.templates p ON p.template = t.template
    LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema_name AND t.isolation <> 'database'
    LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = p.schema_name
    CROSS JOIN LATERAL (
        SELECT i.*, count(*) OVER () AS remaining FROM tenancy.migrations i
        JOIN tenancy.applied_migrations v ON v.template = $1 AND v.tenant_id IS NULL AND v.version = i.version
        WHERE i.template = $1 AND i.position > $3
          AND NOT EXISTS (SELECT FROM tenancy.applied_migrations a WHERE a.template = $1 AND a.tenant_id = $2 AND a.version = i.version)
        ORDER BY i.position LIMIT 1) AS m
    WHERE t.id = $2 AND t.template = $1 AND t.purge_started_at IS NULL";
const NEXT_FOR_TENANT_DOWN: &str = "SELECT n.oid, t.schema_name::text, 'tenant ' || t.slug, s.nspowner, m.version, m.down_sql, NULL::text, m.transactional, m.remaining = 1,
        coalesce((SELECT f.attempts FROM tenancy.failed_migrations f
            WHERE f.template = $1 AND f.tenant_id = $2 AND f.version = m.version AND f.run_id = $4), 0),
        CASE t.isolation WHEN 'database' THEN t.database_name END
    FROM tenancy.tenants t
    JOIN tenancy.templates p ON p.template = t.template
    LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema_name AND t.isolation <> 'database'
    LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = p.schema_name
    CROSS JOIN LATERAL (
        SELECT i.*, count(*) OVER () AS remaining FROM tenancy.migrations i
        JOIN tenancy.applied_migrations a ON a.template = $1 AND a.tenant_id = $2 AND a.version = i.version
        WHERE i.template = $1 AND i.position > $3
        ORDER BY i.position DESC LIMIT 1) AS m
    WHERE t.id = $2 AND t.template = $1 AND t.purge_started_at IS NULL";
const NEXT_FOR_TEMPLATE_UP: &str = "SELECT s.oid, p.schema_name::text, 'template ' || p.template, s.nspowner, m.version, m.sql, m.verify_sql, m.transactional, m.remaining = 1,
        coalesce((SELECT f.attempts FROM tenancy.failed_migrations f
            WHERE f.template = $1 AND f.tenant_id IS NULL AND f.version = m.version AND f.run_id = $4), 0),
        NULL::name
    FROM tenancy.templates p
    LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = p.schema_name
    CROSS JOIN LATERAL (
        SELECT i.*, count(*) OVER () AS remaining FROM tenancy.migrations i
        WHERE i.template = $1 AND i.position > $3 AND NOT EXISTS (SELECT FROM tenancy.applied_migrations a
            WHERE a.template = $1 AND a.tenant_id IS NULL AND a.version = i.version)
        ORDER BY i.position LIMIT 1) AS m
    WHERE p.template = $1 AND $2::uuid IS NULL";
const NEXT_FOR_TEMPLATE_DOWN: &str = "SELECT s.oid, p.schema_name::text, 'template ' || p.template, s.nspowner, m.version, m.down_sql, NULL::text, m.transactional, m.remaining = 1,
        coalesce((SELECT f.attempts FROM tenancy.failed_migrations f
            WHERE f.template = $1 AND f.tenant_id IS NULL AND f.version = m.version AND f.run_id = $4), 0),
        NULL::name
    FROM tenancy.templates p
    LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = p.schema_name
    CROSS JOIN LATERAL (
        SELECT i.*, count(*) OVER () AS remaining FROM tenancy.migrations i
        JOIN tenancy.applied_migrations a ON a.template = $1 AND a.tenant_id IS NULL AND a.version = i.version
        WHERE i.template = $1 AND i.position > $3
        ORDER BY i.position DESC LIMIT 1) AS m
    WHERE p.template = $1 AND $2::uuid IS NULL";

/// The next thing to do to a tenant's schema, or the template's; None when there is nothing, or the schema is no target any more.
pub fn next(run: &Run, tenant: Option<Uuid>) -> Result<Option<Step>> {
    let sql = match (tenant, run.direction) {
        (Some(_), Direction::Up) => NEXT_FOR_TENANT_UP,
        (Some(_), Direction::Down) => NEXT_FOR_TENANT_DOWN,
        (None, Direction::Up) => NEXT_FOR_TEMPLATE_UP,
        (None, Direction::Down) => NEXT_FOR_TEMPLATE_DOWN,
    };
    let map = |row: &Row| {
        Ok(Step {
            schema: row.get(1)?,
            schema_name: row.get(2)?.unwrap_or_default(),
            called: row.must(3)?,
            owner: row.get(4)?,
            version: row.must(5)?,
            sql: row.get(6)?,
            verify_sql: row.get(7)?,
            transactional: row.must(8)?,
            is_last: row.must(9)?,
            attempts: row.must(10)?,
            database: row.get::<Name>(11)?.map(|Name(name)| name),
        })
    };
    let args: [DatumWithOid; 4] = [run.template.clone().into(), tenant.into(), run.position.into(), run.id.into()];
    Ok(query::current_rows(sql, &args, map)?.into_iter().next())
}
