//! A rate: so many in a period, and so many at once.

use crate::error::{Error, Result};

/// What a rate is counted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    Second,
    Minute,
    Hour,
    Day,
}

const NANOSECONDS: u64 = 1_000_000_000;
/// How long an empty bucket may take to fill.
const LONGEST_ROOM: u64 = 366 * 86_400 * NANOSECONDS;

impl Per {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    const fn nanoseconds(self) -> u64 {
        NANOSECONDS
            * match self {
                Self::Second => 1,
                Self::Minute => 60,
                Self::Hour => 3_600,
                Self::Day => 86_400,
            }
    }

    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|per| per.name() == name).ok_or_else(|| {
            Error::invalid(
                format!("\"{}\" is not a period of a rate", name.chars().take(63).collect::<String>()),
                "Periods of a rate are second, minute, hour and day.",
            )
        })
    }
}

/// A limit that lets something through, as its bucket needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many in a period.
    pub max_value: i32,
    /// Nanoseconds from one to the next, rounded up, so that no period ever has more than its number.
    pub interval: u64,
    /// How many at once.
    pub burst: i32,
}

impl Rate {
    /// None for one that lets nothing through.
    pub fn new(max_value: i32, per: Per, burst: Option<i32>) -> Option<Self> {
        let number = u64::try_from(max_value).ok().filter(|number| *number > 0)?;
        let burst = burst.unwrap_or(max_value);
        (burst > 0).then(|| Self { max_value, interval: per.nanoseconds().div_ceil(number), burst })
    }

    /// Nanoseconds in which so many come in.
    pub fn duration(&self, number: i32) -> u64 {
        self.interval.saturating_mul(u64::try_from(number).unwrap_or(0))
    }

    /// Nanoseconds in which the empty bucket fills.
    pub fn room(&self) -> u64 {
        self.duration(self.burst)
    }
}

/// Refuses what makes no rate.
pub fn validate(max_value: Option<i32>, per: Per, burst: Option<i32>) -> Result<()> {
    let Some(max_value) = max_value else {
        return match burst {
            Some(_) => Err(Error::invalid("burst must be NULL where max_value is NULL, which is no limit", "")),
            None => Ok(()),
        };
    };
    if max_value < 0 {
        return Err(Error::invalid("max_value must not be negative; NULL is no limit", ""));
    }
    if burst.is_some_and(|burst| burst < 1) {
        return Err(Error::invalid("burst must be positive, or NULL for that of max_value", ""));
    }
    if Rate::new(max_value, per, burst).is_some_and(|rate| rate.room() > LONGEST_ROOM) {
        return Err(Error::invalid("burst must not be more than what comes in within 366 days", ""));
    }
    Ok(())
}
