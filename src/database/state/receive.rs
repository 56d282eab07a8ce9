//! In a tenant's own database: its rows become what the control database says.

use super::contents::{COPIED, Copied};
use crate::error::{Error, Result};
use crate::extension;
use crate::guard::lock::{Mode, Subject};
use crate::home;
use crate::metering::limit;
use crate::query::{self, literal};
use crate::role;
use crate::uuid;
use crate::worker::errand;
use crate::worker::process::{self, Failure};
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};

const RECEIVED: &str = "SELECT version FROM tenancy.received_state";
/// Each key has a place where its last use is marked.
const USES: [&str; 2] = [
    "DELETE FROM tenancy.api_key_usage u WHERE NOT EXISTS (SELECT FROM tenancy.stored_api_keys k WHERE k.id = u.key_id)",
    "INSERT INTO tenancy.api_key_usage (key_id) SELECT k.id FROM tenancy.stored_api_keys k
        WHERE NOT EXISTS (SELECT FROM tenancy.api_key_usage u WHERE u.key_id = k.id)",
];
const FORGET: &str = "DELETE FROM tenancy.received_state";
const NOTE: &str = "INSERT INTO tenancy.received_state (version, digest) VALUES ($1, $2)";
const COLUMNS: &str = "SELECT a.attname::text FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = ('tenancy.' || $1)::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
const LEVELS: &str = "SELECT a.role::text, a.level FROM tenancy.access a WHERE a.role_oid <> 0 ORDER BY 1, 2";

const TABLES: &str = "SELECT c.relname::text, c.oid FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN tenancy.tenants t ON t.schema_name = n.nspname
    WHERE t.id = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.oid";
const LIMITS: &str = "SELECT c.relname::text, l.resource, l.condition
    FROM tenancy.limited_tables l JOIN pg_catalog.pg_class c ON c.oid = l.table_name
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN tenancy.tenants t ON t.schema_name = n.nspname WHERE t.id = $1";

/// One request, of [`super::tell`].
struct Told {
    tenant: [u8; 16],
    version: i64,
    digest: String,
    rows: String,
    levels: Vec<(String, String)>,
    limits: Vec<Limited>,
    /// Whether whoever asks waits for nobody else: one database that is busy must not keep the others from being told.
    is_patient: bool,
}

/// A table, a resource and a condition.
type Limited = (String, String, Option<String>);

impl Told {
    fn read(request: &Value) -> Option<Self> {
        let text = |field: &str| request.get(field).and_then(Value::as_str).map(str::to_owned);
        let levels: Vec<(String, String)> = serde_json::from_str(&text("levels")?).ok()?;
        let limits: Vec<Limited> = serde_json::from_str(&text("limits")?).ok()?;
        Some(Self {
            limits,
            tenant: uuid::parse(text("tenant")?.as_bytes())?,
            version: request.get("version")?.as_i64()?,
            digest: text("digest")?,
            rows: text("rows")?,
            levels,
            is_patient: request.get("is_patient")?.as_bool()?,
        })
    }

    fn transaction(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.is_patient {
            return errand::transaction(work);
        }
        process::transaction(|| true, || role::as_extension_owner(work)).map(drop)
    }

    /// Makes the rows what they are said to be, unless something later was said before.
    fn take_rows(&self) -> Result<()> {
        if home::here().is_none_or(|home| home.tenant != self.tenant) {
            return Err(Error::State(
                format!("this database is not that of tenant \"{}\"", Uuid::from_bytes(self.tenant)),
                "",
            ));
        }
        Subject::step("state of this database").lock(Mode::Exclusive);
        let received = query::current_rows(RECEIVED, &[], |row| row.must::<i64>(1))?;
        if received.first().is_some_and(|received| *received > self.version) {
            return Ok(());
        }
        for copied in COPIED {
            self.take_table(copied)?;
        }
        for keep_uses in USES {
            query::run(keep_uses, &[])?;
        }
        query::run(FORGET, &[])?;
        query::run(NOTE, &[self.version.into(), self.digest.as_str().into()]).map(drop)
    }

    fn take_table(&self, Copied { table, key, own, .. }: &Copied) -> Result<()> {
        let columns: Vec<String> = query::rows(COLUMNS, &[(*table).into()], |row| row.must(1))?;
        let copied: Vec<&str> = columns.iter().map(String::as_str).filter(|column| !own.contains(column)).collect();
        let of = |alias: &str, columns: &[&str]| -> String {
            let columns: Vec<String> =
                columns.iter().map(|column| format!("{alias}.{}", query::ident(column))).collect();
            columns.join(", ")
        };
        // Bound once for both, so that it is not parsed for each.
        let said = format!(
            "pg_catalog.jsonb_populate_recordset(NULL::tenancy.{table}, $1::pg_catalog.jsonb -> {})",
            literal(table)
        );
        let same_key = format!("({}) = ({})", of("x", key), of("n", key));
        // What differs goes first: two rows may have exchanged what is unique.
        let gone = format!(
            "DELETE FROM tenancy.{table} x WHERE NOT EXISTS (SELECT FROM {said} n WHERE {same_key} AND ({}) IS NOT DISTINCT FROM ({}))",
            of("x", &copied),
            of("n", &copied),
        );
        let own = self.keep_own(table, key, own, &same_key)?;
        query::statement(&gone, &[self.rows.as_str().into()])?;
        let names: Vec<String> = copied.iter().map(|column| query::ident(column)).collect();
        let names = names.join(", ");
        let new = format!(
            "INSERT INTO tenancy.{table} ({names}) SELECT {} FROM {said} n WHERE NOT EXISTS (SELECT FROM tenancy.{table} x WHERE {same_key})",
            of("n", &copied),
        );
        query::statement(&new, &[self.rows.as_str().into()])?;
        own.map_or(Ok(()), |restore| query::statement(&restore, &[]).map(drop))
    }

    /// What puts back into rows that are replaced what is the copy's own.
    fn keep_own(&self, table: &str, key: &[&str], own: &[&str], same_key: &str) -> Result<Option<String>> {
        let ([own], [key]) = (own, key) else { return Ok(None) };
        let read = format!(
            "SELECT pg_catalog.jsonb_object_agg(x.{key}, x.{own})::text FROM tenancy.{table} x WHERE x.{own} IS NOT NULL"
        );
        let kept: Option<String> = query::current_column(&read, &[])?.into_iter().next().flatten();
        Ok(kept.map(|kept| {
            let kept = format!(
                "(SELECT * FROM pg_catalog.jsonb_populate_recordset(NULL::tenancy.{table},
                    (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object({}, e.key, {}, e.value)) FROM pg_catalog.jsonb_each({}) e)))",
                literal(key),
                literal(own),
                literal(&kept),
            );
            format!("UPDATE tenancy.{table} x SET {own} = n.{own} FROM {kept} n WHERE {same_key} AND x.{own} IS NULL")
        }))
    }

    /// Limits the tenant's tables as its template's are.
    fn take_limits(&self) -> Result<()> {
        limit::follow_memberships()?;
        let tenant = Uuid::from_bytes(self.tenant);
        let tables = query::current_rows(TABLES, &[tenant.into()], |row| {
            Ok((row.must::<String>(1)?, row.must::<pg_sys::Oid>(2)?))
        })?;
        let has: Vec<Limited> =
            query::current_rows(LIMITS, &[tenant.into()], |row| Ok((row.must(1)?, row.must(2)?, row.get(3)?)))?;
        let schema = extension::schema()?;
        for (table, oid) in tables {
            for (_, resource, _) in has.iter().filter(|limited| limited.0 == table) {
                if !self.limits.iter().any(|wanted| wanted.0 == table && wanted.1 == *resource) {
                    let call = format!("SELECT {schema}.unlimit_table($1::pg_catalog.regclass, $2)");
                    query::statement(&call, &[oid.into(), resource.as_str().into()])?;
                }
            }
            for wanted in self.limits.iter().filter(|wanted| wanted.0 == table && !has.contains(wanted)) {
                let call = format!("SELECT {schema}.limit_table($1::pg_catalog.regclass, $2, $3)");
                query::statement(&call, &[oid.into(), wanted.1.as_str().into(), wanted.2.as_deref().into()])?;
            }
        }
        Ok(())
    }

    /// Takes from roles what they have in the control database no more; who keeps another level gets that again. Comes before all that can fail.
    fn revoke(&self) -> Result<()> {
        let held = held()?;
        for role in roles(&held) {
            let wanted = levels_of(&self.levels, role);
            if levels_of(&held, role).iter().any(|level| !wanted.contains(level)) {
                let schema = extension::schema()?;
                call(&format!("SELECT {schema}.revoke_access($1::pg_catalog.regrole)"), &[query::ident(role)])?;
            }
        }
        Ok(())
    }

    /// Gives a role the levels that it has in the control database.
    fn grant(&self, role: &str) -> Result<()> {
        let (held, schema) = (held()?, extension::schema()?);
        let has = levels_of(&held, role);
        for level in levels_of(&self.levels, role).into_iter().filter(|level| !has.contains(level)) {
            let sql = format!("SELECT {schema}.grant_access($1::pg_catalog.regrole, $2)");
            call(&sql, &[query::ident(role), level.to_owned()])?;
        }
        Ok(())
    }
}

fn held() -> Result<Vec<(String, String)>> {
    query::current_rows(LEVELS, &[], |row| Ok((row.must(1)?, row.must(2)?)))
}

fn roles(levels: &[(String, String)]) -> Vec<&str> {
    let mut roles: Vec<&str> = levels.iter().map(|(role, _)| role.as_str()).collect();
    roles.dedup();
    roles
}

fn levels_of<'a>(levels: &'a [(String, String)], role: &str) -> Vec<&'a str> {
    levels.iter().filter(|(known, _)| known == role).map(|(_, level)| level.as_str()).collect()
}

fn call(sql: &str, args: &[String]) -> Result<()> {
    let args: Vec<_> = args.iter().map(|arg| arg.as_str().into()).collect();
    query::statement(sql, &args).map(drop)
}

/// The errand. What is taken away comes first, and what cannot be given keeps nothing else from being so.
pub fn run(request: &Value) -> Result<Value> {
    let told = Told::read(request).ok_or_else(|| Error::Internal("a state cannot be read".to_owned()))?;
    told.transaction(|| told.take_rows())?;
    told.transaction(|| told.revoke())?;
    let limits = process::attempt(|| told.transaction(|| told.take_limits()));
    let grants = roles(&told.levels).into_iter().map(|role| process::attempt(|| told.transaction(|| told.grant(role))));
    let failure = [limits].into_iter().chain(grants).fold(None, |first, done| first.or(done.err()));
    match failure {
        Some(Failure { sqlstate, message, detail, hint }) => Err(Error::Elsewhere { sqlstate, message, detail, hint }),
        None => Ok(json!({})),
    }
}
