//! What protect_table() leaves open is told by protection_advice(), with statements that are run here as they are given, by whom they name.

mod fixtures;

mod indexes;
mod keys;
mod obstacles;
mod shapes;

pub(crate) use fixtures::{advice, follow};
