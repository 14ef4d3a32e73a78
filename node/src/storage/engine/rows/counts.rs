//! What is counted per partition: rows, entries of its feed, and from where on that is complete.
//!
//! Shape: sealed; version (1), rows (8), entries (8), floor (8), big-endian, under the partition (5).
//! Invariant: a partition without counts is empty, or its counts are lost, which a rebuild finds out (`rebuild`).

use shoal_protocol::id::Lsn;

use crate::storage::row::{Kind, seal, unseal};

/// The counts of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Rows, unreadable ones included.
    pub(super) rows: u64,
    /// Entries of the feed, stale ones included.
    pub(super) entries: u64,
    /// Every row whose lsn is above has an entry.
    pub(super) floor: Lsn,
}

impl Counts {
    pub(super) fn encode(self, key: &[u8]) -> Vec<u8> {
        let mut body = vec![VERSION];
        for number in [self.rows, self.entries, self.floor.0] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        seal(Kind::Counts, key, &[&body])
    }

    /// `None` if they are damaged.
    pub(super) fn decode(key: &[u8], sealed: &[u8]) -> Option<Self> {
        let (&version, numbers) = unseal(Kind::Counts, key, sealed)?.split_first()?;
        let (numbers, rest) = numbers.as_chunks::<8>();
        let &[rows, entries, floor] = numbers else { return None };
        (version == VERSION && rest.is_empty()).then_some(Self {
            rows: u64::from_be_bytes(rows),
            entries: u64::from_be_bytes(entries),
            floor: Lsn(u64::from_be_bytes(floor)),
        })
    }
}

const VERSION: u8 = 1;
