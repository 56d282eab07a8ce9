//! Counting a tenant's live rows, in every table that has a trigger for the resource, each as its owner and past its policies.

use super::{condition, memberships};
use crate::error::{Error, Result};
use crate::guard;
use crate::query::{self, ident};
use crate::role;
use pgrx::datum::DatumWithOid;
use pgrx::{Uuid, pg_sys};

/// Tables with rows of their own that count a resource: those that tenants share, unless they hold rows that were moved, and those in a tenant's schema. `$1` is the tenant, `$2` how
/// the arguments of their triggers begin.
const TABLES: &str = "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner, n.oid, t.tgargs,
        p.tenant_column::pg_catalog.text, p.tenant_type, p.table_name IS NULL
    FROM (SELECT table_name::pg_catalog.oid AS oid FROM tenancy.protected_tables
              WHERE NOT EXISTS (SELECT FROM tenancy.tenants m WHERE m.id = $1 AND m.moved_from = 'row')
          UNION SELECT r.oid FROM tenancy.tenants s JOIN pg_catalog.pg_namespace m ON m.nspname = s.schema_name
              JOIN pg_catalog.pg_class r ON r.relnamespace = m.oid WHERE s.id = $1) candidates
    JOIN pg_catalog.pg_class c ON c.oid = candidates.oid AND c.relkind = 'r' AND c.relhastriggers
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
        AND t.tgfoid = 'tenancy.count_rows()'::pg_catalog.regprocedure AND t.tgtype = 4
        AND pg_catalog.substr(t.tgargs, 1, pg_catalog.length($2)) = $2
    LEFT JOIN tenancy.protected_tables p ON p.table_name = c.oid
    ORDER BY c.oid";
const MEMBERS: &str = "SELECT pg_catalog.count(*) FROM tenancy.memberships WHERE tenant_id = $1";

/// How counts are made: by one process, which knows what it may read.
const SETTINGS: [(&str, &str); 2] = [("max_parallel_workers_per_gather", "0"), ("row_security", "on")];

/// A table that holds rows which count.
struct Counted {
    name: String,
    owner: pg_sys::Oid,
    namespace: pg_sys::Oid,
    condition: Option<String>,
    /// The tenant column, and whether it is a uuid; None in a tenant's schema.
    column: Option<(String, bool)>,
}

/// What the arguments of a trigger say: the resource and, if there is one, the condition.
pub fn arguments(bytes: &[u8]) -> Vec<String> {
    let mut arguments: Vec<String> =
        bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    // Each argument ends with a zero.
    arguments.pop();
    arguments
}

fn tables(tenant: Uuid, resource: &str) -> Result<Vec<Counted>> {
    let mut prefix = resource.as_bytes().to_vec();
    prefix.push(0);
    role::as_extension_owner(|| {
        query::active_rows(TABLES, &[tenant.into(), prefix.into()], |row| {
            let is_own: bool = row.must(8)?;
            let column = if is_own { None } else { Some((row.must(6)?, row.must::<String>(7)? == "uuid")) };
            Ok(Counted {
                name: row.must(2)?,
                owner: row.must(3)?,
                namespace: row.must(4)?,
                condition: arguments(&row.must::<Vec<u8>>(5)?).into_iter().nth(1),
                column,
            })
        })
    })
}

impl Counted {
    fn count(&self, tenant: Uuid) -> Result<i64> {
        let mut conditions = Vec::new();
        let mut args: Vec<DatumWithOid> = Vec::new();
        if let Some((column, is_uuid)) = &self.column {
            conditions.push(format!("{} OPERATOR(pg_catalog.=) $1", ident(column)));
            args.push(if *is_uuid { tenant.into() } else { tenant.to_string().into() });
        }
        conditions.extend(self.condition.as_ref().map(|condition| format!("({condition})")));
        let wanted = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let sql = format!("SELECT pg_catalog.count(*) FROM ONLY {}{wanted}", self.name);
        let read = || -> Result<i64> {
            let path = condition::search_path(self.namespace);
            role::as_owner_of_all_rows(self.owner, || {
                role::with_settings(SETTINGS.into_iter().chain(condition::settings(&path)), || one(&sql, &args))
            })
        };
        match self.column {
            Some(_) => read(),
            None => guard::schema::while_working_on(&[self.namespace], read),
        }
    }
}

fn one(sql: &str, args: &[DatumWithOid]) -> Result<i64> {
    let rows: Vec<i64> = query::active_statement(sql, args, |row| row.must(1))?;
    rows.into_iter().next().ok_or_else(|| Error::Internal("a count gave no row".to_owned()))
}

fn are_members_counted(resource: &str) -> Result<bool> {
    Ok(memberships::resources()?.iter().any(|known| known == resource))
}

/// How many live rows of the resource the tenant has, as of the latest commit and the caller's own changes.
pub fn rows(tenant: Uuid, resource: &str) -> Result<i64> {
    Ok(rows_if_counted(tenant, resource)?.unwrap_or(0))
}

/// The same; None where no table that the tenant can have rows in counts it.
pub fn rows_if_counted(tenant: Uuid, resource: &str) -> Result<Option<i64>> {
    query::as_of_now(|| rows_in_snapshot(tenant, resource))
}

/// The same as the active snapshot shows it.
pub fn rows_in_snapshot(tenant: Uuid, resource: &str) -> Result<Option<i64>> {
    let mut total = None;
    for table in tables(tenant, resource)? {
        total = Some(total.unwrap_or(0) + table.count(tenant)?);
    }
    if are_members_counted(resource)? {
        total = Some(total.unwrap_or(0) + role::as_extension_owner(|| one(MEMBERS, &[tenant.into()]))?);
    }
    Ok(total)
}
