//! JSON that passes through unchanged. `serde_json` would read numbers as f64 and limit the depth; what users store is theirs to the last
//! digit, so a jsonb argument stays text, and audit entries are written field by field.

use pgrx::{FromDatum, IntoDatum, pg_sys};
use std::ffi::{CStr, CString};

/// A jsonb value, as PostgreSQL prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jsonb(String);

impl Jsonb {
    /// A text that is JSON.
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    pub fn is_array(&self) -> bool {
        self.0.starts_with('[')
    }
}

impl FromDatum for Jsonb {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _typoid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: jsonb_out prints a datum of type jsonb into a palloc'd C string.
        let text = unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(datum)]) }?;
        Some(Self(text.to_string_lossy().into_owned()))
    }
}

impl IntoDatum for Jsonb {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let text = CString::new(self.0).ok()?;
        // SAFETY: jsonb_in parses a C string, and raises what is no JSON.
        unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[text.as_c_str().into_datum()]) }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

/// A JSON object, written field by field.
pub struct Object(String);

impl Object {
    pub fn new() -> Self {
        Self(String::from("{"))
    }

    fn field(mut self, name: &str, json: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quote(name));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    pub fn text(self, name: &str, value: &str) -> Self {
        let value = quote(value);
        self.field(name, &value)
    }

    /// A text, or null.
    pub fn optional(self, name: &str, value: Option<&str>) -> Self {
        let value = value.map_or_else(|| "null".to_owned(), quote);
        self.field(name, &value)
    }

    pub fn boolean(self, name: &str, value: bool) -> Self {
        self.field(name, if value { "true" } else { "false" })
    }

    pub fn number(self, name: &str, value: u64) -> Self {
        self.field(name, &value.to_string())
    }

    pub fn texts<'a>(self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values: Vec<String> = values.into_iter().map(quote).collect();
        self.field(name, &format!("[{}]", values.join(",")))
    }

    /// An array of values that are JSON already.
    pub fn array(self, name: &str, values: &[String]) -> Self {
        self.field(name, &format!("[{}]", values.join(",")))
    }

    pub fn jsonb(self, name: &str, value: &Jsonb) -> Self {
        self.field(name, value.as_str())
    }

    pub fn object(self, name: &str, value: Self) -> Self {
        let value = value.finish();
        self.field(name, value.as_str())
    }

    pub fn finish(mut self) -> Jsonb {
        self.0.push('}');
        Jsonb(self.0)
    }
}

/// A JSON string literal (RFC 8259, section 7).
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
