//! What waits: requests for a row that is being read, answers for a sync.
//!
//! Invariants: requests for one key leave in the order they came; an answer leaves once everything up to its lsn is synced.

use std::collections::BTreeMap;

use shoal_protocol::id::Lsn;

use super::{ReplicaEffect, Work};
use crate::storage::RowKey;

/// Requests behind loads.
#[derive(Debug)]
pub(crate) struct Parked<T> {
    by_key: BTreeMap<RowKey, Vec<Work<T>>>,
    count: usize,
}

impl<T> Default for Parked<T> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), count: 0 }
    }
}

impl<T> Parked<T> {
    pub(crate) fn push(&mut self, key: &RowKey, work: Work<T>) {
        self.count += 1;
        self.by_key.entry(key.clone()).or_default().push(work);
    }

    /// Everything behind the load of `key`, in order.
    pub(crate) fn take(&mut self, key: &RowKey) -> Vec<Work<T>> {
        let works = self.by_key.remove(key).unwrap_or_default();
        self.count -= works.len();
        works
    }

    pub(crate) fn take_all(&mut self) -> Vec<Work<T>> {
        self.count = 0;
        std::mem::take(&mut self.by_key).into_values().flatten().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

/// Answers behind syncs.
#[derive(Debug)]
pub(crate) struct Unsynced<T> {
    by_lsn: BTreeMap<Lsn, Vec<ReplicaEffect<T>>>,
    count: usize,
}

impl<T> Default for Unsynced<T> {
    fn default() -> Self {
        Self { by_lsn: BTreeMap::new(), count: 0 }
    }
}

impl<T> Unsynced<T> {
    pub(crate) fn push(&mut self, lsn: Lsn, answer: ReplicaEffect<T>) {
        self.count += 1;
        self.by_lsn.entry(lsn).or_default().push(answer);
    }

    /// Lets every answer go whose lsn is synced.
    pub(crate) fn release(&mut self, synced: Lsn, out: &mut Vec<ReplicaEffect<T>>) {
        while let Some(first) = self.by_lsn.first_entry()
            && *first.key() <= synced
        {
            let answers = first.remove();
            self.count -= answers.len();
            out.extend(answers);
        }
    }

    /// After a failure of the store nobody knows what became of these.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}
