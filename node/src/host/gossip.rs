//! Gossip's own connections: datagrams for packets, one stream for what is longer.
//!
//! Shape: a connection begins as a peer's does, with a hello each way on its only stream; then both ends send datagrams and
//! `Gossip` frames at will. It is opened by whoever first has something to say, used by both, and ends after `IDLE_GOSSIP` of
//! silence, or with this node's link to the other: what a cut path swallowed is not waited for. Bulk traffic goes
//! elsewhere, so it cannot delay a probe's answer in this connection's queue. Source: DESIGN §8.
//! Invariants: whoever speaks has shown the certificate of the node it names; nothing waits for gossip to be sent: what finds no
//! connection is kept while one is being opened, `WAITING_COUNT_MAX` of it per node, and else dropped.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use shoal_protocol::frame::{FrameKind, PEER_FRAME_BYTES_MAX};
use shoal_protocol::id::{NodeId, RequestId};
use shoal_protocol::peer::PeerHello;

use super::event::{Door, Event};
use super::links::{Frames, PEER_HELLO_BYTES_MAX, decode, expect, run, say};
use super::load::Side;
use super::outbox::{LinkEnd, Outbox};
use super::tls::PeerIdentity;
use crate::node::{Input, Parcel};

/// One connection for gossip that has said hello.
pub(super) struct GossipLink {
    id: u64,
    /// Whether the other end opened it, and waits for a welcome.
    is_incoming: bool,
    connection: Connection,
    outbox: Rc<Outbox>,
    /// The longest datagram, as the node was last told.
    told_bytes: Cell<usize>,
}

/// All connections for gossip.
#[derive(Default)]
pub(super) struct GossipLinks {
    links: BTreeMap<NodeId, Vec<Rc<GossipLink>>>,
    /// What waits for connections that are being opened.
    waiting: BTreeMap<NodeId, VecDeque<Parcel>>,
}

/// What became of something sent.
pub(super) enum Sent {
    /// It is on its way, or lost, as gossip may be.
    Gone,
    /// It is, and datagrams to this node may be so long from now on.
    Sized(usize),
    /// It waits for a connection, which is to be opened now.
    Unconnected,
}

impl GossipLinks {
    /// Sends gossip to a node.
    pub(super) fn send(&mut self, to: NodeId, parcel: Parcel) -> Sent {
        if let Some(link) = self.links.get(&to).and_then(|links| links.last()) {
            return link.send(parcel);
        }
        let is_opening = self.waiting.contains_key(&to);
        let waiting = self.waiting.entry(to).or_default();
        if waiting.len() == WAITING_COUNT_MAX {
            waiting.pop_front();
        }
        waiting.push_back(parcel);
        if is_opening { Sent::Gone } else { Sent::Unconnected }
    }

    /// A connection has said hello: it is welcomed with this node's own, then what waited for it goes. The longest datagram.
    pub(super) fn add(&mut self, node: NodeId, own: &PeerHello, link: Rc<GossipLink>) -> usize {
        if link.is_incoming {
            // A hello is far below the limit of a frame.
            let _ = link.outbox.queue(FrameKind::Welcome, RequestId(0), own);
        }
        for parcel in self.waiting.remove(&node).into_iter().flatten() {
            link.send(parcel);
        }
        let bytes = link.datagram_bytes_max();
        link.told_bytes.set(bytes);
        self.links.entry(node).or_default().push(link);
        bytes
    }

    /// A connection has ended.
    pub(super) fn remove(&mut self, node: NodeId, id: u64) {
        if let Some(links) = self.links.get_mut(&node) {
            links.retain(|link| link.id != id);
            if links.is_empty() {
                self.links.remove(&node);
            }
        }
    }

    /// No connection could be opened: what waited is lost, and the next thing to say tries again.
    pub(super) fn give_up(&mut self, node: NodeId) {
        self.waiting.remove(&node);
    }

    /// Ends all connections with these nodes at once.
    pub(super) fn cut(&mut self, nodes: &BTreeSet<NodeId>) {
        for link in nodes.iter().filter_map(|node| self.links.remove(node)).flatten() {
            link.outbox.kill();
        }
    }

    /// Ends all connections.
    pub(super) fn end_all(&mut self) {
        let nodes = self.links.keys().copied().collect();
        self.cut(&nodes);
    }
}

impl GossipLink {
    fn send(&self, parcel: Parcel) -> Sent {
        match parcel {
            // Lost, closed or too long: to the sender it is all the same, but it should know how long is too long.
            Parcel::Packet(bytes) => drop(self.connection.send_datagram(bytes)),
            Parcel::Message(bytes) => drop(self.outbox.queue(FrameKind::Gossip, RequestId(0), &bytes)),
        }
        let bytes_max = self.datagram_bytes_max();
        if self.told_bytes.replace(bytes_max) == bytes_max { Sent::Gone } else { Sent::Sized(bytes_max) }
    }

    /// It grows with the path's MTU, and shrinks where a path turns out to be narrower.
    fn datagram_bytes_max(&self) -> usize {
        self.connection.max_datagram_size().unwrap_or(0)
    }
}

/// Who opened a connection.
pub(super) enum Opened {
    /// This node, for gossip with that one.
    Here(NodeId),
    /// The other one.
    There,
}

/// Gossips on a connection until it ends; whether it had come to that.
pub(super) async fn gossip(
    connection: &Connection,
    (send, receive): (SendStream, RecvStream),
    opened: Opened,
    door: &Door,
) -> (bool, LinkEnd) {
    let outbox = door.outbox(Side::Peer);
    let id = door.next_id();
    let met = Cell::new(None);
    let conversation = async {
        let mut frames = Frames::new(receive, PEER_HELLO_BYTES_MAX);
        let hello = exchange_hellos(&mut frames, &outbox, &opened, door).await?;
        let node = hello.member.node;
        PeerIdentity::of(connection).check_node(node).map_err(LinkEnd::Refused)?;
        let link = GossipLink {
            id,
            is_incoming: matches!(opened, Opened::There),
            connection: connection.clone(),
            outbox: Rc::clone(&outbox),
            told_bytes: Cell::default(),
        };
        let verdict = door.ask(|verdict| Event::GossipUp { hello, link: Rc::new(link), verdict }).await?;
        verdict.map_err(LinkEnd::Refused)?;
        met.set(Some(node));
        let (never, _) = tokio::try_join!(hear_packets(connection, node, door), hear_messages(frames, node, door))?;
        Ok(never)
    };
    let end = run(&outbox, send, conversation).await;
    if let Some(node) = met.get() {
        // A node that ends needs no news.
        let _ = door.tell(Event::GossipGone { node, id }).await;
    }
    (met.get().is_some(), end)
}

/// The other end's hello; when it opened the connection, the event loop answers with a welcome, before anything else.
async fn exchange_hellos(
    frames: &mut Frames<RecvStream>,
    outbox: &Outbox,
    opened: &Opened,
    door: &Door,
) -> Result<PeerHello, LinkEnd> {
    let hello: PeerHello = match opened {
        Opened::Here(_) => {
            say(outbox, FrameKind::Hello, &door.ask(|answer| Event::OwnHello { answer }).await?)?;
            frames.first(FrameKind::Welcome).await?
        }
        Opened::There => frames.first(FrameKind::Hello).await?,
    };
    frames.allow(PEER_FRAME_BYTES_MAX);
    match opened {
        // Addresses move: somebody else lives there now.
        Opened::Here(node) if *node != hello.member.node => Err(LinkEnd::Closed),
        Opened::Here(_) | Opened::There => Ok(hello),
    }
}

async fn hear_packets(connection: &Connection, from: NodeId, door: &Door) -> Result<Infallible, LinkEnd> {
    loop {
        let bytes = connection.read_datagram().await.map_err(|error| LinkEnd::Failed(error.into()))?;
        door.tell(Event::Input(Input::Gossip { from, parcel: Parcel::Packet(bytes) })).await?;
    }
}

async fn hear_messages(mut frames: Frames<RecvStream>, from: NodeId, door: &Door) -> Result<Infallible, LinkEnd> {
    loop {
        let frame = frames.next().await?;
        expect(&frame, FrameKind::Gossip)?;
        let bytes: Bytes = decode(&frame)?;
        door.tell(Event::Input(Input::Gossip { from, parcel: Parcel::Message(bytes) })).await?;
    }
}

/// What waits for one connection to be opened: some probes and acks; older ones are not worth more than newer.
const WAITING_COUNT_MAX: usize = 16;
