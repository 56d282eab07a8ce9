//! Counters of credentials that were refused, by the prefix that identifies them and by reason.

use super::places::{Place, Places};
use super::shared::Region;
use pgrx::pg_sys;

/// Prefixes that are counted apart; later ones are counted together.
const COUNTED_PREFIXES: usize = 4_096;

const REASONS: usize = 16;
/// A key takes four words: the database, the kind of credential, then at most this many characters of its prefix.
const MAX_PREFIX: usize = 27;
const WORDS: usize = 4;

/// Why a credential was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not the form of a key or token at all.
    Malformed,
    /// The form of a key, but mistyped or made up.
    Checksum,
    /// No such key, invitation, tenant or user.
    Unknown,
    Expired,
    /// Revoked, rotated or used before.
    Revoked,
    /// The tenant is suspended, cancelled or deleted.
    Tenant,
    /// The user is no member, or no longer.
    Member,
    /// No key has this kid.
    Kid,
    /// Not signed by the key of this kid.
    Signature,
    /// Another algorithm than the key's.
    Algorithm,
    NotYetValid,
    Issuer,
    Audience,
    /// A claim is missing or makes no sense.
    Claims,
}

impl Reason {
    const ALL: [Self; 14] = [
        Self::Malformed,
        Self::Checksum,
        Self::Unknown,
        Self::Expired,
        Self::Revoked,
        Self::Tenant,
        Self::Member,
        Self::Kid,
        Self::Signature,
        Self::Algorithm,
        Self::NotYetValid,
        Self::Issuer,
        Self::Audience,
        Self::Claims,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Tenant => "tenant",
            Self::Member => "member",
            Self::Kid => "kid",
            Self::Signature => "signature",
            Self::Algorithm => "algorithm",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
        }
    }
}

/// What was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ApiKey,
    Jwt,
    Invitation,
}

impl Kind {
    const ALL: [Self; 3] = [Self::ApiKey, Self::Jwt, Self::Invitation];

    const fn name(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::Invitation => "invitation",
        }
    }
}

pub struct Attempts {
    pub kind: Option<&'static str>,
    pub prefix: Option<String>,
    pub reason: &'static str,
    pub number: u64,
    pub last: pg_sys::TimestampTz,
}

pub static COUNTERS: Region<Place<WORDS, REASONS>> = Region::new(c"pg_tenancy attempts", || COUNTED_PREFIXES + 1);

fn database() -> [u8; 4] {
    // SAFETY: a plain read.
    unsafe { pg_sys::MyDatabaseId }.to_u32().to_be_bytes()
}

fn words(kind: Kind, prefix: &str) -> [u64; WORDS] {
    let mut bytes = [0; WORDS * 8];
    bytes[..4].copy_from_slice(&database());
    bytes[4] = kind as u8 + 1;
    let length = prefix.len().min(MAX_PREFIX);
    bytes[5..5 + length].copy_from_slice(&prefix.as_bytes()[..length]);
    std::array::from_fn(|word| u64::from_be_bytes(std::array::from_fn(|byte| bytes[word * 8 + byte])))
}

/// None for a key of another database.
fn kind_and_prefix(words: [u64; WORDS]) -> Option<(Option<&'static str>, Option<String>)> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    if bytes[..4] != database() {
        return None;
    }
    let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 + 1 == bytes[4]).map(Kind::name);
    let prefix: Vec<u8> = bytes[5..].iter().copied().take_while(|byte| *byte != 0).collect();
    let prefix = (!prefix.is_empty()).then(|| String::from_utf8_lossy(&prefix).into_owned());
    Some((kind, prefix))
}

/// Counts a refused credential; `prefix` is what may be shown of it, empty where that is nothing.
#[cold]
pub fn count(kind: Kind, prefix: &str, reason: Reason) {
    Places(COUNTERS.elements()).count(Some(words(kind, prefix)), reason as usize);
}

/// What was refused in this database since the server started.
pub fn attempts() -> Vec<Attempts> {
    let mut attempts = Vec::new();
    for (key, counts) in Places(COUNTERS.elements()).counts() {
        let Some((kind, prefix)) = key.map_or(Some((None, None)), kind_and_prefix) else { continue };
        for (reason, count) in Reason::ALL.into_iter().zip(counts).filter(|(_, count)| count.number > 0) {
            let reason = reason.name();
            attempts.push(Attempts { kind, prefix: prefix.clone(), reason, number: count.number, last: count.last });
        }
    }
    attempts
}
