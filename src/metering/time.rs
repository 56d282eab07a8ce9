//! Hours, days and months, in the time zone that `tenancy.time_zone` names.
//!
//! Usage is kept in buckets of a quarter of an hour, which every zone's offset is a multiple of. A period is made of the buckets that begin
//! in it, so that each bucket is in one hour, one day and one month, whatever clocks are put forward or back: [`start`] names the
//! period that a moment is in, and [`bounds`] are the first bucket of that name and the first of the next.

use super::billing;
use super::plan::Period;
use crate::backend::BackendStatic;
use crate::error::{Error, Result};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::{PgSqlErrorCode, Uuid, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// Of a bucket, in PostgreSQL's microseconds.
pub const BUCKET: i64 = 900_000_000;
const MONTHS: i32 = 12;
/// Clocks are put forward and back by less than so many buckets.
const SHIFT: u32 = 12;

static NAME: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"UTC"));
static ZONE: BackendStatic<*mut pg_sys::pg_tz> = BackendStatic::new(std::ptr::null_mut());

/// Registers the setting.
pub fn init() {
    // SAFETY: the hooks have the signatures of string settings, and are called by PostgreSQL with what those promise.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"tenancy.time_zone",
            c"The time zone whose hours, days and months usage and limits are counted by.",
            c"One for all tenants of a database: set it once, with ALTER DATABASE ... SET or in the configuration.",
            &NAME,
            GucContext::Suset,
            GucFlags::default(),
            Some(check),
            Some(assign),
            None,
        );
    }
}

/// The zone that PostgreSQL knows by this name; null for none.
///
/// # Safety
/// A C string, or null.
unsafe fn find(name: *const c_char) -> *mut pg_sys::pg_tz {
    // SAFETY: the caller's promise; zones are never freed.
    unsafe {
        let zone = if name.is_null() { std::ptr::null_mut() } else { pg_sys::pg_tzset(name) };
        if zone.is_null() || !pg_sys::pg_tz_acceptable(zone) { std::ptr::null_mut() } else { zone }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes the address of the new value, null or a C string.
    unsafe {
        if !find(*value).is_null() {
            return true;
        }
        pg_sys::GUC_check_errcode(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE as c_int);
        pg_sys::GUC_check_errhint_string =
            pg_sys::pstrdup(c"Name a time zone of pg_timezone_names, such as UTC or Europe/Berlin.".as_ptr());
        false
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn assign(value: *const c_char, _extra: *mut c_void) {
    // SAFETY: the value that check accepted.
    ZONE.set(unsafe { find(value) });
}

fn zone() -> *mut pg_sys::pg_tz {
    let zone = ZONE.get();
    if !zone.is_null() {
        return zone;
    }
    // SAFETY: a constant C string.
    unsafe { pg_sys::pg_tzset(c"UTC".as_ptr()) }
}

/// The zone's name, for SQL that cuts by it.
pub fn zone_name() -> String {
    // SAFETY: the name of a zone that is never freed.
    unsafe { CStr::from_ptr(pg_sys::pg_get_timezone_name(zone())) }.to_string_lossy().into_owned()
}

/// Now, by the clock.
pub fn now() -> pg_sys::TimestampTz {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The bucket that a moment is in.
pub fn bucket(at: pg_sys::TimestampTz) -> pg_sys::TimestampTz {
    at.div_euclid(BUCKET) * BUCKET
}

/// The first bucket that begins then or later.
pub fn next_bucket(at: pg_sys::TimestampTz) -> pg_sys::TimestampTz {
    if at == i64::MIN || at.rem_euclid(BUCKET) == 0 { at } else { bucket(at).saturating_add(BUCKET) }
}

/// A time of the calendar and the clock on the wall, with the seconds that the zone is behind UTC.
struct Local {
    fields: pg_sys::pg_tm,
    fraction: pg_sys::fsec_t,
    behind: c_int,
}

impl Local {
    fn of(at: pg_sys::TimestampTz) -> Result<Self> {
        let mut local = Self { fields: pg_sys::pg_tm::default(), fraction: 0, behind: 0 };
        // SAFETY: fills in the structures that it is given.
        let failed = unsafe {
            pg_sys::timestamp2tm(
                at,
                &mut local.behind,
                &mut local.fields,
                &mut local.fraction,
                std::ptr::null_mut(),
                zone(),
            )
        };
        if failed == 0 { Ok(local) } else { Err(out_of_range()) }
    }

    /// The moment that the clock shows this, the zone being behind by as much as it is then.
    fn moment(mut self) -> Result<pg_sys::TimestampTz> {
        // SAFETY: reads the fields, and completes them.
        self.behind = unsafe { pg_sys::DetermineTimeZoneOffset(&mut self.fields, zone()) };
        self.moment_behind()
    }

    /// The moment that the clock shows this, the zone being behind by as much as it was.
    fn moment_behind(mut self) -> Result<pg_sys::TimestampTz> {
        let mut at = 0;
        // SAFETY: reads the fields and writes the result.
        let failed = unsafe { pg_sys::tm2timestamp(&mut self.fields, self.fraction, &mut self.behind, &mut at) };
        if failed == 0 { Ok(at) } else { Err(out_of_range()) }
    }

    fn at_midnight(mut self) -> Self {
        (self.fields.tm_hour, self.fields.tm_min, self.fields.tm_sec, self.fraction) = (0, 0, 0, 0);
        self
    }

    /// So many months later, on the last day of that month where it has no such day.
    fn add_months(mut self, months: i32) -> Self {
        let month = self.fields.tm_year * MONTHS + self.fields.tm_mon - 1 + months;
        (self.fields.tm_year, self.fields.tm_mon) = (month.div_euclid(MONTHS), month.rem_euclid(MONTHS) + 1);
        self.fields.tm_mday = self.fields.tm_mday.min(days_of(self.fields.tm_year, self.fields.tm_mon));
        self
    }

    fn add_day(mut self) -> Self {
        self.fields.tm_mday += 1;
        if self.fields.tm_mday > days_of(self.fields.tm_year, self.fields.tm_mon) {
            self.fields.tm_mday = 1;
            self = self.add_months(1);
        }
        self
    }
}

fn days_of(year: c_int, month: c_int) -> c_int {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn out_of_range() -> Error {
    Error::invalid("timestamp out of range", "")
}

/// The name of the period that the bucket of `at` is in: when it begins by the calendar, as `date_trunc` has it. Two buckets are in one period
/// when this is the same.
pub fn start(period: Period, at: pg_sys::TimestampTz) -> Result<pg_sys::TimestampTz> {
    let mut local = match period {
        Period::Total => return Ok(i64::MIN),
        _ => Local::of(bucket(at))?,
    };
    if period == Period::Hour {
        (local.fields.tm_min, local.fields.tm_sec, local.fraction) = (0, 0, 0);
        return local.moment_behind();
    }
    if period == Period::Month {
        local.fields.tm_mday = 1;
    }
    local.at_midnight().moment()
}

/// A stretch of time: the buckets that begin in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub start: pg_sys::TimestampTz,
    /// Where the next one starts.
    pub end: pg_sys::TimestampTz,
}

impl Bounds {
    /// All of time.
    pub const ALWAYS: Self = Self { start: i64::MIN, end: i64::MAX };

    pub fn contains(&self, at: pg_sys::TimestampTz) -> bool {
        (self.start..self.end).contains(&at)
    }
}

/// The period that the bucket of `at` is in.
pub fn bounds(period: Period, at: pg_sys::TimestampTz) -> Result<Bounds> {
    if period == Period::Total {
        return Ok(Bounds::ALWAYS);
    }
    let named = start(period, at)?;
    let is_in = |bucket| Ok::<_, Error>(start(period, bucket)? == named);
    // By the calendar; where clocks are put forward or back just there, the first and last bucket are near.
    let mut first = bucket(named.min(at));
    for _ in 0..SHIFT {
        if !is_in(first - BUCKET)? {
            break;
        }
        first -= BUCKET;
    }
    while !is_in(first)? {
        first += BUCKET;
    }
    let mut end = match period {
        Period::Hour => first + BUCKET,
        Period::Day => bucket(Local::of(named)?.at_midnight().add_day().moment()?),
        _ => bucket(Local::of(named)?.at_midnight().add_months(1).moment()?),
    };
    while !is_in(end - BUCKET)? {
        end -= BUCKET;
    }
    while is_in(end)? {
        end += BUCKET;
    }
    Ok(Bounds { start: first, end })
}

/// The month of a tenant whose months begin when `anchor` did, on the last day of months that have no such day. A bucket that a month begins
/// within belongs to the month before.
pub fn anchored_month(anchor: pg_sys::TimestampTz, at: pg_sys::TimestampTz) -> Result<Bounds> {
    let months_of = |local: &Local| local.fields.tm_year * MONTHS + local.fields.tm_mon;
    let border = |months| -> Result<_> {
        let moment = Local::of(anchor)?.add_months(months).moment()?;
        Ok(next_bucket(moment))
    };
    let at = bucket(at);
    let mut months = months_of(&Local::of(at)?) - months_of(&Local::of(anchor)?);
    while border(months)? > at {
        months -= 1;
    }
    while border(months + 1)? <= at {
        months += 1;
    }
    Ok(Bounds { start: border(months)?, end: border(months + 1)? })
}

/// The period that `at` is in for a tenant, whose months may follow its subscription.
pub fn of_tenant(tenant: Uuid, period: Period, at: pg_sys::TimestampTz) -> Result<Bounds> {
    match period {
        Period::Month => match billing::months_from(tenant)? {
            Some(anchor) => anchored_month(anchor, at),
            None => bounds(period, at),
        },
        _ => bounds(period, at),
    }
}

/// The calendar month that is written `YYYY-MM`.
pub fn month(text: &str) -> Result<Bounds> {
    let malformed = || Error::invalid("a month is written YYYY-MM", "For example 2026-11.");
    let (year, month) = text.split_once('-').ok_or_else(malformed)?;
    let digits = |text: &str, length| {
        if text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
    };
    let year: c_int = digits(year, 4).ok_or_else(malformed)?;
    let month: c_int = digits(month, 2).filter(|month| (1..=MONTHS).contains(month)).ok_or_else(malformed)?;
    if year == 0 {
        return Err(malformed());
    }
    let mut middle = Local { fields: pg_sys::pg_tm::default(), fraction: 0, behind: 0 };
    (middle.fields.tm_year, middle.fields.tm_mon, middle.fields.tm_mday, middle.fields.tm_hour) = (year, month, 15, 12);
    bounds(Period::Month, middle.moment()?)
}
