//! What a tenant may do and what it has used.

mod limit;
