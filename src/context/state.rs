//! The bound tenant in the form that queries read: parsed once, when the setting changes.

use crate::backend::BackendStatic;
use crate::monitor;
use crate::uuid;
use crate::version;
use pgrx::pg_sys;

/// How the tenant came to be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A trusted backend chose it.
    SetTenant,
    /// An administrator changed it in mid-transaction.
    Rebind,
    /// The product itself works on the tenant's rows (purge): state and locks are its own concern.
    Maintenance,
}

impl Source {
    pub const fn name(self) -> &'static str {
        match self {
            Self::SetTenant => "set_tenant",
            Self::Rebind => "rebind_tenant",
            Self::Maintenance => "maintenance",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        [Self::SetTenant, Self::Rebind, Self::Maintenance].into_iter().find(|source| source.name().as_bytes() == name)
    }
}

/// What is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub tenant: [u8; 16],
    pub user: Option<[u8; 16]>,
    pub source: Source,
}

impl Context {
    /// The value of the setting: `tenant|user|source`.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(96);
        value.extend_from_slice(&uuid::format(&self.tenant));
        value.push(b'|');
        if let Some(user) = &self.user {
            value.extend_from_slice(&uuid::format(user));
        }
        value.push(b'|');
        value.extend_from_slice(self.source.name().as_bytes());
        value
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = value.split(|character| *character == b'|');
        let tenant = uuid::parse(fields.next()?)?;
        let user = match fields.next()? {
            b"" => None,
            user => Some(uuid::parse(user)?),
        };
        let source = Source::from_name(fields.next()?)?;
        fields.next().is_none().then_some(Self { tenant, user, source })
    }
}

/// A PostgreSQL text of 36 characters: length word, then the characters.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct TenantText {
    length_word: u32,
    characters: [u8; 36],
}

/// What `current_tenant()` and its kin read.
pub struct State {
    pub bound: bool,
    /// Counts the bindings, so that a reader knows when its copy is old.
    pub generation: u64,
    pub context: Context,
    pub text: TenantText,
}

const NOBODY: Context = Context { tenant: [0; 16], user: None, source: Source::SetTenant };
const EMPTY_TEXT: TenantText = TenantText { length_word: 0, characters: [0; 36] };

pub static STATE: BackendStatic<State> =
    BackendStatic::new(State { bound: false, generation: 0, context: NOBODY, text: EMPTY_TEXT });

/// The tenant that this transaction bound first, remembered outside the setting, so that neither a savepoint rollback nor
/// RESET ALL makes room for another one.
pub static FIRST: BackendStatic<Option<(pg_sys::LocalTransactionId, [u8; 16])>> = BackendStatic::new(None);

/// What is bound now.
#[inline]
pub fn bound() -> Option<Context> {
    // SAFETY: the backend's only thread reads two fields and copies them.
    unsafe {
        let state = STATE.as_ptr();
        if (*state).bound { Some((*state).context) } else { None }
    }
}

/// Whether the product itself bound the tenant to work on its rows.
#[inline]
pub fn in_maintenance() -> bool {
    bound().is_some_and(|context| context.source == Source::Maintenance)
}

/// The tenant that the running transaction bound first.
pub fn first_of_transaction() -> Option<[u8; 16]> {
    FIRST.get().filter(|(transaction, _)| *transaction == version::local_transaction_id()).map(|(_, tenant)| tenant)
}

/// Takes over a new value of the setting. Called on every change of it, an undo and the end of the transaction included.
pub fn assign(context: Option<Context>) {
    let Some(context) = context else {
        // SAFETY: one thread.
        unsafe { (*STATE.as_ptr()).bound = false };
        monitor::withdraw();
        return;
    };
    let mut text = EMPTY_TEXT;
    // SAFETY: SET_VARSIZE of a 4-byte header, written in the machine's byte order as varatt.h has it.
    unsafe { pgrx::varlena::set_varsize_4b((&raw mut text).cast(), 4 + 36) };
    text.characters = uuid::format(&context.tenant);
    // SAFETY: one thread.
    let generation = unsafe { (*STATE.as_ptr()).generation } + 1;
    STATE.set(State { bound: true, generation, context, text });
    // A parallel worker is its leader's business, and nothing tells it when the transaction ends.
    // SAFETY: a plain read.
    if unsafe { pg_sys::ParallelWorkerNumber } < 0 {
        monitor::publish(&context.tenant, context.user.as_ref());
    }
}
