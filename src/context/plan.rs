//! What a plan says of its tenants' transactions: server settings that hold in them, and how many there may be at once. They are keys of
//! `tenancy.plans.settings`; every other key is the application's own.
//!
//! The settings have the binding's own scope, as SET LOCAL has. A session may change those that any session may change.

use crate::backend::BackendStatic;
use crate::changes;
use crate::error::{Error, Result};
use crate::query;
use crate::scan::{Key, Table};
use crate::version;
use pgrx::datum::DatumWithOid;
use pgrx::{IntoDatum, PgLogLevel, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};

/// The server settings that a plan may have.
const SETTINGS: [&CStr; 9] = [
    c"statement_timeout",
    c"lock_timeout",
    c"idle_in_transaction_session_timeout",
    c"transaction_timeout",
    c"work_mem",
    c"hash_mem_multiplier",
    c"maintenance_work_mem",
    c"max_parallel_workers_per_gather",
    TEMP_FILE_LIMIT,
];
/// The one of them that sessions may not change. A plan may lower it only, since it is a superuser who set it.
const TEMP_FILE_LIMIT: &CStr = c"temp_file_limit";
/// The key of the cap.
const MAX_TRANSACTIONS: &str = "max_concurrent_transactions";

/// Each key of a plan's settings: its JSON type, its value as text, and whether the server has a setting of this name.
const KEYS: &str = "SELECT key, pg_catalog.jsonb_typeof(value), value #>> '{}',
        pg_catalog.strpos(key, '.') = 0 AND pg_catalog.current_setting(key, true) IS NOT NULL
    FROM pg_catalog.jsonb_each($1) ORDER BY key";

/// Column numbers of `tenancy.plans`; sql/metering/plan.sql keeps them.
const PLAN: i16 = 1;
const PLAN_SETTINGS: i16 = 3;

static PLANS: Table = Table::by(c"plans", c"plans_pkey");

/// What a plan says of its tenants' transactions.
#[derive(PartialEq, Eq)]
pub struct Plan {
    settings: Vec<(&'static CStr, CString)>,
    /// How many transactions may have one of its tenants bound at once.
    pub max_transactions: Option<usize>,
}

#[derive(Default)]
struct Known {
    generation: u64,
    plans: HashMap<String, Option<&'static Plan>>,
}

/// A setting as this transaction had it before a plan's first value for it, and as a plan left it.
struct Changed {
    name: &'static CStr,
    before: CString,
    applied: CString,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
    /// Every plan that this backend has seen, once: few, and kept for as long as it lives.
    static SEEN: RefCell<Vec<&'static Plan>> = const { RefCell::new(Vec::new()) };
    static CHANGED: RefCell<Vec<Changed>> = const { RefCell::new(Vec::new()) };
}

/// The transaction that [`CHANGED`] is of.
static CHANGED_IN: BackendStatic<pg_sys::LocalTransactionId> = BackendStatic::new(0);

/// What the plan of this name says, None when nothing, and whether every change of that is announced.
pub fn find(name: &str) -> Result<(Option<&'static Plan>, bool)> {
    let generation = changes::generation();
    let known =
        KNOWN.with_borrow(|known| if known.generation == generation { known.plans.get(name).copied() } else { None });
    if let Some(known) = known {
        return Ok((known, true));
    }
    let (row, announced) = PLANS.first_and_announced(&[Key::text(PLAN, name)?])?;
    let plan = row.and_then(|row| row.datum(PLAN_SETTINGS)).and_then(read);
    if announced && changes::generation() == generation {
        KNOWN.with_borrow_mut(|known| {
            if known.generation != generation {
                known.plans.clear();
                known.generation = generation;
            }
            known.plans.insert(name.to_owned(), plan);
        });
    }
    Ok((plan, announced))
}

/// What these settings, a jsonb, say; None when nothing.
fn read(settings: pg_sys::Datum) -> Option<&'static Plan> {
    let value = |key: &str| -> Option<String> {
        // SAFETY: the function takes a jsonb and a text, and gives a text or NULL.
        unsafe {
            let arguments = [Some(settings), key.into_datum()];
            pgrx::direct_function_call(pg_sys::jsonb_object_field_text, &arguments)
        }
    };
    let setting = |name: &'static CStr| Some((name, CString::new(value(name.to_str().ok()?)?).ok()?));
    let plan = Plan {
        settings: SETTINGS.into_iter().filter_map(setting).collect(),
        max_transactions: value(MAX_TRANSACTIONS).and_then(|number| number.parse().ok()),
    };
    (!plan.settings.is_empty() || plan.max_transactions.is_some()).then(|| {
        SEEN.with_borrow_mut(|seen| match seen.iter().find(|known| ***known == plan) {
            Some(known) => *known,
            None => {
                let plan = &*Box::leak(Box::new(plan));
                seen.push(plan);
                plan
            }
        })
    })
}

/// Refuses settings of a plan, a jsonb object, that its tenants' transactions could not have.
pub fn validate(settings: DatumWithOid) -> Result<()> {
    let keys = query::rows(KEYS, &[settings], |row| {
        Ok((row.must::<String>(1)?, row.must::<String>(2)?, row.get::<String>(3)?, row.must::<bool>(4)?))
    })?;
    for (key, kind, value, is_of_server) in keys {
        let is_scalar = matches!(kind.as_str(), "string" | "number" | "boolean");
        if key == MAX_TRANSACTIONS {
            let number = value.as_deref().and_then(|value| value.parse::<i32>().ok());
            if !is_scalar || number.is_none_or(|number| number < 1) {
                return Err(Error::invalid(format!("plan setting \"{key}\" must be a positive whole number"), ""));
            }
            continue;
        }
        match SETTINGS.into_iter().find(|name| name.to_bytes() == key.as_bytes()) {
            Some(name) if is_of_server && is_scalar => validate_value(name, &value.unwrap_or_default())?,
            Some(_) if is_of_server => {
                return Err(Error::invalid(format!("plan setting \"{key}\" must be a string or a number"), ""));
            }
            Some(_) => return Err(Error::invalid(format!("this server has no setting \"{key}\""), "")),
            None if is_of_server || key.starts_with("tenancy.") => {
                return Err(Error::invalid(
                    format!("\"{key}\" is a server setting that plans do not have"),
                    "They have statement_timeout, lock_timeout, idle_in_transaction_session_timeout, transaction_timeout, work_mem, \
                     hash_mem_multiplier, maintenance_work_mem, max_parallel_workers_per_gather and temp_file_limit.",
                ));
            }
            None => {}
        }
    }
    Ok(())
}

/// Raises PostgreSQL's own error for a value that the setting cannot have.
fn validate_value(name: &CStr, value: &str) -> Result<()> {
    let value = CString::new(value).map_err(|_| Error::Internal("a setting's value holds a zero".to_owned()))?;
    set_option(name, &value, false, PgLogLevel::ERROR as c_int);
    Ok(())
}

/// Follows a binding to a tenant whose plan says this. What a former tenant's plan has set in this transaction ends, unless the session has
/// changed it since.
#[inline]
pub fn enter(plan: Option<&'static Plan>) {
    if plan.is_some() || CHANGED_IN.get() == version::local_transaction_id() {
        change(plan.map_or(&[], |plan| &plan.settings));
    }
}

/// Puts back what the transaction had before a tenant's plan.
pub fn leave() {
    enter(None);
}

fn change(settings: &[(&'static CStr, CString)]) {
    let transaction = version::local_transaction_id();
    if CHANGED_IN.get() != transaction {
        CHANGED.with_borrow_mut(Vec::clear);
        CHANGED_IN.set(transaction);
    }
    // Taken out meanwhile: setting an option may raise.
    let mut changed = CHANGED.take();
    for Changed { name, before, applied } in &changed {
        if !settings.iter().any(|(other, _)| other == name) && current(name) == *applied {
            apply(name, before);
        }
    }
    for (name, value) in settings {
        let before = current(name);
        apply(name, value);
        if *name == TEMP_FILE_LIMIT && is_higher(&current(name), &before) {
            apply(name, &before);
        }
        let applied = current(name);
        match changed.iter_mut().find(|known| known.name == *name) {
            Some(known) => known.applied = applied,
            None => changed.push(Changed { name, before, applied }),
        }
    }
    CHANGED.set(changed);
}

/// Whether a limit is above another; -1 is none.
fn is_higher(limit: &CStr, other: &CStr) -> bool {
    let number = |text: &CStr| text.to_str().ok().and_then(|text| text.parse::<i64>().ok());
    let number = |text| number(text).filter(|number| *number >= 0).unwrap_or(i64::MAX);
    number(limit) > number(other)
}

/// The value now, in the setting's own unit.
fn current(name: &CStr) -> CString {
    // SAFETY: the name is a C string; the answer is null for a setting that this version has not, or a C string that is copied.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() { CString::default() } else { CStr::from_ptr(value).to_owned() }
    }
}

/// SET LOCAL. A value that the server does not take, of a plan that was made elsewhere, is told of and left out.
fn apply(name: &CStr, value: &CStr) {
    set_option(name, value, true, PgLogLevel::WARNING as c_int);
}

fn set_option(name: &CStr, value: &CStr, change: bool, level: c_int) {
    // SAFETY: the name and the value are C strings that PostgreSQL copies.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            change,
            level,
            false,
        );
    }
}
