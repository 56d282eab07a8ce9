//! The limits that hold for a tenant, remembered by each backend until one of the tables says that it has changed.

use super::Period;
use crate::changes::Remembered;
use crate::context::registry;
use crate::error::{Error, Result};
use crate::scan::{Key, Row, Table};
use pgrx::{AnyNumeric, Uuid};
use std::cell::RefCell;
use std::rc::Rc;

/// Column numbers of `tenancy.plan_limits` and `tenancy.tenant_limits`, which are alike but for the first; sql/metering/plan.sql keeps them.
const OWNER: i16 = 1;
const RESOURCE: i16 = 2;
const PERIOD: i16 = 3;
const MAX_VALUE: i16 = 4;

/// Periods that one resource can be limited over.
const MAX_PERIODS: usize = 4;

static PLAN_LIMITS: Table = Table::by(c"plan_limits", c"plan_limits_pkey");
static TENANT_LIMITS: Table = Table::by(c"tenant_limits", c"tenant_limits_pkey");

/// What a tenant may have of a resource in a period.
#[derive(Clone, Debug)]
pub struct Limit {
    pub period: Period,
    /// As PostgreSQL prints the numeric; None for no limit.
    pub max_value: Option<String>,
    /// The same in whole things, as many as fit.
    pub whole: Option<i64>,
}

impl Limit {
    /// The limit as a number; None for no limit.
    pub fn numeric(&self) -> Option<AnyNumeric> {
        self.max_value.as_deref().and_then(|max| AnyNumeric::try_from(max).ok())
    }

    fn read(row: &Row) -> Result<Self> {
        let max: Option<AnyNumeric> = row.get(MAX_VALUE);
        let whole = max.as_ref().map(|max| i64::try_from(max.clone().floor()).unwrap_or(i64::MAX));
        Ok(Self {
            period: Period::from_name(row.must::<&str>(PERIOD)?)?,
            max_value: max.map(|max| max.to_string()),
            whole,
        })
    }
}

thread_local! {
    static KNOWN: RefCell<Remembered<Rc<[Limit]>>> = RefCell::default();
}

/// The limits of a resource that hold for a tenant, by period: its own before those of its plan. As of the latest commit and the caller's own
/// changes. An error where neither names the resource.
pub fn limits_of(tenant: Uuid, resource: &str) -> Result<Rc<[Limit]>> {
    Remembered::find(&KNOWN, tenant.as_bytes(), resource, || read(tenant, resource))
}

/// The limit of a metric over a month; None where there is none.
pub fn monthly_limit(tenant: Uuid, metric: &str) -> Result<Option<Limit>> {
    match limits_of(tenant, metric) {
        Err(Error::NoLimit { .. }) => Ok(None),
        limits => Ok(limits?.iter().find(|limit| limit.period == Period::Month).cloned()),
    }
}

fn read(tenant: Uuid, resource: &str) -> Result<(Rc<[Limit]>, bool)> {
    let (plan, plan_announced) = registry::plan_of(tenant)?;
    let plan = plan.ok_or_else(|| Error::unknown_tenant(tenant))?;
    let of =
        |table: &Table, owner: Key| table.all_and_announced::<MAX_PERIODS>(&[owner, Key::text(RESOURCE, resource)?]);
    let (own, own_announced) = of(&TENANT_LIMITS, Key::uuid(OWNER, tenant.as_bytes()))?;
    let (general, general_announced) = of(&PLAN_LIMITS, Key::text(OWNER, &plan)?)?;
    let mut limits: Vec<Limit> = own.iter().map(Limit::read).collect::<Result<_>>()?;
    for limit in general.iter().map(Limit::read) {
        let limit = limit?;
        if !limits.iter().any(|own| own.period == limit.period) {
            limits.push(limit);
        }
    }
    if limits.is_empty() {
        return Err(Error::NoLimit { resource: resource.to_owned(), plan });
    }
    limits.sort_by_key(|limit| limit.period);
    Ok((limits.into(), plan_announced && own_announced && general_announced))
}
