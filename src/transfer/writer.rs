//! Writing records: numbered, and summed up at the end.

use super::format::{CHUNK, Checksum, kind};
use crate::error::{Error, Result};
use crate::json::Object;
use pgrx::pg_sys;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Where the parts of an export go, in their order; `rows` is how many rows a part begins or has.
pub trait Out {
    fn put(&mut self, kind: &str, name: &str, data: &str, rows: u64) -> Result<()>;
}

/// The result of a function that is called, which PostgreSQL keeps on disk when it grows.
pub struct Records {
    tuples: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
    records: i64,
    rows: u64,
    checksum: Checksum,
}

impl Records {
    /// # Safety
    /// `fcinfo` is the call record of a function that returns rows of (bigint, text, text, text).
    pub unsafe fn begin(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        // SAFETY: the caller's promise; PostgreSQL raises where a set cannot be returned, and else fills in what it is returned by.
        let (tuples, descriptor) = unsafe {
            pg_sys::InitMaterializedSRF(fcinfo, 0);
            let result = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            ((*result).setResult, (*result).setDesc)
        };
        Self { tuples, descriptor, records: 0, rows: 0, checksum: Checksum::new() }
    }

    fn store(&mut self, kind: &str, name: &str, data: &str) {
        self.records += 1;
        // SAFETY: the store copies what it is given; the texts are freed, since there may be very many.
        unsafe {
            let text = |text: &str| pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), text.len() as i32);
            let texts = [text(kind), text(name), text(data)];
            let mut values = [pg_sys::Datum::from(self.records), texts[0].into(), texts[1].into(), texts[2].into()];
            let mut nulls = [false; 4];
            pg_sys::tuplestore_putvalues(self.tuples, self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            texts.into_iter().for_each(|text| pg_sys::pfree(text.cast()));
        }
    }

    /// The last record, which says what was before it.
    pub fn end(mut self, name: &str) {
        let data = Object::new().number("records", self.records.cast_unsigned()).number("rows", self.rows);
        let checksum = std::mem::replace(&mut self.checksum, Checksum::new()).finish();
        let data = data.text("sha256", &checksum).finish();
        self.store(kind::END, name, data.as_str());
    }
}

impl Out for Records {
    fn put(&mut self, kind: &str, name: &str, data: &str, rows: u64) -> Result<()> {
        self.rows += rows;
        self.checksum.add(kind, name, data);
        self.store(kind, name, data);
        Ok(())
    }
}

/// Hands out a file of text in pieces, at the ends of lines where there are some.
pub fn chunks(path: &Path, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let failed = |error: std::io::Error| Error::Internal(format!("a temporary file could not be read: {error}"));
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    let mut filled = 0;
    loop {
        let read = file.read(&mut buffer[filled..]).map_err(failed)?;
        filled += read;
        if read > 0 && filled < buffer.len() {
            continue;
        }
        pgrx::check_for_interrupts!();
        let valid = match std::str::from_utf8(&buffer[..filled]) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&buffer[..error.valid_up_to()]).unwrap_or_default(),
        };
        let end = if read == 0 { valid.len() } else { valid.rfind('\n').map_or(valid.len(), |line| line + 1) };
        if end > 0 {
            each(&valid[..end])?;
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
        if read == 0 {
            return if filled == 0 { Ok(()) } else { Err(Error::Encoding) };
        }
    }
}
