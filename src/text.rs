//! Texts that people type: names, ids of other systems, reasons.

use crate::error::{Error, Result};

const MAX_NAME: usize = 255;
const MAX_REASON: usize = 1000;

fn check<'a>(what: &'static str, text: &'a str, limit: usize) -> Result<&'a str> {
    if text.trim().is_empty() || text.chars().count() > limit || text.chars().any(char::is_control) {
        return Err(Error::invalid(
            format!("{what} is empty, longer than {limit} characters or has control characters"),
            "",
        ));
    }
    Ok(text)
}

pub fn check_name(name: &str) -> Result<&str> {
    check("name", name, MAX_NAME)
}

pub fn check_external_id(external_id: &str) -> Result<&str> {
    check("external id", external_id, MAX_NAME)
}

pub fn check_reason(reason: &str) -> Result<&str> {
    check("reason", reason, MAX_REASON)
}

pub fn check_idempotency_key(key: &str) -> Result<&str> {
    check("idempotency key", key, MAX_NAME)
}

pub fn check_version(version: &str) -> Result<&str> {
    check("version", version, MAX_NAME)
}

/// RFC 5321, section 4.5.3.1.3, less the brackets.
const MAX_EMAIL: usize = 254;

/// An e-mail address in lower case, as it is kept and compared.
pub fn check_email(email: &str) -> Result<String> {
    let well_formed = email.chars().count() <= MAX_EMAIL
        && !email.chars().any(|character| character.is_control() || character.is_whitespace())
        && email.rsplit_once('@').is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty());
    if !well_formed {
        return Err(Error::invalid("e-mail address is malformed or longer than 254 characters", ""));
    }
    Ok(email.to_lowercase())
}
