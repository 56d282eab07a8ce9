//! `import_tenant`: an export becomes a tenant here.
//!
//! The file is [`unpack`]ed and checked as a whole before anything is written. Then, in one transaction, the tenant is registered, its [`people`]
//! are found or made, its rows [`load`]ed with new [`ids`] where they are needed, and its [`references`] checked.

mod ids;
mod load;
mod people;
mod references;
mod unpack;

use super::format;
use super::own;
use super::tables::Place;
use crate::audit::{self, Entry};
use crate::context::registry::{self, Status};
use crate::error::{Error, Result, SqlResult};
use crate::extension;
use crate::guard::lock::{self, Mode as LockMode, Subject};
use crate::json::Object;
use crate::metering;
use crate::procedure::Procedure;
use crate::query::{self, literal};
use crate::role;
use crate::row_file;
use crate::sqltype::{Name, RegClass};
use load::Way;
use people::People;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, PgTryBuilder, Uuid, pg_sys};
use std::panic::AssertUnwindSafe;
use unpack::{Package, refused};

const TEMPLATE: &str = "SELECT true FROM tenancy.templates WHERE template = $1::name";
const REGISTERED: &str =
    "SELECT slug, status, isolation, schema_name::text FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const SOURCE: &str = "SELECT t.name, t.slug, t.plan, t.external_id, pg_catalog.pg_typeof(t.metadata)::text
    FROM pg_catalog.jsonb_to_record($1::jsonb -> 'tenant') AS t (name text, slug text, plan text, external_id text, metadata jsonb)";
/// The rest of what the tenant was. One that was deleted comes as cancelled.
const RESTORE: &str = "UPDATE tenancy.tenants AS t SET created_at = f.created_at, status_since = f.status_since, status_reason = f.status_reason,
        status = CASE WHEN f.status = 'deleted' THEN 'cancelled' ELSE f.status END
    FROM pg_catalog.jsonb_to_record($2::jsonb -> 'tenant') AS f (created_at timestamptz, status text, status_since timestamptz, status_reason text)
    WHERE t.id = $1";
/// Rows of the product's own that are written at a time.
const BATCH: usize = 500;

/// What an import makes of an export.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The tenant that it was, which is not here.
    New,
    /// The rows of the tenant that is here.
    Replace,
    /// Another tenant.
    Beside,
}

impl Mode {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "new" => Ok(Self::New),
            "replace" => Ok(Self::Replace),
            "beside" => Ok(Self::Beside),
            _ => Err(Error::invalid("an import has mode new, replace or beside", "")),
        }
    }
}

/// What the caller wants to be otherwise than it was.
struct Wishes {
    mode: Mode,
    id: Option<Uuid>,
    slug: Option<String>,
    plan: Option<String>,
    isolation: Option<String>,
    template: Option<String>,
    new_ids: Option<bool>,
}

impl Wishes {
    fn check(&self) -> Result<()> {
        let about_registry = [&self.slug, &self.plan, &self.isolation, &self.template].into_iter().any(Option::is_some);
        match self.mode {
            Mode::Replace if about_registry || self.id.is_some() || self.new_ids == Some(true) => Err(Error::invalid(
                "an import that replaces rows leaves the tenant what it is",
                "Leave out slug, plan, isolation, template, id and new_ids.",
            )),
            Mode::New if self.id.is_some() => {
                Err(Error::invalid("a new tenant gets the id that it had", "mode => 'beside' makes another one."))
            }
            _ => Ok(()),
        }
    }
}

/// Runs `work`; values that PostgreSQL cannot read are the file's fault.
fn reading_the_file<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let translate = |error: CaughtError| match &error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)
            if is_data_error(report.sql_error_code()) =>
        {
            Err(refused(report.message()))
        }
        _ => error.rethrow(),
    };
    PgTryBuilder::new(AssertUnwindSafe(work)).catch_others(translate).execute()
}

/// Class 22, values that are none, and the promises about a row by itself in class 23.
fn is_data_error(code: PgSqlErrorCode) -> bool {
    const SIX_BITS: i32 = 0x3f;
    let letter = |place: i32| u8::try_from(((code as i32) >> (6 * place)) & SIX_BITS).unwrap_or_default() + b'0';
    let class = [letter(0), letter(1)];
    class == *b"22"
        || matches!(code, PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION | PgSqlErrorCode::ERRCODE_CHECK_VIOLATION)
}

/// Registers the tenant; its schema is made where its isolation asks for one.
fn register(package: &Package, wishes: &Wishes) -> Result<Uuid> {
    let header = &package.header;
    let found = query::current_rows(SOURCE, &[header.json.as_str().into()], |row| {
        Ok((row.get::<String>(1)?, row.get::<String>(2)?, row.get::<String>(3)?, row.get::<String>(4)?))
    })?;
    let (name, slug, plan, external_id) = found.into_iter().next().unwrap_or_default();
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
    let slug = wishes.slug.clone().or(if is_new { slug } else { None });
    let plan = wishes.plan.clone().or(plan);
    let isolation = wishes.isolation.clone();
    let template = match &wishes.template {
        Some(template) => Some(template.clone()),
        None => match &header.template {
            Some(template) if takes_template(plan.as_deref(), isolation.as_deref())? => {
                query::value::<bool>(TEMPLATE, &[template.as_str().into()])?.map(|_| template.clone())
            }
            _ => None,
        },
    };
    let text = |value: Option<&str>| value.map_or_else(|| "NULL".to_owned(), literal);
    let sql = format!(
        "SELECT {}.create_tenant(name => {}, slug => {}, plan => {}, isolation => {}, metadata => ({}::pg_catalog.jsonb -> 'tenant' -> 'metadata'), \
         id => {}, external_id => {}, template => {})",
        extension::schema()?,
        text(name.as_deref()),
        text(slug.as_deref()),
        text(plan.as_deref()),
        text(isolation.as_deref()),
        literal(&header.json),
        id.map_or_else(|| "pg_catalog.gen_random_uuid()".to_owned(), |id| literal(&id.to_string())),
        text(external_id.as_deref().filter(|_| is_new)),
        text(template.as_deref()),
    );
    let created = query::current_column::<Uuid>(&sql, &[])?.into_iter().flatten().next();
    let id = created.ok_or_else(|| Error::Internal("create_tenant() returned nothing".to_owned()))?;
    if is_new {
        query::run(RESTORE, &[id.into(), header.json.as_str().into()])?;
    }
    Ok(id)
}

/// Whether a tenant like this is made from a template.
fn takes_template(plan: Option<&str>, isolation: Option<&str>) -> Result<bool> {
    let isolation = match (isolation, plan) {
        (Some(isolation), _) => isolation.to_owned(),
        (None, Some(plan)) => metering::plan::isolation_of(plan)?,
        (None, None) => return Ok(false),
    };
    Ok(isolation != "row")
}

/// Waits until nobody writes for the tenant that is to be replaced.
fn hold(tenant: Uuid) -> Result<Uuid> {
    Subject::schema_of(tenant).lock(LockMode::Exclusive);
    lock::wait_for_writers(tenant);
    let found = query::current_rows(REGISTERED, &[tenant.into()], |row| Status::from_name(&row.must::<String>(2)?))?;
    match found.first().copied().ok_or_else(|| Error::unknown_tenant(tenant))? {
        status @ (Status::Provisioning | Status::Moving) => {
            Err(Error::TenantBusy { tenant: tenant.to_string(), state: status.name() })
        }
        Status::Deleted => Err(Error::IllegalChange {
            state: Status::Deleted.name(),
            change: "get other rows: restore_tenant() comes first".to_owned(),
        }),
        _ => Ok(tenant),
    }
}

/// Writes what the product knew of the tenant.
fn write_own(package: &Package, tenant: Uuid, people: &People, mode: Mode) -> Result<()> {
    let (there, here) = people.arrays();
    let write = |own: &own::Own, rows: &mut Vec<String>| {
        if rows.is_empty() {
            return Ok(());
        }
        if let Some((what, missing)) = own.needs
            && let Some(name) =
                query::current_rows(missing, &[rows.clone().into()], |row| row.get::<String>(1))?.into_iter().next()
        {
            return Err(Error::Unknown(what, name.unwrap_or_default()));
        }
        let arguments = [tenant.into(), std::mem::take(rows).into(), there.clone().into(), here.clone().into()];
        let needed = if own.import.contains("$3") { 4 } else { 2 };
        query::run(own.import, &arguments[..needed]).map(drop)
    };
    for (own, lines) in package.own.iter().filter(|(own, _)| own.for_copies || mode == Mode::New) {
        if own.name == own::EVENTS {
            metering::usage::prepare_archive()?;
        }
        let mut rows: Vec<String> = Vec::new();
        lines.read(|line| {
            rows.push(String::from_utf8(line.to_vec()).map_err(|_| Error::Encoding)?);
            if rows.len() == BATCH { role::without_triggers(|| write(own, &mut rows)) } else { Ok(()) }
        })?;
        role::without_triggers(|| write(own, &mut rows))?;
    }
    Ok(())
}

/// Makes the tenant of what was unpacked, as the extension's owner; its id.
fn import(package: &Package, wishes: &Wishes) -> Result<Uuid> {
    let replaces = wishes.mode == Mode::Replace;
    let tenant = if replaces { hold(package.header.tenant)? } else { register(package, wishes)? };
    let found = query::current_rows(REGISTERED, &[tenant.into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<String>(3)?, row.get::<String>(4)?))
    })?;
    let (slug, isolation, schema) = found.into_iter().next().ok_or_else(|| Error::unknown_tenant(tenant))?;
    let beside = wishes.mode == Mode::Beside;
    let way = Way { new_ids: wishes.new_ids.unwrap_or(beside), replaces };
    let people = if replaces { People::default() } else { People::find(package, tenant, beside)? };
    if !replaces {
        write_own(package, tenant, &people, wishes.mode)?;
    }
    let place = query::as_of_now(|| Place::read(tenant, schema.as_deref(), pg_sys::RowExclusiveLock as _))?;
    let rows = load::load(&place, package, &people, &way)?;
    // They are counted again when they are asked for.
    metering::limit::erase(tenant)?;
    audit::record(&Entry {
        action: "tenant.import",
        tenant: Some(tenant),
        target: Some(&slug),
        after: Some(
            Object::new()
                .text("source", &package.header.tenant.to_string())
                .text("source_isolation", &package.header.isolation)
                .text("isolation", &isolation)
                .boolean("replaced", replaces)
                .number("rows", rows)
                .finish(),
        ),
        ..Entry::default()
    })?;
    notice!("imported {rows} rows of tenant \"{}\" as tenant \"{tenant}\" ({slug})", package.header.tenant);
    Ok(tenant)
}

/// Makes a tenant of an export, or replaces the rows of one.
#[pg_extern(
    sql = "CREATE PROCEDURE import_tenant(source regclass, mode text DEFAULT 'new', slug text DEFAULT NULL, plan text DEFAULT NULL,
    isolation text DEFAULT NULL, template name DEFAULT NULL, id uuid DEFAULT NULL, new_ids boolean DEFAULT NULL)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
#[allow(clippy::too_many_arguments)]
fn import_tenant(
    source: Option<RegClass>,
    mode: Option<&str>,
    slug: Option<&str>,
    plan: Option<&str>,
    isolation: Option<&str>,
    template: Option<Name>,
    id: Option<Uuid>,
    new_ids: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let _procedure = unsafe { Procedure::begin(fcinfo, "import_tenant") }?;
    let RegClass(source) = source.ok_or(Error::Null("source"))?;
    let wishes = Wishes {
        mode: Mode::parse(mode.ok_or(Error::Null("mode"))?)?,
        id,
        slug: slug.map(str::to_owned),
        plan: plan.map(str::to_owned),
        isolation: isolation.map(str::to_owned),
        template: template.map(|Name(template)| template),
        new_ids,
    };
    wishes.check()?;
    query::refuse_old_snapshot("a tenant cannot be imported")?;
    let package = unpack::unpack(source)?;
    reading_the_file(|| {
        role::as_extension_owner(|| {
            role::with_settings(format::SETTINGS, || row_file::with_settings(|| import(&package, &wishes)))
        })
    })?;
    Ok(())
}
