//! Answers to writes that are held back while the store is under pressure, so that closed-loop writers slow down before anything
//! is refused. Invariant: answers leave in the order of their times; how long is `storage::slowdown`'s business.

use std::collections::BTreeMap;

use shoal_protocol::id::Lsn;
use shoal_protocol::time::Instant;

use super::ReplicaEffect;

#[derive(Debug)]
pub(crate) struct Slowed<T> {
    by_time: BTreeMap<Instant, Vec<(Lsn, ReplicaEffect<T>)>>,
    count: usize,
}

impl<T> Default for Slowed<T> {
    fn default() -> Self {
        Self { by_time: BTreeMap::new(), count: 0 }
    }
}

impl<T> Slowed<T> {
    pub(crate) fn push(&mut self, not_before: Instant, lsn: Lsn, ack: ReplicaEffect<T>) {
        self.count += 1;
        self.by_time.entry(not_before).or_default().push((lsn, ack));
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|(at, _)| *at)
    }

    /// Everything whose time has come.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(Lsn, ReplicaEffect<T>)> {
        let mut due = Vec::new();
        while let Some(first) = self.by_time.first_entry()
            && *first.key() <= now
        {
            due.extend(first.remove());
        }
        self.count -= due.len();
        due
    }

    /// After a failure of the store nobody knows what became of these.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}
