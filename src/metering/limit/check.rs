//! `check_limit` and `enforce_limit`: whether the bound tenant may have, or use, some more of a resource. For a question before the fact;
//! a limited table is kept within its limit by its triggers, whoever asks.

use super::live_rows;
use crate::context;
use crate::error::{Error, Result};
use crate::metering::plan::{self, Limit, Period};
use crate::metering::usage;
use crate::one_row;
use crate::raw::fallible_function;
use pgrx::{AnyNumeric, IntoDatum, Uuid, pg_sys};

/// What there is to say of the period that leaves the least.
struct Answer {
    allowed: bool,
    max: Option<AnyNumeric>,
    used: AnyNumeric,
    remaining: Option<AnyNumeric>,
}

/// What the tenant has used of a resource in a period, or has of it.
fn used(tenant: Uuid, resource: &str, period: Period) -> Result<AnyNumeric> {
    if period == Period::Total
        && let Some(rows) = live_rows(tenant, resource)?
    {
        return Ok(rows.into());
    }
    Ok(usage::total_in_period(tenant, resource, period)?.unwrap_or_else(|| AnyNumeric::from(0)))
}

fn check(tenant: Uuid, resource: &str, amount: &AnyNumeric) -> Result<Answer> {
    let zero = AnyNumeric::from(0);
    let of = |limit: &Limit| -> Result<Answer> {
        let used = used(tenant, resource, limit.period)?;
        let Some(max) = limit.max_value.as_deref() else {
            return Ok(Answer { allowed: true, max: None, used, remaining: None });
        };
        let max =
            AnyNumeric::try_from(max).map_err(|error| Error::Internal(format!("a limit is no number: {error}")))?;
        let left = max.clone() - used.clone();
        let allowed = *amount <= left;
        let remaining = if left < zero { zero.clone() } else { left };
        Ok(Answer { allowed, max: Some(max), used, remaining: Some(remaining) })
    };
    let mut tightest: Option<Answer> = None;
    for limit in plan::limits_of(tenant, resource)?.iter() {
        let answer = of(limit)?;
        let is_tighter = match (&tightest, &answer.remaining) {
            (None, _) => true,
            (Some(known), Some(remaining)) => known.remaining.as_ref().is_none_or(|known| remaining < known),
            (Some(_), None) => false,
        };
        if is_tighter {
            tightest = Some(answer);
        }
    }
    tightest.ok_or_else(|| Error::Internal("a tenant has no limit".to_owned()))
}

/// The answer to a call with a resource and an amount.
///
/// # Safety
/// `fcinfo` is the record of a call with a text and a numeric.
unsafe fn ask(fcinfo: pg_sys::FunctionCallInfo) -> Result<(String, Answer)> {
    // SAFETY: the caller's promise.
    let (resource, amount) =
        unsafe { (pgrx::fcinfo::pg_getarg::<String>(fcinfo, 0), pgrx::fcinfo::pg_getarg::<AnyNumeric>(fcinfo, 1)) };
    let resource = resource.ok_or(Error::Null("resource"))?;
    let amount = amount.ok_or(Error::Null("amount"))?;
    if amount.is_nan() || amount < AnyNumeric::from(0) {
        return Err(Error::invalid("amount must be a number that is not negative", ""));
    }
    let bound = context::bound().ok_or(Error::Unbound)?;
    context::refuse_elsewhere()?;
    let answer = check(Uuid::from_bytes(bound.tenant), &resource, &amount)?;
    Ok((resource, answer))
}

/// # Safety
/// `fcinfo` is the record of a call of check_limit().
unsafe fn answer(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise; the columns are those that sql/metering/limit.sql declares.
    unsafe {
        let (_, Answer { allowed, max, used, remaining }) = ask(fcinfo)?;
        let columns = [
            allowed.into_datum(),
            max.and_then(AnyNumeric::into_datum),
            used.into_datum(),
            remaining.and_then(AnyNumeric::into_datum),
        ];
        one_row::answer(fcinfo, Some(columns))
    }
}

/// # Safety
/// `fcinfo` is the record of a call of enforce_limit().
unsafe fn enforce(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise.
    let (resource, answer) = unsafe { ask(fcinfo) }?;
    match answer {
        Answer { allowed: true, .. } => Ok(pg_sys::Datum::from(true)),
        Answer { max, .. } => {
            let max = max.map(|max| max.to_string()).unwrap_or_default();
            Err(Error::LimitReached { resource, max })
        }
    }
}

fallible_function! {
    /// Whether the bound tenant may have some more of a resource: one row.
    pg_tenancy_check_limit, pg_finfo_pg_tenancy_check_limit, answer
}

fallible_function! {
    /// True, or an error where it may not.
    pg_tenancy_enforce_limit, pg_finfo_pg_tenancy_enforce_limit, enforce
}
