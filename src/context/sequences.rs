//! What a session remembers of sequences (`currval`, `lastval`, numbers taken in advance) tells those of the tenant that it served before, so
//! a pooled session must forget it.

use super::state;
use crate::backend::BackendStatic;

/// The tenant that this session was bound to last, and whether it has a schema.
static LAST: BackendStatic<Option<([u8; 16], bool)>> = BackendStatic::new(None);

/// Forgets, as `tenant` is bound, what was remembered of another one. Row tenants share their sequences.
pub fn forget_others(tenant: [u8; 16], has_schema: bool) {
    if LAST.get().is_some_and(|(last, had_schema)| last != tenant && (had_schema || has_schema)) {
        forget();
    }
    LAST.set(Some((tenant, has_schema)));
}

/// Forgets what was remembered of a tenant that is bound no more. Called before a session asks.
pub fn forget_unbound() {
    let bound = state::bound().map(|context| context.tenant);
    if let Some((last, true)) = LAST.get()
        && bound != Some(last)
    {
        forget();
        LAST.set(None);
    }
}

fn forget() {
    unsafe extern "C-unwind" {
        fn ResetSequenceCaches();
    }
    // SAFETY: what DISCARD SEQUENCES does; it frees memory and cannot raise.
    unsafe { ResetSequenceCaches() };
}
