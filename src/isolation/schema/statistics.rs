//! What the schemas of tenants hold and how they are used; the commands that keep them in shape.

use crate::context::registry;
use crate::error::{Error, Result};
use crate::guard;
use crate::procedure;
use crate::query::{self, ident};
use crate::role;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

const TABLES: &str = "SELECT t.id, t.slug, t.schema_name::pg_catalog.text, c.relname::pg_catalog.text, n.oid, c.relowner,
        pg_catalog.pg_stat_get_live_tuples(c.oid), pg_catalog.pg_stat_get_dead_tuples(c.oid),
        s.table_bytes, s.index_bytes, pg_catalog.pg_stat_get_numscans(c.oid),
        (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_numscans(x.indexrelid)), 0)::pg_catalog.int8 FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid),
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index x
         WHERE x.indrelid = c.oid AND NOT x.indisunique AND pg_catalog.pg_stat_get_numscans(x.indexrelid) = 0),
        greatest(pg_catalog.pg_stat_get_last_vacuum_time(c.oid), pg_catalog.pg_stat_get_last_autovacuum_time(c.oid)),
        greatest(pg_catalog.pg_stat_get_last_analyze_time(c.oid), pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid))
    FROM tenancy.tenants t
    JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema_name
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'm')
    CROSS JOIN LATERAL (SELECT pg_catalog.pg_table_size(c.oid) AS table_bytes, pg_catalog.pg_indexes_size(c.oid) AS index_bytes OFFSET 0) s
    WHERE s.table_bytes IS NOT NULL AND s.index_bytes IS NOT NULL -- NULL for what has just been dropped
    ORDER BY t.slug, c.relname";
const COMMANDS: &str = "SELECT pg_catalog.format($1, pg_catalog.format('%I.%I', n.nspname, c.relname))
    FROM tenancy.tenants t
    JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema_name
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'm')
    WHERE $2 IS NULL OR t.id = $2
    ORDER BY t.slug, c.relname";

type Timestamp = TimestampWithTimeZone;

/// A table of a tenant's schema.
struct Table {
    tenant: Uuid,
    slug: String,
    schema: String,
    name: String,
    namespace: pg_sys::Oid,
    owner: pg_sys::Oid,
    rows: Option<i64>,
    dead: i64,
    table_bytes: i64,
    index_bytes: i64,
    sequential_scans: i64,
    index_scans: i64,
    unused_indexes: i64,
    last_vacuum: Option<Timestamp>,
    last_analyze: Option<Timestamp>,
}

impl Table {
    /// Counts the rows, as the table's owner.
    fn count(&self) -> Result<i64> {
        pg_sys::check_for_interrupts!();
        let sql = format!("SELECT pg_catalog.count(*) FROM ONLY {}.{}", ident(&self.schema), ident(&self.name));
        let counts: Vec<Option<i64>> = guard::schema::while_working_on(&[self.namespace], || {
            role::as_owner_of_all_rows(self.owner, || query::column(&sql))
        })?;
        Ok(counts.into_iter().flatten().next().unwrap_or(0))
    }
}

/// Rows, sizes and use of every table in the schemas of tenants.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn tenant_statistics(
    exact: default!(Option<bool>, "false"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(tenant_id, Uuid),
            name!(slug, String),
            name!(schema_name, String),
            name!(table_name, String),
            name!(row_count, Option<i64>),
            name!(dead_rows, i64),
            name!(table_bytes, i64),
            name!(index_bytes, i64),
            name!(sequential_scans, i64),
            name!(index_scans, i64),
            name!(unused_indexes, i64),
            name!(last_vacuum_at, Option<Timestamp>),
            name!(last_analyze_at, Option<Timestamp>),
        ),
    >,
    ErrorReport,
> {
    let exact = exact.ok_or(Error::Null("exact"))?;
    let mut tables = query::rows(TABLES, &[], |row| {
        Ok(Table {
            tenant: row.must(1)?,
            slug: row.must(2)?,
            schema: row.must(3)?,
            name: row.must(4)?,
            namespace: row.must(5)?,
            owner: row.must(6)?,
            rows: row.get(7)?,
            dead: row.must(8)?,
            table_bytes: row.must(9)?,
            index_bytes: row.must(10)?,
            sequential_scans: row.must(11)?,
            index_scans: row.must(12)?,
            unused_indexes: row.must(13)?,
            last_vacuum: row.get(14)?,
            last_analyze: row.get(15)?,
        })
    })?;
    if exact {
        for table in &mut tables {
            table.rows = procedure::attempt(|| table.count()).ok();
        }
    }
    Ok(TableIterator::new(tables.into_iter().map(|table| {
        (
            table.tenant,
            table.slug,
            table.schema,
            table.name,
            table.rows,
            table.dead,
            table.table_bytes,
            table.index_bytes,
            table.sequential_scans,
            table.index_scans,
            table.unused_indexes,
            table.last_vacuum,
            table.last_analyze,
        )
    })))
}

/// What `maintenance_commands` can make a command of, with the table's place in it.
const FORMS: [(&str, &str); 6] = [
    ("VACUUM", "VACUUM %s"),
    ("VACUUM (ANALYZE)", "VACUUM (ANALYZE) %s"),
    ("VACUUM (FREEZE)", "VACUUM (FREEZE) %s"),
    ("ANALYZE", "ANALYZE %s"),
    ("REINDEX", "REINDEX TABLE %s"),
    ("REINDEX CONCURRENTLY", "REINDEX TABLE CONCURRENTLY %s"),
];

/// A maintenance command for each table in the schemas of tenants.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn maintenance_commands(
    command: default!(Option<&str>, "'VACUUM (ANALYZE)'"),
    tenant: default!(Option<Uuid>, "NULL"),
) -> std::result::Result<SetOfIterator<'static, String>, ErrorReport> {
    let command = command.ok_or(Error::Null("command"))?;
    let Some((_, form)) = FORMS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(command)) else {
        return Err(Error::invalid(
            format!("\"{command}\" is not a maintenance command"),
            "Commands are VACUUM, VACUUM (ANALYZE), VACUUM (FREEZE), ANALYZE, REINDEX and REINDEX CONCURRENTLY.",
        )
        .into());
    };
    if let Some(tenant) = tenant
        && registry::find(tenant)?.is_none()
    {
        return Err(Error::unknown_tenant(tenant).into());
    }
    let commands: Vec<String> = query::rows(COMMANDS, &[form.into(), tenant.into()], |row| row.must(1))?;
    Ok(SetOfIterator::new(commands))
}
