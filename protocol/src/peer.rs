//! What nodes ask each other.
//!
//! Every request travels in a `PeerCall`, which carries the deadline and the sender's view; every variant's doc names its
//! answer and what the receiver must have done before answering. The local replica is asked with the same words.
//! Invariant: an answer never shows or confirms anything that is not synced at the answering replica (DESIGN §1).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::Place;
use crate::causality::Context;
use crate::client::MemberStatus;
use crate::error::RequestError;
use crate::id::{Actor, ClusterId, KeyspaceId, Lsn, NodeId, Partition, RefillCount, SystemId, ViewId};
use crate::layout::StoreMark;
use crate::member::{Member, StoreLease};
use crate::object::{Digest, Operation};
use crate::repair::{RepairAnswer, RepairAsk};
use crate::time::WallTime;

/// The first frame each way between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// Lowest and highest protocol version spoken.
    pub versions: (u16, u16),
    /// The cluster; another one ends the connection.
    pub cluster: ClusterId,
    /// Who speaks; must be the node id in its certificate.
    pub member: Member,
    /// The speaker's view.
    pub view: ViewId,
}

/// One request with what every request has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCall {
    /// Milliseconds left. Work past it is dropped.
    pub deadline_ms: u32,
    /// The sender's view; a replica that has another refuses data requests with `UnknownView`. `None`: for repair, which is
    /// served whatever the views (DESIGN §5, Views).
    pub view: Option<ViewId>,
    /// What is asked.
    pub request: PeerRequest,
}

/// What a node may ask another (or itself).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Join a bound delta (or a whole state) to an object. Always merged, whatever it is. `Applied` once synced here.
    Apply {
        /// Which object.
        place: Place,
        /// Canonical bytes of the delta.
        delta: Bytes,
        /// Where it comes from.
        cause: ApplyCause,
        /// The partition's compaction epoch the content was read or minted at; 0 for now (DESIGN §9).
        compact_epoch: u32,
    },
    /// Read one object: `Same` if its digest is `have`, else `State`. Only synced state is shown.
    Get {
        /// Which object.
        place: Place,
        /// The digest the asker holds.
        have: Option<Digest>,
    },
    /// Rows of one partition in order: `Rows`. Only synced state is shown; vacant objects are included.
    Scan(PeerScan),
    /// Check a session's delta at the door (type, limits), then apply it: `Admitted` at once when it passed, then `Applied`
    /// once synced here; or `Refused`. Safe to repeat at any replica.
    Admit {
        /// Which object.
        place: Place,
        /// Canonical bytes of the delta.
        delta: Bytes,
    },
    /// Mint an operation under the receiver's store incarnation: `Minted` once synced there, or `Refused`. Not repeatable.
    Mint {
        /// Which object.
        place: Place,
        /// What to do.
        operation: Operation,
        /// The expiry the keyspace gives to register values that name none.
        expires_at: Option<WallTime>,
        /// What the caller had read; `None` = what this replica holds.
        observed: Option<Context>,
    },
    /// Is the receiver's durable system state this one? `Same`, else `System`.
    CompareSystem {
        /// The fingerprint of the sender's durable system state.
        fingerprint: SystemId,
    },
    /// Join this system state (canonical bytes): `System` with the result once it is durable here.
    System {
        /// The sender's system state.
        state: Bytes,
    },
    /// May the sender mint below the ends of these leases? `Leases` with what the receiver has seen of each, once it is durable
    /// there: the question itself counts as seen (DESIGN §4, Actors).
    ConfirmLeases {
        /// The sender's stores.
        stores: Vec<StoreLease>,
        /// The sender's process.
        boot_nonce: u64,
    },
    /// What does the receiver believe of the members? `Members`.
    Members,
    /// For the sake of repair: `Repair`, or `Applied`.
    Repair(RepairAsk),
}

/// Why a delta is applied; counted apart in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplyCause {
    /// A client's write.
    Write,
    /// A read found this replica behind.
    ReadRepair,
    /// It was missed, and somebody owed it or kept it as a hint.
    Handoff,
    /// A comparison of trees found this replica behind.
    Exchange,
}

/// A slice of one partition's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerScan {
    /// The partition.
    pub partition: Partition,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// One collection, or all of the partition's.
    pub collection: Option<Bytes>,
    /// Only keys beginning with this.
    pub prefix: Bytes,
    /// Exclusive: rows strictly behind this (collection, key) in scan order.
    pub after: Option<(Bytes, Bytes)>,
    /// Descending.
    pub reverse: bool,
    /// At most so many rows, vacant ones included.
    pub rows_max: u32,
    /// At most about so many bytes of objects (at least one row is sent).
    pub bytes_max: u32,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerResponse {
    /// The delta is on stable storage here.
    Applied(Applied),
    /// The object here has the digest asked about, or the system state the fingerprint.
    Same,
    /// The object here.
    State {
        /// Canonical bytes; a vacant object when there is no row.
        object: Bytes,
        /// Its digest.
        digest: Digest,
    },
    /// A slice of rows, synced, in scan order.
    Rows {
        /// (collection, key, canonical bytes).
        rows: Vec<(Bytes, Bytes, Bytes)>,
        /// True when the range ends with these rows.
        finished: bool,
    },
    /// The delta passed the door and will be synced; `Applied` follows. Nothing is durable yet.
    Admitted,
    /// The operation was minted and is on stable storage here.
    Minted {
        /// Canonical bytes of the delta, to be sent on.
        delta: Bytes,
        /// The ack of this replica.
        applied: Applied,
    },
    /// The joined, durable system state of the answering node.
    System {
        /// Canonical bytes.
        state: Bytes,
    },
    /// Who mints under each of the stores asked about and how far, as far as this node has seen; durable here.
    Leases {
        /// In the order of the question.
        seen: Vec<LeaseSeen>,
    },
    /// The members as the answering node sees them, itself included.
    Members(Vec<MemberStatus>),
    /// The answer to a question of repair.
    Repair(RepairAnswer),
    /// Nothing was done.
    Refused(Refusal),
}

/// The furthest lease of a store that a node has seen, and whose it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSeen {
    /// The store and the end of its lease.
    pub store: StoreLease,
    /// The process that leased it.
    pub boot_nonce: u64,
}

/// An ack: under what it was stored, and which of the partition's other holders are known to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Under what the answering replica holds it.
    pub custody: Custody,
    /// Where the delta is in the answering replica's change feed: at this or further on.
    pub lsn: Lsn,
    /// The newest custody this replica knows of each of the partition's other holders, as it leaves. Who is not listed is
    /// known under its first one only, which replaces nothing.
    pub known: Vec<(NodeId, Custody)>,
}

/// Under what a node holds a partition: with which of its stores, and how often that store had to be refilled. The greater
/// one is the later one, and replaces what came before: what was stored under that may be gone (DESIGN §4, Actors).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Custody {
    /// How many stores the node announced in place of the one its first layout named; as the system state counts them.
    pub generation: u64,
    /// The store. Orders two that were announced without knowing of each other, as the system state does.
    pub incarnation: Actor,
    /// How often that store lost the partition, or some of it, or gave it away and got it back.
    pub refill: RefillCount,
}

impl Custody {
    /// The store alone.
    #[must_use]
    pub const fn store(&self) -> StoreMark {
        StoreMark { generation: self.generation, incarnation: self.incarnation }
    }
}

/// Why a replica did nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The replica knows a layout the sender does not; the sender should exchange system state and try again.
    #[error("the sender's view is behind")]
    UnknownView,
    /// No layout known here lists this node for the partition.
    #[error("not a replica of this partition")]
    NotReplica,
    /// The replica has lost data of this partition and is catching up.
    #[error("not synced")]
    NotSynced,
    /// The request failed a check at the door; the same answer for the client.
    #[error("{0}")]
    Request(RequestError),
    /// The replica has not seen what the delta's counter floors name; another one may have.
    #[error("behind what the operation observed")]
    Behind,
    /// The replica's storage failed.
    #[error("storage unavailable")]
    Storage,
    /// The replica's disk is nearly full, and the write would make it fuller.
    #[error("disk full")]
    Full,
    /// Too much is in flight at the replica.
    #[error("overloaded")]
    Overloaded,
    /// The bytes do not decode.
    #[error("malformed request")]
    Malformed,
}
