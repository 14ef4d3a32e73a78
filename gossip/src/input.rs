//! What the host tells the member list.
//!
//! Invariant: who a packet is from comes from the connection's certificate, never from the packet.

use bytes::Bytes;
use shoal_protocol::id::NodeId;

use crate::member::Member;

/// What the host tells the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The time of `next_deadline` has come.
    Tick,
    /// A datagram came from this member.
    Packet {
        /// Who sent it, by its certificate.
        from: NodeId,
        /// All of it.
        bytes: Bytes,
    },
    /// A message came from this member on a stream of its own.
    Message {
        /// Who sent it, by its certificate.
        from: NodeId,
        /// All of it.
        bytes: Bytes,
    },
    /// This member was met on an authenticated connection and said this of itself: so one joins, through any seed.
    Met(Member),
    /// A connection to this member was lost: a hint to probe it at once, nothing more.
    Lost(NodeId),
    /// Datagrams to this member may be so long from now on; 1,100 bytes until told.
    PacketSize {
        /// To whom.
        to: NodeId,
        /// So long at most.
        bytes: usize,
    },
    /// What this node says of itself changed: lease ends, layouts, addresses. Its id never does.
    Describe(Member),
    /// Leave gracefully; `LeaveSpread` when enough members were told.
    Leave,
    /// The member was removed from every layout: forget it, when it is not alive.
    Forget(NodeId),
}
