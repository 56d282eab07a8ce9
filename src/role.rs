//! Acting as another role for a while, as PostgreSQL's own maintenance commands do.

use crate::error::{Error, Result};
use crate::extension;
use pgrx::pg_sys;
use std::ffi::{CString, c_int};

/// Restores the role when dropped, an ERROR that unwinds included.
struct Restore {
    role: pg_sys::Oid,
    context: c_int,
}

/// Undoes, when dropped, the settings that were changed since: users' code must not leave its own in the caller's session.
struct Settings(c_int);

impl Settings {
    fn keep() -> Self {
        // SAFETY: opens a nest level that drop closes (or the end of the transaction).
        Self(unsafe { pg_sys::NewGUCNestLevel() })
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // SAFETY: rolls back the level that keep opened.
        unsafe { pg_sys::AtEOXact_GUC(false, self.0) }
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: puts back what was read when the guard was made.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) }
    }
}

fn switch(role: pg_sys::Oid, add: u32) -> Restore {
    let mut before = Restore { role: pg_sys::InvalidOid, context: 0 };
    // SAFETY: reads into two locals, then sets what Restore puts back.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut before.role, &mut before.context);
        pg_sys::SetUserIdAndSecContext(role, before.context | add as c_int);
    }
    before
}

/// Runs `work` on users' tables as their `owner`, restricted so that their triggers and functions cannot leave that role.
pub fn as_owner<T>(owner: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let _restore = switch(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION);
    let _settings = Settings::keep();
    work()
}

/// Like [`as_owner`], with FORCE ROW LEVEL SECURITY suspended, to see every row of the owner's own table.
pub fn as_owner_of_all_rows<T>(owner: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let _restore = switch(
        owner,
        pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION | pg_sys::SECURITY_NOFORCE_RLS,
    );
    let _settings = Settings::keep();
    work()
}

/// Runs `work` on the product's own tables as their owner, who installed the extension, with `search_path` pinned: what a SECURITY
/// DEFINER function with a SET clause is, for code that cannot be one.
pub fn as_extension_owner<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _restore = switch(extension::owner()?, pg_sys::SECURITY_LOCAL_USERID_CHANGE);
    with_settings([("search_path", "pg_catalog, pg_temp")], work)
}

/// Runs `work` with these settings, as a function with SET clauses does.
pub fn with_settings<'a, T>(
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let _settings = Settings::keep();
    for (name, value) in settings {
        let text = |text: &str| CString::new(text).map_err(|_| Error::Internal("a setting has a zero byte".to_owned()));
        let (name, value) = (text(name)?, text(value)?);
        // SAFETY: C strings that PostgreSQL copies; the settings are undone with the level that was just opened.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
    work()
}

/// Runs `work` without any trigger or foreign key but those that are always to fire: rows are what they are, and have been through all of that before.
/// What references promise is then the caller's to check.
pub fn without_triggers<T>(work: impl FnOnce() -> T) -> T {
    let _settings = Settings::keep();
    // SAFETY: C strings, which are copied; only superusers may set it, which is what the product is. Undone with the level that was just opened.
    unsafe {
        pg_sys::set_config_option(
            c"session_replication_role".as_ptr(),
            c"replica".as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
    work()
}

/// The session of a background worker, which is a superuser's, as that of another role as long as this lives: for foreign SQL, and for what it
/// leaves to the end of the transaction. Unlike [`as_owner`] it leaves temporary tables and deferred triggers possible; the session can
/// be no superuser's again before this ends.
pub struct Session(());

impl Session {
    /// For statements inside a transaction: SET ROLE and SET SESSION AUTHORIZATION are refused.
    pub fn of(role: pg_sys::Oid) -> Self {
        let session = Self::for_one_statement(role);
        // SAFETY: sets what drop undoes.
        unsafe { pg_sys::SetUserIdAndSecContext(role, pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int) };
        session
    }

    /// For one statement that begins and ends transactions, which PostgreSQL wants to have no security context, and that calls no function
    /// of users but under one of its own.
    pub fn for_one_statement(role: pg_sys::Oid) -> Self {
        // SAFETY: the worker's authenticated user is a superuser, who may be anyone.
        unsafe { pg_sys::SetSessionAuthorization(role, pg_sys::superuser_arg(role)) };
        Self(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let worker = pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
        // SAFETY: back to what the worker connected as.
        unsafe {
            pg_sys::SetUserIdAndSecContext(worker, 0);
            pg_sys::SetSessionAuthorization(worker, true);
        }
    }
}
