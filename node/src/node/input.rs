//! What the host tells a node.

use bytes::Bytes;
use shoal_protocol::client::ClientCall;
use shoal_protocol::id::{Actor, NodeId, RequestId};
use shoal_protocol::peer::{PeerCall, PeerHello, PeerResponse};

use crate::storage::{CellId, StoreDone};

/// Names a client's connection in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a connection on which another node asks us, in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What members of a cluster gossip with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parcel {
    /// A datagram. It may be lost, and is never waited for.
    Packet(Bytes),
    /// Something longer, on a stream. It may be lost, too.
    Message(Bytes),
}

/// What happens to a node.
#[derive(Debug)]
pub enum Input {
    /// Time has passed `next_deadline`.
    Tick,
    /// A client asks.
    ClientCall {
        /// On which connection.
        connection: ConnectionId,
        /// The client's name for the request.
        request: RequestId,
        /// The connection's session.
        session: Actor,
        /// What it asks.
        call: ClientCall,
    },
    /// A client's connection ended; nobody waits for its answers.
    ClientGone {
        /// Which.
        connection: ConnectionId,
    },
    /// Calls can be sent to this peer from now on.
    PeerUp {
        /// What it said of itself.
        hello: PeerHello,
    },
    /// Calls cannot be sent any more; those without an answer will get none.
    PeerDown {
        /// Which.
        node: NodeId,
    },
    /// A member gossips.
    Gossip {
        /// Who, as its certificate says.
        from: NodeId,
        /// What came.
        parcel: Parcel,
    },
    /// Datagrams to a member may be so long from now on.
    PacketSize {
        /// Which member.
        to: NodeId,
        /// Bytes.
        bytes: usize,
    },
    /// This node is about to stop: the others are to know at once. `Node::has_left` says when they do.
    Leave,
    /// This node answered at a configured seed address; it may be ourselves.
    SeedFound {
        /// The address as configured.
        seed: String,
        /// Who answered.
        node: NodeId,
    },
    /// Nobody of this cluster answers at a configured seed address, so far.
    SeedFailed {
        /// The address as configured.
        seed: String,
        /// Why.
        reason: String,
    },
    /// Another node asks.
    PeerCall {
        /// On which connection.
        link: LinkId,
        /// Who, as its certificate says.
        from: NodeId,
        /// Its name for the request.
        request: RequestId,
        /// What it asks.
        call: PeerCall,
    },
    /// Another node answers.
    PeerAnswer {
        /// Who.
        from: NodeId,
        /// Our name for the request.
        request: RequestId,
        /// The answer.
        response: PeerResponse,
    },
    /// A storage effect is done, or storage failed.
    Stored {
        /// Whose store.
        cell: CellId,
        /// What is done.
        done: StoreDone,
    },
}
