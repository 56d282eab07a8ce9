//! What a report says beside usage: counts of what is limited, and when keys and people were seen last.

use crate::error::{Error, Result};
use crate::json::Jsonb;
use crate::metering::limit;
use crate::query;
use pgrx::Uuid;
use pgrx::datum::DatumWithOid;
use serde_json::{Value, json};

/// Moments as seconds since 1970, to the microsecond: the same text in every session.
const SEEN: &str = "SELECT pg_catalog.jsonb_build_object(
    'keys', (SELECT pg_catalog.jsonb_object_agg(u.key_id, EXTRACT(epoch FROM u.last_used_at)::text)
             FROM tenancy.api_key_usage u JOIN tenancy.stored_api_keys k ON k.id = u.key_id AND k.tenant_id = $1
             WHERE u.last_used_at IS NOT NULL),
    'people', (SELECT pg_catalog.jsonb_object_agg(u.id, EXTRACT(epoch FROM u.last_login_at)::text)
               FROM tenancy.users u WHERE u.last_login_at IS NOT NULL))::text";
const DIGEST: &str = "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8')), 'hex')";

const COUNTED: &str = "WITH said AS (SELECT key AS resource, value::text::bigint AS used FROM pg_catalog.jsonb_each($2)),
    gone AS (DELETE FROM tenancy.database_limits l WHERE l.tenant_id = $1 AND NOT EXISTS (SELECT FROM said s WHERE s.resource = l.resource))
    INSERT INTO tenancy.database_limits AS l (tenant_id, resource, used, reported_at)
    SELECT $1, resource, used, pg_catalog.clock_timestamp() FROM said
    ON CONFLICT (tenant_id, resource) DO UPDATE SET used = excluded.used, reported_at = excluded.reported_at WHERE l.used <> excluded.used";
const KEYS: &str = "INSERT INTO tenancy.api_key_usage AS u (key_id, last_used_at)
    SELECT k.id, pg_catalog.to_timestamp(s.value::double precision) FROM pg_catalog.jsonb_each_text($2) s
    JOIN tenancy.stored_api_keys k ON k.id = s.key::uuid AND k.tenant_id = $1
    ON CONFLICT (key_id) DO UPDATE SET last_used_at = greatest(u.last_used_at, excluded.last_used_at)
    WHERE u.last_used_at IS NULL OR u.last_used_at < excluded.last_used_at";
const PEOPLE: &str = "UPDATE tenancy.users u SET last_login_at = pg_catalog.to_timestamp(s.value::double precision)
    FROM pg_catalog.jsonb_each_text($2) s
    WHERE u.id = s.key::uuid AND (u.last_login_at IS NULL OR u.last_login_at < pg_catalog.to_timestamp(s.value::double precision))
      AND (u.tenant_id = $1 OR EXISTS (SELECT FROM tenancy.memberships m WHERE m.tenant_id = $1 AND m.user_id = u.id))";

/// As it is now, in the tenant's own database.
pub fn read(tenant: Uuid) -> Result<Value> {
    let seen: Option<String> = query::current_rows(SEEN, &[tenant.into()], |row| row.get(1))?.pop().flatten();
    let seen: Value = serde_json::from_str(&seen.unwrap_or_default())
        .map_err(|error| Error::Internal(format!("what was seen cannot be read: {error}")))?;
    let limits: serde_json::Map<String, Value> =
        limit::counted(tenant)?.into_iter().map(|(resource, used)| (resource, json!(used))).collect();
    Ok(json!({ "limits": limits, "seen": seen }))
}

pub fn digest(uses: &Value) -> Result<String> {
    query::value(DIGEST, &[uses.to_string().into()])?.ok_or_else(|| Error::Internal("a digest is null".to_owned()))
}

fn object(value: &Value) -> Jsonb {
    // The text of a Value is JSON.
    Jsonb::from_text(if value.is_object() { value.to_string() } else { "{}".to_owned() })
}

/// Takes it over, in the control database.
pub fn take(tenant: Uuid, uses: &Value) -> Result<()> {
    let parts = [(COUNTED, &uses["limits"]), (KEYS, &uses["seen"]["keys"]), (PEOPLE, &uses["seen"]["people"])];
    for (statement, value) in parts {
        let args: [DatumWithOid; 2] = [tenant.into(), object(value).into()];
        query::run(statement, &args)?;
    }
    Ok(())
}
