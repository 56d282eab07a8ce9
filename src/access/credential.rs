//! What all credentials have in common where they are used: a text comes in, and the principal is bound and shown.

use crate::context::{self, Grants, Principal};
use crate::error::Result;
use crate::one_row;
use pgrx::{IntoDatum, pg_sys};

/// The credential that the running call was given; an empty text for NULL, which is none either.
///
/// # Safety
/// `fcinfo` is the record of a call with one text.
pub unsafe fn argument<'a>(fcinfo: pg_sys::FunctionCallInfo) -> &'a str {
    // SAFETY: the caller's promise.
    unsafe { pgrx::fcinfo::pg_getarg(fcinfo, 0) }.unwrap_or_default()
}

/// Binds the transaction to the principal, and answers the call with it.
///
/// # Safety
/// `fcinfo` is the record of the running call of a function that returns tenancy.principal.
pub unsafe fn bind_and_answer(fcinfo: pg_sys::FunctionCallInfo, principal: &Principal) -> Result<pg_sys::Datum> {
    context::bind(principal)?;
    let Grants { role, api_key, scopes } = &principal.grants;
    let columns = [
        Some(uuid_datum(principal.tenant.id.as_bytes())),
        principal.user.as_ref().map(|user| uuid_datum(user.as_bytes())),
        role.as_deref().into_datum(),
        api_key.as_ref().map(uuid_datum),
        scopes.clone().into_datum(),
    ];
    // SAFETY: the columns are those of tenancy.principal.
    unsafe { one_row::answer(fcinfo, Some(columns)) }
}

/// A datum that refers to the uuid.
pub fn uuid_datum(uuid: &[u8; 16]) -> pg_sys::Datum {
    pg_sys::Datum::from(uuid.as_ptr())
}
