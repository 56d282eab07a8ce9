//! The bound tenant in the form that queries read: parsed once, when the setting changes.

use super::registry::{self, Identifier};
use crate::backend::BackendStatic;
use crate::error::{Error, Result};
use crate::monitor;
use crate::namespace;
use crate::uuid;
use crate::version;
use pgrx::{Uuid, pg_sys};
use std::cell::RefCell;

/// How the tenant came to be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A trusted backend chose it.
    SetTenant,
    /// An administrator changed it in mid-transaction.
    Rebind,
    /// An API key.
    ApiKey,
    /// A signed token.
    Jwt,
    /// The product itself works on the tenant's rows (purge): state and locks are its own concern.
    Maintenance,
    /// A migration runs in the tenant's schema, whatever the tenant's state: foreign SQL, and no more trusted than any other.
    Migration,
}

impl Source {
    const ALL: [Self; 6] = [Self::SetTenant, Self::Rebind, Self::ApiKey, Self::Jwt, Self::Maintenance, Self::Migration];

    pub const fn name(self) -> &'static str {
        match self {
            Self::SetTenant => "set_tenant",
            Self::Rebind => "rebind_tenant",
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::Maintenance => "maintenance",
            Self::Migration => "migration",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name().as_bytes() == name)
    }
}

/// What is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub tenant: [u8; 16],
    pub user: Option<[u8; 16]>,
    pub source: Source,
    /// The schema that `search_path` was set to, by its oid: the tenant's own when it was bound. 0 for a tenant of the shared tables.
    pub schema: u32,
    /// Whether the shared tables are closed to it: they hold rows that were moved to its schema.
    pub shared_is_closed: bool,
    /// Whether the tenant's tables are in a database of its own, and this is not that.
    pub elsewhere: bool,
    /// What the application's own tables know the tenant by.
    pub key: Option<Identifier>,
}

impl Context {
    /// One of nobody in particular, which leaves `search_path` as it is.
    pub const fn of(tenant: [u8; 16], source: Source) -> Self {
        Self { tenant, user: None, source, schema: 0, shared_is_closed: false, elsewhere: false, key: None }
    }

    /// Where it has the tenant's tables, as everyone may know.
    pub const fn place(&self) -> u32 {
        if self.elsewhere { monitor::ELSEWHERE } else { self.schema }
    }

    /// Whether `search_path` was set to the tenant's schema.
    pub const fn is_in_schema(&self) -> bool {
        self.schema != 0
    }
}

/// What the principal may do, beside being of the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The user's role in the tenant.
    pub role: Option<String>,
    pub api_key: Option<[u8; 16]>,
    /// What the credential is limited to; None for one that names no scopes.
    pub scopes: Option<Vec<String>>,
}

const SEPARATOR: u8 = b'|';
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Stands in the setting behind the schema of a tenant that the shared tables are closed to.
const CLOSED: u8 = b'!';
/// Stands there for a tenant whose tables are in another database.
const ELSEWHERE: &[u8] = b"elsewhere";

/// The value of the setting: `tenant|user|source|schema, with ! where the shared tables are closed|role|api key|key|scopes`. Role names have no bar,
/// and the key is in hexadecimal digits; scopes come last, each behind a space.
pub fn encode(context: &Context, grants: &Grants) -> Vec<u8> {
    let mut value = Vec::with_capacity(160);
    let uuid = |value: &mut Vec<u8>, uuid: &Option<[u8; 16]>| {
        if let Some(uuid) = uuid {
            value.extend_from_slice(&uuid::format(uuid));
        }
        value.push(SEPARATOR);
    };
    uuid(&mut value, &Some(context.tenant));
    uuid(&mut value, &context.user);
    value.extend_from_slice(context.source.name().as_bytes());
    value.push(SEPARATOR);
    if context.is_in_schema() {
        value.extend_from_slice(context.schema.to_string().as_bytes());
    } else if context.elsewhere {
        value.extend_from_slice(ELSEWHERE);
    }
    if context.shared_is_closed {
        value.push(CLOSED);
    }
    value.push(SEPARATOR);
    value.extend_from_slice(grants.role.as_deref().unwrap_or_default().as_bytes());
    value.push(SEPARATOR);
    uuid(&mut value, &grants.api_key);
    for byte in context.key.as_ref().map_or(&b""[..], |key| key.as_str().as_bytes()) {
        value.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    value.push(SEPARATOR);
    if let Some(scopes) = &grants.scopes {
        value.push(b' ');
        value.extend_from_slice(scopes.join(" ").as_bytes());
    }
    value
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: &u8| HEX.iter().position(|known| known == digit);
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(value(high)? << 4 | value(low)?).ok(),
            _ => None,
        })
        .collect()
}

pub fn decode(value: &[u8]) -> Option<(Context, Grants)> {
    let mut fields = value.splitn(8, |character| *character == SEPARATOR);
    let mut next = || fields.next();
    let optional = |field: &[u8]| if field.is_empty() { Some(None) } else { uuid::parse(field).map(Some) };
    let text = |field: &[u8]| String::from_utf8(field.to_vec()).ok();
    let tenant = uuid::parse(next()?)?;
    let user = optional(next()?)?;
    let source = Source::from_name(next()?)?;
    let place = next()?;
    let elsewhere = place == ELSEWHERE;
    let (place, shared_is_closed) = place.strip_suffix(&[CLOSED]).map_or((place, false), |place| (place, true));
    let schema = if elsewhere || place.is_empty() { 0 } else { std::str::from_utf8(place).ok()?.parse().ok()? };
    let role = Some(text(next()?)?).filter(|role| !role.is_empty());
    let api_key = optional(next()?)?;
    let key = match next()? {
        b"" => None,
        digits => Some(Identifier::new(&String::from_utf8(from_hex(digits)?).ok()?)?),
    };
    let scopes = match next()? {
        b"" => None,
        scopes => Some(text(scopes)?.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect()),
    };
    let context = Context { tenant, user, source, schema, shared_is_closed, elsewhere, key };
    Some((context, Grants { role, api_key, scopes }))
}

/// A PostgreSQL text of 36 characters: length word, then the characters.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct TenantText {
    length_word: u32,
    characters: [u8; 36],
}

/// The longest key of a tenant's own, in bytes.
const MAX_KEY: usize = 63;

/// A PostgreSQL text of as many bytes as its length word says.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct KeyText {
    length_word: u32,
    bytes: [u8; MAX_KEY],
}

impl KeyText {
    fn new(key: &str) -> Self {
        let mut text = EMPTY_KEY;
        text.bytes[..key.len()].copy_from_slice(key.as_bytes());
        // SAFETY: SET_VARSIZE of a 4-byte header, written in the machine's byte order as varatt.h has it.
        unsafe { pgrx::varlena::set_varsize_4b((&raw mut text).cast(), 4 + key.len() as i32) };
        text
    }
}

/// The number that a key spells, where it spells it as PostgreSQL would.
fn number(key: &str) -> Option<i64> {
    key.parse().ok().filter(|number: &i64| number.to_string() == key)
}

/// What `current_tenant()` and its kin read.
pub struct State {
    pub bound: bool,
    /// Counts the bindings, so that a reader knows when its copy is old.
    pub generation: u64,
    pub context: Context,
    pub text: TenantText,
    pub key_text: KeyText,
    pub key_number: Option<i64>,
    /// Whether this transaction has made sure of the key ([`super::key`]).
    pub key_is_held: bool,
}

const NOBODY: Context = Context::of([0; 16], Source::SetTenant);
const EMPTY_KEY: KeyText = KeyText { length_word: 0, bytes: [0; MAX_KEY] };
const EMPTY_TEXT: TenantText = TenantText { length_word: 0, characters: [0; 36] };

pub static STATE: BackendStatic<State> = BackendStatic::new(State {
    bound: false,
    generation: 0,
    context: NOBODY,
    text: EMPTY_TEXT,
    key_text: EMPTY_KEY,
    key_number: None,
    key_is_held: false,
});

/// The tenant that this transaction bound first, remembered outside the setting, so that neither a savepoint rollback nor
/// RESET ALL makes room for another one.
pub static FIRST: BackendStatic<Option<First>> = BackendStatic::new(None);

/// What a transaction bound first.
#[derive(Clone, Copy)]
pub struct First {
    pub transaction: pg_sys::LocalTransactionId,
    pub tenant: [u8; 16],
    /// Where its tables were, as [`Context`] says it; None for what the product bound.
    pub place: Option<u32>,
}

thread_local! {
    static GRANTS: RefCell<Grants> = RefCell::default();
}

/// What the bound principal may do; nothing when none is bound.
pub fn grants() -> Grants {
    if bound().is_some() { GRANTS.with_borrow(Grants::clone) } else { Grants::default() }
}

/// What is bound now.
#[inline]
pub fn bound() -> Option<Context> {
    // SAFETY: the backend's only thread reads two fields and copies them.
    unsafe {
        let state = STATE.as_ptr();
        if (*state).bound { Some((*state).context) } else { None }
    }
}

/// Fails where the bound tenant's tables are in another database.
pub fn refuse_elsewhere() -> Result<()> {
    let Some(bound) = bound().filter(|bound| bound.elsewhere) else { return Ok(()) };
    let tenant = Uuid::from_bytes(bound.tenant);
    Err(registry::find(tenant)?.ok_or_else(|| Error::unknown_tenant(tenant))?.elsewhere())
}

/// Counts what was bound: two that are the same are of one binding.
#[inline]
pub fn generation() -> u64 {
    // SAFETY: one thread; one field is copied.
    unsafe { (*STATE.as_ptr()).generation }
}

/// Whether the product itself bound the tenant to work on its rows.
#[inline]
pub fn in_maintenance() -> bool {
    bound().is_some_and(|context| context.source == Source::Maintenance)
}

/// Whether a migration of the tenant's schema runs.
#[inline]
pub fn in_migration() -> bool {
    bound().is_some_and(|context| context.source == Source::Migration)
}

/// The tenant that the running transaction bound first.
pub fn first_of_transaction() -> Option<[u8; 16]> {
    first().map(|first| first.tenant)
}

/// The same with where its tables were.
pub fn first() -> Option<First> {
    FIRST.get().filter(|first| first.transaction == version::local_transaction_id())
}

/// Takes over a new value of the setting. Called on every change of it, an undo and the end of the transaction included.
pub fn assign(principal: Option<(Context, Grants)>) {
    namespace::look_up_search_path_again();
    let Some((context, grants)) = principal else {
        // SAFETY: one thread.
        unsafe { (*STATE.as_ptr()).bound = false };
        monitor::leave();
        return;
    };
    let mut text = EMPTY_TEXT;
    // SAFETY: SET_VARSIZE of a 4-byte header, written in the machine's byte order as varatt.h has it.
    unsafe { pgrx::varlena::set_varsize_4b((&raw mut text).cast(), 4 + 36) };
    text.characters = uuid::format(&context.tenant);
    // SAFETY: one thread.
    let generation = unsafe { (*STATE.as_ptr()).generation } + 1;
    GRANTS.set(grants);
    let key = context.key.as_ref().map(Identifier::as_str);
    let (key_text, key_number) = (key.map_or(EMPTY_KEY, KeyText::new), key.and_then(number));
    STATE.set(State { bound: true, generation, context, text, key_text, key_number, key_is_held: false });
    // A parallel worker is its leader's business, and nothing tells it when the transaction ends.
    // SAFETY: a plain read.
    if unsafe { pg_sys::ParallelWorkerNumber } < 0 {
        let is_upkeep = matches!(context.source, Source::Maintenance | Source::Migration);
        monitor::publish(&context.tenant, context.user.as_ref(), context.place(), !is_upkeep);
    }
}
