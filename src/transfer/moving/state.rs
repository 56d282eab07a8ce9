//! The tenant's row in the registry while it is moved.

use super::record::Isolation;
use crate::context::registry::Status;
use crate::database;
use crate::error::{Error, Result};
use crate::query;
use pgrx::Uuid;

const LOCK_ROW: &str = "SELECT slug, status, isolation, schema_name::pg_catalog.text, template::pg_catalog.text, purge_started_at IS NOT NULL,
        database_name::pg_catalog.text FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const SET_STATUS: &str = "UPDATE tenancy.tenants SET status = $2, status_since = pg_catalog.now(), updated_at = pg_catalog.now() WHERE id = $1";
/// The tenant's row in the registry, locked until the transaction ends.
pub struct Registry {
    pub slug: String,
    pub status: Status,
    pub isolation: Isolation,
    pub schema: Option<String>,
    pub template: Option<String>,
    pub purge_begun: bool,
    pub database: Option<String>,
}

impl Registry {
    pub fn read(tenant: Uuid) -> Result<Self> {
        query::returning(LOCK_ROW, &[tenant.into()], |row| {
            let isolation: String = row.must(3)?;
            Ok(Self {
                slug: row.must(1)?,
                status: Status::from_name(&row.must::<String>(2)?)?,
                isolation: Isolation::from_name(&isolation)
                    .ok_or_else(|| Error::Internal(format!("unknown isolation {isolation}")))?,
                schema: row.get(4)?,
                template: row.get(5)?,
                purge_begun: row.must(6)?,
                database: row.get(7)?,
            })
        })?
        .ok_or_else(|| Error::unknown_tenant(tenant))
    }
}

/// Changes the tenant's state, here and where its own database reads it.
pub fn set_status(tenant: Uuid, status: Status) -> Result<()> {
    query::run(SET_STATUS, &[tenant.into(), status.name().into()])?;
    database::set_state(tenant, status.name())
}
