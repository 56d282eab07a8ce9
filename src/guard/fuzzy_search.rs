//! `gin_fuzzy_search_limit` makes a search of a GIN index drop rows at random, but only where each of its entries has more rows than the limit, of all
//! tenants: what is left of a tenant's own rows would tell how many rows others have with the same word. So it is a superuser's to set; a statement
//! that was planned without it must not run with it either. Where it is set, [`super::index_paths`] offers no GIN index.

use crate::version;
use pgrx::pg_sys;

pub fn init() {
    let setting = version::setting(c"gin_fuzzy_search_limit");
    if !setting.is_null() {
        // SAFETY: the server's record of the setting, which every backend inherits; called once, from _PG_init, before any session.
        unsafe { (*setting).context = pg_sys::GucContext::PGC_SUSET }
    }
}
