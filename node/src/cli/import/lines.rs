//! Lines of a stream, with their numbers, and the place behind each.
//!
//! Bounds: a line longer than `LINE_BYTES_MAX` is reported and skipped. The hash of all bytes so far proves, when an import
//! goes on, that the stream begins as it did.

use std::io::{BufRead, BufReader, Read, Write};

use super::ledger::Progress;
use crate::cli::failure::{CONFIG, Failure};

/// A stream by lines.
pub(super) struct Lines<R> {
    input: BufReader<R>,
    hasher: blake3::Hasher,
    at: Progress,
    /// The line last given, and where it began, in case it is put back.
    last: Vec<u8>,
    before_last: (blake3::Hasher, Progress),
    is_put_back: bool,
}

/// One line that is not empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NumberedLine {
    /// From 1.
    pub(super) number: u64,
    /// Without its end; or why it is no text.
    pub(super) text: Result<String, String>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        let (hasher, at) = (blake3::Hasher::new(), Progress::default());
        let before_last = (hasher.clone(), at);
        Self { input: BufReader::new(input), hasher, at, last: Vec::new(), before_last, is_put_back: false }
    }

    /// Goes behind what an earlier import has settled.
    pub(super) fn skip(&mut self, progress: &Progress) -> Result<(), Failure> {
        let mut settled = (&mut self.input).take(progress.offset);
        let skipped = std::io::copy(&mut settled, &mut Hashing(&mut self.hasher))?;
        if skipped < progress.offset || *self.hasher.finalize().as_bytes() != progress.prefix {
            return Err(Failure::new(CONFIG, "the input does not begin as it did when its import was interrupted"));
        }
        self.at = Progress { offset: progress.offset, line: progress.line, ..Progress::default() };
        Ok(())
    }

    /// The next line that is not empty; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<NumberedLine>, Failure> {
        loop {
            if !std::mem::take(&mut self.is_put_back) {
                self.before_last = (self.hasher.clone(), self.at);
                self.last.clear();
                let limit = LINE_BYTES_MAX as u64 + 1;
                (&mut self.input).take(limit).read_until(b'\n', &mut self.last)?;
            }
            if self.last.is_empty() {
                return Ok(None);
            }
            self.hasher.update(&self.last);
            self.at.offset += self.last.len() as u64;
            self.at.line += 1;
            let number = self.at.line;
            if self.last.len() > LINE_BYTES_MAX {
                self.skip_rest()?;
                let text = Err(format!("longer than {LINE_BYTES_MAX} bytes"));
                return Ok(Some(NumberedLine { number, text }));
            }
            let text = match str::from_utf8(&self.last) {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => Ok(text.trim_end().to_owned()),
                Err(_) => Err("not UTF-8".to_owned()),
            };
            return Ok(Some(NumberedLine { number, text }));
        }
    }

    /// Gives the last line again the next time. Not for one that was too long.
    pub(super) fn put_back(&mut self) {
        (self.hasher, self.at) = self.before_last.clone();
        self.is_put_back = true;
    }

    /// The place behind the last line given.
    pub(super) fn progress(&self) -> Progress {
        Progress { prefix: *self.hasher.finalize().as_bytes(), ..self.at }
    }

    fn skip_rest(&mut self) -> Result<(), Failure> {
        while self.last.last() != Some(&b'\n') {
            self.last.clear();
            if (&mut self.input).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut self.last)? == 0 {
                return Ok(());
            }
            self.hasher.update(&self.last);
            self.at.offset += self.last.len() as u64;
        }
        Ok(())
    }
}

/// A hasher that bytes can be copied to.
pub(super) struct Hashing<'a>(pub(super) &'a mut blake3::Hasher);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An object of 4 MiB, as base64, and then some.
const LINE_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Vec<(u64, Result<String, String>)> {
        let mut lines = Lines::new(input);
        std::iter::from_fn(|| lines.next().unwrap().map(|line| (line.number, line.text))).collect()
    }

    #[test]
    fn empty_lines_count_and_are_left_out_and_the_last_needs_no_end() {
        let lines = all(b"a\n\n  \nb\r\n\xff\nc");
        let shown: Vec<_> = lines.iter().map(|(number, text)| (*number, text.as_deref().ok())).collect();
        assert_eq!(shown, [(1, Some("a")), (4, Some("b")), (5, None), (6, Some("c"))]);
    }

    #[test]
    fn a_line_that_is_too_long_is_one_bad_line() {
        let mut input = vec![b'x'; 3 * LINE_BYTES_MAX];
        input.extend_from_slice(b"\nnext\n");
        let lines = all(&input);
        assert!(lines[0].1.is_err());
        assert_eq!(lines[1..], [(2, Ok("next".to_owned()))]);
    }

    #[test]
    fn a_line_put_back_comes_again_and_changes_no_place() {
        let mut lines = Lines::new(&b"a\nb\n"[..]);
        lines.next().unwrap();
        let behind_a = lines.progress();
        let b = lines.next().unwrap();
        let behind_b = lines.progress();
        lines.put_back();
        assert_eq!(lines.progress(), behind_a);
        assert_eq!(lines.next().unwrap(), b);
        assert_eq!(lines.progress(), behind_b);
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn going_on_needs_the_same_beginning() {
        let mut lines = Lines::new(&b"a\nb\nc\n"[..]);
        lines.next().unwrap();
        let place = lines.progress();
        let mut again = Lines::new(&b"a\nB\n"[..]);
        again.skip(&place).unwrap();
        assert_eq!(again.next().unwrap(), Some(NumberedLine { number: 2, text: Ok("B".into()) }));
        for other in [&b"x\nb\nc\n"[..], b"a"] {
            assert_eq!(Lines::new(other).skip(&place).unwrap_err().code(), "config");
        }
    }
}
