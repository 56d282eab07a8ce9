//! What a limit is counted over.

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From the beginning to the end of the tenant: what is there, or was ever used.
    Total,
    Hour,
    Day,
    Month,
}

impl Period {
    pub const ALL: [Self; 4] = [Self::Total, Self::Hour, Self::Day, Self::Month];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|period| period.name() == name).ok_or_else(|| {
            Error::invalid(
                format!("\"{}\" is not a period", name.chars().take(63).collect::<String>()),
                "Periods are total, hour, day and month.",
            )
        })
    }
}
