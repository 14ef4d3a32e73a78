//! The reserved place of hints: what a node keeps for others is rows of the same stores, where no keyspace can have any.
//!
//! Shape: what is kept for a node of an object in partition (n, r, w, index) lies in the partition (n | 0x80, r, w, index),
//! under the node's id in the place of the keyspace, with the keyspace's id (8 bytes, big-endian) before the collection. So
//! deltas of one object for one node are joined, all hints for one node of one partition are one extent, and they are in
//! the same cell as the partition. Invariant: no class has more than 15 replicas, so nothing but hints is there.

use std::ops::Bound;

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::id::{Class, KeyspaceId, NodeId, Partition};

use super::key::{Extent, RowRange};

/// Where hints of a partition are kept.
#[must_use]
pub const fn hint_partition(partition: Partition) -> Partition {
    Partition { class: Class { n: partition.class.n | HINT, ..partition.class }, ..partition }
}

/// The partition whose hints are kept there; any other partition is its own.
#[must_use]
pub const fn data_partition(partition: Partition) -> Partition {
    Partition { class: Class { n: partition.class.n & !HINT, ..partition.class }, ..partition }
}

/// Whether hints are kept there, and nothing else.
#[must_use]
pub const fn is_hint_partition(partition: Partition) -> bool {
    partition.class.n & HINT != 0
}

/// Where what is kept of `place` for `target` lies.
#[must_use]
pub fn hint_place(target: NodeId, place: &Place) -> Place {
    let collection = [&place.keyspace.0.to_be_bytes()[..], &place.collection].concat();
    Place { keyspace: KeyspaceId(target.0), collection: collection.into(), key: place.key.clone() }
}

/// For whom, and of what, something is kept there; `None` if the place is none of hints.
#[must_use]
pub fn hinted(place: &Place) -> Option<(NodeId, Place)> {
    let (keyspace, _) = place.collection.split_first_chunk::<8>()?;
    let keyspace = KeyspaceId(u64::from_be_bytes(*keyspace));
    let collection = place.collection.slice(8..);
    Some((NodeId(place.keyspace.0), Place { keyspace, collection, key: place.key.clone() }))
}

/// Everything that is kept for `target` in a hint partition.
#[must_use]
pub const fn hints_for(target: NodeId, partition: Partition) -> Extent {
    Extent { partition, keyspace: Some(KeyspaceId(target.0)) }
}

/// All hints of a store, whoever they are for.
pub(super) fn all_hints() -> RowRange {
    RowRange {
        keyspace: KeyspaceId(0),
        from: Bound::Included(Bytes::from_static(&[HINT])),
        to: Bound::Unbounded,
        key_prefix: Bytes::new(),
    }
}

/// The bit in a class's `n` that no keyspace has.
const HINT: u8 = 0x80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::RowKey;

    proptest! {
        #[test]
        fn a_hint_says_what_it_is_of_and_for_whom_and_is_among_all_hints(
            (target, keyspace, index) in any::<(u64, u64, u16)>(),
            collection in proptest::collection::vec(any::<u8>(), 0..4), key in proptest::collection::vec(any::<u8>(), 1..4), n in 1u8..=15
        ) {
            let place = Place { keyspace: KeyspaceId(keyspace), collection: collection.into(), key: key.into() };
            let partition = Partition { class: Class { n, r: 2, w: 2 }, index };
            let (at, hint) = (hint_partition(partition), hint_place(NodeId(target), &place));
            prop_assert_eq!((data_partition(at), hinted(&hint)), (partition, Some((NodeId(target), place.clone()))));
            prop_assert!(is_hint_partition(at) && !is_hint_partition(partition));
            let is_in = |key: &RowKey, bounds: &(Bound<RowKey>, Bound<RowKey>)| std::ops::RangeBounds::contains(bounds, key);
            let (row, data) = (RowKey::new(at, &hint), RowKey::new(partition, &place));
            prop_assert!(is_in(&row, &all_hints().bounds()) && !is_in(&data, &all_hints().bounds()));
            prop_assert!(is_in(&row, &hints_for(NodeId(target), at).bounds()));
            prop_assert!(!is_in(&row, &hints_for(NodeId(target ^ 1), at).bounds()));
        }
    }
}
