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
