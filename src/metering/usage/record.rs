//! Recording one event of the bound tenant: called on every request, so without SPI but for an idempotency key, and without a detour through
//! a wrapper of its arguments.

use super::event::Event;
use super::{inbox, key};
use crate::context;
use crate::error::{Error, Result};
use crate::guard::lock;
use crate::raw::fallible_function;
use crate::store;
use pgrx::{FromDatum, IntoDatum, Uuid, pg_sys};
use std::ffi::CStr;

const MICROSECONDS_OF_A_MINUTE: i64 = 60_000_000;

/// The bound tenant, in a transaction and a state that may write for it.
pub fn writing_tenant(function: &'static CStr) -> Result<[u8; 16]> {
    let tenant = context::bound().ok_or(Error::Unbound)?.tenant;
    store::refuse_if_read_only(function);
    lock::admit_writer();
    Ok(tenant)
}

/// Records a checked event, unless it was recorded under the same key before.
pub fn record(tenant: &[u8; 16], event: &Event, key: Option<[u8; 16]>) -> Result<bool> {
    if let Some(key) = key
        && !key::claim(tenant, key, event)?
    {
        return Ok(false);
    }
    inbox::insert(tenant, event, false)?;
    Ok(true)
}

/// # Safety
/// `fcinfo` is the record of the running call, whose argument has this type.
unsafe fn argument<T: FromDatum>(fcinfo: pg_sys::FunctionCallInfo, number: usize) -> Option<T> {
    // SAFETY: the caller's promise.
    unsafe { pgrx::fcinfo::pg_getarg(fcinfo, number) }
}

/// The bytes of a uuid.
///
/// # Safety
/// As for [`argument`].
unsafe fn uuid(fcinfo: pg_sys::FunctionCallInfo, number: usize) -> Option<[u8; 16]> {
    // SAFETY: the caller's promise.
    unsafe { argument::<Uuid>(fcinfo, number) }.map(|uuid| *uuid.as_bytes())
}

/// # Safety
/// `fcinfo` is the record of a call of record_usage().
unsafe fn usage(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise: the arguments are those of sql/metering/usage.sql.
    unsafe {
        let event = Event {
            metric: argument(fcinfo, 0).ok_or(Error::Null("metric"))?,
            quantity: pgrx::fcinfo::pg_getarg_datum(fcinfo, 1).ok_or(Error::Null("quantity"))?,
            occurred_at: argument(fcinfo, 3),
            resource: uuid(fcinfo, 4),
            properties: pgrx::fcinfo::pg_getarg_datum(fcinfo, 5),
        };
        let tenant = writing_tenant(c"record_usage()")?;
        let key = argument::<&str>(fcinfo, 2).map(key::hash).transpose()?;
        record(&tenant, &event.check()?, key).map(pg_sys::Datum::from)
    }
}

/// Minutes that have begun.
fn minutes(started: i64, ended: i64) -> Result<i64> {
    let is_finite = |at: i64| at != i64::MIN && at != i64::MAX;
    if !is_finite(started) || !is_finite(ended) {
        return Err(Error::invalid("a duration begins and ends at a finite time", ""));
    }
    let duration = ended.checked_sub(started).filter(|duration| *duration >= 0);
    let duration = duration.ok_or_else(|| Error::invalid("a duration cannot end before it has begun", ""))?;
    Ok(duration / MICROSECONDS_OF_A_MINUTE + i64::from(duration % MICROSECONDS_OF_A_MINUTE > 0))
}

/// # Safety
/// `fcinfo` is the record of a call of record_duration().
unsafe fn duration(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise: the arguments are those of sql/metering/usage.sql.
    unsafe {
        let metric = argument(fcinfo, 0).ok_or(Error::Null("metric"))?;
        let started = argument(fcinfo, 1).ok_or(Error::Null("started"))?;
        let ended = argument(fcinfo, 2).ok_or(Error::Null("ended"))?;
        let minutes = minutes(started, ended)?.into_datum();
        let minutes = pgrx::direct_function_call_as_datum(pg_sys::int8_numeric, &[minutes])
            .ok_or_else(|| Error::Internal("a number is NULL".to_owned()))?;
        let event = Event {
            metric,
            quantity: minutes,
            occurred_at: Some(ended),
            resource: uuid(fcinfo, 4),
            properties: pgrx::fcinfo::pg_getarg_datum(fcinfo, 5),
        };
        let tenant = writing_tenant(c"record_duration()")?;
        let key = argument::<&str>(fcinfo, 3).map(key::hash).transpose()?;
        record(&tenant, &event.check()?, key)?;
        Ok(minutes)
    }
}

fallible_function! {
    /// Records an event: true, or false when its key was recorded before.
    pg_tenancy_record_usage, pg_finfo_pg_tenancy_record_usage, usage
}

fallible_function! {
    /// Records how long something took, and gives the minutes.
    pg_tenancy_record_duration, pg_finfo_pg_tenancy_record_duration, duration
}
