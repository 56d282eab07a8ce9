//! API keys and invitation tokens (their form is [`secrecy`]'s): made of 256 random bits and read. Only a hash is stored.

use super::settings;
use crate::error::{Error, Result};
use crate::monitor::Reason;
use crate::scan::Hash;
use crate::secrecy::{self, BASE62, CHECKSUM_LENGTH, SECRET_LENGTH, SHOWN};
use aws_lc_rs::{digest, hmac};
use pgrx::pg_sys;

/// Bytes from here on would make the first digits likelier than the others.
const FAIR: u8 = 62 * 4;
/// No prefix is longer than this, so no key either.
const MAX_LENGTH: usize = 64;

/// A key or token whose form and checksum are right.
#[derive(Clone, Copy)]
pub struct Secret<'a> {
    text: &'a str,
    /// Characters of the prefix, with the underscore.
    prefix: usize,
}

impl<'a> Secret<'a> {
    pub fn parse(text: &'a str) -> std::result::Result<Self, Reason> {
        if text.len() > MAX_LENGTH {
            return Err(Reason::Malformed);
        }
        let prefix = text.rfind('_').ok_or(Reason::Malformed)? + 1;
        let (name, secret) = text.split_at(prefix);
        let is_alphanumeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if name.len() < 2 || !is_alphanumeric(&name[..prefix - 1]) || !is_alphanumeric(secret) {
            return Err(Reason::Malformed);
        }
        if secret.len() != SECRET_LENGTH + CHECKSUM_LENGTH {
            return Err(Reason::Malformed);
        }
        if !secrecy::has_valid_checksum(text.as_bytes()) {
            return Err(Reason::Checksum);
        }
        Ok(Self { text, prefix })
    }

    /// What may be shown, to recognise it by.
    pub fn shown(&self) -> &'a str {
        &self.text[..self.prefix + SHOWN]
    }

    /// What kind of key it is.
    pub fn prefix(&self) -> &'a str {
        &self.text[..self.prefix]
    }

    /// The prefix, if it is one that is in use here; anyone can make up others, and keys of them.
    pub fn known_prefix(&self) -> &'a str {
        if secrecy::ends_with_known(self.prefix().as_bytes()) { self.prefix() } else { "" }
    }

    /// What is stored of it: its SHA-256, keyed with the pepper if there is one.
    pub fn hash(&self) -> Hash {
        let bytes = match settings::pepper() {
            Some(pepper) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &pepper);
                hmac::sign(&key, self.text.as_bytes()).as_ref().try_into()
            }
            None => return self.plain_hash(),
        };
        Hash::new(bytes.unwrap_or_default())
    }

    /// What is stored of one that was made without a pepper, while there is one now; else None.
    pub fn older_hash(&self) -> Option<Hash> {
        settings::pepper().map(|_| self.plain_hash())
    }

    fn plain_hash(&self) -> Hash {
        let digest = digest::digest(&digest::SHA256, self.text.as_bytes());
        Hash::new(digest.as_ref().try_into().unwrap_or_default())
    }
}

/// A new key or token with this prefix.
pub fn generate(prefix: &str) -> Result<String> {
    let mut text = String::with_capacity(MAX_LENGTH);
    text.push_str(prefix);
    let end = prefix.len() + SECRET_LENGTH;
    while text.len() < end {
        let random: [u8; 64] = random()?;
        let digits = random.iter().filter(|byte| **byte < FAIR).map(|byte| char::from(BASE62[usize::from(byte % 62)]));
        text.extend(digits.take(end - text.len()));
    }
    let checksum = secrecy::checksum(text.as_bytes());
    text.extend(checksum.map(char::from));
    Ok(text)
}

/// Bytes of PostgreSQL's source of randomness that is fit for secrets.
pub fn random<const LENGTH: usize>() -> Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    // SAFETY: fills an array of that length.
    let filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), LENGTH) };
    if filled { Ok(bytes) } else { Err(Error::Internal("could not generate random bytes".to_owned())) }
}
