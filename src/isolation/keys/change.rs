//! One change of a key or index.

pub const ACCESS_EXCLUSIVE: &str = "ACCESS EXCLUSIVE";
pub const SHARE_ROW_EXCLUSIVE: &str = "SHARE ROW EXCLUSIVE";
pub const SHARE_UPDATE_EXCLUSIVE: &str = "SHARE UPDATE EXCLUSIVE";
pub const SHARE: &str = "SHARE";

/// How long a change takes.
pub const MOMENT: &str = "a moment";
pub const READS: &str = "reads every row";
pub const BUILDS: &str = "builds an index";

/// How the statements are run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In one transaction.
    Together,
    /// In one transaction, by a role that sees every tenant's rows.
    SeeingAllRows,
    /// Outside any transaction.
    Concurrently,
}

pub struct Change {
    pub statements: Vec<String>,
    pub way: Way,
    /// The strongest lock that it takes.
    pub lock: &'static str,
    pub duration: &'static str,
    pub note: String,
}

impl Change {
    pub fn new(way: Way, statements: Vec<String>, cost: (&'static str, &'static str), note: impl Into<String>) -> Self {
        Self { statements, way, lock: cost.0, duration: cost.1, note: note.into() }
    }

    pub fn text(&self) -> String {
        self.statements.join("; ")
    }
}
