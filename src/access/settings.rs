//! The settings of keys and tokens. A superuser sets them, in postgresql.conf or for a database.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_void};

/// Whom a signed token makes a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Membership {
    /// Who is one in `tenancy.memberships` now.
    #[name = c"live"]
    Live,
    /// Who the token says is one, with the role that it says.
    #[name = c"trusted"]
    Trusted,
}

type Text = GucSetting<Option<CString>>;

static PEPPER: Text = Text::new(None);
static USER_CLAIM: Text = Text::new(Some(c"sub"));
static TENANT_CLAIM: Text = Text::new(Some(c"tenant_id"));
static ROLE_CLAIM: Text = Text::new(Some(c"role"));
static SCOPE_CLAIM: Text = Text::new(Some(c"scope"));
static LEEWAY: GucSetting<i32> = GucSetting::<i32>::new(30);
static MEMBERSHIP: GucSetting<Membership> = GucSetting::<Membership>::new(Membership::Live);

const MAX_LEEWAY: i32 = 300;
const MIN_PEPPER: usize = 32;

pub fn init() {
    // SAFETY: the hook has the signature of string settings, and is called by PostgreSQL with what that promises.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"tenancy.api_key_pepper",
            c"A secret of this server that the hashes of new API keys and invitations are keyed with.",
            c"At least 32 characters. Keys that were made without it stay valid; changing it ends those made with it.",
            &PEPPER,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY | GucFlags::NO_SHOW_ALL,
            Some(check_pepper),
            None,
            None,
        );
    }
    let claims: [(&'static CStr, &'static CStr, &'static Text); 4] = [
        (c"tenancy.jwt_user_claim", c"The claim that names the user: an id or an external id.", &USER_CLAIM),
        (c"tenancy.jwt_tenant_claim", c"The claim that names the tenant: an id or an external id.", &TENANT_CLAIM),
        (c"tenancy.jwt_role_claim", c"The claim that names the role, where membership is trusted.", &ROLE_CLAIM),
        (c"tenancy.jwt_scope_claim", c"The claim that lists the scopes.", &SCOPE_CLAIM),
    ];
    for (name, description, setting) in claims {
        let long = c"A name of the token's payload, or a path with dots into its objects.";
        GucRegistry::define_string_guc(name, description, long, setting, GucContext::Suset, GucFlags::default());
    }
    GucRegistry::define_int_guc(
        c"tenancy.jwt_leeway",
        c"How far the clocks of this server and of a token's issuer may differ.",
        c"",
        &LEEWAY,
        0,
        MAX_LEEWAY,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_enum_guc(
        c"tenancy.jwt_membership",
        c"Whether a token's user must be a member now (live), or is one because the token says so (trusted).",
        c"",
        &MEMBERSHIP,
        GucContext::Suset,
        GucFlags::default(),
    );
}

#[pg_guard]
unsafe extern "C-unwind" fn check_pepper(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes the address of the new value, null or a C string.
    let length = unsafe { if (*value).is_null() { 0 } else { CStr::from_ptr(*value).count_bytes() } };
    length == 0 || length >= MIN_PEPPER
}

/// The secret that hashes are keyed with, if there is one.
pub fn pepper() -> Option<Vec<u8>> {
    PEPPER.get().map(CString::into_bytes).filter(|pepper| !pepper.is_empty())
}

/// The names of a token's claims.
pub struct Claims {
    pub user: String,
    pub tenant: String,
    pub role: String,
    pub scope: String,
}

pub fn claims() -> Claims {
    let name = |setting: &Text| setting.get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Claims { user: name(&USER_CLAIM), tenant: name(&TENANT_CLAIM), role: name(&ROLE_CLAIM), scope: name(&SCOPE_CLAIM) }
}

/// Seconds.
pub fn leeway() -> u64 {
    u64::try_from(LEEWAY.get()).unwrap_or_default()
}

pub fn membership() -> Membership {
    MEMBERSHIP.get()
}
