//! The buckets of whole days (of UTC, counted from 1970), as one database hands them to another: what was used in a tenant's own database is
//! kept there, and the control database has a copy.
//!
//! A day is replaced as a whole, so that handing it over twice does no harm, and two databases find by a checksum which days differ.

use super::rollup;
use crate::error::{Error, Result};
use crate::query::{self, literal};
use crate::row_file;
use crate::scratch::Scratch;
use pgrx::{Uuid, pg_sys};
use std::path::Path;

/// A table, and its columns in the order of the file.
const BUCKETS: (&str, &[&str]) = (
    "tenancy.usage_buckets",
    &[
        "tenant_id",
        "metric",
        "bucket_start",
        "quantity",
        "events",
        "consumed",
        "max_quantity",
        "last_quantity",
        "last_at",
    ],
);
const UNIQUES: (&str, &[&str]) = ("tenancy.usage_uniques", &["tenant_id", "metric", "bucket_start", "resource_id"]);

const CHECKSUMS: &str = "SELECT c.day, pg_catalog.sum(c.hash)::text FROM (
        SELECT pg_catalog.floor(EXTRACT(epoch FROM bucket_start) / 86400)::integer,
               pg_catalog.hashtextextended(pg_catalog.concat_ws('|', metric, EXTRACT(epoch FROM bucket_start), quantity, events, consumed,
                   max_quantity, last_quantity, EXTRACT(epoch FROM last_at)), 1)::numeric
        FROM tenancy.usage_buckets WHERE tenant_id = $1
        UNION ALL
        SELECT pg_catalog.floor(EXTRACT(epoch FROM bucket_start) / 86400)::integer,
               pg_catalog.hashtextextended(pg_catalog.concat_ws('|', metric, EXTRACT(epoch FROM bucket_start), resource_id), 2)::numeric
        FROM tenancy.usage_uniques WHERE tenant_id = $1) AS c (day, hash)
    GROUP BY c.day ORDER BY c.day";
const OID: &str = "SELECT $1::pg_catalog.regclass::pg_catalog.oid";
/// Quotas have been added up without what comes now.
const FORGET_COUNTERS: &str = "DELETE FROM tenancy.quota_counters WHERE tenant_id = $1";

const UNREPORTED: &str = "SELECT day, version FROM tenancy.unreported_usage ORDER BY day DESC LIMIT $1";
const REPORTED: &str = "DELETE FROM tenancy.unreported_usage u
    USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS r (day, version) WHERE u.day = r.day AND u.version = r.version";
const MARK: &str =
    "INSERT INTO tenancy.unreported_usage AS u (day, version) SELECT DISTINCT d, 1 FROM pg_catalog.unnest($1) AS d
    ON CONFLICT (day) DO UPDATE SET version = u.version + 1";

/// The days of which something is kept, each with a sum over its rows that does not depend on their order.
pub fn checksums(tenant: Uuid) -> Result<Vec<(i32, String)>> {
    query::current_rows(CHECKSUMS, &[tenant.into()], |row| Ok((row.must(1)?, row.must(2)?)))
}

/// The days of `own` that are not the same in `other`.
pub fn differing(own: &[(i32, String)], other: &[(i32, String)]) -> Vec<i32> {
    own.iter().filter(|day| !other.contains(day)).map(|(day, _)| *day).collect()
}

/// Up to so many days that have not been reported, the latest first, each with its version.
pub fn unreported(limit: i64) -> Result<Vec<(i32, i64)>> {
    query::current_rows(UNREPORTED, &[limit.into()], |row| Ok((row.must(1)?, row.must(2)?)))
}

/// Forgets that these days are to be reported, unless they have changed since they were read.
pub fn reported(days: &[(i32, i64)]) -> Result<()> {
    let (days, versions): (Vec<i32>, Vec<i64>) = days.iter().copied().unzip();
    query::run(REPORTED, &[days.into(), versions.into()]).map(drop)
}

/// Has these days reported again.
pub fn mark(days: &[i32]) -> Result<()> {
    query::run(MARK, &[days.to_vec().into()]).map(drop)
}

/// Two files: of the buckets, and of the resources of metrics that count different ones.
pub struct Files {
    buckets: Scratch,
    uniques: Scratch,
}

impl Files {
    pub fn new() -> Result<Self> {
        Ok(Self { buckets: Scratch::new()?, uniques: Scratch::new()? })
    }

    /// What another process knows them by.
    pub fn names(&self) -> [String; 2] {
        [self.buckets.name(), self.uniques.name()]
    }

    pub fn paths(&self) -> [&Path; 2] {
        [self.buckets.path(), self.uniques.path()]
    }
}

/// Rows of a table by days, found by its index.
fn of_days(table: &str, tenant: Uuid, days: &[i32]) -> String {
    let days: Vec<String> = days.iter().map(i32::to_string).collect();
    let moment = |day: &str| format!("pg_catalog.to_timestamp(({day})::bigint * 86400::double precision)");
    format!(
        "pg_catalog.unnest({}::integer[]) AS d (day) CROSS JOIN tenancy.metrics m
            JOIN {table} b ON b.tenant_id = {} AND b.metric = m.metric AND b.bucket_start >= {} AND b.bucket_start < {}",
        literal(&format!("{{{}}}", days.join(","))),
        literal(&tenant.to_string()),
        moment("d.day"),
        moment("d.day::bigint + 1"),
    )
}

/// Writes the rows of these days, as of now.
pub fn unload(tenant: Uuid, days: &[i32], paths: [&Path; 2]) -> Result<()> {
    query::as_of_now(|| {
        for ((table, columns), path) in [BUCKETS, UNIQUES].into_iter().zip(paths) {
            let columns: Vec<String> = columns.iter().map(|column| format!("b.{column}")).collect();
            let query = format!("SELECT {} FROM {}", columns.join(", "), of_days(table, tenant, days));
            row_file::unload(&query, path)?;
        }
        Ok(())
    })
}

/// Replaces the rows of these days by those of the files.
pub fn replace(tenant: Uuid, days: &[i32], paths: [&Path; 2]) -> Result<()> {
    rollup::lock();
    for ((table, columns), path) in [BUCKETS, UNIQUES].into_iter().zip(paths) {
        let gone =
            format!("DELETE FROM {table} x WHERE x.ctid IN (SELECT b.ctid FROM {})", of_days(table, tenant, days));
        query::statement(&gone, &[])?;
        let oid: Option<pg_sys::Oid> = query::value(OID, &[table.into()])?;
        let oid = oid.ok_or_else(|| Error::Internal(format!("{table} is not there")))?;
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        row_file::load(oid, &columns, path)?;
    }
    query::run(FORGET_COUNTERS, &[tenant.into()]).map(drop)
}
