//! A memtable: the join of every delta since the last freeze, by row key, possibly without the row beneath.
//!
//! Shape: an entry holds canonical bytes: what came in as a delta goes into a row or a feed as it is, and takes a third of
//! the memory of the object decoded (docs/decisions/0015). Who needs the object decodes it. What is joined again and again is
//! kept decoded.
//! Units: `bytes` is about what the entries take in memory, allocations and tree slots included.
//! Invariants: bytes get in only beside the object they were decoded to; an entry's `lsn` is that of the last delta joined
//! into it; `last` is the highest lsn seen.

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
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

/// A delta on its way in.
#[derive(Clone, Copy, Debug)]
pub struct Delta<'a> {
    /// What `bytes` say.
    pub object: &'a Object,
    /// Its canonical form.
    pub bytes: &'a [u8],
    /// Its place in the log.
    pub lsn: Lsn,
    /// Whether it is a whole state that makes up for a damaged row (see `Store::heal`).
    pub heals: bool,
}

/// What a memtable holds of one object.
#[derive(Clone, Debug)]
pub struct Entry {
    held: Held,
    /// Deltas joined so far, no further than counting matters.
    joined_count: u8,
    /// The last of them.
    pub lsn: Lsn,
    /// Whether one of them was a whole state that makes up for a damaged row.
    pub heals: bool,
}

/// The joined deltas.
#[derive(Clone, Debug)]
enum Held {
    /// Of its own: a slice would keep the buffer it came in.
    Encoded(Box<[u8]>),
    Decoded(Box<Object>),
}

impl Memtable {
    /// Joins `delta`.
    pub fn join(&mut self, key: &RowKey, delta: Delta<'_>) -> &Entry {
        self.last = self.last.max(delta.lsn);
        match self.entries.entry(key.unshared()) {
            btree_map::Entry::Vacant(vacant) => {
                let held = Held::Encoded(delta.bytes.into());
                let entry = Entry { held, joined_count: 1, lsn: delta.lsn, heals: delta.heals };
                self.bytes += key.as_bytes().len() + entry.bytes();
                vacant.insert(entry)
            }
            btree_map::Entry::Occupied(occupied) => {
                let entry = occupied.into_mut();
                self.bytes -= entry.bytes();
                entry.join(delta.object);
                entry.lsn = entry.lsn.max(delta.lsn);
                entry.heals |= delta.heals;
                self.bytes += entry.bytes();
                entry
            }
        }
    }

    /// Joins `removal`, a part of the last delta of `key`, which is here.
    pub(super) fn remove_losers(&mut self, key: &RowKey, removal: &Object) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.bytes -= entry.bytes();
            entry.join(removal);
            self.bytes += entry.bytes();
        }
    }

    /// Takes entries off the end, until one more would be above `rows_max` or those taken reach `bytes_max`; one at least.
    pub(super) fn split_end(&mut self, rows_max: usize, bytes_max: usize) -> Self {
        let mut end = Self { last: self.last, ..Self::default() };
        let mut first = None;
        for (key, entry) in self.entries.iter().rev().take(rows_max.max(1)) {
            first = Some(key);
            end.bytes += key.as_bytes().len() + entry.bytes();
            if end.bytes >= bytes_max {
                break;
            }
        }
        if let Some(first) = first.cloned() {
            // Costs by what is split off, which is the smaller part, except when it is all.
            end.entries = self.entries.split_off(&first);
            self.bytes -= end.bytes;
        }
        end
    }

    /// Forgets the entries between two bounds whose last delta is at or below `through`.
    pub(super) fn drop_range(&mut self, bounds: (Bound<RowKey>, Bound<RowKey>), through: Lsn) {
        let dropped = self.entries.extract_if(bounds, |_, entry| entry.lsn <= through);
        self.bytes -= dropped.map(|(key, entry)| key.as_bytes().len() + entry.bytes()).sum::<usize>();
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

    /// About what the entries take in memory.
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

impl Entry {
    /// The joined deltas.
    ///
    /// # Panics
    /// Never: see the invariants.
    #[must_use]
    pub fn object(&self) -> Cow<'_, Object> {
        match &self.held {
            Held::Encoded(bytes) => Cow::Owned(decoded(bytes)),
            Held::Decoded(object) => Cow::Borrowed(object),
        }
    }

    /// Their canonical bytes.
    #[must_use]
    pub fn encoded(&self) -> Cow<'_, [u8]> {
        match &self.held {
            Held::Encoded(bytes) => Cow::Borrowed(bytes),
            Held::Decoded(object) => Cow::Owned(object.encode().into()),
        }
    }

    /// Whether this is one delta, as it came in.
    pub(super) fn is_single(&self) -> bool {
        self.joined_count == 1
    }

    fn join(&mut self, delta: &Object) {
        self.joined_count = self.joined_count.saturating_add(1);
        match &mut self.held {
            Held::Decoded(object) => {
                object.merge_into(delta);
            }
            Held::Encoded(bytes) => {
                let mut object = decoded(bytes);
                object.merge_into(delta);
                self.held = if self.joined_count <= ENCODED_JOINS_MAX {
                    Held::Encoded(object.encode()[..].into())
                } else {
                    Held::Decoded(Box::new(object))
                };
            }
        }
    }

    /// About what this takes in memory, its key left out.
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match &self.held {
                Held::Encoded(bytes) => bytes.len(),
                Held::Decoded(object) => object.weight() + DECODED_BYTES,
            }
    }
}

fn decoded(bytes: &[u8]) -> Object {
    Object::decode(bytes).expect("`Delta::object` was decoded from these, or they were encoded here")
}

/// An object that took more deltas than this is kept decoded: it will take others. Guess: the few busy objects are spared
/// the work, all others the memory.
const ENCODED_JOINS_MAX: u8 = 4;
/// Flat cost of an entry, bytes: its slot of 64 in a tree two thirds full, and what the allocator adds to key and object.
const ENTRY_BYTES: usize = 128;
/// What a decoded object takes beyond its weight, bytes: itself, a tree for its context, room for four register values.
pub(super) const DECODED_BYTES: usize = size_of::<Object>() + 208 + 400;

#[cfg(test)]
mod tests {
    use shoal_protocol::address::Place;
    use shoal_protocol::causality::Dot;
    use shoal_protocol::id::{Actor, Class, KeyspaceId, Partition};
    use shoal_protocol::object::{Element, Mint, Operation, bind};
    use shoal_protocol::time::Hlc;

    use super::*;

    fn key(number: u64) -> RowKey {
        let place = Place { keyspace: KeyspaceId(1), collection: "c".into(), key: number.to_string().into() };
        RowKey::new(Partition { class: Class { n: 3, r: 2, w: 2 }, index: 1 }, &place)
    }

    fn delta(n: u64) -> Object {
        let operation = Operation::SetAdd { element: Element::Int(i64::try_from(n).unwrap()) };
        let mint = Mint { dot: Dot { actor: Actor(5), n }, prev: 0, hlc: Hlc(n), total: None };
        bind(&operation, &mint, &Object::default()).unwrap()
    }

    fn join(memtable: &mut Memtable, number: u64, lsn: u64) {
        let object = delta(lsn);
        memtable.join(&key(number), Delta { object: &object, bytes: &object.encode(), lsn: Lsn(lsn), heals: false });
    }

    fn counted(memtable: &Memtable) -> usize {
        memtable.iter().map(|(key, entry)| key.as_bytes().len() + entry.bytes()).sum()
    }

    #[test]
    fn an_entry_is_the_join_of_its_deltas_encoded_or_not() {
        let (mut memtable, mut joined) = (Memtable::default(), Object::default());
        for lsn in 1..=2 * u64::from(ENCODED_JOINS_MAX) {
            join(&mut memtable, 7, lsn);
            joined.merge_into(&delta(lsn));
            let entry = memtable.get(&key(7)).unwrap();
            assert_eq!((&*entry.object(), &entry.encoded()[..]), (&joined, &joined.encode()[..]));
            assert_eq!((entry.lsn, entry.is_single()), (Lsn(lsn), lsn == 1));
            assert_eq!(memtable.bytes(), counted(&memtable));
        }
        let removal = Object::of_context(joined.context().clone());
        memtable.remove_losers(&key(7), &removal);
        assert!(memtable.get(&key(7)).unwrap().object().is_vacant());
        assert_eq!(memtable.bytes(), counted(&memtable));
    }

    #[test]
    fn what_is_split_off_the_end_is_counted_there() {
        let mut memtable = Memtable::default();
        (0..40).for_each(|number| join(&mut memtable, 100 + number % 20, number + 1));
        let whole: Vec<_> = memtable.iter().map(|(key, _)| key.clone()).collect();
        let mut parts = Vec::new();
        while !memtable.is_empty() {
            let (rows_max, bytes_max) = if parts.len() % 2 == 0 { (3, usize::MAX) } else { (100, 1) };
            let part = memtable.split_end(rows_max, bytes_max);
            assert_eq!(part.iter().len(), if parts.len() % 2 == 0 { 3 } else { 1 });
            assert_eq!((part.bytes(), memtable.bytes()), (counted(&part), counted(&memtable)));
            parts.push(part);
        }
        let again: Vec<_> = parts.iter().rev().flat_map(Memtable::iter).map(|(key, _)| key.clone()).collect();
        assert_eq!((again, memtable.last(), memtable.bytes()), (whole, Lsn(40), 0));
    }
}
