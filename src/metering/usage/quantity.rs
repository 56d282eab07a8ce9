//! Quantities that sums of any number of events stay exact and small with.

use crate::error::{Error, Result};
use pgrx::{AnyNumeric, IntoDatum, pg_sys};

/// The header of a numeric in its short form (utils/adt/numeric.c), which every number has that is not huge or very long.
mod header {
    pub const FORM: u16 = 0xc000;
    pub const SHORT: u16 = 0x8000;
    pub const NEGATIVE: u16 = 0x2000;
    pub const SCALE: u16 = 0x1f80;
    pub const SCALE_SHIFT: u16 = 7;
    pub const WEIGHT_IS_NEGATIVE: u16 = 0x0040;
    pub const WEIGHT: u16 = 0x003f;
}

/// Digits before and after the point.
const MAX_DIGITS: u16 = 32;
/// Decimal digits of one digit of a numeric.
const DECIMAL_DIGITS: u16 = 4;

/// A numeric that is no NaN and not infinite, not negative, less than 10^32 and has at most 32 digits after the point: the datum, out of line
/// no more. Looked at without a copy, because this is done for every event.
///
/// # Safety
/// A datum of type numeric.
pub unsafe fn check(datum: pg_sys::Datum) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise; the header follows the length word, which may be of one byte, so that it may not be aligned.
    let (datum, header) = unsafe {
        let number = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        (pg_sys::Datum::from(number), pgrx::varlena::vardata_any(number).cast::<u16>().read_unaligned())
    };
    let is_short = header & header::FORM == header::SHORT;
    let scale = (header & header::SCALE) >> header::SCALE_SHIFT;
    let is_small = header & header::WEIGHT_IS_NEGATIVE != 0 || header & header::WEIGHT < MAX_DIGITS / DECIMAL_DIGITS;
    if is_short && header & header::NEGATIVE == 0 && is_small && scale <= MAX_DIGITS {
        return Ok(datum);
    }
    Err(Error::invalid(
        "quantity is negative, too great or no number",
        "It is at least 0, less than 10^32 and has at most 32 digits after the point.",
    ))
}

/// The datum of a quantity that can be recorded.
pub fn datum(quantity: AnyNumeric) -> Result<pg_sys::Datum> {
    let datum = quantity.into_datum().ok_or_else(|| Error::Internal("a number is NULL".to_owned()))?;
    // SAFETY: a datum of type numeric.
    unsafe { check(datum) }
}
