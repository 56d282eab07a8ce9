//! Bringing the control database's copy of what a tenant has used in a database of its own up to date at once, where that must be exact: before a
//! period is closed.

use super::days::{self, Files};
use super::rollup;
use crate::context::registry::{self, Isolation};
use crate::error::{Error, Result};
use crate::home;
use crate::scratch;
use crate::uuid;
use crate::worker::errand;
use pgrx::Uuid;
use serde_json::{Value, json};

/// What the tenant's own database is asked for.
pub const ERRAND: &str = "usage.fetch";

/// Fetches what the tenant's own database has of days that are not the same here; does nothing for a tenant that has none. All that was
/// committed there before the call is here then. As the extension's owner.
pub fn fetch(tenant: Uuid) -> Result<()> {
    let Some(Isolation::Database { name: Some(name), .. }) = registry::find(tenant)?.map(|tenant| tenant.isolation)
    else {
        return Ok(());
    };
    if home::is_of(tenant.as_bytes()) {
        return Ok(());
    }
    let files = Files::new()?;
    let request = json!({ "tenant": tenant.to_string(), "days": days::checksums(tenant)?, "files": files.names() });
    let answer = errand::send(home::find(tenant, name.as_str())?, ERRAND, &request)?.wait()?;
    let days: Vec<i32> =
        serde_json::from_value(answer).map_err(|_| Error::Internal("days cannot be read".to_owned()))?;
    if days.is_empty() { Ok(()) } else { days::replace(tenant, &days, files.paths()) }
}

/// The errand, in the tenant's own database: writes the days that differ into the files, and says which they are.
pub fn answer(request: &Value) -> Result<Value> {
    let unreadable = || Error::Internal("a request for usage cannot be read".to_owned());
    let field = |name: &str| request.get(name).cloned().unwrap_or_default();
    let tenant = field("tenant").as_str().and_then(|tenant| uuid::parse(tenant.as_bytes())).ok_or_else(unreadable)?;
    let theirs: Vec<(i32, String)> = serde_json::from_value(field("days")).map_err(|_| unreadable())?;
    let files: [String; 2] = serde_json::from_value(field("files")).map_err(|_| unreadable())?;
    let [buckets, uniques] = files.map(|name| scratch::path(&name));
    let (buckets, uniques) = (buckets?, uniques?);
    let tenant = Uuid::from_bytes(tenant);
    errand::transaction(|| rollup::take_what_is_there(false))?;
    let days = errand::transaction(|| {
        let days = days::differing(&days::checksums(tenant)?, &theirs);
        days::unload(tenant, &days, [&buckets, &uniques])?;
        Ok(days)
    })?;
    Ok(json!(days))
}
