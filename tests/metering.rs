//! What a tenant may do and what it has used.

mod attack;
mod billing;
mod limit;
mod plans;
mod quota;
mod rates;
mod reading;
mod recording;
mod rollup;
mod subscriptions;
mod time;
mod usage_storm;
