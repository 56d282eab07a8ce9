//! What the product itself knows of a tenant, as JSON: people, credentials, limits, subscription, bills and usage.
//!
//! Not among it: the audit log, which says what was done here; counters, which are made again; migrations that failed.

use crate::error::{Error, Result};
use crate::metering::usage;
use crate::query;
use crate::text;
use pgrx::Uuid;
use serde_json::Value;

/// Fails on a text that has not the form of its kind.
type Check = fn(&str) -> Result<()>;

/// One kind of it.
pub struct Own {
    pub name: &'static str,
    /// Its rows, each as one jsonb, in an order that the rows themselves give. `$1` is the tenant.
    export: &'static str,
    /// Writes rows that were exported: `$1` is the tenant, `$2` the rows (text[]), `$3` and `$4` the ids of users in the file and here.
    pub import: &'static str,
    /// A name that the rows need and that is not here, of the same rows in `$1`: what it is, and the query.
    pub needs: Option<(&'static str, &'static str)>,
    /// Texts that are to have the form that the product gives them.
    pub texts: &'static [(&'static str, Check)],
    /// Whether another tenant beside the one that was exported gets it: not its credentials, nor what it has used and paid.
    pub for_copies: bool,
    /// Whether it is kept where the tenant's rows are: in a database of its own, where it has one.
    pub beside_rows: bool,
}

fn email(value: &str) -> Result<()> {
    match text::check_email(value)? == value {
        true => Ok(()),
        false => Err(Error::invalid("an e-mail address is not in lower case", "")),
    }
}

fn name(value: &str) -> Result<()> {
    text::check_name(value).map(drop)
}

fn external_id(value: &str) -> Result<()> {
    text::check_external_id(value).map(drop)
}

fn resource(value: &str) -> Result<()> {
    crate::metering::plan::check_name("resource", value).map(drop)
}

pub const USERS: &str = "users";

pub const ALL: &[Own] = &[
    Own {
        name: USERS,
        export: "SELECT pg_catalog.to_jsonb(u) - 'tenant_id' || pg_catalog.jsonb_build_object('at_home', u.tenant_id IS NOT NULL)
                - CASE WHEN u.tenant_id IS NULL THEN 'last_login_at' ELSE '' END
            FROM tenancy.users u WHERE u.tenant_id = $1
               OR u.tenant_id IS NULL AND u.id IN (SELECT user_id FROM tenancy.memberships WHERE tenant_id = $1) ORDER BY u.id",
        // Those who are not here yet: see import::people.
        import: "INSERT INTO tenancy.users (id, tenant_id, email, external_id, tokens_not_before, name, last_login_at, created_at, updated_at)
            SELECT coalesce(m.here, r.id), CASE WHEN r.at_home THEN $1 END, r.email, r.external_id, r.tokens_not_before, r.name, r.last_login_at,
                   r.created_at, r.updated_at
            FROM pg_catalog.unnest($2) AS line
            CROSS JOIN LATERAL pg_catalog.jsonb_to_record(line::jsonb) AS r (id uuid, at_home boolean, email text, external_id text,
                tokens_not_before timestamptz, name text, last_login_at timestamptz, created_at timestamptz, updated_at timestamptz)
            LEFT JOIN ROWS FROM (pg_catalog.unnest($3::uuid[]), pg_catalog.unnest($4::uuid[])) AS m (there, here) ON m.there = r.id
            WHERE r.at_home OR NOT EXISTS (SELECT FROM tenancy.users u WHERE u.id = coalesce(m.here, r.id) AND u.tenant_id IS NULL AND u.email = r.email)",
        needs: None,
        texts: &[("email", email), ("name", name), ("external_id", external_id)],
        for_copies: true,
        beside_rows: false,
    },
    Own {
        name: "members",
        export: "SELECT pg_catalog.to_jsonb(m) - 'tenant_id' FROM tenancy.memberships m WHERE m.tenant_id = $1 ORDER BY m.user_id",
        import: "INSERT INTO tenancy.memberships (tenant_id, user_id, role, created_at, updated_at)
            SELECT $1, coalesce(m.here, r.user_id), r.role, r.created_at, r.updated_at
            FROM pg_catalog.unnest($2) AS line
            CROSS JOIN LATERAL pg_catalog.jsonb_to_record(line::jsonb) AS r (user_id uuid, role text, created_at timestamptz, updated_at timestamptz)
            LEFT JOIN ROWS FROM (pg_catalog.unnest($3::uuid[]), pg_catalog.unnest($4::uuid[])) AS m (there, here) ON m.there = r.user_id",
        needs: Some((
            "role",
            "SELECT line::jsonb ->> 'role' FROM pg_catalog.unnest($1) AS line
            WHERE NOT EXISTS (SELECT FROM tenancy.roles WHERE role = line::jsonb ->> 'role' COLLATE \"C\")",
        )),
        texts: &[],
        for_copies: true,
        beside_rows: false,
    },
    Own {
        name: "invitations",
        export: "SELECT pg_catalog.to_jsonb(i) - 'tenant_id' FROM tenancy.stored_invitations i WHERE i.tenant_id = $1 ORDER BY i.id",
        import: "INSERT INTO tenancy.stored_invitations
                (id, token_hash, tenant_id, email, role, invited_by, metadata, created_at, expires_at, accepted_at, accepted_by, revoked_at)
            SELECT r.id, r.token_hash, $1, r.email, r.role, coalesce(i.here, r.invited_by), r.metadata, r.created_at, r.expires_at, r.accepted_at,
                   coalesce(a.here, r.accepted_by), r.revoked_at
            FROM pg_catalog.unnest($2) AS line
            CROSS JOIN LATERAL pg_catalog.jsonb_to_record(line::jsonb) AS r (id uuid, token_hash bytea, email text, role text, invited_by uuid,
                metadata jsonb, created_at timestamptz, expires_at timestamptz, accepted_at timestamptz, accepted_by uuid, revoked_at timestamptz)
            LEFT JOIN ROWS FROM (pg_catalog.unnest($3::uuid[]), pg_catalog.unnest($4::uuid[])) AS i (there, here) ON i.there = r.invited_by
            LEFT JOIN ROWS FROM (pg_catalog.unnest($3::uuid[]), pg_catalog.unnest($4::uuid[])) AS a (there, here) ON a.there = r.accepted_by",
        needs: Some((
            "role",
            "SELECT line::jsonb ->> 'role' FROM pg_catalog.unnest($1) AS line
            WHERE NOT EXISTS (SELECT FROM tenancy.roles WHERE role = line::jsonb ->> 'role' COLLATE \"C\")",
        )),
        texts: &[("email", email)],
        for_copies: false,
        beside_rows: false,
    },
    Own {
        name: "api_keys",
        export: "SELECT pg_catalog.to_jsonb(k) - 'tenant_id' || pg_catalog.jsonb_build_object('last_used_at', u.last_used_at)
            FROM tenancy.stored_api_keys k LEFT JOIN tenancy.api_key_usage u ON u.key_id = k.id WHERE k.tenant_id = $1 ORDER BY k.id",
        import: "WITH r AS MATERIALIZED (
                SELECT r.* FROM pg_catalog.unnest($2) AS line
                CROSS JOIN LATERAL pg_catalog.jsonb_to_record(line::jsonb) AS r (id uuid, key_hash bytea, user_id uuid, scopes text[],
                    expires_at timestamptz, revoked_at timestamptz, name text, key_prefix text, created_by uuid, created_at timestamptz,
                    replaced_by uuid, last_used_at timestamptz)),
            used AS (INSERT INTO tenancy.api_key_usage (key_id, last_used_at) SELECT id, last_used_at FROM r WHERE last_used_at IS NOT NULL)
            INSERT INTO tenancy.stored_api_keys
                (id, key_hash, tenant_id, user_id, scopes, expires_at, revoked_at, name, key_prefix, created_by, created_at, replaced_by)
            SELECT r.id, r.key_hash, $1, coalesce(u.here, r.user_id), r.scopes, r.expires_at, r.revoked_at, r.name, r.key_prefix,
                   coalesce(c.here, r.created_by), r.created_at, r.replaced_by
            FROM r
            LEFT JOIN ROWS FROM (pg_catalog.unnest($3::uuid[]), pg_catalog.unnest($4::uuid[])) AS u (there, here) ON u.there = r.user_id
            LEFT JOIN ROWS FROM (pg_catalog.unnest($3::uuid[]), pg_catalog.unnest($4::uuid[])) AS c (there, here) ON c.there = r.created_by",
        needs: None,
        texts: &[("name", name)],
        for_copies: false,
        beside_rows: false,
    },
    Own {
        name: "limits",
        export: "SELECT pg_catalog.to_jsonb(l) - 'tenant_id' FROM tenancy.tenant_limits l WHERE l.tenant_id = $1 ORDER BY l.resource, l.period",
        import: "INSERT INTO tenancy.tenant_limits (tenant_id, resource, period, max_value)
            SELECT $1, r.resource, r.period, r.max_value FROM pg_catalog.unnest($2) AS line
            CROSS JOIN LATERAL pg_catalog.jsonb_to_record(line::jsonb) AS r (resource text, period text, max_value numeric)",
        needs: None,
        texts: &[("resource", resource)],
        for_copies: true,
        beside_rows: false,
    },
    Own {
        name: "rate_limits",
        export: "SELECT pg_catalog.to_jsonb(l) - 'tenant_id' FROM tenancy.tenant_rate_limits l WHERE l.tenant_id = $1 ORDER BY l.resource",
        import: "INSERT INTO tenancy.tenant_rate_limits (tenant_id, resource, max_value, period, burst)
            SELECT $1, r.resource, r.max_value, r.period, r.burst FROM pg_catalog.unnest($2) AS line
            CROSS JOIN LATERAL pg_catalog.jsonb_to_record(line::jsonb) AS r (resource text, max_value integer, period text, burst integer)",
        needs: None,
        texts: &[("resource", resource)],
        for_copies: true,
        beside_rows: false,
    },
    Own {
        name: "subscription",
        export: "SELECT pg_catalog.to_jsonb(s) - 'tenant_id' FROM tenancy.subscriptions s WHERE s.tenant_id = $1",
        import: "INSERT INTO tenancy.subscriptions
            SELECT s.* FROM pg_catalog.unnest($2) AS line CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(
                NULL::tenancy.subscriptions, line::jsonb || pg_catalog.jsonb_build_object('tenant_id', $1)) AS s",
        needs: None,
        texts: &[],
        for_copies: false,
        beside_rows: false,
    },
    Own {
        name: "billing_periods",
        export: "SELECT pg_catalog.to_jsonb(p) - 'tenant_id' FROM tenancy.billing_periods p WHERE p.tenant_id = $1 ORDER BY p.period_start",
        import: "INSERT INTO tenancy.billing_periods
            SELECT p.* FROM pg_catalog.unnest($2) AS line CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(
                NULL::tenancy.billing_periods, line::jsonb || pg_catalog.jsonb_build_object('tenant_id', $1)) AS p",
        needs: None,
        texts: &[],
        for_copies: false,
        beside_rows: false,
    },
    Own {
        name: "billing_lines",
        export: "SELECT pg_catalog.to_jsonb(l) - 'tenant_id' FROM tenancy.billing_lines l WHERE l.tenant_id = $1
            ORDER BY l.billed_with, l.period_start, l.metric",
        import: "INSERT INTO tenancy.billing_lines
            SELECT l.* FROM pg_catalog.unnest($2) AS line CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(
                NULL::tenancy.billing_lines, line::jsonb || pg_catalog.jsonb_build_object('tenant_id', $1)) AS l",
        needs: None,
        texts: &[("metric", resource)],
        for_copies: false,
        beside_rows: false,
    },
    // What the rollup has not taken yet is added here as it will be then.
    Own {
        name: "usage_buckets",
        export: "SELECT pg_catalog.to_jsonb(b) FROM (
                SELECT metric, bucket_start, pg_catalog.sum(quantity) AS quantity, pg_catalog.sum(events)::bigint AS events,
                       pg_catalog.sum(consumed) AS consumed, pg_catalog.max(max_quantity) AS max_quantity,
                       (pg_catalog.array_agg(last_quantity ORDER BY last_at DESC, last_quantity DESC))[1] AS last_quantity,
                       pg_catalog.max(last_at) AS last_at
                FROM (SELECT metric, bucket_start, quantity, events, consumed, max_quantity, last_quantity, last_at
                      FROM tenancy.usage_buckets WHERE tenant_id = $1
                      UNION ALL
                      SELECT metric, pg_catalog.date_bin('15 minutes', occurred_at, '2000-01-01 00:00+00'), quantity, 1,
                             CASE WHEN counted THEN quantity ELSE 0 END, quantity, quantity, occurred_at
                      FROM tenancy.usage_inbox WHERE tenant_id = $1) AS parts
                GROUP BY metric, bucket_start) AS b ORDER BY metric, bucket_start",
        import: "INSERT INTO tenancy.usage_buckets
            SELECT b.* FROM pg_catalog.unnest($2) AS line CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(
                NULL::tenancy.usage_buckets, line::jsonb || pg_catalog.jsonb_build_object('tenant_id', $1)) AS b",
        needs: Some(METRICS),
        texts: &[],
        for_copies: false,
        beside_rows: true,
    },
    Own {
        name: "usage_uniques",
        export: "SELECT pg_catalog.to_jsonb(u) FROM (
                SELECT metric, bucket_start, resource_id FROM tenancy.usage_uniques WHERE tenant_id = $1
                UNION
                SELECT i.metric, pg_catalog.date_bin('15 minutes', i.occurred_at, '2000-01-01 00:00+00'), i.resource_id
                FROM tenancy.usage_inbox i JOIN tenancy.metrics m ON m.metric = i.metric AND m.aggregation = 'unique'
                WHERE i.tenant_id = $1 AND i.resource_id IS NOT NULL) AS u ORDER BY metric, bucket_start, resource_id",
        import: "INSERT INTO tenancy.usage_uniques
            SELECT u.* FROM pg_catalog.unnest($2) AS line CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(
                NULL::tenancy.usage_uniques, line::jsonb || pg_catalog.jsonb_build_object('tenant_id', $1)) AS u",
        needs: Some(METRICS),
        texts: &[],
        for_copies: false,
        beside_rows: true,
    },
    Own {
        name: "usage_keys",
        export: "SELECT pg_catalog.to_jsonb(k) - 'tenant_id' FROM tenancy.usage_keys k WHERE k.tenant_id = $1 ORDER BY k.key_hash",
        import: "INSERT INTO tenancy.usage_keys
            SELECT k.* FROM pg_catalog.unnest($2) AS line CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(
                NULL::tenancy.usage_keys, line::jsonb || pg_catalog.jsonb_build_object('tenant_id', $1)) AS k",
        needs: None,
        texts: &[],
        for_copies: false,
        beside_rows: true,
    },
    Own {
        name: EVENTS,
        export: "",
        import: "INSERT INTO tenancy_archive.usage_events (tenant_id, metric, quantity, occurred_at, recorded_at, resource_id, properties, counted)
            SELECT $1, e.metric, e.quantity, e.occurred_at, e.recorded_at, e.resource_id, e.properties, e.counted
            FROM pg_catalog.unnest($2) AS line CROSS JOIN LATERAL pg_catalog.jsonb_to_record(line::jsonb) AS e (metric text, quantity numeric,
                occurred_at timestamptz, recorded_at timestamptz, resource_id uuid, properties jsonb, counted boolean)",
        needs: Some(METRICS),
        texts: &[],
        for_copies: false,
        beside_rows: true,
    },
];

/// The archive's tables are made at run time, and months may have been detached from it.
pub const EVENTS: &str = "usage_events";

const METRICS: (&str, &str) = (
    "metric",
    "SELECT line::jsonb ->> 'metric' FROM pg_catalog.unnest($1) AS line
    WHERE NOT EXISTS (SELECT FROM tenancy.metrics WHERE metric = line::jsonb ->> 'metric' COLLATE \"C\")",
);

impl Own {
    fn export(&self) -> Result<String> {
        if self.name != EVENTS {
            return Ok(self.export.to_owned());
        }
        const COLUMNS: &str = "metric, quantity, occurred_at, recorded_at, resource_id, properties, counted";
        let mut parts = vec![format!("SELECT {COLUMNS} FROM tenancy.usage_inbox WHERE tenant_id = $1")];
        for table in usage::archive_tables()? {
            parts.push(format!("SELECT {COLUMNS} FROM {table} WHERE tenant_id = $1"));
        }
        Ok(format!(
            "SELECT pg_catalog.to_jsonb(e) FROM ({}) AS e ORDER BY occurred_at, recorded_at, metric, quantity, resource_id, properties, counted",
            parts.join(" UNION ALL ")
        ))
    }

    /// Hands out the tenant's rows, some at a time, with the snapshot that is active.
    pub fn read(&self, tenant: Uuid, each: impl FnMut(Vec<String>) -> Result<()>) -> Result<()> {
        const BATCH: i64 = 500;
        let sql = format!("SELECT row::pg_catalog.text FROM ({}) AS rows (row)", self.export()?);
        query::active_batches(&sql, &[tenant.into()], BATCH, |row| row.must(1), each)
    }

    /// Fails on a row that the product would not have written.
    pub fn check(&self, line: &str) -> Result<()> {
        let row: Value = serde_json::from_str(line).map_err(|_| unreadable(self.name))?;
        let row = row.as_object().ok_or_else(|| unreadable(self.name))?;
        for (field, check) in self.texts {
            match row.get(*field) {
                Some(Value::String(value)) => check(value)?,
                None | Some(Value::Null) => {}
                Some(_) => return Err(unreadable(self.name)),
            }
        }
        Ok(())
    }
}

fn unreadable(name: &str) -> Error {
    Error::invalid(format!("a row of {name} in the export cannot be read"), "")
}
