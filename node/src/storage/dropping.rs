//! What is to be dropped from a store for good.

use shoal_protocol::id::Lsn;

use super::key::Extent;

/// Rows that are not wanted here any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropRows {
    /// Returned when it is done.
    pub id: DropId,
    /// Which.
    pub extent: Extent,
    /// Only rows whose last delta is at or below this, and those that cannot be read. The partition's change feed is cut off
    /// here.
    pub through: Lsn,
}

/// Names one `Drop` of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DropId(pub u64);
