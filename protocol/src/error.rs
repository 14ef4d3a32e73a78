//! What can go wrong with a request: one stable list of codes (docs/errors.md).
//!
//! Grouped by fault: the request is wrong, the caller's context is wrong, the cluster cannot now, nobody knows.
//! Each variant says what is true now and what the caller may do.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::KeyspaceName;
use crate::id::KeyspaceId;
use crate::object::TypeTag;

/// Why a request was not answered as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request breaks a rule of its own shape. Nothing changed; correct it.
    #[error("bad request: {reason}")]
    BadRequest {
        /// Which rule.
        reason: String,
    },
    /// No keyspace of that name, as a majority of the nodes says. Nothing changed; create it.
    #[error("no keyspace `{name}`")]
    UnknownKeyspace {
        /// The name asked for.
        name: KeyspaceName,
    },
    /// The keyspace with this id was dropped (or never was). Nothing changed; look its name up again.
    #[error("keyspace {id} does not exist any more")]
    KeyspaceGone {
        /// The id asked for.
        id: KeyspaceId,
    },
    /// The name is taken, or was being taken by somebody else at the same time. Nothing of yours was created.
    #[error("keyspace `{name}` exists")]
    KeyspaceExists {
        /// The name.
        name: KeyspaceName,
    },
    /// The key holds another live type. Nothing changed; delete it or use the other type.
    #[error("the key holds a {found:?}, not a {wanted:?}")]
    WrongType {
        /// What the key (or map field) holds.
        found: TypeTag,
        /// What the operation needs.
        wanted: TypeTag,
    },
    /// A limit of DESIGN §4. Nothing changed; operations that shrink are accepted.
    #[error("limit {limit}: {actual} where {max} is allowed")]
    Limit {
        /// Which limit: `value`, `siblings`, `depth`, `object`, `actors`, `ranges`, `collection`, `key`, `batch`, `scan`,
        /// `frame`, `keyspaces`.
        limit: String,
        /// What the operation would lead to.
        actual: u64,
        /// What is allowed.
        max: u64,
    },
    /// The context was made for another address. Nothing changed; read this key first.
    #[error("the context belongs to another key")]
    ContextMismatch,
    /// The context is damaged, or was not made by this cluster. Nothing changed.
    #[error("the context is not one of this cluster: {reason}")]
    ContextInvalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The delta covers events that neither the contexts presented nor the session justify. Nothing changed.
    #[error("the operation covers what its contexts do not")]
    ForgedContext,
    /// All replicas answered and still lack what the context names: data was lost. `object` is the best there is.
    #[error("the replicas have lost events that the context names")]
    ContextLost {
        /// Canonical bytes of the best value.
        object: Bytes,
    },
    /// The replicas that answered in time are behind the context given. `object` is the best there is; read again later.
    #[error("the answer is older than the context given")]
    Stale {
        /// Canonical bytes of the best value.
        object: Bytes,
    },
    /// The operation's hlc is too far in the future. Nothing changed; mend the clock.
    #[error("the clock of the client is {ahead_ms} ms ahead")]
    ClockSkew {
        /// By how much.
        ahead_ms: u64,
    },
    /// The session is past its last day, or was not granted by this cluster. Nothing changed; take a new session.
    #[error("the session has expired or is not of this cluster")]
    SessionExpired,
    /// The delta was minted by another actor than the connection's session. Nothing changed.
    #[error("the operation belongs to another session")]
    ForeignSession,
    /// More replicas asked for than the layout has nodes. Nothing changed.
    #[error("{asked} replicas asked for, the layout has {nodes}")]
    TooFewNodes {
        /// What was asked.
        asked: u8,
        /// What there is.
        nodes: u8,
    },
    /// Some replica may have stored the write, fewer than asked confirmed it. Repeating the same operation is safe.
    #[error("unknown outcome: {acked} of {needed} acks before the deadline")]
    Unknown {
        /// Confirmed.
        acked: u8,
        /// Needed.
        needed: u8,
    },
    /// Too few replicas can be reached (for reads: that are not catching up), or too few nodes to say that a keyspace does
    /// not exist; no replica has stored anything. Try again later.
    #[error("unavailable: {replied} of {needed} replicas answered")]
    Unavailable {
        /// Answered.
        replied: u8,
        /// Needed.
        needed: u8,
    },
    /// The node is at a limit and did no work. Try again after the time given, or elsewhere.
    #[error("overloaded; try again in {retry_after_ms} ms")]
    Overloaded {
        /// When to try again.
        retry_after_ms: u32,
    },
    /// The node does not serve yet (the cluster is forming). Nothing changed; try again.
    #[error("not serving: {reason}")]
    NotServing {
        /// Why.
        reason: String,
    },
    /// Disks are nearly full: writes are refused, reads and deletes go on. Nothing changed.
    #[error("disk full")]
    DiskFull,
    /// Too few replicas can be reached for this sloppy write, and the nodes that could stand in for them keep as many hints as
    /// they may. Nothing changed; try again later.
    #[error("too few replicas can be reached, and the nodes that could hold the write for them are full of hints")]
    HintsFull,
    /// The layout may not be changed so, or not now. Nothing changed; the reason says what would have to be otherwise.
    #[error("the layout stays as it is: {reason}")]
    LayoutRefused {
        /// Why.
        reason: String,
    },
    /// No protocol version in common, or another cluster. The connection ends.
    #[error("incompatible: {reason}")]
    Incompatible {
        /// What does not fit.
        reason: String,
    },
}

impl RequestError {
    /// The stable code: what programs compare and docs/errors.md lists.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } => "bad_request",
            Self::UnknownKeyspace { .. } => "unknown_keyspace",
            Self::KeyspaceGone { .. } => "keyspace_gone",
            Self::KeyspaceExists { .. } => "keyspace_exists",
            Self::WrongType { .. } => "wrong_type",
            Self::Limit { .. } => "limit",
            Self::ContextMismatch => "context_mismatch",
            Self::ContextInvalid { .. } => "context_invalid",
            Self::ForgedContext => "forged_context",
            Self::ContextLost { .. } => "context_lost",
            Self::Stale { .. } => "stale",
            Self::ClockSkew { .. } => "clock_skew",
            Self::SessionExpired => "session_expired",
            Self::ForeignSession => "foreign_session",
            Self::TooFewNodes { .. } => "too_few_nodes",
            Self::Unknown { .. } => "unknown",
            Self::Unavailable { .. } => "unavailable",
            Self::Overloaded { .. } => "overloaded",
            Self::NotServing { .. } => "not_serving",
            Self::DiskFull => "disk_full",
            Self::HintsFull => "hints_full",
            Self::LayoutRefused { .. } => "layout_refused",
            Self::Incompatible { .. } => "incompatible",
        }
    }

    /// Whether some replica may have applied the operation all the same.
    #[must_use]
    pub const fn may_have_happened(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Whether the same request may succeed later or at another node, unchanged.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. }
                | Self::Unavailable { .. }
                | Self::Overloaded { .. }
                | Self::NotServing { .. }
                | Self::HintsFull
                | Self::Stale { .. }
        )
    }
}
