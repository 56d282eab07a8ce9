//! The operator classes whose support functions, by which GIN and GiST compare the keys of several tenants, can neither fail nor tell anything.

use crate::backend::BackendStatic;
use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

/// PostgreSQL's operator families of GiST whose functions compare bounds, bits or addresses, and nothing that could overflow: networks, texts for
/// full text search, its queries, ranges, multiranges.
const GIST_FAMILIES: [u32; 5] = [3550, 3655, 3702, 3919, 6158];

/// Extensions of PostgreSQL's own whose operator classes of GIN and GiST do as much: keys that are compared as integers, or as the types that they are of.
const EXTENSIONS: [&CStr; 3] = [c"pg_trgm", c"btree_gin", c"btree_gist"];

/// Operator families and types of keys that this backend has looked up: most of the time that an index is offered goes into that.
static LOOKED_UP: BackendStatic<Option<LookedUp>> = BackendStatic::new(None);
type LookedUp = [(pg_sys::Oid, pg_sys::Oid, bool); 16];
const NOTHING: LookedUp = [(pg_sys::InvalidOid, pg_sys::InvalidOid, false); 16];
static NEXT: BackendStatic<usize> = BackendStatic::new(0);
static IS_TOLD: BackendStatic<bool> = BackendStatic::new(false);

/// Whether the functions by which such an index compares keys of this type can neither fail nor tell anything.
pub fn is_known(method: pg_sys::Oid, family: pg_sys::Oid, key: pg_sys::Oid) -> bool {
    let known = LOOKED_UP.get().unwrap_or(NOTHING);
    if let Some((.., verdict)) = known.iter().find(|(known, of, _)| (*known, *of) == (family, key)) {
        return *verdict;
    }
    if !IS_TOLD.get() {
        let class = pg_sys::SysCacheIdentifier::OPFAMILYOID as _;
        // SAFETY: registers a callback once per backend, of the signature that it asks for.
        unsafe { pg_sys::CacheRegisterSyscacheCallback(class, Some(forget), pg_sys::Datum::null()) };
        IS_TOLD.set(true);
    }
    let verdict = look_up(method, family, key);
    // Read again: the look-up may have been told to forget.
    let mut looked_up = LOOKED_UP.get().unwrap_or(NOTHING);
    looked_up[NEXT.get()] = (family, key, verdict);
    LOOKED_UP.set(Some(looked_up));
    NEXT.set((NEXT.get() + 1) % looked_up.len());
    verdict
}

/// An operator family was dropped or altered: its oid may become another's.
unsafe extern "C-unwind" fn forget(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
    LOOKED_UP.set(None);
}

fn look_up(method: pg_sys::Oid, family: pg_sys::Oid, key: pg_sys::Oid) -> bool {
    let is_builtin = |object: pg_sys::Oid| object.to_u32() < pg_sys::FirstNormalObjectId;
    // SAFETY: look-ups in the catalogs by oid; what they return is null or a C string.
    unsafe {
        let base = pg_sys::getBaseType(key);
        let element = pg_sys::get_element_type(base);
        if !is_builtin(if element == pg_sys::InvalidOid { base } else { element }) {
            return false;
        }
        match method {
            pg_sys::GIN_AM_OID if is_builtin(family) => true,
            pg_sys::GIST_AM_OID if is_builtin(family) => GIST_FAMILIES.contains(&family.to_u32()),
            pg_sys::GIN_AM_OID | pg_sys::GIST_AM_OID => {
                let extension = pg_sys::getExtensionOfObject(pg_sys::OperatorFamilyRelationId, family);
                if extension == pg_sys::InvalidOid {
                    return false;
                }
                let name = pg_sys::get_extension_name(extension);
                !name.is_null() && EXTENSIONS.contains(&CStr::from_ptr(name))
            }
            _ => false,
        }
    }
}
