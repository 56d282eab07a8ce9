//! `adopt_tenants`: an application that has its own organisations already. Each of them becomes a tenant, and the tables that refer to them are
//! guarded by the keys that they have.

use super::create;
use crate::error::{Error, Result, SqlResult};
use crate::isolation::row::inspect::{self, Table, TenantType};
use crate::isolation::row::protect;
use crate::metering::plan;
use crate::procedure::Procedure;
use crate::query::{self, ident};
use crate::role;
use crate::sqltype::{Name, RegClass};
use crate::uuid;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

/// Organisations that one transaction registers.
const BATCH: i64 = 1000;
/// What a key may have, in bytes, so that the guard can hold it.
const MAX_KEY: usize = 63;
const MAX_NAME: usize = 255;

const HAS_COLUMN: &str = "SELECT true FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = $2::name AND attnum > 0 AND NOT attisdropped";
const TYPE: &str = "SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = $2::name AND attnum > 0 AND NOT attisdropped";
/// A key over this column alone, of every row.
const IS_KEY: &str = "SELECT true FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
    WHERE x.indrelid = $1 AND a.attname = $2::name AND a.attnotnull AND x.indisunique AND x.indisvalid AND x.indnkeyatts = 1 AND x.indpred IS NULL";
/// Tables that refer to organisations by this column, and what by.
const REFERRERS: &str = "SELECT c.conrelid, a.attname::text FROM pg_catalog.pg_constraint c
    JOIN pg_catalog.pg_attribute k ON k.attrelid = c.confrelid AND k.attname = $2::name AND c.confkey = ARRAY[k.attnum]
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
    WHERE c.contype = 'f' AND c.confrelid = $1 AND c.conparentid = 0 AND c.conrelid <> $1 ORDER BY c.conrelid::pg_catalog.regclass::text";
const BY_KEY: &str = "SELECT true FROM tenancy.tenants WHERE external_id = $1";
const BY_ID: &str = "SELECT true FROM tenancy.tenants WHERE id = $1";
const RANDOM: &str = "SELECT pg_catalog.gen_random_uuid()";

/// The application's own table of organisations.
struct Organizations {
    table: Table,
    id: String,
    name: String,
    plan: String,
    /// Whether its keys are tenants' ids; else they become external ids.
    by_id: bool,
}

impl Organizations {
    fn find(table: pg_sys::Oid, id: String, name: String, plan: String) -> Result<Self> {
        let table = inspect::hierarchy(table)?.swap_remove(0);
        for column in [&id, &name] {
            if query::value::<bool>(HAS_COLUMN, &[table.oid.into(), column.as_str().into()])?.is_none() {
                return Err(Error::Unknown("column", format!("{}.{column}", table.name)));
            }
        }
        if query::value::<bool>(IS_KEY, &[table.oid.into(), id.as_str().into()])?.is_none() {
            return Err(Error::invalid(
                format!("column {} of {} is not a key by itself", ident(&id), table.name),
                "An organisation is known by a column that is unique and not null.",
            ));
        }
        inspect::refuse_unreachable(&table)?;
        let by_id =
            query::value::<pg_sys::Oid>(TYPE, &[table.oid.into(), id.as_str().into()])? == Some(pg_sys::UUIDOID);
        inspect::column(table.oid, &id, !by_id)?;
        plan::isolation_of(&plan)?;
        Ok(Self { table, id, name, plan, by_id })
    }

    /// The next organisations behind `last`: key and name.
    fn read(&self, last: Option<&str>) -> Result<Vec<(String, Option<String>)>> {
        let (id, name) = (ident(&self.id), ident(&self.name));
        let behind =
            last.map_or_else(String::new, |last| format!("WHERE {id} OPERATOR(pg_catalog.>) {}", query::literal(last)));
        let sql = format!(
            "SELECT ARRAY[{id}::pg_catalog.text, {name}::pg_catalog.text] FROM {} {behind} ORDER BY {id} LIMIT {BATCH}",
            self.table.name
        );
        let rows: Vec<Option<Vec<Option<String>>>> =
            role::as_owner_of_all_rows(self.table.owner, || query::current_column(&sql, &[]))?;
        let pair = |row: Vec<Option<String>>| {
            let mut row = row.into_iter();
            Some((row.next().flatten()?, row.next().flatten()))
        };
        Ok(rows.into_iter().flatten().filter_map(pair).collect())
    }

    /// Registers one; false when it is a tenant already.
    fn register(&self, key: &str, name: Option<&str>) -> Result<bool> {
        let name: String =
            name.unwrap_or(key).chars().filter(|character| !character.is_control()).take(MAX_NAME).collect();
        let name = if name.trim().is_empty() { key } else { name.as_str() };
        if self.by_id {
            let id = uuid::parse(key.as_bytes())
                .map(Uuid::from_bytes)
                .ok_or_else(|| Error::Internal(format!("no uuid: {key}")))?;
            if query::value::<bool>(BY_ID, &[id.into()])?.is_some() {
                return Ok(false);
            }
            return create::register(id, name, &self.plan, None).map(|()| true);
        }
        if key.len() > MAX_KEY || key.trim().is_empty() || key.chars().any(char::is_control) {
            return Err(Error::Unprotectable(
                format!(
                    "key \"{}\" of {} is empty, longer than {MAX_KEY} bytes or has control characters",
                    key, self.table.name
                ),
                "Give the organisation another key.".to_owned(),
            ));
        }
        if query::value::<bool>(BY_KEY, &[key.into()])?.is_some() {
            return Ok(false);
        }
        let id: Uuid = query::value(RANDOM, &[])?.ok_or_else(|| Error::Internal("no random uuid".to_owned()))?;
        create::register(id, name, &self.plan, Some(key)).map(|()| true)
    }

    /// The tables to be guarded, each with its key column: those that refer to the organisations, and theirs last.
    fn guarded(&self) -> Result<Vec<(Table, String)>> {
        let args = [self.table.oid.into(), self.id.as_str().into()];
        let found: Vec<(pg_sys::Oid, String)> = query::rows(REFERRERS, &args, |row| Ok((row.must(1)?, row.must(2)?)))?;
        let mut tables = Vec::new();
        for (oid, column) in found {
            let table = inspect::hierarchy(oid)?.swap_remove(0);
            if let Some((_, other)) = tables.iter().find(|(known, _): &&(Table, String)| known.oid == oid)
                && *other != column
            {
                return Err(Error::Unprotectable(
                    format!(
                        "{} refers to {} by {} and by {}",
                        table.name,
                        self.table.name,
                        ident(other),
                        ident(&column)
                    ),
                    "Say protect => false, and protect_table() by the column that says whose the row is.".to_owned(),
                ));
            }
            let own = inspect::column(oid, &column, !self.by_id)?;
            if own.is_some_and(|own| self.by_id && own.tenant_type != TenantType::Uuid) {
                return Err(Error::Internal(format!("a reference of another type: {}", table.name)));
            }
            tables.push((table, column));
        }
        tables.push((self.table.clone(), self.id.clone()));
        Ok(tables)
    }
}

fn conduct(procedure: &Procedure, find: impl Fn() -> Result<Organizations>, protect: bool) -> Result<()> {
    query::refuse_old_snapshot("organisations cannot be adopted")?;
    let organizations = role::as_extension_owner(|| {
        let organizations = find()?;
        organizations.guarded().map(|_| organizations)
    })?;
    let (mut last, mut created, mut seen): (Option<String>, u64, u64) = (None, 0, 0);
    loop {
        let batch = role::as_extension_owner(|| {
            let batch = organizations.read(last.as_deref())?;
            let mut new = 0;
            for (key, name) in &batch {
                new += u64::from(organizations.register(key, name.as_deref())?);
            }
            Ok((new, batch))
        })?;
        procedure.commit();
        created += batch.0;
        seen += batch.1.len() as u64;
        let Some((key, _)) = batch.1.into_iter().next_back() else { break };
        last = Some(key);
        notice!("{seen} organisations of {} are tenants", organizations.table.name);
    }
    notice!("{created} tenants were registered");
    if protect {
        for (table, column) in role::as_extension_owner(|| organizations.guarded())? {
            notice!("protecting {} by {}", table.name, ident(&column));
            role::as_extension_owner(|| protect::protect(table.oid, &column, false, !organizations.by_id))?;
            procedure.commit();
        }
    }
    Ok(())
}

/// Makes a tenant of each row of the application's own organisations table.
#[pg_extern(
    sql = "CREATE PROCEDURE adopt_tenants(table_name regclass, id_column name, name_column name, plan text DEFAULT 'free',
        protect boolean DEFAULT true)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn adopt_tenants(
    table_name: Option<RegClass>,
    id_column: Option<Name>,
    name_column: Option<Name>,
    plan: Option<&str>,
    protect: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "adopt_tenants") }?;
    let RegClass(table) = table_name.ok_or(Error::Null("table_name"))?;
    let Name(id) = id_column.ok_or(Error::Null("id_column"))?;
    let Name(name) = name_column.ok_or(Error::Null("name_column"))?;
    let plan = plan.ok_or(Error::Null("plan"))?.to_owned();
    let protect = protect.ok_or(Error::Null("protect"))?;
    let find = || Organizations::find(table, id.clone(), name.clone(), plan.clone());
    Ok(conduct(&procedure, find, protect)?)
}
