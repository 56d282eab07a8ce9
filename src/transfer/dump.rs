//! A tenant's rows as parts of an export, from the database that they are in, with the snapshot that is active.

use super::format::kind;
use super::own;
use super::tables::{Place, Table};
use super::writer::{Out, chunks};
use crate::error::Result;
use crate::json::{Jsonb, Object};
use crate::query::{self, ident};
use crate::row_file;
use crate::scratch::Scratch;
use pgrx::{Uuid, pg_sys};

const SEQUENCES: &str = "SELECT c.relname::text, n.nspname::text, c.relowner FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class c ON c.oid = d.objid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n'
      AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind = 'S' ORDER BY c.relname";

/// What the product knows of the tenant: what is kept where its rows are, or the rest.
pub fn write_own(out: &mut dyn Out, tenant: Uuid, beside_rows: bool) -> Result<()> {
    for own in own::ALL.iter().filter(|own| own.beside_rows == beside_rows) {
        own.read(tenant, |rows| out.put(kind::OWN, own.name, &rows.join("\n"), rows.len() as u64))?;
    }
    Ok(())
}

/// The rows of the tenant's tables, and the positions of its sequences.
pub fn write_place(out: &mut dyn Out, tenant: Uuid, schema: Option<&str>) -> Result<()> {
    let place = Place::read(tenant, schema, pg_sys::AccessShareLock as _)?;
    for table in &place.tables {
        write_table(out, &place, table)?;
    }
    write_sequences(out, &place)
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

/// The column that says whose a row is, where it says nothing else: it is not written.
fn tenant_column<'a>(place: &Place, table: &'a Table) -> Result<Option<&'a str>> {
    if let Some(owned) = &table.tenant {
        return Ok(Some(&owned.column));
    }
    match table.columns.iter().find(|column| column.defaults_to_tenant) {
        Some(column) if is_tenants_alone(place, table, &column.name)? => Ok(Some(&column.name)),
        _ => Ok(None),
    }
}

/// Writes a table that has rows of the tenant.
fn write_table(out: &mut dyn Out, place: &Place, table: &Table) -> Result<()> {
    let file = Scratch::new()?;
    let (tenant_column, rows) = place.with(table, || {
        let tenant_column = tenant_column(place, table)?;
        let names = table.columns.iter().filter(|column| Some(column.name.as_str()) != tenant_column);
        let names: Vec<String> = names.map(|column| ident(&column.name)).collect();
        let (rows, condition, order) = (table.rows(), table.where_clause(), table.order()?);
        let query = format!("SELECT {} FROM {rows}{condition}{order}", names.join(", "));
        Ok((tenant_column, row_file::unload(&query, file.path())?))
    })?;
    if rows == 0 {
        return Ok(());
    }
    let columns = table.columns.iter().filter(|column| Some(column.name.as_str()) != tenant_column);
    let columns = columns.map(|column| Object::new().text("name", &column.name).text("type", &column.type_name));
    let columns: Vec<String> = columns.map(|column| column.finish().as_str().to_owned()).collect();
    let data = Object::new()
        .optional("schema", table.tenant.is_some().then_some(table.schema.as_str()))
        .optional("tenant_column", tenant_column)
        .array("columns", &columns)
        .finish();
    out.put(kind::TABLE, &table.name, data.as_str(), rows)?;
    chunks(file.path(), |chunk| out.put(kind::ROWS, &table.name, chunk, 0))
}

/// Writes the positions of the tenant's own sequences.
fn write_sequences(out: &mut dyn Out, place: &Place) -> Result<()> {
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
            out.put(kind::SEQUENCE, &name, position.as_str(), 0)?;
        }
    }
    Ok(())
}
