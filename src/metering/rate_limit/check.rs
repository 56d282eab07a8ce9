//! Asking whether the bound tenant may do something now, and taking it: on every request, so without SQL of our own.

use super::known::{self, Limit};
use super::rate::Rate;
use crate::context;
use crate::error::{Error, Result};
use crate::monitor::{self, Ask, Outcome, Part};
use crate::one_row;
use crate::raw::{GetCurrentTimestamp, fallible_function};
use pgrx::{Uuid, pg_sys};

/// Bytes that a subject may have.
const MAX_SUBJECT: usize = 1024;

const MILLISECOND: u64 = 1_000_000;
const MICROSECOND: u64 = 1_000;

/// What a check finds.
struct Checked {
    allowed: bool,
    /// How many in a period; None for no limit.
    max_value: Option<i32>,
    /// How many more at once; None for no limit.
    remaining: Option<i32>,
    /// Nanoseconds until the same may be asked again; None for never.
    wait: Option<u64>,
    /// Nanoseconds until as many as can be may be had at once; None where that does not change.
    full_in: Option<u64>,
    /// Whether it is refused for want of shared memory.
    no_place: bool,
}

/// The arguments of both functions.
struct Request<'a> {
    resource: &'a str,
    cost: i32,
    subject: Option<&'a str>,
}

impl Request<'_> {
    /// # Safety
    /// `fcinfo` is the record of a call with a resource, a cost and a subject.
    unsafe fn read(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self> {
        // SAFETY: the caller's promise.
        let (resource, cost, subject) = unsafe {
            let argument = |number| pgrx::fcinfo::pg_getarg::<&str>(fcinfo, number);
            (argument(0), pgrx::fcinfo::pg_getarg::<i32>(fcinfo, 1), argument(2))
        };
        let cost = cost.ok_or(Error::Null("cost"))?;
        if cost < 0 {
            return Err(Error::invalid("cost must not be negative", ""));
        }
        if subject.is_some_and(|subject| subject.len() > MAX_SUBJECT) {
            return Err(Error::invalid(format!("subject must not have more than {MAX_SUBJECT} bytes"), ""));
        }
        Ok(Self { resource: resource.ok_or(Error::Null("resource"))?, cost, subject })
    }

    /// Takes what the request costs, if the bound tenant has it.
    fn take(&self) -> Result<Checked> {
        let tenant = context::bound().ok_or(Error::Unbound)?.tenant;
        match known::limit_of(Uuid::from_bytes(tenant), self.resource)? {
            Limit::Unlimited => Ok(Checked::constant(None, None)),
            Limit::Nothing => {
                Ok(Checked { allowed: self.cost == 0, wait: None, ..Checked::constant(Some(0), Some(0)) })
            }
            Limit::Rate(rate, key) => Ok(match self.subject {
                None => self.take_from(&rate, Part::Tenants, key),
                Some(subject) => self.take_from(&rate, Part::Subjects, known::subject_key(key, subject)),
            }),
        }
    }

    fn take_from(&self, rate: &Rate, part: Part, key: monitor::BucketKey) -> Checked {
        // One that costs more than there ever is at once takes nothing.
        let is_possible = self.cost <= rate.burst;
        let ask = Ask { need: if is_possible { rate.duration(self.cost) } else { 0 }, room: rate.room() };
        let answer = monitor::take(part, key, &ask);
        let full_in = answer.full_at.saturating_sub(answer.now);
        let no_place = matches!(answer.outcome, Outcome::NoPlace(_));
        let left = if no_place { 0 } else { ask.room.saturating_sub(full_in) / rate.interval };
        Checked {
            allowed: is_possible && answer.outcome == Outcome::Taken,
            max_value: Some(rate.max_value),
            remaining: Some(i32::try_from(left).unwrap_or(i32::MAX)),
            wait: match answer.outcome {
                _ if !is_possible => None,
                Outcome::Taken => Some(0),
                Outcome::Short(wait) | Outcome::NoPlace(wait) => Some(wait),
            },
            full_in: Some(full_in),
            no_place,
        }
    }
}

impl Checked {
    /// Where no bucket is asked.
    fn constant(max_value: Option<i32>, remaining: Option<i32>) -> Self {
        Self { allowed: true, max_value, remaining, wait: Some(0), full_in: None, no_place: false }
    }

    /// The error of a request that is refused.
    fn refusal(&self, request: &Request) -> Error {
        let resource = request.resource;
        let message = format!("rate limit exceeded for {resource}");
        let retry = match self.wait {
            None => format!("a cost of {} is more than is ever allowed at once", request.cost),
            Some(wait) => {
                let seconds = wait.div_ceil(MILLISECOND) as f64 / 1e3;
                let why = if self.no_place { " (no bucket is free: see tenancy.rate_limit_buckets)" } else { "" };
                format!("retry after {seconds:.3} s{why}")
            }
        };
        Error::RateLimited { message, retry }
    }
}

/// # Safety
/// `fcinfo` is the record of a call of check_rate_limit().
unsafe fn check(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise; the columns are those of tenancy.rate_limit_check. A number of milliseconds makes a numeric.
    unsafe {
        let checked = Request::read(fcinfo)?.take()?;
        let seconds = |wait: u64| pg_sys::int64_div_fast_to_numeric(wait.div_ceil(MILLISECOND) as i64, 3);
        let reset_at = |full_in: u64| GetCurrentTimestamp().saturating_add((full_in / MICROSECOND) as i64);
        let columns = [
            Some(pg_sys::Datum::from(checked.allowed)),
            checked.max_value.map(pg_sys::Datum::from),
            checked.remaining.map(pg_sys::Datum::from),
            checked.wait.map(|wait| pg_sys::Datum::from(seconds(wait))),
            checked.full_in.map(|full_in| pg_sys::Datum::from(reset_at(full_in))),
        ];
        one_row::composite(fcinfo, columns)
    }
}

/// # Safety
/// `fcinfo` is the record of a call of enforce_rate_limit().
unsafe fn enforce(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise.
    let request = unsafe { Request::read(fcinfo) }?;
    let checked = request.take()?;
    if checked.allowed { Ok(pg_sys::Datum::from(true)) } else { Err(checked.refusal(&request)) }
}

fallible_function! {
    /// Whether the bound tenant may do something now, which is taken then, and what is left.
    pg_tenancy_check_rate_limit, pg_finfo_pg_tenancy_check_rate_limit, check
}

fallible_function! {
    /// True when the bound tenant may do something now, which is taken then; an error otherwise.
    pg_tenancy_enforce_rate_limit, pg_finfo_pg_tenancy_enforce_rate_limit, enforce
}
