//! The levels of authority. A level is nothing but EXECUTE on functions and SELECT on relations: each module names its own in
//! `FUNCTIONS` and `RELATIONS`, and [`crate::authority`] grants them.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Everyone.
    Public,
    /// Binds by a credential only.
    Client,
    /// A trusted backend: chooses the tenant. Includes client.
    App,
    /// Reads statistics.
    Monitor,
    /// Runs the lifecycle. Includes monitor.
    Operator,
    /// Everything.
    Admin,
    /// Called by the product's own objects (event triggers) and by nobody directly.
    Internal,
}

impl Level {
    /// Those that `grant_access` takes.
    const GRANTABLE: [Self; 5] = [Self::Client, Self::App, Self::Monitor, Self::Operator, Self::Admin];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Client => "client",
            Self::App => "app",
            Self::Monitor => "monitor",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Internal => "internal",
        }
    }

    /// The level that `grant_access` calls so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::GRANTABLE.into_iter().find(|level| level.name() == name)
    }

    /// Whether a role of this level may use what is marked with `other`.
    pub fn includes(self, other: Self) -> bool {
        match other {
            Self::Public | Self::Internal => false,
            _ => match self {
                Self::Admin => true,
                Self::App => matches!(other, Self::App | Self::Client),
                Self::Operator => matches!(other, Self::Operator | Self::Monitor),
                _ => self == other,
            },
        }
    }
}
