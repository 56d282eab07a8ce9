//! New ids for a copy of a tenant: the same each time, so that whoever refers to a thing by its old id refers to it by the new one.

use aws_lc_rs::digest;
use pgrx::Uuid;

/// The id in the tenant of something that had this one: a UUID of version 8 (RFC 9562, section 5.8).
pub fn uuid(tenant: Uuid, old: Uuid) -> Uuid {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(tenant.as_bytes());
    hash.update(old.as_bytes());
    let mut new = [0; 16];
    new.copy_from_slice(&hash.finish().as_ref()[..16]);
    new[6] = new[6] & 0x0f | 0x80;
    new[8] = new[8] & 0x3f | 0x80;
    Uuid::from_bytes(new)
}
