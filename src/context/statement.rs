//! The statement that a change of tenant runs in.

use crate::error::{Error, Result};
use crate::namespace;
use crate::raw::elements;
use crate::relation;
use pgrx::pg_sys;

/// Fails when the running statement uses a protected table or one in a tenant's schema: it would go on with another tenant's rows.
pub fn refuse_mixing() -> Result<()> {
    // SAFETY: a portal that is running has a list of planned statements, each with a list of range table entries or none.
    let mixes = unsafe {
        let portal = pg_sys::ActivePortal;
        !portal.is_null()
            && elements::<pg_sys::PlannedStmt>((*portal).stmts)
                .flat_map(|statement| elements::<pg_sys::RangeTblEntry>((*statement).rtable))
                .any(|entry| {
                    (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                        && (namespace::usage(namespace::of_relation((*entry).relid)).is_some()
                            || relation::is_protected((*entry).relid))
                })
    };
    if mixes { Err(Error::MixingStatement) } else { Ok(()) }
}
