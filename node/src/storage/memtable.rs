//! A memtable: the join of every delta since the last freeze, by row key, possibly without the row beneath.
//!
//! Units: `bytes` counts deltas as received plus a flat cost per delta, so it bounds both memory and the log to replay.
//! Invariants: an entry's `lsn` is that of the last delta joined into it; `last` is the highest lsn seen.

use std::collections::BTreeMap;
use std::ops::Bound;

use shoal_protocol::id::Lsn;
use shoal_protocol::object::Object;

use super::key::RowKey;

/// Deltas joined per object.
#[derive(Clone, Debug, Default)]
pub struct Memtable {
    entries: BTreeMap<RowKey, Entry>,
    bytes: usize,
    last: Lsn,
}

/// What a memtable holds of one object.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The joined deltas.
    pub object: Object,
    /// The last of them.
    pub lsn: Lsn,
    /// Whether one of them was a whole state that makes up for a damaged row (see `Store::heal`).
    pub heals: bool,
}

impl Memtable {
    /// Joins `delta`, which took `bytes` on the wire.
    pub fn join(&mut self, key: &RowKey, delta: &Object, lsn: Lsn, bytes: usize) -> &mut Entry {
        self.bytes += bytes + key.as_bytes().len() + DELTA_BYTES;
        self.last = self.last.max(lsn);
        // Looked up twice when new: an entry is far more often there than a key is worth cloning.
        if !self.entries.contains_key(key) {
            self.entries.insert(key.clone(), Entry { object: Object::default(), lsn, heals: false });
        }
        let entry = self.entries.get_mut(key).expect("inserted above when it was missing");
        entry.object.merge_into(delta);
        entry.lsn = entry.lsn.max(lsn);
        entry
    }

    /// What is held of `key`.
    #[must_use]
    pub fn get(&self, key: &RowKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All entries in row order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&RowKey, &Entry)> {
        self.entries.iter()
    }

    /// The entries between two bounds that are in order.
    pub fn range(&self, bounds: (Bound<RowKey>, Bound<RowKey>)) -> impl DoubleEndedIterator<Item = (&RowKey, &Entry)> {
        self.entries.range(bounds)
    }

    /// Deltas as received, plus their cost in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The highest lsn joined.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// Whether nothing was joined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Flat cost of one delta, bytes. Guess: a tree slot, a decoded object's first allocations.
const DELTA_BYTES: usize = 96;
