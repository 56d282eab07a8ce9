//! Lines in a temporary file.

use crate::error::{Error, Result};
use crate::scratch::{self, Scratch};
use crate::transfer::format;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

fn failed(error: std::io::Error) -> Error {
    Error::Internal(format!("a temporary file could not be used: {error}"))
}

/// Lines that are written once and then read.
pub struct Lines {
    path: PathBuf,
    name: String,
    /// The file, where it is ours.
    _file: Option<Scratch>,
    writer: Option<BufWriter<File>>,
    pub count: u64,
    ends_with_line: bool,
}

impl Lines {
    pub fn new() -> Result<Self> {
        let file = Scratch::new()?;
        scratch::write(file.path(), "")?;
        let writer = File::options().write(true).open(file.path()).map_err(failed)?;
        let writer = Some(BufWriter::with_capacity(format::CHUNK, writer));
        let (path, name) = (file.path().to_owned(), file.name());
        Ok(Self { path, name, _file: Some(file), writer, count: 0, ends_with_line: true })
    }

    /// Those that another process has written.
    pub fn of(name: &str, count: u64) -> Result<Self> {
        let (path, name) = (scratch::path(name)?, name.to_owned());
        Ok(Self { path, name, _file: None, writer: None, count, ends_with_line: true })
    }

    /// Adds a part, which may end anywhere.
    pub fn add(&mut self, part: &[u8]) -> Result<()> {
        self.count += memchr::memchr_iter(b'\n', part).count() as u64;
        self.ends_with_line = part.last().is_none_or(|last| *last == b'\n');
        match &mut self.writer {
            Some(writer) => writer.write_all(part).map_err(failed),
            None => Err(Error::Internal("a file is written that is complete".to_owned())),
        }
    }

    pub fn finish(&mut self) -> Result<()> {
        match self.writer.take() {
            Some(mut writer) => writer.flush().map_err(failed),
            None => Ok(()),
        }
    }

    /// Whether the last line has ended.
    pub fn is_whole(&self) -> bool {
        self.ends_with_line
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What [`Self::of`] of another process knows them by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hands out the lines, each without its end.
    pub fn read(&self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut reader = BufReader::with_capacity(format::CHUNK, File::open(&self.path).map_err(failed)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                return Ok(());
            }
            each(line.strip_suffix(b"\n").unwrap_or(&line))?;
        }
    }
}
