//! The registry while a tenant is moved: its state, and the switch that leads every later transaction to the new place.

use super::order::Order;
use super::record::{self, Isolation, Moved};
use crate::audit::{self, Entry};
use crate::context::registry::Status;
use crate::database;
use crate::error::{Error, Result};
use crate::json::Object;
use crate::label::{MOVED, PROVIDER};
use crate::metering;
use crate::own_ddl;
use crate::query::{self, ident, literal};
use pgrx::Uuid;

const LOCK_ROW: &str = "SELECT slug, status, isolation, schema_name::pg_catalog.text, template::pg_catalog.text, purge_started_at IS NOT NULL,
        database_name::pg_catalog.text FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const SET_STATUS: &str = "UPDATE tenancy.tenants SET status = $2, status_since = pg_catalog.now(), updated_at = pg_catalog.now() WHERE id = $1";
const SWITCH: &str =
    "UPDATE tenancy.tenants SET status = $2, isolation = $3, schema_name = $4, template = $5, moved_from = $6, database_name = $7,
        status_since = pg_catalog.now(), updated_at = pg_catalog.now() WHERE id = $1";

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

/// Where the registry leads from now on.
pub struct Switch<'a> {
    pub to: Isolation,
    pub schema: Option<&'a str>,
    pub template: Option<&'a str>,
    pub moved: &'a Moved,
}

impl Switch<'_> {
    /// Leads to the new place, and tells everyone. Nobody has written since the tenant is moving: writers are refused by that alone.
    pub fn perform(&self, order: &Order) -> Result<()> {
        let before = Registry::read(order.tenant)?;
        if before.status != Status::Moving {
            return Err(Error::IllegalChange { state: before.status.name(), change: "be moved any more".to_owned() });
        }
        let Self { to, schema, template, moved } = *self;
        let database = match to {
            Isolation::Database => Some(database::name_of(order.tenant)?),
            _ => None,
        };
        let args = [
            order.tenant.into(),
            order.former.name().into(),
            to.name().into(),
            schema.into(),
            template.into(),
            order.from.name().into(),
            database.as_deref().into(),
        ];
        query::run(SWITCH, &args)?;
        match to {
            Isolation::Database => database::open(order.tenant, order.former.name())?,
            _ => database::close(order.tenant, Status::Moved.name())?,
        }
        if order.from == Isolation::Schema {
            let label = literal(&format!("{MOVED}{}", order.tenant));
            let schema = ident(&order.schema);
            own_ddl::run(|| {
                query::statement(&format!("SECURITY LABEL FOR {PROVIDER} ON SCHEMA {schema} IS {label}"), &[])
            })?;
        }
        metering::limit::erase(order.tenant)?;
        record::switched(order.id, schema, database.as_deref(), moved)?;
        let place = |isolation: Isolation, schema: Option<&str>, database: Option<&str>| {
            let place = Object::new().text("isolation", isolation.name()).optional("schema_name", schema);
            place.optional("database_name", database)
        };
        let rows = moved.rows.iter().map(|(_, rows)| rows).sum();
        audit::record(&Entry {
            action: "tenant.move",
            tenant: Some(order.tenant),
            target: Some(&before.slug),
            before: Some(place(order.from, before.schema.as_deref(), before.database.as_deref()).finish()),
            after: Some(place(to, schema, database.as_deref()).number("rows", rows).finish()),
        })
    }
}
