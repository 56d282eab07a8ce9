//! The end of a tenant's people and credentials.

use crate::erased::{self, Erased};
use crate::error::Result;
use pgrx::Uuid;

/// In the order in which everyone locks people.
const STATEMENTS: [&str; 6] = [
    "DELETE FROM tenancy.users WHERE tenant_id = $1",
    "SELECT FROM tenancy.memberships WHERE tenant_id = $1 ORDER BY user_id FOR UPDATE",
    "DELETE FROM tenancy.memberships WHERE tenant_id = $1",
    "DELETE FROM tenancy.stored_invitations WHERE tenant_id = $1",
    "DELETE FROM tenancy.api_key_usage USING tenancy.stored_api_keys k WHERE key_id = k.id AND k.tenant_id = $1",
    "DELETE FROM tenancy.stored_api_keys WHERE tenant_id = $1",
];

/// Removes the tenant's keys, invitations, memberships, and the users who are at home in it. Users of other tenants too stay.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    erased::run(&STATEMENTS, tenant, erased)
}
