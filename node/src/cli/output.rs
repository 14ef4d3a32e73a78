//! What a command prints: data on standard output, remarks on standard error.
//!
//! Invariant: nothing here panics when a reader is gone; for standard output it is an error that ends the command, on
//! standard error it is nothing.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

use super::failure::Failure;

/// Standard output.
pub(super) struct Output {
    json: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json, stdout: BufWriter::new(io::stdout()) }
    }

    /// Whether JSON was asked for.
    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person reads it directly.
    pub(super) fn is_terminal(&self) -> bool {
        self.stdout.get_ref().is_terminal()
    }

    pub(super) fn line(&mut self, line: impl fmt::Display) -> Result<(), Failure> {
        Ok(writeln!(self.stdout, "{line}")?)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stdout.write_all(bytes)?)
    }

    /// One JSON document on a line of its own.
    pub(super) fn document(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.stdout, document).map_err(io::Error::from)?;
        Ok(self.stdout.write_all(b"\n")?)
    }

    /// Columns, the first row being their heads.
    pub(super) fn table(&mut self, rows: &[Vec<String>]) -> Result<(), Failure> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            self.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Hands over what is buffered, so that a reader sees it now.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.stdout.flush()?)
    }

    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.flush()
    }
}

/// A remark on standard error.
pub(super) fn note(remark: impl fmt::Display) {
    // Without a reader there is nobody to remark it to.
    let _ = writeln!(io::stderr(), "{remark}");
}

/// At most `chars_max` characters of a text on one line, for remarks.
pub(super) fn excerpt(text: &str, chars_max: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars_max).collect();
    if line.len() < text.len() { format!("{line}...") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt("a\nb", 9), "a b");
        assert_eq!(excerpt("äöü", 2), "äö...");
    }
}
