//! Which of a node's stores: its number among so many.
//!
//! Shape: a node has S stores, S fixed when its data directory is made; partition p is in the store p mod S. The first is the
//! *home* store: it also keeps what belongs to the node as a whole. Source: DESIGN §3 (Threads).

use std::fmt;

use shoal_protocol::id::Partition;

/// Names one cell of a node, and its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId(pub u8);

impl CellId {
    /// The cell that keeps the node's own blobs, and whose incarnation is the node's.
    pub const HOME: Self = Self(0);

    /// Whether this is the home cell.
    #[must_use]
    pub const fn is_home(self) -> bool {
        self.0 == Self::HOME.0
    }
}

/// A cell among all of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellPlace {
    /// Which.
    pub cell: CellId,
    /// How many the node has.
    pub count: u8,
}

impl CellPlace {
    /// The only one of its node.
    pub const ALONE: Self = Self { cell: CellId::HOME, count: 1 };

    /// All cells of a node that has so many, the home cell first.
    pub fn all(count: u8) -> impl Iterator<Item = Self> {
        (0..count).map(move |index| Self { cell: CellId(index), count })
    }

    /// The cell that a partition belongs to, of so many.
    #[must_use]
    pub fn of(partition: Partition, count: u8) -> CellId {
        let index = partition.index % u16::from(count.max(1));
        CellId(u8::try_from(index).unwrap_or_default())
    }
}

impl fmt::Display for CellPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.cell.0, self.count)
    }
}

/// A node has at most so many stores. Guess: more syncs at once than that no disk rewards.
pub const CELLS_COUNT_MAX: u8 = 16;
