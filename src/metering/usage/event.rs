//! An event as it was given, checked.

use super::metric::{self, Aggregation};
use super::quantity;
use crate::error::{Error, Result};
use aws_lc_rs::digest;
use pgrx::pg_sys;
use std::ffi::CStr;

/// From the year 2000 to the year 10000, which every computation with months has room for: PostgreSQL's microseconds.
const EARLIEST: i64 = 0;
const LATEST: i64 = 2_921_940 * 86_400_000_000;
/// Bytes of the properties, as they are stored.
const MAX_PROPERTIES: usize = 16 * 1024;

/// What happened.
pub struct Event<'a> {
    pub metric: &'a str,
    /// A numeric.
    pub quantity: pg_sys::Datum,
    /// In PostgreSQL's microseconds; None for now.
    pub occurred_at: Option<i64>,
    pub resource: Option<[u8; 16]>,
    /// A jsonb.
    pub properties: Option<pg_sys::Datum>,
}

impl Event<'_> {
    /// The same event, if it can be recorded.
    ///
    /// # Safety
    /// The datums are of their types.
    pub unsafe fn check(mut self) -> Result<Self> {
        self.check_metric()?;
        // SAFETY: the caller's promise.
        unsafe {
            self.quantity = quantity::check(self.quantity)?;
            self.properties = self.properties.map(|properties| check_properties(properties)).transpose()?;
        }
        if self.occurred_at.is_some_and(|at| !(EARLIEST..LATEST).contains(&at)) {
            return Err(Error::invalid("occurred_at is before the year 2000, after the year 9999 or infinite", ""));
        }
        Ok(self)
    }

    /// Fails unless there is such a metric, and the event has what it counts.
    pub fn check_metric(&self) -> Result<()> {
        if metric::find(self.metric)? == Aggregation::Unique && self.resource.is_none() {
            return Err(Error::invalid(
                format!("metric \"{}\" counts different resources, so that an event needs a resource_id", self.metric),
                "",
            ));
        }
        Ok(())
    }

    /// What an idempotency key stands for: the first 16 bytes of SHA-256 over everything that was given. A quantity is the same with and
    /// without zeros at its end.
    pub fn hash(&self) -> Result<[u8; 16]> {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut add = |field: Option<&[u8]>| {
            hash.update(&field.map_or(u64::MAX, |field| field.len() as u64).to_be_bytes());
            hash.update(field.unwrap_or_default());
        };
        add(Some(self.metric.as_bytes()));
        add(Some(normal(printed(pg_sys::numeric_out, self.quantity)?)));
        add(self.occurred_at.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
        add(self.resource.as_ref().map(<[u8; 16]>::as_slice));
        add(self.properties.map(|properties| printed(pg_sys::jsonb_out, properties)).transpose()?);
        Ok(first_16(&hash.finish()))
    }
}

/// The first 16 bytes of a SHA-256.
pub fn first_16(digest: &digest::Digest) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&digest.as_ref()[..16]);
    first
}

type Output = unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

fn printed<'a>(output: Output, datum: pg_sys::Datum) -> Result<&'a [u8]> {
    // SAFETY: an output function of the datum's type, which prints into a palloc'd C string.
    let text = unsafe { pgrx::direct_function_call::<&CStr>(output, &[Some(datum)]) };
    text.map(CStr::to_bytes).ok_or_else(|| Error::Internal("a value was not printed".to_owned()))
}

/// A printed numeric without zeros at the end of its fraction.
fn normal(number: &[u8]) -> &[u8] {
    if !number.contains(&b'.') {
        return number;
    }
    let digits = number.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    number[..digits].strip_suffix(b".").unwrap_or(&number[..digits])
}

/// # Safety
/// A datum of type jsonb.
unsafe fn check_properties(datum: pg_sys::Datum) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise; a container begins with its header (utils/jsonb.h).
    let (datum, size, header) = unsafe {
        let json = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
        let header = pgrx::varlena::vardata_any(json).cast::<u32>().read_unaligned();
        (pg_sys::Datum::from(json), pgrx::varlena::varsize_any(json), header)
    };
    if header & pg_sys::JB_FOBJECT == 0 || size > MAX_PROPERTIES {
        return Err(Error::invalid("properties must be a JSON object of at most 16 kB", ""));
    }
    Ok(datum)
}
