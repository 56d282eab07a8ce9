//! `export_tenant`: everything of one tenant, of one moment.

use super::format::{self, CHUNK, Checksum, kind};
use super::own;
use super::tables::{Place, Table};
use crate::context::registry::Status;
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{Mode, Subject};
use crate::json::{Jsonb, Object};
use crate::query::{self, ident};
use crate::role;
use crate::row_file;
use crate::scratch::Scratch;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use std::fs::File;
use std::io::Read;

const TENANT: &str = "SELECT t.status, t.isolation, t.schema_name::text, t.purge_started_at IS NOT NULL,
        pg_catalog.jsonb_build_object('id', t.id, 'slug', t.slug, 'name', t.name, 'plan', t.plan, 'external_id', t.external_id,
            'metadata', t.metadata, 'status', t.status, 'status_reason', t.status_reason, 'status_since', t.status_since, 'created_at', t.created_at),
        t.template::text,
        coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('version', a.version, 'checksum', m.checksum) ORDER BY m.position, a.version)
                  FROM tenancy.applied_migrations a LEFT JOIN tenancy.migrations m ON m.template = a.template AND m.version = a.version
                  WHERE a.tenant_id = t.id), '[]')
    FROM tenancy.tenants t WHERE t.id = $1";
const EXTENSION_VERSION: &str = "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_tenancy'";
const SEQUENCES: &str = "SELECT c.relname::text, n.nspname::text, c.relowner FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class c ON c.oid = d.objid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n'
      AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind = 'S' ORDER BY c.relname";

/// Where records go.
pub trait Sink {
    fn put(&mut self, number: i64, kind: &str, name: &str, data: &str) -> Result<()>;
}

/// Numbers the records and sums them up.
struct Writer<'a> {
    sink: &'a mut dyn Sink,
    records: i64,
    rows: u64,
    checksum: Checksum,
}

impl Writer<'_> {
    fn put(&mut self, kind: &str, name: &str, data: &str) -> Result<()> {
        self.records += 1;
        self.checksum.add(kind, name, data);
        self.sink.put(self.records, kind, name, data)
    }

    fn end(self, name: &str) -> Result<()> {
        let data = Object::new().number("records", self.records.cast_unsigned()).number("rows", self.rows);
        let data = data.text("sha256", &self.checksum.finish()).finish();
        self.sink.put(self.records + 1, kind::END, name, data.as_str())
    }
}

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

/// Writes everything of the tenant, as the active snapshot has it. The caller is the extension's owner, with `search_path` pinned.
pub fn write(tenant: Uuid, sink: &mut dyn Sink) -> Result<()> {
    Subject::schema_of(tenant).lock(Mode::Share);
    let source = Source::read(tenant)?;
    match source.status {
        _ if source.is_purged => return Err(Error::PurgeBegun),
        Status::Provisioning | Status::Moving => {
            return Err(Error::TenantBusy { tenant: tenant.to_string(), state: source.status.name() });
        }
        _ => {}
    }
    let place = Place::read(tenant, source.schema.as_deref(), pg_sys::AccessShareLock as _)?;
    let mut writer = Writer { sink, records: 0, rows: 0, checksum: Checksum::new() };
    let name = tenant.to_string();
    writer.put(kind::HEADER, &name, source.header()?.as_str())?;
    for own in own::ALL {
        own.read(tenant, |rows| {
            writer.rows += rows.len() as u64;
            writer.put(kind::OWN, own.name, &rows.join("\n"))
        })?;
    }
    for table in &place.tables {
        write_table(&mut writer, &place, table)?;
    }
    write_sequences(&mut writer, &place)?;
    writer.end(&name)
}

/// Whether every row that has the tenant in this column has this one.
fn is_tenants_alone(place: &Place, table: &Table, column: &str) -> Result<bool> {
    let sql = format!(
        "SELECT true FROM {} WHERE {}::pg_catalog.text IS DISTINCT FROM '{}' LIMIT 1",
        table.rows(),
        ident(column),
        place.tenant
    );
    Ok(query::active_statement(&sql, &[], |row| row.must::<bool>(1))?.is_empty())
}

/// Writes a table that has rows of the tenant.
fn write_table(writer: &mut Writer, place: &Place, table: &Table) -> Result<()> {
    let file = Scratch::new()?;
    let (tenant_column, rows) = place.with(table, || {
        let tenant_column = match &table.tenant {
            Some((column, _)) => Some(column.as_str()),
            None => match table.columns.iter().find(|column| column.defaults_to_tenant) {
                Some(column) if is_tenants_alone(place, table, &column.name)? => Some(column.name.as_str()),
                _ => None,
            },
        };
        let names: Vec<String> = (table.columns.iter().map(|column| &column.name))
            .filter(|name| Some(name.as_str()) != tenant_column)
            .map(|name| ident(name))
            .collect();
        let query = format!(
            "SELECT {} FROM {}{}{}",
            names.join(", "),
            table.rows(),
            table.where_clause(place.tenant),
            table.order()?
        );
        Ok((tenant_column, row_file::unload(&query, file.path())?))
    })?;
    if rows == 0 {
        return Ok(());
    }
    let columns = table.columns.iter().filter(|column| Some(column.name.as_str()) != tenant_column);
    let columns =
        columns.map(|column| Object::new().text("name", &column.name).text("type", &column.type_name).finish());
    let columns: Vec<String> = columns.map(|column| column.as_str().to_owned()).collect();
    let data = Object::new()
        .optional("schema", table.tenant.is_some().then_some(table.schema.as_str()))
        .optional("tenant_column", tenant_column)
        .array("columns", &columns)
        .finish();
    writer.put(kind::TABLE, &table.name, data.as_str())?;
    writer.rows += rows;
    chunks(file.path(), |chunk| writer.put(kind::ROWS, &table.name, chunk))
}

/// Hands out a file of text in pieces, at the ends of lines where there are some.
fn chunks(path: &std::path::Path, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let failed = |error: std::io::Error| Error::Internal(format!("a temporary file could not be read: {error}"));
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    let mut filled = 0;
    loop {
        let read = file.read(&mut buffer[filled..]).map_err(failed)?;
        filled += read;
        if read > 0 && filled < buffer.len() {
            continue;
        }
        pgrx::check_for_interrupts!();
        let valid = match std::str::from_utf8(&buffer[..filled]) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&buffer[..error.valid_up_to()]).unwrap_or_default(),
        };
        let end = if read == 0 { valid.len() } else { valid.rfind('\n').map_or(valid.len(), |line| line + 1) };
        if end > 0 {
            each(&valid[..end])?;
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
        if read == 0 {
            return if filled == 0 { Ok(()) } else { Err(Error::Encoding) };
        }
    }
}

/// Writes the positions of the tenant's own sequences.
fn write_sequences(writer: &mut Writer, place: &Place) -> Result<()> {
    let Some(schema) = place.schema else { return Ok(()) };
    let sequences = query::active_rows(SEQUENCES, &[schema.into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<String>(2)?, row.must::<pg_sys::Oid>(3)?))
    })?;
    for (name, schema, owner) in sequences {
        let sql = format!(
            "SELECT pg_catalog.jsonb_build_object('last_value', last_value, 'is_called', is_called) FROM {}.{}",
            ident(&schema),
            ident(&name)
        );
        let position = place.as_owner(owner, || query::active_statement(&sql, &[], |row| row.must::<Jsonb>(1)))?;
        for position in position {
            writer.put(kind::SEQUENCE, &name, position.as_str())?;
        }
    }
    Ok(())
}

/// The result of a function that is called, which PostgreSQL keeps on disk when it grows.
struct Store {
    tuples: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
}

impl Store {
    /// # Safety
    /// `fcinfo` is the call record of a function that returns rows of (bigint, text, text, text).
    unsafe fn begin(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        // SAFETY: the caller's promise; PostgreSQL raises where a set cannot be returned, and else fills in what it is returned by.
        unsafe {
            pg_sys::InitMaterializedSRF(fcinfo, 0);
            let result = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            Self { tuples: (*result).setResult, descriptor: (*result).setDesc }
        }
    }
}

impl Sink for Store {
    fn put(&mut self, number: i64, kind: &str, name: &str, data: &str) -> Result<()> {
        // SAFETY: the store copies what it is given; the texts are freed, since there may be very many.
        unsafe {
            let text = |text: &str| pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), text.len() as i32);
            let texts = [text(kind), text(name), text(data)];
            let mut values = [pg_sys::Datum::from(number), texts[0].into(), texts[1].into(), texts[2].into()];
            let mut nulls = [false; 4];
            pg_sys::tuplestore_putvalues(self.tuples, self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            texts.into_iter().for_each(|text| pg_sys::pfree(text.cast()));
        }
        Ok(())
    }
}

/// Everything of one tenant, as records.
#[pg_extern(
    sql = "CREATE FUNCTION export_tenant(tenant uuid) RETURNS TABLE (seq bigint, kind text, name text, data text)
    LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn export_tenant(tenant: Option<Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    // SAFETY: PostgreSQL is calling this function with this record.
    let mut store = unsafe { Store::begin(fcinfo) };
    role::with_settings(format::SETTINGS, || row_file::with_settings(|| write(tenant, &mut store)))?;
    Ok(())
}
