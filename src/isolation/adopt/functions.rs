//! The SQL functions of adoption.

use super::plan;
use super::request::Request;
use super::run;
use super::scope::Scope;
use crate::error::{Error, Result, SqlResult};
use crate::procedure::Procedure;
use crate::sqltype::{Name, RegClass};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

fn names(tables: Option<Vec<Option<String>>>) -> Result<Vec<String>> {
    let tables = tables.ok_or(Error::Null("shared_tables"))?;
    tables.into_iter().collect::<Option<_>>().ok_or(Error::Null("shared_tables"))
}

/// What adopt_schema would do, statement by statement.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn adoption_plan(
    schema_name: Option<Name>,
    tenant: default!(Option<Uuid>, "NULL"),
    tenant_column: default!(Option<Name>, "'tenant_id'"),
    keys: default!(Option<&str>, "'natural'"),
    shared_tables: default!(Option<Vec<Option<String>>>, "'{}'"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(step, i32),
            name!(table_name, String),
            name!(statement, String),
            name!(lock, String),
            name!(duration, String),
            name!(note, String),
        ),
    >,
    ErrorReport,
> {
    let Name(schema) = schema_name.ok_or(Error::Null("schema_name"))?;
    let request = Request::check(tenant, tenant_column, keys)?;
    let steps = plan::make(&Scope::of_schema(&schema, &names(shared_tables)?, &request)?, &request)?;
    Ok(TableIterator::new(steps.into_iter().enumerate().map(|(number, step)| {
        let text = step.text();
        (number as i32 + 1, step.table_name, text, step.lock.to_owned(), step.duration.to_owned(), step.note)
    })))
}

/// Gives a table's rows to a tenant, and makes the table one that tenants share.
#[pg_extern(
    sql = "CREATE PROCEDURE adopt_table(table_name regclass, tenant uuid, tenant_column name DEFAULT 'tenant_id', keys text DEFAULT 'natural',
        protect boolean DEFAULT true, batch_size integer DEFAULT 10000)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn adopt_table(
    table_name: Option<RegClass>,
    tenant: Option<Uuid>,
    tenant_column: Option<Name>,
    keys: Option<&str>,
    protect: Option<bool>,
    batch_size: Option<i32>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "adopt_table") }?;
    let RegClass(table) = table_name.ok_or(Error::Null("table_name"))?;
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let request = Request::check(Some(tenant), tenant_column, keys)?.for_call(protect, batch_size)?;
    Ok(run::conduct(&procedure, &request, |request| Scope::of_table(table, request))?)
}

/// The same for every table of a schema.
#[pg_extern(
    sql = "CREATE PROCEDURE adopt_schema(schema_name name, tenant uuid, tenant_column name DEFAULT 'tenant_id', keys text DEFAULT 'natural',
        shared_tables text[] DEFAULT '{}', protect boolean DEFAULT true, batch_size integer DEFAULT 10000)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
#[allow(clippy::too_many_arguments)]
fn adopt_schema(
    schema_name: Option<Name>,
    tenant: Option<Uuid>,
    tenant_column: Option<Name>,
    keys: Option<&str>,
    shared_tables: Option<Vec<Option<String>>>,
    protect: Option<bool>,
    batch_size: Option<i32>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "adopt_schema") }?;
    let Name(schema) = schema_name.ok_or(Error::Null("schema_name"))?;
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let shared = names(shared_tables)?;
    let request = Request::check(Some(tenant), tenant_column, keys)?.for_call(protect, batch_size)?;
    Ok(run::conduct(&procedure, &request, |request| Scope::of_schema(&schema, &shared, request))?)
}
