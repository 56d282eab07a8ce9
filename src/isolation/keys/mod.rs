//! Keys, foreign keys and indexes of tables that tenants share, and the statements that make them each tenant's own.
//!
//! [`index`] and [`foreign_key`] are what the catalogs have; [`counterpart`] is the index led by the tenant column that goes in the place of
//! another, or beside it; a [`change`] is what is run, with the lock that it takes. Adoption carries changes out, and the advice on protected
//! tables shows them.

pub mod change;
pub mod counterpart;
pub mod foreign_key;
pub mod index;

/// Which unique keys and primary keys become keys of each tenant by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// All but surrogate keys, whose values are generated (identity, serial, random uuid) and tell nothing.
    Natural,
    /// All: several tenants may hold the same primary keys.
    All,
    /// None: a value stays unique among all tenants.
    None,
}

const MAX_NAME: usize = 63;

/// The name of what takes the place of `base`, the `number`th choice.
fn successor_name(base: &str, number: usize) -> String {
    let suffix = if number == 0 { "_tenant".to_owned() } else { format!("_tenant{number}") };
    let mut end = base.len().min(MAX_NAME - suffix.len());
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &base[..end])
}
