//! What a tenant may do and what it has used.

mod plans;
mod quota;
mod rates;
mod reading;
mod recording;
mod rollup;
mod time;
mod usage_storm;
