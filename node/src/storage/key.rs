//! Row keys: the order in which rows, log and memtables hold objects.
//!
//! Shape: class (n, r, w: 1 byte each), partition index (2, big-endian), keyspace id (8, big-endian), the collection with
//! 0x00 written as 0x00 0xff and closed by 0x00 0x00, then the key as it is.
//! Invariant: byte order of row keys = (partition, keyspace id, collection, key) order, so a partition, a keyspace in it and
//! a collection in that are each one contiguous range. Source: DESIGN §7.

use std::fmt;
use std::ops::Bound;

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::id::{Class, KeyspaceId, Partition};
use shoal_protocol::peer::PeerScan;

/// The place of one object in a store, as bytes that sort like the rows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(Bytes);

impl RowKey {
    /// The key of `place`, which belongs to `partition`.
    #[must_use]
    pub fn new(partition: Partition, place: &Place) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + place.collection.len() + 2 + place.key.len());
        push_head(&mut bytes, partition, place.keyspace);
        push_collection(&mut bytes, &place.collection);
        bytes.extend_from_slice(&place.key);
        Self(bytes.into())
    }

    /// Reads a stored key; `None` if the bytes are none.
    #[must_use]
    pub fn decode(bytes: Bytes) -> Option<Self> {
        split(&bytes)?;
        Some(Self(bytes))
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> Partition {
        let mut bytes = [0; PARTITION_BYTES];
        bytes.copy_from_slice(&self.0[..PARTITION_BYTES]);
        decode_partition(bytes)
    }

    /// The keyspace.
    #[must_use]
    pub fn keyspace(&self) -> KeyspaceId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[PARTITION_BYTES..HEAD_BYTES]);
        KeyspaceId(u64::from_be_bytes(id))
    }

    /// The object's address.
    #[must_use]
    pub fn place(&self) -> Place {
        let (collection, key_start) = split(&self.0).expect("both constructors make only well-formed keys");
        Place { keyspace: self.keyspace(), collection, key: self.0.slice(key_start..) }
    }

    /// A copy that shares no memory, for whoever keeps it.
    pub(super) fn unshared(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowKey({:?}, {:?})", self.partition(), self.place())
    }
}

/// The rows a scan asks for: bounds in row-key bytes, and a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowRange {
    /// The keyspace all of them belong to.
    pub keyspace: KeyspaceId,
    /// Lowest row.
    pub from: Bound<Bytes>,
    /// Highest row.
    pub to: Bound<Bytes>,
    /// Only keys beginning with this. Where one collection is named the bounds say it already.
    pub key_prefix: Bytes,
}

impl RowRange {
    /// The rows that `scan` asks for. Empty when `after` lies behind the end.
    #[must_use]
    pub fn of(scan: &PeerScan) -> Self {
        let mut prefix = Vec::with_capacity(HEAD_BYTES);
        push_head(&mut prefix, scan.partition, scan.keyspace);
        if let Some(collection) = &scan.collection {
            push_collection(&mut prefix, collection);
            prefix.extend_from_slice(&scan.prefix);
        }
        let mut range = Self {
            keyspace: scan.keyspace,
            from: Bound::Included(Bytes::copy_from_slice(&prefix)),
            to: successor(prefix).map_or(Bound::Unbounded, |end| Bound::Excluded(end.into())),
            key_prefix: scan.prefix.clone(),
        };
        if let Some((collection, key)) = &scan.after {
            let place = Place { keyspace: scan.keyspace, collection: collection.clone(), key: key.clone() };
            let after = RowKey::new(scan.partition, &place).0;
            if scan.reverse {
                range.to = Bound::Excluded(after);
            } else {
                range.from = Bound::Excluded(after);
            }
        }
        range
    }

    /// Whether no key can lie between the bounds (ordered maps panic on such bounds).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
            | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }

    /// Whether a key inside the bounds passes the filter.
    #[must_use]
    pub fn accepts(&self, key: &RowKey) -> bool {
        self.key_prefix.is_empty() || key.place().key.starts_with(&self.key_prefix)
    }

    /// The bounds for a map ordered by `RowKey`.
    #[must_use]
    pub fn bounds(&self) -> (Bound<RowKey>, Bound<RowKey>) {
        // Bounds need not be well-formed keys: they are only compared.
        (self.from.clone().map(RowKey), self.to.clone().map(RowKey))
    }
}

/// A partition, or one keyspace of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// Which partition.
    pub partition: Partition,
    /// Which keyspace; `None` = all of the partition.
    pub keyspace: Option<KeyspaceId>,
}

impl Extent {
    /// How the keys of all its rows begin.
    pub(super) fn prefix(&self) -> Vec<u8> {
        let mut prefix = encode_partition(self.partition).to_vec();
        prefix.extend(self.keyspace.iter().flat_map(|keyspace| keyspace.0.to_be_bytes()));
        prefix
    }

    /// The bounds for a map ordered by `RowKey`.
    pub(super) fn bounds(&self) -> (Bound<RowKey>, Bound<RowKey>) {
        let prefix = self.prefix();
        let from = Bound::Included(RowKey(Bytes::copy_from_slice(&prefix)));
        (from, successor(prefix).map_or(Bound::Unbounded, |end| Bound::Excluded(RowKey(end.into()))))
    }
}

/// The bounds of a partition for a map ordered by `RowKey`.
pub(super) fn partition_bounds(partition: Partition) -> (Bound<RowKey>, Bound<RowKey>) {
    Extent { partition, keyspace: None }.bounds()
}

/// How every key of the rows file that belongs to `partition` begins.
pub(super) fn encode_partition(partition: Partition) -> [u8; PARTITION_BYTES] {
    let [high, low] = partition.index.to_be_bytes();
    [partition.class.n, partition.class.r, partition.class.w, high, low]
}

/// The partition whose keys begin so.
pub(super) fn decode_partition(bytes: [u8; PARTITION_BYTES]) -> Partition {
    let [n, r, w, high, low] = bytes;
    Partition { class: Class { n, r, w }, index: u16::from_be_bytes([high, low]) }
}

fn push_head(bytes: &mut Vec<u8>, partition: Partition, keyspace: KeyspaceId) {
    bytes.extend_from_slice(&encode_partition(partition));
    bytes.extend_from_slice(&keyspace.0.to_be_bytes());
}

fn push_collection(bytes: &mut Vec<u8>, collection: &[u8]) {
    for &byte in collection {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xff);
        }
    }
    bytes.extend_from_slice(&[0, 0]);
}

/// The collection, and where the key begins.
fn split(bytes: &Bytes) -> Option<(Bytes, usize)> {
    let mut at = HEAD_BYTES;
    let mut escaped = Vec::new();
    let mut copied_to = at;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0)?;
        match bytes.get(at + 1)? {
            0 => break,
            0xff => {
                escaped.extend_from_slice(&bytes[copied_to..=at]);
                at += 2;
                copied_to = at;
            }
            _ => return None,
        }
    }
    let key_start = at + 2;
    if escaped.is_empty() {
        return Some((bytes.slice(HEAD_BYTES..at), key_start));
    }
    escaped.extend_from_slice(&bytes[copied_to..at]);
    Some((escaped.into(), key_start))
}

/// The smallest bytes above everything that begins with `prefix`; `None` if there are none.
pub(super) fn successor(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if last < 0xff {
            prefix.push(last + 1);
            return Some(prefix);
        }
    }
    None
}

/// Bytes of a partition at the head of a key.
pub(super) const PARTITION_BYTES: usize = 5;
const HEAD_BYTES: usize = PARTITION_BYTES + 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(index: u16) -> Partition {
        Partition { class: Class { n: 3, r: 0, w: 0 }, index }
    }

    fn keys() -> impl Strategy<Value = (Partition, Place)> {
        let byte = prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()];
        let bytes = |min| proptest::collection::vec(byte.clone(), min..4);
        (0u16..2, 0u64..2, bytes(0), bytes(1)).prop_map(|(index, keyspace, collection, key)| {
            let place = Place { keyspace: KeyspaceId(keyspace), collection: collection.into(), key: Bytes::from(key) };
            (partition(index), place)
        })
    }

    proptest! {
        #[test]
        fn row_keys_sort_like_addresses(a in keys(), b in keys()) {
            prop_assert_eq!(RowKey::new(a.0, &a.1).cmp(&RowKey::new(b.0, &b.1)), a.cmp(&b));
        }

        #[test]
        fn a_row_key_gives_its_address_back((partition, place) in keys()) {
            let key = RowKey::decode(RowKey::new(partition, &place).0).expect("a key");
            prop_assert_eq!((key.partition(), key.place()), (partition, place));
        }

        #[test]
        fn any_bytes_are_a_key_or_none(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..40)) {
            if let Some(key) = RowKey::decode(bytes.into()) {
                prop_assert_eq!(RowKey::new(key.partition(), &key.place()), key);
            }
        }

        #[test]
        fn a_range_holds_what_the_scan_names(rows in proptest::collection::vec(keys(), 0..20), named in keys(), all in any::<bool>(), prefix in proptest::collection::vec(any::<u8>(), 0..2)) {
            let (partition, place) = named;
            let scan = PeerScan {
                partition, keyspace: place.keyspace, collection: (!all).then_some(place.collection.clone()),
                prefix: prefix.clone().into(), after: None, reverse: false, rows_max: 1, bytes_max: 1,
            };
            let range = RowRange::of(&scan);
            for (at, row) in rows {
                let wanted = at == partition && row.keyspace == place.keyspace
                    && (all || row.collection == place.collection) && row.key.starts_with(&prefix);
                let key = RowKey::new(at, &row);
                let inside = std::ops::RangeBounds::contains(&range.bounds(), &key) && range.accepts(&key);
                prop_assert_eq!(inside, wanted);
            }
        }
    }
}
