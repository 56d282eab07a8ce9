//! What triggers would have checked of rows that come or go without them, checked by set; and the triggers that would fire all the same.

use super::tables::{self, Table};
use crate::error::{Error, Result};
use crate::isolation::row::inspect::TenantType;
use crate::query::{self, ident};
use crate::relation::role_name;
use crate::transfer::deferred;
use crate::{own_ddl, role};
use pgrx::{Uuid, pg_sys};

/// Foreign keys from one of these tables or to one, with what joins the two sides: `pk.a = fk.b AND ...`, by the operators that the key uses.
const KEYS: &str = "SELECT con.conname::pg_catalog.text, con.conrelid, pg_catalog.format('%I.%I', cn.nspname, c.relname), c.relowner, c.relkind = 'p',
        con.confrelid, pg_catalog.format('%I.%I', fn.nspname, f.relname), f.relowner, f.relkind = 'p', con.confmatchtype = 'f', k.joined, k.given, k.left_out,
        p.tenant_column::pg_catalog.text, p.tenant_type, r.tenant_column::pg_catalog.text, r.tenant_type,
        coalesce(k.pairs @> ARRAY[p.tenant_column::pg_catalog.text || ' ' || r.tenant_column::pg_catalog.text], false), k.absent
    FROM pg_catalog.pg_constraint con
    JOIN pg_catalog.pg_class c ON c.oid = con.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
    JOIN pg_catalog.pg_class f ON f.oid = con.confrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
    LEFT JOIN tenancy.protected_tables p ON p.table_name = con.conrelid
    LEFT JOIN tenancy.protected_tables r ON r.table_name = con.confrelid
    CROSS JOIN LATERAL (
        SELECT pg_catalog.string_agg(pg_catalog.format('pk.%I OPERATOR(%I.%s) fk.%I', fa.attname, o.nspname, o.oprname, a.attname), ' AND '),
               pg_catalog.string_agg(pg_catalog.format('fk.%I IS NOT NULL', a.attname), ' AND '),
               pg_catalog.string_agg(pg_catalog.format('fk.%I IS NULL', a.attname), ' OR '),
               pg_catalog.string_agg(pg_catalog.format('fk.%I IS NULL', a.attname), ' AND '),
               pg_catalog.array_agg(a.attname::pg_catalog.text || ' ' || fa.attname::pg_catalog.text)
        FROM ROWS FROM (pg_catalog.unnest(con.conkey), pg_catalog.unnest(con.confkey), pg_catalog.unnest(con.conpfeqop)) u (own, other, operator)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = u.own
        JOIN pg_catalog.pg_attribute fa ON fa.attrelid = con.confrelid AND fa.attnum = u.other
        JOIN (SELECT x.oid, n.nspname, x.oprname FROM pg_catalog.pg_operator x JOIN pg_catalog.pg_namespace n ON n.oid = x.oprnamespace) o ON o.oid = u.operator
    ) k (joined, given, left_out, absent, pairs)
    WHERE con.contype = 'f' AND con.conparentid = 0 AND con.confrelid <> 'tenancy.tenants'::pg_catalog.regclass
      AND (CASE WHEN $2 THEN con.confrelid ELSE con.conrelid END) = ANY ($1)
    ORDER BY 3, 1";
/// The tables with all that belongs to them.
const MEMBERS: &str =
    "SELECT table_name::pg_catalog.oid FROM tenancy.protected_tables WHERE root::pg_catalog.oid = ANY ($1)";
/// Triggers that fire for changes which are applied as those of another server: `$2` is the bit of the event (catalog/pg_trigger.h).
const UNSTOPPABLE: &str = "SELECT pg_catalog.quote_ident(t.tgname), t.tgrelid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = ANY ($1) AND t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal AND t.tgtype & $2 <> 0
      AND t.tgfoid <> 'tenancy.count_rows()'::pg_catalog.regprocedure ORDER BY 2, 1 LIMIT 1";
/// The rights that a role lacks to read a table, and who can lend them.
const MISSING: &str = "SELECT 'SELECT ON TABLE ' || pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $2 AND NOT pg_catalog.has_table_privilege($1, $2, 'SELECT')
    UNION ALL SELECT 'USAGE ON SCHEMA ' || pg_catalog.quote_ident(n.nspname), n.nspowner
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $2 AND NOT pg_catalog.has_schema_privilege($1, n.oid, 'USAGE')";

/// What is done to rows without triggers.
#[derive(Clone, Copy)]
pub enum Event {
    Insert = 4,
    Delete = 8,
}

/// A table at one end of a foreign key.
struct End {
    oid: pg_sys::Oid,
    name: String,
    owner: pg_sys::Oid,
    is_partitioned: bool,
    tenant: Option<(String, TenantType)>,
}

struct Key {
    name: String,
    from: End,
    to: End,
    is_full: bool,
    joined: String,
    given: String,
    left_out: String,
    absent: String,
    /// Whether the key itself keeps rows to those of their own tenant.
    has_tenant: bool,
}

impl End {
    fn source(&self) -> String {
        if self.is_partitioned { self.name.clone() } else { format!("ONLY {}", self.name) }
    }

    /// That a row is the tenant's, by this comparison; None where the table is no tenant's.
    fn is_of(&self, alias: &str, tenant: Uuid, comparison: &str) -> Result<Option<String>> {
        let Some((column, kind)) = &self.tenant else { return Ok(None) };
        let own = kind.literal(tenant)?.unwrap_or_else(|| "NULL".to_owned());
        Ok(Some(format!("{alias}.{} {comparison} {own}", ident(column))))
    }
}

/// The tables with their partitions and children.
fn members(tables: &[&Table]) -> Result<Vec<pg_sys::Oid>> {
    let roots: Vec<pg_sys::Oid> = tables.iter().map(|table| table.oid).collect();
    let mut members = query::current_rows(MEMBERS, &[roots.clone().into()], |row| row.must(1))?;
    members.extend(roots);
    Ok(members)
}

fn keys(tables: Vec<pg_sys::Oid>, to_these: bool) -> Result<Vec<Key>> {
    query::current_rows(KEYS, &[tables.into(), to_these.into()], |row| {
        let tenant = |column: usize| -> Result<Option<(String, TenantType)>> {
            let kind = row.get::<String>(column + 1)?.map(|kind| TenantType::from_name(&kind)).transpose()?;
            Ok(row.get::<String>(column)?.zip(kind))
        };
        Ok(Key {
            name: row.must(1)?,
            from: End {
                oid: row.must(2)?,
                name: row.must(3)?,
                owner: row.must(4)?,
                is_partitioned: row.must(5)?,
                tenant: tenant(14)?,
            },
            to: End {
                oid: row.must(6)?,
                name: row.must(7)?,
                owner: row.must(8)?,
                is_partitioned: row.must(9)?,
                tenant: tenant(16)?,
            },
            is_full: row.must(10)?,
            joined: row.must(11)?,
            given: row.must(12)?,
            left_out: row.must(13)?,
            has_tenant: row.must(18)?,
            absent: row.must(19)?,
        })
    })
}

/// Whether a query of both ends finds something. It is run as the owner of the table that refers, who may have no right to read the other one.
fn finds(key: &Key, sql: &str) -> Result<bool> {
    let (from, to) = (&key.from, &key.to);
    let args = [from.owner.into(), to.oid.into()];
    let missing: Vec<(String, pg_sys::Oid)> =
        query::current_rows(MISSING, &args, |row| Ok((row.must(1)?, row.must(2)?)))?;
    let lend = |verb: &str, preposition: &str| -> Result<()> {
        missing.iter().try_for_each(|(right, owner)| {
            let sql = format!("{verb} {right} {preposition} {}", role_name(from.owner));
            own_ddl::run(|| role::as_owner(*owner, || query::statement(&sql, &[]))).map(drop)
        })
    };
    lend("GRANT", "TO")?;
    let found = tables::gives_rows(from.owner, sql)?;
    lend("REVOKE", "FROM")?;
    Ok(found)
}

/// Fails where a row of the tenant refers to nothing.
pub fn check_keys(tables: &[&Table], tenant: Uuid) -> Result<()> {
    for key in keys(members(tables)?, false)? {
        let Key { from, to, joined, given, left_out, absent, .. } = &key;
        let own = from.is_of("fk", tenant, "OPERATOR(pg_catalog.=)")?.unwrap_or_else(|| "true".to_owned());
        let dangling = format!("{given} AND NOT EXISTS (SELECT FROM {} pk WHERE {joined})", to.source());
        // MATCH FULL: all columns of a key, or none.
        let half = if key.is_full { format!(" OR ({left_out}) AND NOT ({absent})") } else { String::new() };
        let sql = format!("SELECT true FROM {} fk WHERE {own} AND ({dangling}{half}) LIMIT 1", from.source());
        if finds(&key, &sql)? {
            return Err(Error::violation(
                "23503",
                format!("insert or update on table \"{}\" violates foreign key constraint \"{}\"", from.name, key.name),
                format!("A row of the tenant refers to a row that is not in {}.", to.name),
            ));
        }
    }
    Ok(())
}

/// Fails where a row that is not the tenant's refers to one of its rows, which are about to go.
pub fn refuse_foreign_references(tables: &[&Table], tenant: Uuid) -> Result<()> {
    for key in keys(members(tables)?, true)?.iter().filter(|key| !key.has_tenant) {
        let Some(own) = key.to.is_of("pk", tenant, "OPERATOR(pg_catalog.=)")? else { continue };
        let others = key.from.is_of("fk", tenant, "IS DISTINCT FROM")?.unwrap_or_else(|| "true".to_owned());
        let sql = format!(
            "SELECT true FROM {} pk JOIN {} fk ON {} WHERE {own} AND {others} LIMIT 1",
            key.to.source(),
            key.from.source(),
            key.joined
        );
        if finds(key, &sql)? {
            return Err(Error::Unprotectable(
                format!("rows of {} that are not the tenant's refer to its rows in {}", key.from.name, key.to.name),
                format!(
                    "Constraint \"{}\" lets them: make it one of both tenant columns, or correct the rows.",
                    key.name
                ),
            ));
        }
    }
    Ok(())
}

/// Fails where two rows are equal in what a constraint keeps apart only at the end of a transaction, by a trigger.
pub fn check_deferred(tables: &[&Table], tenant: Uuid) -> Result<()> {
    for key in deferred::keys(tables.iter().map(|table| table.oid).collect())? {
        let Some(table) = tables.iter().find(|table| table.oid == key.table) else { continue };
        let Some(sql) = key.query(&table.source(), table.condition(tenant)?) else {
            return Err(Error::Unsupported(format!(
                "rows cannot be moved into {}: its exclusion constraint \"{}\" is deferrable",
                table.full_name, key.name
            )));
        };
        if tables::gives_rows(table.owner, &sql)? {
            return Err(Error::violation(
                "23505",
                format!("duplicate key value violates unique constraint \"{}\"", key.name),
                format!("Two rows of {} are equal in it.", table.full_name),
            ));
        }
    }
    Ok(())
}

/// Fails where a trigger of users' would do again what it has done for the rows where they were.
pub fn refuse_unstoppable(tables: &[&Table], event: Event) -> Result<()> {
    let members = members(tables)?;
    let found = query::current_rows(UNSTOPPABLE, &[members.into(), (event as i32).into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<String>(2)?))
    })?;
    match found.into_iter().next() {
        None => Ok(()),
        Some((trigger, table)) => Err(Error::Unprotectable(
            format!("trigger {trigger} of {table} would fire for rows that are only moved"),
            format!("It is enabled ALWAYS or for replicas: ALTER TABLE {table} ENABLE TRIGGER {trigger};"),
        )),
    }
}
