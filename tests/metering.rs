//! What a tenant may do and what it has used.

mod quota;
mod reading;
mod time;
