//! How keys begin, so that people and secret scanners recognise them.

use crate::backend::BackendStatic;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_void};

/// How invitation tokens begin.
pub const INVITATION_PREFIX: &str = "pti_";
const DEFAULT: &CStr = c"ptk_";
/// Characters of a prefix, the underscore not counted.
pub const MAX_LENGTH: usize = 11;

static SETTING: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(DEFAULT));

/// The setting's bytes and their number, for readers that must not allocate.
static PREFIX: BackendStatic<([u8; MAX_LENGTH + 1], usize)> = BackendStatic::new(([0; MAX_LENGTH + 1], 0));

pub fn init() {
    // SAFETY: the hooks have the signatures of string settings, and are called by PostgreSQL with what those promise.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"tenancy.api_key_prefix",
            c"How new API keys begin.",
            c"Lower-case letters and digits, at most 11, then an underscore. Keys made before stay valid.",
            &SETTING,
            GucContext::Suset,
            GucFlags::default(),
            Some(check),
            Some(assign),
            None,
        );
    }
}

/// How new API keys begin.
pub fn api_key_prefix() -> String {
    let (bytes, length) = PREFIX.get();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Whether the text is, or ends with, a prefix that is in use here.
pub fn ends_with_known(text: &[u8]) -> bool {
    let (bytes, length) = PREFIX.get();
    text.ends_with(DEFAULT.to_bytes())
        || text.ends_with(INVITATION_PREFIX.as_bytes())
        || (length > 0 && text.ends_with(&bytes[..length]))
}

fn is_well_formed(prefix: &[u8]) -> bool {
    prefix.split_last().is_some_and(|(last, name)| {
        *last == b'_'
            && (1..=MAX_LENGTH).contains(&name.len())
            && name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

#[pg_guard]
unsafe extern "C-unwind" fn check(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes the address of the new value, null or a C string.
    unsafe { !(*value).is_null() && is_well_formed(CStr::from_ptr(*value).to_bytes()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn assign(value: *const c_char, _extra: *mut c_void) {
    if value.is_null() {
        return;
    }
    // SAFETY: the value that check accepted.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes();
    let mut bytes = [0; MAX_LENGTH + 1];
    let length = value.len().min(bytes.len());
    bytes[..length].copy_from_slice(&value[..length]);
    PREFIX.set((bytes, length));
}
