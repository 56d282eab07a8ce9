//! Slugs: the tenant's name in host names and paths. A DNS label in lower case (RFC 1035, section 2.3.1, digits allowed first).

use crate::error::{Error, Result};
use deunicode::deunicode;

const MAX_LENGTH: usize = 63;

/// Names that hosts and paths of an application need for themselves.
const RESERVED: &[&str] = &[
    "about",
    "account",
    "accounts",
    "admin",
    "api",
    "app",
    "assets",
    "auth",
    "billing",
    "blog",
    "cdn",
    "contact",
    "dashboard",
    "demo",
    "dev",
    "docs",
    "download",
    "ftp",
    "git",
    "graphql",
    "help",
    "host",
    "imap",
    "internal",
    "legal",
    "localhost",
    "login",
    "logout",
    "mail",
    "media",
    "metrics",
    "mx",
    "ns",
    "ns1",
    "ns2",
    "null",
    "oauth",
    "pop",
    "pop3",
    "postmaster",
    "pricing",
    "private",
    "production",
    "public",
    "register",
    "root",
    "security",
    "settings",
    "shop",
    "signin",
    "signup",
    "smtp",
    "sso",
    "staging",
    "static",
    "status",
    "store",
    "support",
    "system",
    "tenant",
    "test",
    "undefined",
    "webmail",
    "webmaster",
    "www",
];

pub fn is_well_formed(slug: &str) -> bool {
    !slug.is_empty()
        && slug.len() <= MAX_LENGTH
        && slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !slug.starts_with('-')
        && !slug.ends_with('-')
}

pub fn is_reserved(slug: &str) -> bool {
    RESERVED.contains(&slug)
}

/// The slug as given, or why it cannot be one.
pub fn check(slug: &str) -> Result<&str> {
    if !is_well_formed(slug) {
        return Err(Error::invalid(
            format!("slug \"{}\" is malformed", slug.chars().take(MAX_LENGTH + 1).collect::<String>()),
            "A slug has lower-case letters, digits and inner hyphens, at most 63 characters.",
        ));
    }
    if is_reserved(slug) {
        return Err(Error::invalid(format!("slug \"{slug}\" is reserved"), "Choose another one."));
    }
    Ok(slug)
}

/// The slug that `name` suggests, in ASCII; None when nothing usable is left of it.
pub fn from_name(name: &str) -> Option<String> {
    let mut slug = String::with_capacity(MAX_LENGTH);
    for character in deunicode(name).chars() {
        match character.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => slug.push(letter),
            '\'' => {}
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
        if slug.len() == MAX_LENGTH {
            break;
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    (!slug.is_empty() && !is_reserved(&slug)).then_some(slug)
}

/// `slug` with a suffix that sets it apart, still short enough.
pub fn with_suffix(slug: &str, suffix: &str) -> String {
    let room = MAX_LENGTH - suffix.len() - 1;
    let base = slug[..slug.len().min(room)].trim_end_matches('-');
    format!("{base}-{suffix}")
}
