//! The trace of a history: a hash over everything that was delivered and done, and the text of it on request.
//!
//! Invariant: equal seeds give equal traces, in every process and on every machine; a difference means that something
//! reads a clock, ambient randomness or the order of a hash map.

use std::hash::{DefaultHasher, Hasher};

use shoal_protocol::time::Instant;

/// What happened, hashed.
#[derive(Debug)]
pub struct Trace {
    hasher: DefaultHasher,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty trace; `lines` keeps the text too.
    #[must_use]
    pub fn new(lines: bool) -> Self {
        // `new` has fixed keys.
        Self { hasher: DefaultHasher::new(), events: 0, lines: lines.then(Vec::new) }
    }

    /// Notes one event: who, what, with which bytes. The text is made only when it is kept.
    pub fn note(&mut self, at: Instant, (who, what): (usize, &str), bytes: &[u8], text: impl FnOnce() -> String) {
        self.events += 1;
        self.hasher.write_u64(at.0);
        self.hasher.write_usize(who);
        self.hasher.write(what.as_bytes());
        self.hasher.write(bytes);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} {who} {what} {}", at.0 as f64 / 1e6, text()));
        }
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The text, if it was kept.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
