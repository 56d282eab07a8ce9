//! The tenant of an export in the registry.

use super::unpack::Package;
use super::{Mode, Wishes};
use crate::audit::{self, Entry};
use crate::context::registry::{self, Status};
use crate::error::{Error, Result};
use crate::guard::lock::{self, Mode as LockMode, Subject};
use crate::json::{Jsonb, Object};
use crate::metering::plan;
use crate::query;
use crate::tenant;
use pgrx::{Uuid, notice};

const RANDOM: &str = "SELECT pg_catalog.gen_random_uuid()";
const TEMPLATE: &str = "SELECT true FROM tenancy.templates WHERE template = $1::name";
const REGISTERED: &str = "SELECT slug, status, isolation, schema_name::text, status_reason FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const SOURCE: &str = "SELECT t.name, t.slug, t.plan, t.external_id, t.metadata
    FROM pg_catalog.jsonb_to_record($1::jsonb -> 'tenant') AS t (name text, slug text, plan text, external_id text, metadata jsonb)";
/// The rest of what the tenant was. One that was deleted comes as cancelled.
const RESTORE: &str = "UPDATE tenancy.tenants AS t SET created_at = f.created_at, status_since = f.status_since, status_reason = f.status_reason,
        status = CASE WHEN f.status = 'deleted' THEN 'cancelled' ELSE f.status END
    FROM pg_catalog.jsonb_to_record($2::jsonb -> 'tenant') AS f (created_at timestamptz, status text, status_since timestamptz, status_reason text)
    WHERE t.id = $1";

/// A tenant as the registry has it.
pub struct Registered {
    pub slug: String,
    pub status: Status,
    pub isolation: String,
    pub schema: Option<String>,
    pub status_reason: Option<String>,
}

impl Registered {
    /// The row, locked until the transaction ends.
    pub fn find(tenant: Uuid) -> Result<Option<Self>> {
        let found = query::current_rows(REGISTERED, &[tenant.into()], |row| {
            Ok(Self {
                slug: row.must(1)?,
                status: Status::from_name(&row.must::<String>(2)?)?,
                isolation: row.must(3)?,
                schema: row.get(4)?,
                status_reason: row.get(5)?,
            })
        })?;
        Ok(found.into_iter().next())
    }

    pub fn get(tenant: Uuid) -> Result<Self> {
        Self::find(tenant)?.ok_or_else(|| Error::unknown_tenant(tenant))
    }
}

/// What the tenant of a file was called.
#[derive(Default)]
struct Source {
    name: Option<String>,
    slug: Option<String>,
    plan: Option<String>,
    external_id: Option<String>,
    metadata: Option<Jsonb>,
}

impl Source {
    fn read(package: &Package) -> Result<Self> {
        let found = query::current_rows(SOURCE, &[package.header.json.as_str().into()], |row| {
            Ok(Self {
                name: row.get(1)?,
                slug: row.get(2)?,
                plan: row.get(3)?,
                external_id: row.get(4)?,
                metadata: row.get(5)?,
            })
        })?;
        Ok(found.into_iter().next().unwrap_or_default())
    }
}

/// Where the rows of the tenant will be.
pub fn isolation(package: &Package, wishes: &Wishes) -> Result<String> {
    match &wishes.isolation {
        Some(isolation) => plan::check_isolation(isolation).map(str::to_owned),
        None => plan::isolation_of(&wishes.plan.clone().or(Source::read(package)?.plan).unwrap_or_default()),
    }
}

/// Registers the tenant; its schema is made, or its database asked for, where its isolation says so.
pub fn register(package: &Package, wishes: &Wishes) -> Result<Uuid> {
    let header = &package.header;
    let source = Source::read(package)?;
    let is_new = wishes.mode == Mode::New;
    let id = if is_new { Some(header.tenant) } else { wishes.id };
    if id == Some(header.tenant) && !is_new {
        return Err(Error::invalid("a tenant beside another has another id", ""));
    }
    if let Some(id) = id
        && registry::find(id)?.is_some()
    {
        return Err(Error::Duplicate("tenant", id.to_string()));
    }
    let template = match (&wishes.template, &header.template) {
        (Some(template), _) => Some(template.clone()),
        (None, Some(template)) if isolation(package, wishes)? != "row" => {
            query::value::<bool>(TEMPLATE, &[template.as_str().into()])?.map(|_| template.clone())
        }
        _ => None,
    };
    // By its code and not by its name: whoever may create functions in the extension's schema could have made another of that name.
    tenant::create(tenant::Wanted {
        name: source.name.as_deref().ok_or(Error::Null("name"))?,
        slug: wishes.slug.as_deref().or(if is_new { source.slug.as_deref() } else { None }),
        plan: wishes.plan.as_deref().or(source.plan.as_deref()).ok_or(Error::Null("plan"))?,
        isolation: wishes.isolation.as_deref(),
        metadata: source.metadata.ok_or(Error::Null("metadata"))?,
        id: match id {
            Some(id) => id,
            None => query::value(RANDOM, &[])?.ok_or_else(|| Error::Internal("no random uuid".to_owned()))?,
        },
        external_id: source.external_id.as_deref().filter(|_| is_new),
        owner: None,
        template,
        schema_name: None,
    })
}

/// Gives the tenant the state that it had.
pub fn restore(package: &Package, tenant: Uuid) -> Result<()> {
    query::run(RESTORE, &[tenant.into(), package.header.json.as_str().into()]).map(drop)
}

/// Waits until nobody writes for the tenant whose rows are to be replaced.
pub fn hold(tenant: Uuid) -> Result<Registered> {
    Subject::schema_of(tenant).lock(LockMode::Exclusive);
    lock::wait_for_writers(tenant);
    crate::database::wait_for_writers(tenant)?;
    let registered = Registered::get(tenant)?;
    match registered.status {
        status @ (Status::Provisioning | Status::Moving) => {
            Err(Error::TenantBusy { tenant: tenant.to_string(), state: status.name() })
        }
        Status::Deleted => Err(Error::IllegalChange {
            state: Status::Deleted.name(),
            change: "get other rows: restore_tenant() comes first".to_owned(),
        }),
        _ => Ok(registered),
    }
}

/// Writes down what was done.
pub fn record(package: &Package, tenant: Uuid, wishes: &Wishes, rows: u64) -> Result<()> {
    let registered = Registered::get(tenant)?;
    let source = package.header.tenant;
    audit::record(&Entry {
        action: "tenant.import",
        tenant: Some(tenant),
        target: Some(&registered.slug),
        after: Some(
            Object::new()
                .text("source", &source.to_string())
                .text("source_isolation", &package.header.isolation)
                .text("isolation", &registered.isolation)
                .boolean("replaced", wishes.mode == Mode::Replace)
                .number("rows", rows)
                .finish(),
        ),
        ..Entry::default()
    })?;
    notice!("imported {rows} rows of tenant \"{source}\" as tenant \"{tenant}\" ({})", registered.slug);
    Ok(())
}
