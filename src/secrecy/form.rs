//! The form of API keys and invitation tokens: `<prefix>_<43 letters and digits><6 of checksum>`, so that noise and a mistyped key are told
//! without a look-up, and secret scanners know them.

/// Letters and digits of a secret: 256 bits in base 62.
pub const SECRET_LENGTH: usize = 43;
/// Letters and digits of the checksum behind it: 32 bits in base 62.
pub const CHECKSUM_LENGTH: usize = 6;
/// Characters of a secret that may be shown, to recognise a key by.
pub const SHOWN: usize = 8;

/// The digits of base 62.
pub const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

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
