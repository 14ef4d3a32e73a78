//! The words between a node and its comparing and healing: settings, what happens to the room, what it wants, what it has done.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shoal_protocol::id::{Class, KeyspaceId, NodeId, Partition, RequestId};
use shoal_protocol::object::Object;
use shoal_protocol::peer::{PeerRequest, PeerResponse};
use shoal_protocol::time::Instant;

use super::budget::Moved;
use super::heal::Holding;
use crate::storage::{RowKey, VerifyReport};

/// How much and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairConfig {
    /// Everything is compared with every other holder so often, milliseconds.
    pub exchange_period_ms: usize,
    /// Every row is verified so often, seconds.
    pub scrub_period_s: usize,
    /// Bytes per second that comparisons may move, both ways together.
    pub bytes_per_s: usize,
    /// Objects per second.
    pub objects_per_s: usize,
}

impl Default for RepairConfig {
    /// DESIGN §9. The rate of objects is a guess.
    fn default() -> Self {
        Self {
            exchange_period_ms: 600_000,
            scrub_period_s: 7 * 24 * 3_600,
            bytes_per_s: 8 << 20,
            objects_per_s: 20_000,
        }
    }
}

/// What this node holds, and with whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The partitions, and who else holds each.
    pub partitions: BTreeMap<Partition, Holding>,
    /// The keyspaces of each class.
    pub keyspaces: BTreeMap<Class, BTreeSet<KeyspaceId>>,
}

/// What happens to the room.
#[derive(Debug)]
pub enum RepairInput {
    /// Time has passed `next_deadline`.
    Tick,
    /// What is held, and with whom, has changed.
    Held(Held),
    /// A peer can be asked, and could not before.
    PeerUp(NodeId),
    /// A peer cannot be asked any more.
    PeerDown(NodeId),
    /// These partitions are to be pulled from these nodes, now, and no others: `Pulled` for each, once. One that was wanted
    /// before goes on, or stays done.
    Wanted {
        /// Partition and source.
        pulls: BTreeSet<(Partition, NodeId)>,
    },
    /// What was kept for a peer is lost: these partitions are to be compared with it at once.
    Lost {
        /// Which peer.
        peer: NodeId,
        /// Which partitions.
        partitions: BTreeSet<Partition>,
    },
    /// An `Ask`, or a `Heal`, is answered.
    Answered {
        /// Its name.
        ask: RequestId,
        /// The answer.
        response: PeerResponse,
    },
    /// An `Ingest` is durable.
    Ingested {
        /// Its name.
        ask: RequestId,
    },
    /// Rows cannot be read.
    Damaged {
        /// Which.
        keys: Vec<RowKey>,
    },
    /// A `Verify` is done.
    Verified {
        /// Of which partition.
        partition: Partition,
        /// What was found.
        report: Box<VerifyReport>,
    },
    /// Every `Refill` so far is durable.
    Refilled,
    /// A store of this node failed: what was asked of it may have no answer.
    Failed,
}

/// What the room wants done.
#[derive(Debug)]
pub enum RepairEffect {
    /// Ask a node, perhaps this one: `Answered`, if it answers.
    Ask {
        /// Whom.
        to: NodeId,
        /// The name of it.
        ask: RequestId,
        /// When it is no longer waited for.
        deadline: Instant,
        /// What.
        request: PeerRequest,
    },
    /// Put rows, in order, into a partition's rows past the log: `Ingested`.
    Ingest {
        /// The name of it.
        ask: RequestId,
        /// Whose.
        partition: Partition,
        /// Canonical objects.
        rows: Vec<(RowKey, Bytes)>,
    },
    /// Write a whole object over a row that cannot be read: `Answered`.
    Heal {
        /// The name of it.
        ask: RequestId,
        /// Which row.
        key: RowKey,
        /// The object.
        object: Object,
    },
    /// Verify the rows of a partition: `Verified`.
    Verify(Partition),
    /// Count that these partitions lost rows, for good: `Refilled`.
    Refill(BTreeSet<Partition>),
    /// Everything that was synced at a source when its pull was wanted is durable here.
    Pulled {
        /// Of which partition.
        partition: Partition,
        /// The source.
        from: NodeId,
    },
}

/// How far the wanted pulls are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Pulls wanted.
    pub wanted_count: usize,
    /// Done.
    pub done_count: usize,
    /// What they moved so far.
    pub moved: Moved,
    /// Since when pulls have been wanted without a break.
    pub since: Option<Instant>,
}

/// What was done since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairFigures {
    /// Exchanges that ended.
    pub exchanges_count: u64,
    /// What comparisons moved, both ways.
    pub exchanged: Moved,
    /// What was streamed into the rows.
    pub streamed: Moved,
    /// What healed rows.
    pub healed: Moved,
    /// Partitions verified.
    pub scrubbed_count: u64,
    /// Rows found that cannot be read.
    pub damaged_count: u64,
    /// Rows of them that were healed.
    pub healed_count: u64,
}
