//! What a node wants of the host.

use shoal_protocol::client::ClientResponse;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{NodeId, RequestId};
use shoal_protocol::member::Member;
use shoal_protocol::peer::{PeerCall, PeerResponse};

use super::{ConnectionId, LinkId, Parcel};
use crate::storage::{CellId, StoreEffect};

/// What the host is to do.
#[derive(Debug)]
pub enum Effect {
    /// Answer a client.
    AnswerClient {
        /// On which connection.
        connection: ConnectionId,
        /// The client's name for the request.
        request: RequestId,
        /// The verdict.
        result: Result<ClientResponse, RequestError>,
    },
    /// Ask another node.
    Call {
        /// Which.
        to: NodeId,
        /// Our name for the request.
        request: RequestId,
        /// What to ask.
        call: PeerCall,
    },
    /// Answer another node.
    AnswerPeer {
        /// On which connection.
        link: LinkId,
        /// Its name for the request.
        request: RequestId,
        /// The answer.
        response: PeerResponse,
    },
    /// Gossip with a member, if it can be reached.
    Gossip {
        /// Which.
        to: NodeId,
        /// What to send.
        parcel: Parcel,
    },
    /// A member is new or says something new of itself: keep a link to it, where it is now.
    Learn {
        /// What it says.
        member: Member,
    },
    /// Work for a storage engine.
    Store {
        /// Whose store.
        cell: CellId,
        /// The work.
        effect: StoreEffect,
    },
}
