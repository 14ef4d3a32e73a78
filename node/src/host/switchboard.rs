//! Who is connected, and how what the node says reaches them.
//!
//! Shape: outboxes by client connection, by incoming link and by dialed peer. What is addressed to somebody who is gone is
//! dropped: the node hears of the end by `ClientGone` or `PeerDown`.
//! Invariant: an answer is struck off the asker's ledger when it is queued, whatever becomes of the frame.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use shoal_protocol::client::ClientResponse;
use shoal_protocol::error::RequestError;
use shoal_protocol::frame::{FrameKind, PEER_FRAME_BYTES_MAX};
use shoal_protocol::id::{NodeId, RequestId};
use shoal_protocol::peer::{PeerCall, PeerResponse, Refusal};
use tracing::warn;

use super::links::frame_limit;
use super::outbox::{FrameTooLong, Outbox};
use crate::node::{ConnectionId, LinkId};

/// All connections that have said hello.
#[derive(Default)]
pub(super) struct Switchboard {
    clients: BTreeMap<ConnectionId, Rc<Outbox>>,
    links: BTreeMap<LinkId, Asker>,
    peers: BTreeMap<NodeId, Peer>,
}

struct Asker {
    from: NodeId,
    boot_nonce: u64,
    outbox: Rc<Outbox>,
}

struct Peer {
    boot_nonce: u64,
    outbox: Rc<Outbox>,
}

impl Switchboard {
    pub(super) fn add_client(&mut self, connection: ConnectionId, outbox: Rc<Outbox>) {
        self.clients.insert(connection, outbox);
    }

    /// Whether it was there.
    pub(super) fn remove_client(&mut self, connection: ConnectionId) -> bool {
        self.clients.remove(&connection).is_some()
    }

    /// A node asks on this link. Connections to an earlier process of that node are dead, though they may not know yet.
    pub(super) fn add_link(&mut self, link: LinkId, from: NodeId, boot_nonce: u64, outbox: Rc<Outbox>) {
        let earlier = self.links.values().filter(|asker| asker.from == from && asker.boot_nonce != boot_nonce);
        earlier.for_each(|asker| asker.outbox.kill());
        if let Some(peer) = self.peers.get(&from)
            && peer.boot_nonce != boot_nonce
        {
            peer.outbox.kill();
        }
        self.links.insert(link, Asker { from, boot_nonce, outbox });
    }

    pub(super) fn remove_link(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    pub(super) fn add_peer(&mut self, node: NodeId, boot_nonce: u64, outbox: Rc<Outbox>) {
        self.peers.insert(node, Peer { boot_nonce, outbox });
    }

    /// Whether it was there.
    pub(super) fn remove_peer(&mut self, node: NodeId) -> bool {
        self.peers.remove(&node).is_some()
    }

    /// Sends a client its verdict.
    pub(super) fn answer_client(
        &self,
        connection: ConnectionId,
        request: RequestId,
        result: &Result<ClientResponse, RequestError>,
    ) {
        let Some(outbox) = self.clients.get(&connection) else { return };
        outbox.settle(request);
        if let Err(FrameTooLong { bytes }) = outbox.queue(FrameKind::Response, request, result) {
            let error = Err::<ClientResponse, _>(frame_limit(bytes, PEER_FRAME_BYTES_MAX));
            let _ = outbox.queue(FrameKind::Response, request, &error);
        }
    }

    /// Sends another node its answer.
    pub(super) fn answer_peer(&self, link: LinkId, request: RequestId, response: &PeerResponse) {
        let Some(asker) = self.links.get(&link) else { return };
        asker.outbox.settle(request);
        if let Err(FrameTooLong { bytes }) = asker.outbox.queue(FrameKind::Response, request, response) {
            let refusal = PeerResponse::Refused(Refusal::Request(frame_limit(bytes, PEER_FRAME_BYTES_MAX)));
            let _ = asker.outbox.queue(FrameKind::Response, request, &refusal);
        }
    }

    /// Asks another node.
    pub(super) fn call(&self, to: NodeId, request: RequestId, call: &PeerCall) {
        let Some(peer) = self.peers.get(&to) else { return };
        if let Err(FrameTooLong { bytes }) = peer.outbox.queue(FrameKind::Request, request, call) {
            warn!(node = %to, bytes, "a call is longer than a frame may be; it will run into its deadline");
        }
    }

    /// Ends all connections with these nodes at once.
    pub(super) fn cut(&self, nodes: &BTreeSet<NodeId>) {
        let links = self.links.values().filter(|asker| nodes.contains(&asker.from)).map(|asker| &asker.outbox);
        let peers = self.peers.iter().filter(|(node, _)| nodes.contains(node)).map(|(_, peer)| &peer.outbox);
        links.chain(peers).for_each(|outbox| outbox.kill());
    }

    /// Says goodbye to everybody; they are removed as their connections end.
    pub(super) fn dismiss_all(&self, error: &RequestError) {
        let links = self.links.values().map(|asker| &asker.outbox);
        let peers = self.peers.values().map(|peer| &peer.outbox);
        self.clients.values().chain(links).chain(peers).for_each(|outbox| outbox.end_with(error));
    }

    /// Clients' requests without an answer.
    pub(super) fn client_requests_count(&self) -> usize {
        self.clients.values().map(|outbox| outbox.in_flight_count()).sum()
    }

    /// Whether nobody is connected.
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.links.is_empty() && self.peers.is_empty()
    }
}
