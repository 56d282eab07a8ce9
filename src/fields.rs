//! Fields of JSON that one process of the product has written for another.

use crate::error::{Error, Result};
use crate::uuid;
use pgrx::Uuid;
use pgrx::pg_sys::Oid;
use serde_json::Value;

fn unreadable(name: &str) -> Error {
    Error::Internal(format!("field \"{name}\" of a request or an answer is missing or malformed"))
}

pub fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().ok_or_else(|| unreadable(name))
}

pub fn number(value: &Value, name: &str) -> Result<i64> {
    value[name].as_i64().ok_or_else(|| unreadable(name))
}

pub fn boolean(value: &Value, name: &str) -> Result<bool> {
    value[name].as_bool().ok_or_else(|| unreadable(name))
}

pub fn oid(value: &Value, name: &str) -> Result<Oid> {
    let oid = value[name].as_u64().and_then(|oid| u32::try_from(oid).ok());
    oid.map(Oid::from_u32).ok_or_else(|| unreadable(name))
}

pub fn tenant(value: &Value, name: &str) -> Result<Uuid> {
    let id = value[name].as_str().and_then(|id| uuid::parse(id.as_bytes()));
    id.map(Uuid::from_bytes).ok_or_else(|| unreadable(name))
}

/// An id in a list.
pub fn uuid_at(list: &Value, index: usize) -> Result<Uuid> {
    let id = list[index].as_str().and_then(|id| uuid::parse(id.as_bytes()));
    id.map(Uuid::from_bytes).ok_or_else(|| unreadable("id"))
}

pub fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    value[name].as_array().ok_or_else(|| unreadable(name))
}

pub fn texts(value: &Value, name: &str) -> Result<Vec<String>> {
    list(value, name)?.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| unreadable(name))).collect()
}
