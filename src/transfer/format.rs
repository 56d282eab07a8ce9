//! The format that a tenant is exported in: records of a kind, a name and a text, in order.
//!
//! | kind | name | data |
//! |---|---|---|
//! | `header` | the tenant's id | JSON object: `format`, `extension_version`, `isolation`, `template`, `migrations`, `tenant` |
//! | `own` | one of [`super::own`] | JSON objects, one a line: what the product knows of the tenant |
//! | `table` | a table | JSON object: `schema` (null in a schema of the tenant's own), `tenant_column` (left out of the rows), `columns` |
//! | `rows` | that table | part of its rows, as COPY writes them in its text format, in the order of the primary key; parts follow on each other and end anywhere |
//! | `sequence` | a sequence of the tenant's own | JSON object: `last_value`, `is_called` |
//! | `end` | the tenant's id | JSON object: `records`, `rows`, `sha256` |
//!
//! A table comes after those that it refers to. `sha256` is over kind, name and data of each record before the last one, in order, each text as
//! its length in bytes (8 bytes, big-endian) and its bytes in UTF-8.

use aws_lc_rs::digest;

pub const VERSION: u32 = 1;

pub mod kind {
    pub const HEADER: &str = "header";
    pub const OWN: &str = "own";
    pub const TABLE: &str = "table";
    pub const ROWS: &str = "rows";
    pub const SEQUENCE: &str = "sequence";
    pub const END: &str = "end";
}

/// How long the text of a record is about: long enough to cost nothing, short enough for every client.
pub const CHUNK: usize = 64 * 1024;

/// What the texts of values go by besides [`crate::row_file`]: neither time zone nor locale of a database shows in them.
pub const SETTINGS: [(&str, &str); 2] = [("timezone", "UTC"), ("lc_monetary", "C")];

/// The checksum of the records so far.
pub struct Checksum(digest::Context);

impl Checksum {
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub fn add(&mut self, kind: &str, name: &str, data: &str) {
        for text in [kind, name, data] {
            self.0.update(&(text.len() as u64).to_be_bytes());
            self.0.update(text.as_bytes());
        }
    }

    /// In hexadecimal digits.
    pub fn finish(self) -> String {
        self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
