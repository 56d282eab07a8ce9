//! What protection cannot do by itself: keys that reach across tenants, reported with the statements that close them.

use super::inspect::Table;
use crate::error::Result;
use crate::query;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Foreign keys between protected tables whose columns leave the tenant out, with the composite key in their place.
const FOREIGN_KEYS: &str = "SELECT pg_catalog.format('foreign key %I of %s can refer to a row of another tenant', con.conname, con.conrelid::pg_catalog.regclass),
        pg_catalog.format(
            'ALTER TABLE %s ADD UNIQUE (%I, %s); ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I FOREIGN KEY (%I, %s) REFERENCES %s (%I, %s)%s%s%s; -- as a superuser, to check the rows of every tenant',
            con.confrelid::pg_catalog.regclass, target.tenant_column, parent.columns,
            con.conrelid::pg_catalog.regclass, con.conname, con.conname, source.tenant_column, child.columns,
            con.confrelid::pg_catalog.regclass, target.tenant_column, parent.columns,
            CASE con.confupdtype WHEN 'c' THEN ' ON UPDATE CASCADE' WHEN 'r' THEN ' ON UPDATE RESTRICT' ELSE '' END,
            CASE con.confdeltype WHEN 'c' THEN ' ON DELETE CASCADE' WHEN 'r' THEN ' ON DELETE RESTRICT'
                WHEN 'n' THEN pg_catalog.format(' ON DELETE SET NULL (%s)', child.columns)
                WHEN 'd' THEN pg_catalog.format(' ON DELETE SET DEFAULT (%s)', child.columns) ELSE '' END,
            CASE WHEN con.condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN con.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END)
    FROM pg_catalog.pg_constraint con
    JOIN tenancy.protected_tables source ON source.table_name = con.conrelid
    JOIN tenancy.protected_tables target ON target.table_name = con.confrelid
    CROSS JOIN LATERAL (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY k.position) AS columns,
                               pg_catalog.bool_or(a.attname = source.tenant_column) AS has_tenant
                        FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY k (attnum, position)
                        JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum) child
    CROSS JOIN LATERAL (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY k.position) AS columns
                        FROM pg_catalog.unnest(con.confkey) WITH ORDINALITY k (attnum, position)
                        JOIN pg_catalog.pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.attnum) parent
    WHERE con.contype = 'f' AND con.conparentid = 0 AND (con.conrelid = $1 OR con.confrelid = $1) AND NOT child.has_tenant
    ORDER BY con.conrelid, con.conname";

/// Unique keys that leave the tenant out: two tenants cannot hold the same value, and each learns that the other has it. A
/// surrogate key that is generated (identity, serial, random uuid) tells nothing and may stay.
const UNIQUE_KEYS: &str = "SELECT pg_catalog.format('unique key %I of %s spans all tenants', i.relname, x.indrelid::pg_catalog.regclass),
        CASE WHEN con.oid IS NOT NULL AND NOT key.has_expression
             THEN pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s (%I, %s);', x.indrelid::pg_catalog.regclass, con.conname,
                                    con.conname, CASE con.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, p.tenant_column, key.columns)
             ELSE pg_catalog.format('DROP INDEX %s; %s;', i.oid::pg_catalog.regclass,
                  pg_catalog.regexp_replace(pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef(i.oid), ' ON ONLY ', ' ON '),
                      '( USING [a-z]+ \\()', pg_catalog.format('\\1%I, ', p.tenant_column))) END
    FROM pg_catalog.pg_index x
    JOIN tenancy.protected_tables p ON p.table_name = x.indrelid
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    LEFT JOIN pg_catalog.pg_constraint con ON con.conindid = x.indexrelid AND con.contype IN ('p', 'u') AND con.conrelid = x.indrelid
    CROSS JOIN LATERAL (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY k.position) AS columns,
                               pg_catalog.bool_or(k.attnum = 0) AS has_expression,
                               pg_catalog.bool_or(a.attname = p.tenant_column) AS has_tenant,
                               pg_catalog.bool_and(a.attidentity <> '' OR coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '')
                                   ~ '^(nextval|gen_random_uuid|uuid_generate|uuidv)') AS is_generated
                        FROM pg_catalog.unnest(x.indkey::int2[]) WITH ORDINALITY k (attnum, position)
                        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
                        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                        WHERE k.position <= x.indnkeyatts) key
    WHERE x.indrelid = $1 AND x.indisunique AND NOT i.relispartition AND NOT coalesce(key.has_tenant, false) AND NOT coalesce(key.is_generated, false)
    ORDER BY i.relname";

/// Reports the keys of and to `table` that reach across tenants.
pub fn report(table: &Table) -> Result<()> {
    for sql in [FOREIGN_KEYS, UNIQUE_KEYS] {
        let found = query::rows(sql, &[table.oid.into()], |row| Ok((row.must::<String>(1)?, row.must::<String>(2)?)))?;
        for (message, remedy) in found {
            ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, "protect_table")
                .set_hint(remedy)
                .report(PgLogLevel::NOTICE);
        }
    }
    Ok(())
}
