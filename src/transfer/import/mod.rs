//! `import_tenant`: an export becomes a tenant here.
//!
//! The file is [`unpack`]ed and checked as a whole before anything is written. Then, in one transaction, the tenant is [`register`]ed, its [`people`]
//! are found, what was [`known`] of it is written, its rows are [`load`]ed with new [`ids`] where they are needed, and its [`references`] checked.
//! One with a database of its own is loaded [`away`] from here.

mod away;
mod ids;
mod known;
mod lines;
mod load;
mod people;
mod references;
mod register;
mod renew;
mod unpack;

pub use away::LOAD;

use super::format;
use super::tables::Place;
use crate::error::{Error, Result, SqlResult, sqlstate_of};
use crate::metering::limit;
use crate::procedure::Procedure;
use crate::query;
use crate::role;
use crate::row_file;
use crate::sqltype::{Name, RegClass};
use load::Way;
use people::People;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, PgTryBuilder, Uuid, pg_sys};
use register::Registered;
use std::panic::AssertUnwindSafe;
use unpack::{Package, refused};

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
    fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Replace => "replace",
            Self::Beside => "beside",
        }
    }

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
    use PgSqlErrorCode::{ERRCODE_CHECK_VIOLATION, ERRCODE_NOT_NULL_VIOLATION};
    sqlstate_of(code).starts_with("22") || matches!(code, ERRCODE_NOT_NULL_VIOLATION | ERRCODE_CHECK_VIOLATION)
}

/// Makes the tenant of what was unpacked, or replaces its rows, where they are in this database; as the extension's owner.
fn import_here(package: &Package, wishes: &Wishes) -> Result<()> {
    let replaces = wishes.mode == Mode::Replace;
    let tenant = if replaces { package.header.tenant } else { register::register(package, wishes)? };
    let registered = if replaces { register::hold(tenant)? } else { Registered::get(tenant)? };
    if replaces && registered.isolation == "database" {
        let rows = away::replace(package, tenant, wishes)?;
        return register::record(package, tenant, wishes, rows);
    }
    let beside = wishes.mode == Mode::Beside;
    let people = if replaces { People::default() } else { People::find(package, tenant, beside)? };
    if !replaces {
        known::write(package, tenant, &people, wishes.mode, false)?;
        known::write(package, tenant, &people, wishes.mode, true)?;
    }
    if wishes.mode == Mode::New {
        register::restore(package, tenant)?;
    }
    let schema = registered.schema.as_deref();
    let place = query::as_of_now(|| Place::read(tenant, schema, pg_sys::RowExclusiveLock as _))?;
    let way = Way { new_ids: wishes.new_ids.unwrap_or(beside), replaces };
    let rows = load::load(&place, package, &people, &way)?;
    // They are counted again when they are asked for.
    limit::erase(tenant)?;
    register::record(package, tenant, wishes, rows)
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
    let procedure = unsafe { Procedure::begin(fcinfo, "import_tenant") }?;
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
    let as_owner = |work: &dyn Fn() -> Result<()>| {
        let settled = || role::with_settings(format::SETTINGS, || row_file::with_settings(work));
        reading_the_file(|| role::as_extension_owner(settled))
    };
    let is_away = wishes.mode != Mode::Replace
        && reading_the_file(|| role::as_extension_owner(|| register::isolation(&package, &wishes)))? == "database";
    if is_away {
        away::make(&procedure, &package, &wishes)?;
    } else {
        as_owner(&|| import_here(&package, &wishes))?;
    }
    Ok(())
}
