//! `export_tenant`: everything of one tenant, of one moment.

use super::format::{self, kind};
use super::writer::{Out, Records};
use super::{dump, remote};
use crate::context::registry::Status;
use crate::database;
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{Mode, Subject};
use crate::home;
use crate::json::{Jsonb, Object};
use crate::query;
use crate::role;
use crate::row_file;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

const TENANT: &str = "SELECT t.status, t.isolation, t.schema_name::text, t.purge_started_at IS NOT NULL,
        pg_catalog.jsonb_build_object('id', t.id, 'slug', t.slug, 'name', t.name, 'plan', t.plan, 'external_id', t.external_id,
            'metadata', t.metadata, 'status', t.status, 'status_reason', t.status_reason, 'status_since', t.status_since, 'created_at', t.created_at),
        t.template::text,
        coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('version', a.version, 'checksum', m.checksum) ORDER BY m.position, a.version)
                  FROM tenancy.applied_migrations a LEFT JOIN tenancy.migrations m ON m.template = a.template AND m.version = a.version
                  WHERE a.tenant_id = t.id), '[]')
    FROM tenancy.tenants t WHERE t.id = $1";
const EXTENSION_VERSION: &str = "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_tenancy'";

/// The tenant's row of the registry, as the active snapshot has it.
struct Source {
    status: Status,
    isolation: String,
    schema: Option<String>,
    is_purged: bool,
    tenant: Jsonb,
    template: Option<String>,
    migrations: Jsonb,
}

impl Source {
    fn read(tenant: Uuid) -> Result<Self> {
        let found = query::active_rows(TENANT, &[tenant.into()], |row| {
            Ok(Self {
                status: Status::from_name(&row.must::<String>(1)?)?,
                isolation: row.must(2)?,
                schema: row.get(3)?,
                is_purged: row.must(4)?,
                tenant: row.must(5)?,
                template: row.get(6)?,
                migrations: row.must(7)?,
            })
        })?;
        found.into_iter().next().ok_or_else(|| Error::unknown_tenant(tenant))
    }

    /// Fails on a tenant of which nobody can say what is where.
    fn check(&self, tenant: Uuid) -> Result<()> {
        match self.status {
            _ if self.is_purged => Err(Error::PurgeBegun),
            Status::Provisioning | Status::Moving => {
                Err(Error::TenantBusy { tenant: tenant.to_string(), state: self.status.name() })
            }
            _ => Ok(()),
        }
    }

    fn header(&self) -> Result<Jsonb> {
        let version = query::active_rows(EXTENSION_VERSION, &[], |row| row.must::<String>(1))?;
        Ok(Object::new()
            .number("format", format::VERSION.into())
            .text("extension_version", version.first().map_or("", String::as_str))
            .text("isolation", &self.isolation)
            .optional("template", self.template.as_deref())
            .jsonb("migrations", &self.migrations)
            .jsonb("tenant", &self.tenant)
            .finish())
    }
}

/// Writes everything of the tenant, as the active snapshot has it; what is in a database of its own is of a moment soon after.
fn write(tenant: Uuid, mut records: Records) -> Result<()> {
    Subject::schema_of(tenant).lock(Mode::Share);
    let source = Source::read(tenant)?;
    source.check(tenant)?;
    let name = tenant.to_string();
    records.put(kind::HEADER, &name, source.header()?.as_str(), 0)?;
    dump::write_own(&mut records, tenant, false)?;
    let schema = source.schema.as_deref();
    if source.isolation == "database" && !home::is_of(tenant.as_bytes()) {
        let database = database::oid_of(tenant)?.ok_or_else(|| Error::Unknown("database of tenant", name.clone()))?;
        remote::write(&mut records, tenant, database, schema)?;
    } else {
        dump::write_own(&mut records, tenant, true)?;
        dump::write_place(&mut records, tenant, schema)?;
    }
    records.end(&name);
    Ok(())
}

/// Everything of one tenant, as records.
#[pg_extern(
    sql = "CREATE FUNCTION export_tenant(tenant uuid) RETURNS TABLE (seq bigint, kind text, name text, data text)
    LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn export_tenant(tenant: Option<Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    // SAFETY: PostgreSQL is calling this function with this record.
    let records = unsafe { Records::begin(fcinfo) };
    role::with_settings(format::SETTINGS, || row_file::with_settings(|| write(tenant, records)))?;
    Ok(())
}
