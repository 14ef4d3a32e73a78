//! What nodes ask each other so that replicas become equal: the comparison of partitions, and writes kept for somebody else.
//!
//! Comparison: a partition's rows fall into `BUCKETS_COUNT` buckets, the leaves of a Merkle tree whose levels have
//! 1, 16, 256 and 1,024 nodes. Whoever compares asks for roots, then for the children of the nodes that differ, then for the
//! keys of the buckets that differ, then for the objects that differ (`Get`, or `Scan` where all of them do).
//! Units: hashes are the first 64 bits of what the tree has. Source: Dynamo §4.6 (handoff), §4.7 (Merkle trees); DESIGN §9.
//! Invariant: every question names the compaction epoch it is about; 0 for now.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::Place;
use crate::id::{Lsn, NodeId, Partition};
use crate::object::Digest;

/// What a node may ask another for the sake of repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepairAsk {
    /// The roots of these partitions' trees, over all that was synced at the receiver when it was asked: `Roots`.
    Roots {
        /// At most `ROOTS_MAX`.
        partitions: Vec<Partition>,
        /// Of all of them.
        compact_epoch: u32,
    },
    /// The hashes of the children of these tree nodes of one level: `Nodes`.
    Nodes {
        /// Whose tree.
        partition: Partition,
        /// 0 is the root's.
        level: u8,
        /// Which nodes of that level, ascending; at most `NODES_MAX`.
        nodes: Vec<u16>,
        /// The partition's.
        compact_epoch: u32,
    },
    /// What the receiver's rows in these buckets are: `Keys`.
    Keys {
        /// Whose.
        partition: Partition,
        /// Ascending; at most `BUCKETS_MAX`.
        buckets: Vec<u16>,
        /// The partition's.
        compact_epoch: u32,
    },
    /// Keep a delta for a primary that cannot be reached, and give it to it when it can: `Applied` once it is synced at the
    /// receiver, which need not hold the partition.
    Hold {
        /// For whom.
        target: NodeId,
        /// Of which object.
        place: Place,
        /// Canonical bytes.
        delta: Bytes,
        /// The partition's.
        compact_epoch: u32,
    },
    /// Give a primary what it may have missed, out of the receiver's change feed: `Owed`, nothing being durable.
    Owe {
        /// To whom.
        target: NodeId,
        /// Of which partition.
        partition: Partition,
        /// What comes after this in the receiver's change feed.
        after: Lsn,
        /// The partition's.
        compact_epoch: u32,
    },
}

/// The answer to a `RepairAsk`, if it is not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepairAnswer {
    /// In the order of the question; `None`: not a replica, or one that has lost data of the partition and is catching up.
    Roots(Vec<Option<u64>>),
    /// The children of each tree node asked about, in order.
    Nodes(Vec<u64>),
    /// The readable rows of the buckets up to `through`, with their digests, bucket by bucket, each in row order.
    Keys {
        /// Place and digest of each.
        keys: Vec<(Place, Digest)>,
        /// The last bucket that was looked at: what was asked beyond it did not fit this answer.
        through: u16,
    },
    /// It is noted.
    Owed,
}

/// The bucket of a place in its partition: the top bits of its row hash.
#[must_use]
pub fn bucket_of(place: &Place) -> u16 {
    let bucket = place.row_hash() >> (u64::BITS - u32::from(BUCKETS_COUNT).trailing_zeros());
    u16::try_from(bucket).expect("ten bits are left")
}

/// Leaves of a partition's tree.
pub const BUCKETS_COUNT: u16 = 1_024;
/// Roots asked for at once: every partition of a class.
pub const ROOTS_MAX: usize = 256;
/// Nodes whose children are asked for at once: a whole level.
pub const NODES_MAX: usize = 256;
/// Buckets whose keys are asked for at once.
pub const BUCKETS_MAX: usize = 1_024;
