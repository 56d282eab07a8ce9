//! What is a credential in a text: API keys and invitation tokens (`prefix_` and letters and digits with a checksum), signed tokens (JWT,
//! RFC 7519), private keys in PEM (RFC 7468), and the literals of the statements that store secrets.

use super::form::{CHECKSUM_LENGTH, SECRET_LENGTH, SHOWN, has_valid_checksum};
use super::prefix;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use memchr::{memchr_iter, memmem};
use std::ops::Range;

/// A run of letters and digits behind a known prefix is a credential from this length on, cut off or mistyped as it may be.
const SUSPICIOUS_LENGTH: usize = 16;
/// What of a signed token's header, or of any other run of characters, is looked at: no token is longer.
const MAX_RUN: usize = 16 * 1024;

const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";
const END_OF_KEY: &[u8] = b"-----END";

/// Names in statements that store secrets.
const ADDS_JWT_KEY: &[u8] = b"add_jwt_key";
const JWT_KEYS: &[u8] = b"stored_jwt_keys";
const PEPPER: &[u8] = b"api_key_pepper";

/// Where PostgreSQL quotes values and cuts them.
const QUOTATIONS: [&[u8]; 3] = [b"parameters:", b"JSON data, line ", b"COPY "];
/// What it puts where it has cut one.
const CUT: &[u8] = b"...";
/// In every dump of a parse tree or plan.
const TREE: &[u8] = b":commandType ";
/// Before a constant in such a dump.
const BYTES: &[u8] = b":constvalue";

/// Whether a text holds a credential, or names what stores one.
pub fn is_in(text: &[u8]) -> bool {
    let mut found = false;
    for_each(text, &mut |_| found = true);
    found || stores_secret(text)
}

/// Covers each credential in a statement with asterisks, but for what identifies it; where the statement stores one, or
/// with `all_values`, all its literals.
pub fn cover(text: &mut [u8], all_values: bool) {
    cover_credentials(text);
    if all_values || stores_secret(text) {
        cover_values(text);
    }
}

/// Covers credentials alone.
pub fn cover_credentials(text: &mut [u8]) {
    cover_found(text, |text, found| for_each(text, found));
}

/// Covers what a message of the server's log has of a credential, however PostgreSQL has cut or wrapped it. `is_secret` is for a statement
/// that holds one: then the whole dump of its tree is covered, and `all_values` for one that stores a secret: then everything that is quoted.
pub fn cover_report(text: &mut [u8], is_secret: bool, all_values: bool) {
    let is_tree = memmem::find(text, TREE).is_some();
    if is_secret && is_tree {
        let end = text.len();
        cover_range(text, 0..end);
    } else if is_tree {
        cover_tree(text);
    } else {
        cover_credentials(text);
    }
    if all_values || stores_secret(text) {
        cover_values(text);
    }
}

/// Covers pieces of credentials in values that PostgreSQL has cut.
pub fn cover_cut(text: &mut [u8]) {
    if QUOTATIONS.into_iter().any(|quotation| memmem::find(text, quotation).is_some()) {
        cover_found(text, |text, found| for_each_cut(text, found));
    }
}

/// Covers everything behind the first quote, of a value or an identifier, and behind the name of the setting that holds a secret.
fn cover_values(text: &mut [u8]) {
    let end = text.len();
    let quote = text.iter().position(|byte| matches!(byte, b'\'' | b'"' | b'$')).map(|quote| quote + 1);
    let setting = name_in(text, PEPPER).map(|start| (start + PEPPER.len() + 1).min(end));
    if let Some(start) = quote.into_iter().chain(setting).min() {
        cover_range(text, start..end);
    }
}

/// Whether the text is of a statement that stores a secret: all its literals may be one.
pub fn stores_secret(text: &[u8]) -> bool {
    [ADDS_JWT_KEY, JWT_KEYS, PEPPER].into_iter().any(|name| name_in(text, name).is_some())
}

/// Where a name with underscores is in the text, in capitals or not.
fn name_in(text: &[u8], name: &[u8]) -> Option<usize> {
    let first = memchr::memchr(b'_', name)?;
    memchr_iter(b'_', text).find_map(|underscore| {
        let start = underscore.checked_sub(first)?;
        text.get(start..start + name.len())?.eq_ignore_ascii_case(name).then_some(start)
    })
}

fn cover_found(text: &mut [u8], find: impl Fn(&[u8], &mut dyn FnMut(Range<usize>))) {
    let mut ranges = Vec::new();
    find(text, &mut |range| ranges.push(range));
    for range in ranges {
        cover_range(text, range);
    }
}

fn cover_range(text: &mut [u8], range: Range<usize>) {
    // Characters of several bytes become as many asterisks, so that the text stays valid.
    for byte in &mut text[range] {
        *byte = b'*';
    }
}

/// Calls `found` with the range of each secret in `text`.
fn for_each(text: &[u8], mut found: impl FnMut(Range<usize>)) {
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
}

/// Calls `found` with the range of each run of a key's or token's characters that PostgreSQL has cut, in front or behind: it may be of a secret.
fn for_each_cut(text: &[u8], mut found: impl FnMut(Range<usize>)) {
    for cut in memmem::find_iter(text, CUT) {
        let before = run_before(&text[..cut], is_base64url).len();
        if before >= SUSPICIOUS_LENGTH {
            found(cut - before..cut);
        }
        let start = cut + CUT.len();
        let after = text[start..].iter().take_while(|byte| is_base64url(**byte) || **byte == b'.').count();
        if after >= SUSPICIOUS_LENGTH {
            found(start..start + after);
        }
    }
}

/// The secret part of the key or invitation whose prefix ends at `underscore`.
fn key_behind(text: &[u8], underscore: usize) -> Option<Range<usize>> {
    let (before, rest) = text.split_at(underscore + 1);
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let is_suspicious = length >= SUSPICIOUS_LENGTH && prefix::ends_with_known(before);
    let is_key = || length >= SECRET_LENGTH + CHECKSUM_LENGTH && is_checked(text, underscore);
    (is_suspicious || is_key()).then(|| underscore + 1 + SHOWN..underscore + 1 + length)
}

/// Whether a key of some prefix stands around the underscore.
fn is_checked(text: &[u8], underscore: usize) -> bool {
    let end = underscore + 1 + SECRET_LENGTH + CHECKSUM_LENGTH;
    let prefix = run_before(&text[..underscore], |byte| byte.is_ascii_alphanumeric()).len();
    (1..=prefix.min(prefix::MAX_LENGTH)).any(|prefix| has_valid_checksum(&text[underscore - prefix..end]))
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// The end of `text` that consists of `wanted` bytes.
fn run_before(text: &[u8], wanted: impl Fn(u8) -> bool) -> &[u8] {
    let length = text.iter().rev().take(MAX_RUN).take_while(|byte| wanted(**byte)).count();
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

/// Covers credentials in the dump of a parse tree or plan (`debug_print_plan` and its kin), which writes constants as lists of bytes and breaks
/// lines: in place of a blank, or in the middle of a word with the line's indentation put in.
fn cover_tree(text: &mut [u8]) {
    let unbroken = places_of_unbroken(text);
    let all: Vec<usize> = (0..text.len()).collect();
    let mut covered: Vec<usize> = Vec::new();
    for places in [unbroken, all] {
        let line: Vec<u8> =
            places.iter().map(|place| if text[*place] == b'\n' { b' ' } else { text[*place] }).collect();
        for_each(&line, |range| covered.extend(&places[range]));
        for_each_list(&line, |range| covered.extend(&places[range]));
    }
    for place in covered {
        text[place] = b'*';
    }
}

/// The places of the characters without the breaks of lines and as many blanks as the line before begins with.
fn places_of_unbroken(text: &[u8]) -> Vec<usize> {
    let indentation = |start: usize| text[start..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let mut places = Vec::with_capacity(text.len());
    let (mut place, mut indented) = (0, indentation(0));
    while place < text.len() {
        if text[place] == b'\n' {
            let next = indentation(place + 1);
            place += 1 + indented.min(next);
            indented = next;
        } else {
            places.push(place);
            place += 1;
        }
    }
    places
}

/// Calls `found` with the range of each list of bytes that holds a credential.
fn for_each_list(tree: &[u8], mut found: impl FnMut(Range<usize>)) {
    let mut place = 0;
    while let Some(start) = memmem::find(&tree[place..], BYTES) {
        let start = place + start;
        let Some(open) = memchr::memchr(b'[', &tree[start..]).map(|open| start + open) else { return };
        let Some(length) = memchr::memchr(b']', &tree[open..]) else { return };
        let list = open + 1..open + length;
        place = list.end;
        let bytes: Vec<u8> = tree[list.clone()]
            .split(u8::is_ascii_whitespace)
            .filter_map(|number| std::str::from_utf8(number).ok()?.parse::<i16>().ok())
            .map(|number| number as u8)
            .collect();
        if is_in(&bytes) {
            found(list);
        }
    }
}
