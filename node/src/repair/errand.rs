//! The words between handoff and those who run its errands: what to read, give and drop, and how that went.

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::id::{Lsn, NodeId, Partition};

/// The bounds of handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoffLimits {
    /// Bytes of hints kept for one node.
    pub hint_bytes_per_target_max: usize,
    /// Bytes of hints kept for all of them.
    pub hint_bytes_max: usize,
    /// Bytes given back per second.
    pub bytes_per_s: usize,
}

impl Default for HandoffLimits {
    fn default() -> Self {
        Self { hint_bytes_per_target_max: 256 << 20, hint_bytes_max: 1 << 30, bytes_per_s: 16 << 20 }
    }
}

/// Names one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub(super) u64);

/// Names one object that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GiveId(pub(super) u64);

/// What is to be done.
#[derive(Clone, Debug)]
pub enum HandoffEffect {
    /// Read a page of a change feed: `feed_read`.
    ReadFeed {
        /// For which job.
        job: JobId,
        /// Whose feed.
        partition: Partition,
        /// Changes after this.
        after: Lsn,
    },
    /// Read a page of hints: `hints_read`.
    ReadHints {
        /// For which job.
        job: JobId,
        /// Those for this node.
        target: NodeId,
        /// In this hint partition.
        partition: Partition,
        /// Those behind this row.
        after: Option<(Bytes, Bytes)>,
    },
    /// Ask a node to join an object to its own, or to hold it for another: `given`.
    Give {
        /// Names the question.
        id: GiveId,
        /// Whom to ask; may be this node.
        to: NodeId,
        /// For whom it is to be held; `None` = it is the receiver's own.
        hold_for: Option<NodeId>,
        /// Which object.
        row: Row,
    },
    /// Drop hints for good: `dropped`.
    DropHints {
        /// For which job.
        job: JobId,
        /// Those for this node.
        target: NodeId,
        /// In this hint partition.
        partition: Partition,
        /// As far as they had come.
        through: Lsn,
    },
    /// What this peer missed of this partition is not known here any more: only a comparison finds it.
    Lost {
        /// Who.
        peer: NodeId,
        /// Of which partition.
        partition: Partition,
    },
}

/// An object, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub place: Place,
    /// Canonical bytes.
    pub delta: Bytes,
}

/// A page of hints as read.
#[derive(Clone, Debug)]
pub struct HintsPage {
    /// What is to be given; without what nobody wants any more.
    pub rows: Vec<Row>,
    /// Who is to have it: the target, or those who hold the partition in its place.
    pub receivers: Vec<NodeId>,
    /// Behind which row the next page begins; `None` at the end.
    pub next: Option<(Bytes, Bytes)>,
    /// Whether some of them cannot be read.
    pub is_damaged: bool,
    /// The last delta of the store when it was asked for: every one up to there is in the page, or in another one of the job.
    pub at: Lsn,
}

/// How giving an object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is synced there.
    Taken,
    /// Nobody wants it any more.
    Void,
    /// It may not be there.
    Failed,
}

/// What there is to say of handoff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandoffFigures {
    /// Hints that were not given back yet.
    pub hints_pending: u64,
    /// Their bytes.
    pub hints_bytes: u64,
    /// How long the oldest has been here, or known of since the last start, seconds.
    pub hints_oldest_s: u64,
    /// Hints refused because of their bounds.
    pub hints_refused: u64,
    /// Partitions times targets to which something is owed.
    pub debts: u64,
    /// Debts and hints that were lost before they were given back.
    pub debts_lost: u64,
    /// Objects given back.
    pub keys: u64,
    /// Their bytes.
    pub bytes: u64,
}
