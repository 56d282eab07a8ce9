//! The policies of a protected table: the one place that writes their DDL.
//!
//! The restrictive policy is the guard. Policies grant nothing unless a permissive one does, so there is one that is always true; it
//! calls a function of the extension, so that it goes with the extension and leaves the table closed. The guard's WITH CHECK is
//! its USING, with a function on the failing side that counts the attempt and names the mismatch.

use super::inspect::{Table, TenantType};
use crate::error::Result;
use crate::extension;
use crate::label::{PROTECTED, PROVIDER};
use crate::query::{self, ident};
use crate::relation::{GUARD_POLICY, ISOLATION_POLICY};
use pgrx::pg_sys;

const HAS_POLICY: &str = "SELECT true FROM pg_catalog.pg_policy WHERE polrelid = $1 AND polname = $2::name";

/// Two policies for everyone and every command, with these expressions.
const IS_INTACT: &str = "SELECT pg_catalog.count(*) = 2 FROM pg_catalog.pg_policy
    WHERE polrelid = $1 AND polcmd = '*' AND polroles = '{0}'
      AND (polname = 'tenancy_isolation' AND NOT polpermissive
             AND pg_catalog.pg_get_expr(polqual, polrelid) = $2 AND pg_catalog.pg_get_expr(polwithcheck, polrelid) = $3
           OR polname = 'tenancy_guard' AND polpermissive AND pg_catalog.pg_get_expr(polqual, polrelid) = $4 AND polwithcheck IS NULL)";

/// The call that a tenant column is compared with, and that is its default.
pub fn current_tenant(tenant_type: TenantType) -> Result<String> {
    let schema = extension::schema()?;
    Ok(match tenant_type {
        TenantType::Uuid => format!("{schema}.current_tenant()"),
        TenantType::Text => format!("{schema}.current_tenant_text()"),
        TenantType::KeyText => format!("{schema}.current_tenant_key_text()"),
        TenantType::KeyBigint => format!("{schema}.current_tenant_key_bigint()"),
    })
}

/// Puts the policies on `table`, replacing what is left of earlier ones.
pub fn create(table: &Table, column: &str, tenant_type: TenantType) -> Result<()> {
    drop(table)?;
    let (name, column, tenant, schema) =
        (&table.name, ident(column), current_tenant(tenant_type)?, extension::schema()?);
    let own = format!("{column} OPERATOR(pg_catalog.=) {tenant}");
    for statement in [
        format!("ALTER TABLE ONLY {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"),
        format!(
            "CREATE POLICY {GUARD_POLICY} ON {name} AS PERMISSIVE FOR ALL TO PUBLIC USING ({schema}.tenancy_guard())"
        ),
        format!(
            "CREATE POLICY {ISOLATION_POLICY} ON {name} AS RESTRICTIVE FOR ALL TO PUBLIC USING ({own}) \
             WITH CHECK ({own} OR tenancy.refuse_row({column}::pg_catalog.text))"
        ),
        format!("SECURITY LABEL FOR {PROVIDER} ON TABLE {name} IS '{PROTECTED}'"),
    ] {
        query::statement(&statement, &[])?;
    }
    Ok(())
}

/// The expressions of the guard's policy, as PostgreSQL prints them back while `search_path` is pinned.
fn printed(column: &str, type_name: &str, tenant_type: TenantType) -> Result<(String, String)> {
    let column = ident(column);
    let text = if type_name == "text" { column.clone() } else { format!("({column})::text") };
    let is_text = matches!(tenant_type, TenantType::Text | TenantType::KeyText);
    let compared = if is_text { &text } else { &column };
    let own = format!("({compared} = {})", current_tenant(tenant_type)?);
    let checked = format!("({own} OR tenancy.refuse_row({text}))");
    Ok((own, checked))
}

/// Whether the table has both policies as [`create`] made them.
pub fn is_intact(table: pg_sys::Oid, column: &str, type_name: &str, tenant_type: TenantType) -> Result<bool> {
    let (own, checked) = printed(column, type_name, tenant_type)?;
    let guard = format!("{}.tenancy_guard()", extension::schema()?);
    Ok(query::value::<bool>(IS_INTACT, &[table.into(), own.into(), checked.into(), guard.into()])?.unwrap_or(false))
}

/// Takes the policies and the label off `table`.
pub fn remove(table: &Table) -> Result<()> {
    drop(table)?;
    query::statement(&format!("SECURITY LABEL FOR {PROVIDER} ON TABLE {} IS NULL", table.name), &[]).map(std::mem::drop)
}

fn drop(table: &Table) -> Result<()> {
    for policy in [ISOLATION_POLICY, GUARD_POLICY] {
        if query::value::<bool>(HAS_POLICY, &[table.oid.into(), policy.into()])?.is_some() {
            query::statement(&format!("DROP POLICY {policy} ON {}", table.name), &[])?;
        }
    }
    Ok(())
}
