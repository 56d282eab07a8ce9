//! Signed tokens (JSON Web Tokens, RFC 7519).
//!
//! - [`key`]: the keys that sign and verify, each for one algorithm.
//! - [`material`]: what keys are made of.
//! - [`claims`]: what a token says, by the names that the settings give.
//! - [`verify`]: from a token to the principal.
//! - [`issue`]: tokens of our own.

mod claims;
mod issue;
mod key;
mod material;
mod verify;

/// Longer ones are refused unread.
const MAX_TOKEN: usize = 16 * 1024;
