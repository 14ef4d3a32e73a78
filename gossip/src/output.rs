//! What the member list tells the host and the node.
//!
//! Invariant: outputs tell every change of liveness or description exactly once, in order.

use bytes::Bytes;
use shoal_protocol::id::NodeId;

/// What the member list tells the host and the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram; it may be lost, and is never waited for.
    Packet {
        /// To whom.
        to: NodeId,
        /// All of it.
        bytes: Bytes,
    },
    /// Send this on a stream of its own; it may be lost too, and is never waited for.
    Message {
        /// To whom.
        to: NodeId,
        /// All of it.
        bytes: Bytes,
    },
    /// A new member, or it says something new of itself (read it with `member`). Before `Up`.
    Changed(NodeId),
    /// The member became alive.
    Up(NodeId),
    /// The member is suspected to be down, and may refute that.
    Suspect(NodeId),
    /// The member became down.
    Down(NodeId),
    /// The member left.
    Left(NodeId),
    /// The member is in the list no more.
    Forgotten(NodeId),
    /// Another living process speaks as this node: its id under another boot nonce, as from a cloned data directory.
    Cloned {
        /// The other process's nonce. Each is told once.
        boot_nonce: u64,
    },
    /// Enough members were told that this node leaves.
    LeaveSpread,
}
