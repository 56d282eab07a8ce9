//! Functions of PostgreSQL that cannot raise, declared without pgrx's boundary, which costs a `sigsetjmp` per call: for the hooks that every
//! query passes.

use pgrx::pg_sys::{Oid, TimestampTz};

unsafe extern "C" {
    /// The role whose rights count now.
    pub safe fn GetUserId() -> Oid;
    /// The session's role (SET ROLE counts), whatever definer functions run.
    pub safe fn GetOuterUserId() -> Oid;
    /// Whether FORCE ROW LEVEL SECURITY is suspended, as it is in referential integrity's own statements.
    pub safe fn InNoForceRLSOperation() -> bool;
    /// When the client's message arrived that is being worked on.
    pub safe fn GetCurrentStatementStartTimestamp() -> TimestampTz;
}
