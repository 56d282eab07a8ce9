//! What is a credential in a text: API keys and invitation tokens (`prefix_` and letters and digits with a checksum), signed tokens (JWT,
//! RFC 7519), private keys in PEM (RFC 7468), and the literals of the statements that store secrets.

use super::prefix;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use memchr::{memchr_iter, memmem};
use std::ops::Range;

/// Letters and digits of a secret: 256 bits in base 62.
pub const SECRET_LENGTH: usize = 43;
/// Letters and digits of the checksum behind it: 32 bits in base 62.
pub const CHECKSUM_LENGTH: usize = 6;
/// Characters of a secret that may be shown, to recognise a key by.
pub const SHOWN: usize = 8;

/// A run of letters and digits behind a known prefix is a credential from this length on, cut off or mistyped as it may be.
const SUSPICIOUS_LENGTH: usize = 16;
/// What of a signed token's header is looked at.
const MAX_HEADER: usize = 1024;

const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";
const END_OF_KEY: &[u8] = b"-----END";
const STORES_JWT_KEY: &[u8] = b"add_jwt_key";
const PEPPER: &[u8] = b"api_key_pepper";

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The checksum (CRC-32 in base 62) of a credential's text up to it.
pub fn checksum(text: &[u8]) -> [u8; CHECKSUM_LENGTH] {
    let mut rest = crc32fast::hash(text);
    let mut digits = [b'0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Whether the text ends with the checksum of what is before it.
pub fn has_valid_checksum(credential: &[u8]) -> bool {
    credential.split_last_chunk::<CHECKSUM_LENGTH>().is_some_and(|(text, given)| checksum(text) == *given)
}

/// Whether a text holds a credential.
pub fn is_in(text: &[u8]) -> bool {
    let mut found = false;
    for_each(text, &mut |_| found = true);
    found
}

/// Covers each credential in `text` with asterisks, but for what identifies it; whether there was one.
pub fn cover(text: &mut [u8]) -> bool {
    let mut ranges = Vec::new();
    for_each(text, &mut |range| ranges.push(range));
    for range in &ranges {
        cover_range(text, range.clone());
    }
    !ranges.is_empty()
}

/// Covers everything behind the first quote: the values of parameters.
pub fn cover_values(text: &mut [u8]) {
    if let Some(quote) = memchr::memchr(b'\'', text) {
        let end = text.len();
        cover_range(text, quote + 1..end);
    }
}

/// Whether the text is of a statement that stores a secret: its parameters are one.
pub fn stores_secret(text: &[u8]) -> bool {
    memmem::find(text, STORES_JWT_KEY).is_some()
}

fn cover_range(text: &mut [u8], range: Range<usize>) {
    // Characters of several bytes become as many asterisks, so that the text stays valid.
    for byte in &mut text[range] {
        *byte = b'*';
    }
}

/// Calls `found` with the range of each secret in `text`.
fn for_each(text: &[u8], found: &mut impl FnMut(Range<usize>)) {
    for underscore in memchr_iter(b'_', text) {
        if let Some(range) = key_behind(text, underscore) {
            found(range);
        }
    }
    for dot in memchr_iter(b'.', text) {
        if is_token_header(run_before(&text[..dot], is_base64url)) {
            let rest = &text[dot + 1..];
            let length = rest.iter().take_while(|byte| is_base64url(**byte) || **byte == b'.').count();
            found(dot + 1..dot + 1 + length);
        }
    }
    let mut place = 0;
    while let Some(start) = memmem::find(&text[place..], PRIVATE_KEY) {
        let start = place + start + PRIVATE_KEY.len();
        let length = memmem::find(&text[start..], END_OF_KEY).unwrap_or(text.len() - start);
        found(start..start + length);
        place = start + length;
    }
    if let Some(start) = memmem::find(text, STORES_JWT_KEY) {
        let start = start + STORES_JWT_KEY.len();
        if let Some(literal) = memchr::memchr2(b'\'', b'$', &text[start..]) {
            found(start + literal + 1..text.len());
        }
    }
    if let Some(start) = memmem::find(text, PEPPER) {
        found((start + PEPPER.len() + 1).min(text.len())..text.len());
    }
}

/// The secret part of the key or invitation whose prefix ends at `underscore`.
fn key_behind(text: &[u8], underscore: usize) -> Option<Range<usize>> {
    let (before, rest) = text.split_at(underscore + 1);
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let is_suspicious = length >= SUSPICIOUS_LENGTH && prefix::ends_with_known(before);
    let is_key = || length == SECRET_LENGTH + CHECKSUM_LENGTH && is_checked(text, underscore, length);
    (is_suspicious || is_key()).then(|| underscore + 1 + SHOWN..underscore + 1 + length)
}

/// Whether the text up to the end of the run is a key of some prefix.
fn is_checked(text: &[u8], underscore: usize, length: usize) -> bool {
    let end = underscore + 1 + length;
    let prefix = run_before(&text[..underscore], |byte| byte.is_ascii_alphanumeric()).len();
    (1..=prefix.min(prefix::MAX_LENGTH)).any(|prefix| has_valid_checksum(&text[underscore - prefix..end]))
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// The end of `text` that consists of `wanted` bytes.
fn run_before(text: &[u8], wanted: impl Fn(u8) -> bool) -> &[u8] {
    let length = text.iter().rev().take(MAX_HEADER).take_while(|byte| wanted(**byte)).count();
    &text[text.len() - length..]
}

/// Whether the text is the header of a signed token: JSON with the algorithm, in base64url.
fn is_token_header(text: &[u8]) -> bool {
    text.len() >= 16
        && text[0] == b'e'
        && BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .is_ok_and(|json| json.first() == Some(&b'{') && memmem::find(&json, b"\"alg\"").is_some())
}

const BYTES: &[u8] = b":constvalue";

/// Covers credentials in the dump of a parse tree or plan (`debug_print_plan` and its kin), which writes constants as lists of bytes.
pub fn cover_tree(text: &mut [u8]) {
    let mut place = 0;
    while let Some(start) = memmem::find(&text[place..], BYTES) {
        let start = place + start;
        let Some(open) = memchr::memchr(b'[', &text[start..]).map(|open| start + open) else { return };
        let Some(length) = memchr::memchr(b']', &text[open..]) else { return };
        let list = open + 1..open + length;
        place = list.end;
        let bytes: Vec<u8> = text[list.clone()]
            .split(u8::is_ascii_whitespace)
            .filter_map(|number| std::str::from_utf8(number).ok()?.parse::<i16>().ok())
            .map(|number| number as u8)
            .collect();
        if is_in(&bytes) {
            text[list].iter_mut().filter(|byte| byte.is_ascii_digit()).for_each(|digit| *digit = b'0');
        }
    }
}
