//! The switch that leads every later transaction to the new place.

use super::order::Order;
use super::record::{self, Isolation, Moved};
use super::state::Registry;
use crate::audit::{self, Entry};
use crate::context::registry::Status;
use crate::database;
use crate::error::{Error, Result};
use crate::json::Object;
use crate::label::{MOVED, PROVIDER};
use crate::metering;
use crate::own_ddl;
use crate::query::{self, ident, literal};

const SWITCH: &str =
    "UPDATE tenancy.tenants SET status = $2, isolation = $3, schema_name = $4, template = $5, moved_from = $6, database_name = $7,
        status_since = pg_catalog.now(), updated_at = pg_catalog.now() WHERE id = $1";

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
