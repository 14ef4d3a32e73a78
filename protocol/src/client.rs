//! What a client asks and what a node answers.
//!
//! Requests and responses are different types; each request's doc names its answer. Every data request names its object by
//! `Place`, i.e. by keyspace id, so an operation bound for a dropped keyspace can never land in its successor of the same
//! name. Deltas and objects travel as canonical bytes. Source: DESIGN §4 (binding), §6 (requests), §10 (HELLO).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::{KeyspaceName, Place};
use crate::causality::EncodedContext;
use crate::cluster::{LayoutChange, Layouts};
use crate::error::RequestError;
use crate::id::{Actor, Class, ClusterId, KeyspaceId, LayoutId, NodeId, ViewId};
use crate::member::Liveness;
use crate::object::{Conflict, Operation};
use crate::time::{Hlc, WallTime};

/// The first frame of a client. Answered by `Welcome`, or by a `RequestError` frame and the end of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// Lowest and highest protocol version the client speaks.
    pub versions: (u16, u16),
    /// The session to go on with; `None` asks for a new one.
    pub session: Option<SessionGrant>,
    /// An access token, once access control exists; never logged.
    pub access_token: Option<String>,
    /// The client's name and version, for logs and metrics.
    pub software: String,
}

/// The first answer of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version of this connection.
    pub version: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// The answering node.
    pub node: NodeId,
    /// The session of this connection: the one presented, or a fresh one. Only it may mint here.
    pub session: SessionGrant,
    /// The node's wall clock, so that a client can see its own skew.
    pub wall: WallTime,
}

/// A session and the proof that a node of this cluster granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionGrant {
    /// The session's actor id; its expiry day is inside.
    pub actor: Actor,
    /// Keyed hash over actor and principal.
    pub mac: [u8; 16],
}

/// One request with what every request has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCall {
    /// Milliseconds the client is willing to wait from now on. Work past it is dropped.
    pub deadline_ms: u32,
    /// What is asked.
    pub request: ClientRequest,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientRequest {
    /// Read one object. Answer: `Got`.
    Get(Get),
    /// Apply a delta bound by this connection's session. May be repeated anywhere, any number of times. Answer: `Written`.
    Write(Write),
    /// Let a replica mint the operation (at-least-once). Answer: `Written`.
    Operate(Operate),
    /// Read a page of a collection or of one partition of a keyspace. Answer: `Page`.
    Scan(Scan),
    /// Up to `BATCH_COUNT_MAX` independent gets, writes and operates; no atomicity. Answer: `Batch`, in order.
    Batch(Vec<ClientRequest>),
    /// Create a keyspace. Answer: `Keyspace`.
    CreateKeyspace {
        /// Its name.
        name: KeyspaceName,
        /// Its settings.
        spec: KeyspaceSpec,
    },
    /// Look a keyspace up by name. Answer: `Keyspace`.
    ShowKeyspace {
        /// Its name.
        name: KeyspaceName,
    },
    /// All keyspaces. Answer: `Keyspaces`.
    ListKeyspaces,
    /// Change what may be changed. Answer: `Keyspace`.
    SetKeyspace {
        /// Its name.
        name: KeyspaceName,
        /// The change.
        change: KeyspaceChange,
    },
    /// Drop a keyspace by name. Answer: `Keyspace` (what was dropped).
    DropKeyspace {
        /// Its name.
        name: KeyspaceName,
    },
    /// Who holds which partition of a class. Answer: `Routes`.
    Routes {
        /// The class.
        class: Class,
    },
    /// The answering node's state and what it believes of the others. Answer: `Status`.
    Status,
    /// What every node believes of every member, as far as they can be asked within the deadline. Answer: `MemberViews`.
    MemberViews,
    /// Change who is to hold data. Answer: `Layouts`, once a majority stored the change.
    ChangeLayout(LayoutChange),
    /// The layouts, what is staged and how far the transition is. Answer: `Layouts`.
    Layouts,
}

/// Read one object from `r` replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// Which object.
    pub place: Place,
    /// Replies to wait for; `None` = the keyspace's. A smaller number than the keyspace's is answered as `weak`.
    pub r: Option<u8>,
    /// A context the answer must cover (read-your-writes, monotonic reads).
    pub min_ctx: Option<EncodedContext>,
}

/// A delta bound by the client's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Which object.
    pub place: Place,
    /// The canonical bytes of the delta.
    pub delta: Bytes,
    /// The contexts that justify what the delta covers beyond the session's own dots.
    pub contexts: Vec<EncodedContext>,
    /// Acks to wait for; `None` = the keyspace's.
    pub w: Option<u8>,
    /// What counts as an ack; `None` = what the keyspace says.
    pub quorum: Option<QuorumMode>,
}

/// An operation without a session: a replica mints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operate {
    /// Which object.
    pub place: Place,
    /// What to do.
    pub operation: Operation,
    /// What the caller had read; `None` = act on what the minting replica holds (`Replace`: nothing, i.e. a sibling).
    pub context: Option<EncodedContext>,
    /// Acks to wait for; `None` = the keyspace's.
    pub w: Option<u8>,
    /// What counts as an ack; `None` = what the keyspace says.
    pub quorum: Option<QuorumMode>,
}

/// A page of rows in key order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// Where to scan.
    pub scope: ScanScope,
    /// Only keys beginning with this.
    pub prefix: Bytes,
    /// Go on behind this cursor of an earlier page of the same scan.
    pub cursor: Option<Bytes>,
    /// From the last key to the first.
    pub reverse: bool,
    /// Rows with content wanted, 1..=`SCAN_LIMIT_MAX`.
    pub limit: u32,
    /// `false` leaves the objects out (a count).
    pub values: bool,
    /// Replies to wait for; `None` = the keyspace's.
    pub r: Option<u8>,
}

/// Where a scan runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanScope {
    /// The keys of one collection (layout `collection` only).
    Collection(Bytes),
    /// All rows of the keyspace in one partition index, ordered by collection, then key. The union over all indexes is the
    /// whole keyspace: this is how export, listing and counting of whole keyspaces work.
    Partition(u16),
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientResponse {
    /// The merged object (a vacant one when there is nothing).
    Got(Got),
    /// The write is durable on `acks` replicas.
    Written(Written),
    /// One page.
    Page(Page),
    /// One verdict each, in the order asked.
    Batch(Vec<Result<ClientResponse, RequestError>>),
    /// One keyspace.
    Keyspace(KeyspaceInfo),
    /// All keyspaces.
    Keyspaces(Vec<KeyspaceInfo>),
    /// Who holds what.
    Routes(Routes),
    /// State.
    Status(Status),
    /// One per known member, in id order.
    MemberViews(Vec<MemberView>),
    /// Who is to hold data, and how far that is.
    Layouts(Layouts),
}

/// The answer to `Get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Got {
    /// Canonical bytes of the merged object.
    pub object: Bytes,
    /// Its context, sealed for this place.
    pub context: EncodedContext,
    /// Replicas that were merged.
    pub replies: u8,
    /// True when fewer replies were asked for than the keyspace's r.
    pub weak: bool,
}

/// The answer to `Write` and `Operate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Nodes on whose stable storage the write is.
    pub acks: u8,
    /// How many of them are fallbacks, which hold it for a primary: a read that does not ask that primary once it has it back
    /// may miss the write. 0 unless the write was sloppy.
    pub fallbacks: u8,
    /// The context of the delta, sealed: a read with it as `min_ctx` sees this write.
    pub context: EncodedContext,
    /// True when fewer acks were asked for than the keyspace's w.
    pub weak: bool,
    /// The reading a client's hlc must stay above.
    pub hlc: Hlc,
}

/// The answer to `Scan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Rows with live content, in the order asked.
    pub rows: Vec<Row>,
    /// Where to go on; `None` at the end.
    pub cursor: Option<Bytes>,
    /// False when fewer than r replicas could be asked and the page is what there was.
    pub complete: bool,
}

/// One row of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The collection.
    pub collection: Bytes,
    /// The key.
    pub key: Bytes,
    /// Canonical bytes of the merged object; empty when values were not asked for.
    pub object: Bytes,
    /// Its sealed context; `None` when values were not asked for.
    pub context: Option<EncodedContext>,
}

/// How the keys of a keyspace are placed. Fixed at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyspaceLayout {
    /// A collection's keys live together, ordered: scan, watch, browser sync.
    Collection,
    /// Each key is placed by itself: a plain key-value store.
    Key,
}

/// What counts as an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuorumMode {
    /// Only primaries: reads of r > n - w replicas see the write.
    Strict,
    /// Fallbacks too, where a primary cannot take it in time, and the answer says how many. No read is sure to see such a
    /// write before the fallbacks have handed it on.
    Sloppy,
}

/// The settings a keyspace is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceSpec {
    /// Replicas and quorums; fixed.
    pub class: Class,
    /// Placement of keys; fixed.
    pub layout: KeyspaceLayout,
    /// Concurrent register writes; fixed.
    pub conflict: Conflict,
    /// May be changed.
    pub quorum: QuorumMode,
    /// Seconds until a written register value expires when its writer names no expiry; may be changed.
    pub ttl_s: Option<u32>,
}

/// What may be changed of a keyspace; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceChange {
    /// A new quorum mode.
    pub quorum: Option<QuorumMode>,
    /// A new default expiry; `Some(None)` removes it.
    pub ttl_s: Option<Option<u32>>,
}

/// A keyspace as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceInfo {
    /// Its id: what requests name.
    pub id: KeyspaceId,
    /// Its name.
    pub name: KeyspaceName,
    /// Its settings.
    pub spec: KeyspaceSpec,
}

/// Who holds which partition of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// The view this was computed from.
    pub view: ViewId,
    /// The nodes of the layout.
    pub nodes: Vec<NodeEndpoint>,
    /// For each partition index the preference list, as indexes into `nodes`.
    pub preference: Vec<Vec<u16>>,
}

/// How to reach a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEndpoint {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its share of the data relative to the others: the layout's word, or before there is one the node's own.
    pub weight: u32,
    /// `host:port` for clients, first choice first.
    pub addresses: Vec<String>,
}

/// What one node says of itself and of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The answering node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// Software version.
    pub version: String,
    /// Its store incarnation.
    pub incarnation: Actor,
    /// The formed layout, once there is one.
    pub layout: Option<LayoutId>,
    /// Whether it takes data requests; otherwise why not.
    pub serving: Result<(), String>,
    /// What it believes of each member, itself included.
    pub members: Vec<MemberStatus>,
    /// Warnings by name: what is near a limit or not bounded yet.
    pub warnings: Vec<String>,
    /// Named figures: queue lengths, rows in memory, bytes, counts.
    pub figures: Vec<(String, u64)>,
}

/// What one node believes of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// How to reach it.
    pub endpoint: NodeEndpoint,
    /// What its node believes by gossip (SWIM §4.2).
    pub liveness: Liveness,
    /// Whether the answering node has a connection on which it can ask it.
    pub linked: bool,
    /// Software version, if known.
    pub version: String,
    /// Its store incarnation, if known.
    pub incarnation: Option<Actor>,
    /// Whether the layout lists it.
    pub in_layout: bool,
    /// Whether its store is not the one the layout named: it takes writes, and reads do not count it, until it has caught up.
    pub catching_up: bool,
}

impl MemberStatus {
    /// Whether the answering node would ask it now.
    #[must_use]
    pub const fn is_reachable(&self) -> bool {
        self.linked && matches!(self.liveness, Liveness::Alive | Liveness::Suspect)
    }
}

/// The members as one of them sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Whose view.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it believes, itself included; `None` when it could not be asked, or did not answer in time.
    pub members: Option<Vec<MemberStatus>>,
}

/// Operations in one batch.
pub const BATCH_COUNT_MAX: usize = 1_000;
/// Rows in one page.
pub const SCAN_LIMIT_MAX: u32 = 10_000;
/// The protocol versions this build speaks, lowest and highest.
pub const PROTOCOL_VERSIONS: (u16, u16) = (1, 1);
