//! What background workers do by themselves in each database that has the extension. Each domain names its own steps; [`crate::maintenance`]
//! runs them.

use crate::error::Result;

/// How a step is done.
#[derive(Clone, Copy)]
pub enum Work {
    /// One batch, in a transaction of its own, as the extension's owner: how many things were done, and whether there may be more at once.
    Batch(fn() -> Result<(u64, bool)>),
    /// A procedure that commits as it goes: the CALL.
    Call(&'static str),
}

/// A step that is done again and again.
#[derive(Clone, Copy)]
pub struct Task {
    pub name: &'static str,
    /// Seconds from the end of one run to the start of the next.
    pub every_s: u32,
    pub work: Work,
}
