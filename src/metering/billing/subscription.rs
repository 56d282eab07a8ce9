//! What the periods of a tenant need to know of its subscription.

use crate::error::Result;
use crate::scan::{Key, Table};
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

/// Column numbers of `tenancy.subscriptions`; sql/metering/billing.sql keeps them.
const TENANT: i16 = 1;
const MONTHS_FROM: i16 = 2;

static SUBSCRIPTIONS: Table = Table::by(c"subscriptions", c"subscriptions_pkey");

/// The moment whose day and hour the tenant's months begin on; None for calendar months. As of the latest commit.
pub fn months_from(tenant: Uuid) -> Result<Option<pg_sys::TimestampTz>> {
    let row = SUBSCRIPTIONS.first(&[Key::uuid(TENANT, tenant.as_bytes())])?;
    Ok(row.and_then(|row| row.get::<TimestampWithTimeZone>(MONTHS_FROM)).map(|from| from.into_inner()))
}
