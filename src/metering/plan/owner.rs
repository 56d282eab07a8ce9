//! Whose a limit is, of whichever kind: a plan's, for its tenants, or a tenant's own.

use super::registry;
use crate::audit::{self, Entry};
use crate::error::{Error, Result};
use crate::json::Jsonb;
use crate::query;
use pgrx::Uuid;
use pgrx::datum::DatumWithOid;

const TENANT: &str = "SELECT true FROM tenancy.tenants WHERE id = $1 FOR KEY SHARE";

#[derive(Clone, Copy)]
pub enum Owner<'a> {
    Plan(&'a str),
    Tenant(Uuid),
}

impl<'a> Owner<'a> {
    /// A plan that is there; the free one is made when it is first asked for.
    pub fn plan(plan: Option<&'a str>) -> Result<Self> {
        let plan = plan.ok_or(Error::Null("plan"))?;
        registry::isolation_of(plan)?;
        Ok(Self::Plan(plan))
    }

    /// A tenant that is there, and stays until the transaction ends.
    pub fn tenant(tenant: Option<Uuid>) -> Result<Self> {
        let tenant = tenant.ok_or(Error::Null("tenant"))?;
        let found: Option<bool> = query::returning(TENANT, &[tenant.into()], |row| row.must(1))?;
        found.map(|_| Self::Tenant(tenant)).ok_or_else(|| Error::unknown_tenant(tenant))
    }

    /// The owner as the first argument of a query.
    pub fn argument(&self) -> DatumWithOid<'a> {
        match self {
            Self::Plan(plan) => (*plan).into(),
            Self::Tenant(tenant) => (*tenant).into(),
        }
    }

    /// Writes down what was changed of a resource.
    pub fn record(&self, action: &str, resource: &str, before: Option<Jsonb>, after: Option<Jsonb>) -> Result<()> {
        match self {
            Self::Plan(plan) => {
                let target = format!("{plan}/{resource}");
                audit::record(&Entry { action, target: Some(&target), before, after, ..Entry::default() })
            }
            Self::Tenant(tenant) => {
                audit::record(&Entry { action, tenant: Some(*tenant), target: Some(resource), before, after })
            }
        }
    }

    /// Takes back what is said of a resource, by a statement that returns what that was; false when it was nothing.
    pub fn take_back(&self, statement: &'static str, action: &str, resource: Option<&str>) -> Result<bool> {
        let resource = resource.ok_or(Error::Null("resource"))?;
        let args = [self.argument(), resource.into()];
        let before: Option<Jsonb> = query::returning(statement, &args, |row| row.get(1))?.flatten();
        if before.is_none() {
            return Ok(false);
        }
        self.record(action, resource, before, None)?;
        Ok(true)
    }
}
