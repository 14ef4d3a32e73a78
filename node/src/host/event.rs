//! What connection tasks tell the event loop.
//!
//! Shape: one bounded channel, in order per sender; a full channel stops the senders from reading, and with them, by flow
//! control, the other ends. A hello carries a one-shot for its verdict, because nothing may follow before it.

use std::cell::Cell;
use std::rc::Rc;

use shoal_protocol::client::{ClientHello, Welcome};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::NodeId;
use shoal_protocol::peer::PeerHello;
use tokio::sync::{mpsc, oneshot};

use super::gossip::GossipLink;
use super::limits::{LinkLimits, LoadLimits};
use super::load::{Load, Side};
use super::outbox::{LinkEnd, Outbox};
use crate::node::{ConnectionId, Input, LinkId};

/// Something happened on a connection.
pub(super) enum Event {
    /// For the node.
    Input(Input),
    /// A client said hello. After an `Ok` its calls follow.
    ClientHello {
        connection: ConnectionId,
        hello: ClientHello,
        outbox: Rc<Outbox>,
        verdict: oneshot::Sender<Result<Welcome, RequestError>>,
    },
    /// A client's connection has ended.
    ClientGone { connection: ConnectionId },
    /// A node dialed this one and said hello. After an `Ok`, which is this node's own hello, its calls follow.
    PeerHello {
        link: LinkId,
        hello: PeerHello,
        outbox: Rc<Outbox>,
        verdict: oneshot::Sender<Result<PeerHello, RequestError>>,
    },
    /// The connection of a node that dialed this one has ended.
    LinkGone { link: LinkId },
    /// A connection for gossip has got the other end's hello. After an `Ok` gossip follows.
    GossipUp { hello: PeerHello, link: Rc<GossipLink>, verdict: oneshot::Sender<Result<(), RequestError>> },
    /// The connection of a `GossipUp` has ended.
    GossipGone { node: NodeId, id: u64 },
    /// A node cannot be dialed for gossip at present.
    GossipUnreachable { node: NodeId },
    /// A connection to a peer is being opened: what does this node say of itself?
    OwnHello { answer: oneshot::Sender<PeerHello> },
    /// A node answered at a seed's address.
    Found { hello: PeerHello, seed: String, verdict: oneshot::Sender<Result<(), RequestError>> },
    /// A dialed peer answered as expected. After an `Ok` calls may go to it.
    PeerUp { hello: PeerHello, outbox: Rc<Outbox>, verdict: oneshot::Sender<Result<(), RequestError>> },
    /// The connection of a `PeerUp` has ended.
    PeerDown { node: NodeId },
}

/// The connection tasks' way to the event loop.
#[derive(Clone)]
pub(super) struct Door {
    events: mpsc::Sender<Event>,
    limits: LinkLimits,
    load: Rc<Load>,
    ids: Rc<Cell<u64>>,
}

impl Door {
    /// A door and what comes in by it.
    pub(super) fn new(limits: LinkLimits, load: LoadLimits) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS_COUNT_MAX);
        (Self { events, limits, load: Rc::new(Load::new(load)), ids: Rc::default() }, receiver)
    }

    /// The writing side of a new connection.
    pub(super) fn outbox(&self, side: Side) -> Rc<Outbox> {
        Rc::new(Outbox::new(self.limits, Rc::clone(&self.load), side))
    }

    /// A number no other connection of this process has.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    /// Tells the event loop, waiting while it is behind.
    ///
    /// # Errors
    /// `Stopping` when there is nobody to tell any more.
    pub(super) async fn tell(&self, event: Event) -> Result<(), LinkEnd> {
        self.events.send(event).await.map_err(|_| LinkEnd::Stopping)
    }

    /// Tells the event loop something that has an answer.
    ///
    /// # Errors
    /// `Stopping` when there is nobody to answer any more.
    pub(super) async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Result<T, LinkEnd> {
        let (answer, answered) = oneshot::channel();
        self.tell(event(answer)).await?;
        answered.await.map_err(|_| LinkEnd::Stopping)
    }
}

/// Events waiting for the event loop; guess: several batches, so that it never waits for a sender to wake up.
const EVENTS_COUNT_MAX: usize = 4_096;
