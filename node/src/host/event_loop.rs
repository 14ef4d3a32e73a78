//! The event loop: the one place where time, messages and finished disk work meet the node.
//!
//! Shape: wait for any of them, hand a batch to the node, perform the effects of the whole batch, wait again. So all
//! appends of a batch reach the disk in one group, and all frames to one connection leave in one write.
//! Invariants: it never blocks and never waits for a connection; storage's completions come before new work; on a graceful
//! stop every request under way gets its verdict (within `DRAIN_WITHIN`) and every connection a goodbye.

use std::collections::BTreeSet;

use quinn::Endpoint;
use shoal_protocol::client::{ClientHello, Status, Welcome};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::NodeId;
use shoal_protocol::peer::PeerHello;
use shoal_protocol::time::Now;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::acceptor::CLOSED;
use super::clock::Clock;
use super::event::Event;
use super::gossip::{GossipLink, GossipLinks, Sent};
use super::outbox::Outbox;
use super::peers::Peers;
use super::storage_threads::StorageThreads;
use super::switchboard::Switchboard;
use crate::node::{ConnectionId, Effect, Input, LinkId, Node, Parcel};
use crate::storage::{CellId, StoreDone, StoreEffect};

/// Orders from whoever runs the server.
pub(super) enum Control {
    /// Answer what is under way, say goodbye, stop.
    Stop,
    /// Say how things are.
    Status { answer: oneshot::Sender<Status> },
    /// Say when the node serves data.
    AwaitServing { serves: oneshot::Sender<()> },
    /// From now on, be without connections to exactly these nodes.
    Cut {
        nodes: BTreeSet<NodeId>,
        /// Said once no more bytes go to them.
        done: oneshot::Sender<()>,
    },
}

/// Everything the event loop owns.
pub(super) struct EventLoop {
    pub(super) node: Node,
    /// This node's id and boot nonce: how it recognises itself.
    pub(super) own: (NodeId, u64),
    pub(super) clock: Clock,
    pub(super) endpoint: Endpoint,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) controls: mpsc::Receiver<Control>,
    /// Those of each cell, by its number.
    pub(super) storage: Vec<StorageThreads>,
    /// What they have done.
    pub(super) stored: mpsc::UnboundedReceiver<(CellId, Vec<StoreDone>)>,
    pub(super) peers: Peers,
    pub(super) effects: Vec<Effect>,
    pub(super) switchboard: Switchboard,
    pub(super) gossip_links: GossipLinks,
    pub(super) cut: BTreeSet<NodeId>,
    pub(super) stage: Stage,
    /// Those who want to know when the node serves.
    pub(super) awaiting: Vec<oneshot::Sender<()>>,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not stopping.
    Serving,
    /// No new requests; those under way have until then.
    Draining(Instant),
    /// The other nodes are being told, until then.
    Leaving(Instant),
    /// Everybody has been told; their connections have until then.
    Parting(Instant),
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopEnd {
    /// As ordered, everything in order.
    Stopped,
    /// Whoever ran the server has let go of it. Nothing was finished.
    Abandoned,
    /// The storage threads are gone.
    StorageGone,
}

enum Woken {
    Control(Option<Control>),
    Stored(usize),
    Events,
    Timer,
}

impl EventLoop {
    /// Runs until stopped or abandoned.
    pub(super) async fn run(mut self) -> LoopEnd {
        let (mut done, mut events) = (Vec::new(), Vec::new());
        self.perform();
        loop {
            let timer = self.next_timer();
            let woken = tokio::select! {
                biased;
                control = self.controls.recv() => Woken::Control(control),
                count = self.stored.recv_many(&mut done, BATCH_COUNT_MAX) => Woken::Stored(count),
                _ = self.events.recv_many(&mut events, BATCH_COUNT_MAX) => Woken::Events,
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => Woken::Timer,
            };
            let now = self.clock.now();
            match woken {
                Woken::Control(None) => {
                    self.storage.iter().for_each(StorageThreads::abandon);
                    return LoopEnd::Abandoned;
                }
                Woken::Control(Some(control)) => self.obey(control),
                Woken::Stored(0) => return LoopEnd::StorageGone,
                Woken::Stored(_) => {
                    for (cell, done) in done.drain(..) {
                        for done in done {
                            self.node.handle(now, Input::Stored { cell, done }, &mut self.effects);
                        }
                    }
                }
                // `peers` holds a door, so the channel never closes.
                Woken::Events => events.drain(..).for_each(|event| self.take(now, event)),
                Woken::Timer => {}
            }
            if self.node.next_deadline().is_some_and(|deadline| deadline <= now.instant) {
                self.node.handle(now, Input::Tick, &mut self.effects);
            }
            self.perform();
            if !self.awaiting.is_empty() && self.node.status(now.instant).serving.is_ok() {
                for serves in self.awaiting.drain(..) {
                    let _ = serves.send(());
                }
            }
            if self.has_parted() {
                return self.finish().await;
            }
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let node = self.node.next_deadline().map(|deadline| self.clock.timer(deadline));
        let stage = match self.stage {
            Stage::Serving => None,
            Stage::Draining(until) | Stage::Leaving(until) | Stage::Parting(until) => Some(until),
        };
        node.into_iter().chain(stage).min()
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::Stop => self.stage = Stage::Draining(Instant::now() + DRAIN_WITHIN),
            Control::Status { answer } => {
                let _ = answer.send(self.node.status(self.clock.now().instant));
            }
            Control::AwaitServing { serves } => self.awaiting.push(serves),
            Control::Cut { nodes, done } => {
                self.switchboard.cut(&nodes);
                self.gossip_links.cut(&nodes);
                self.cut = nodes;
                self.peers.wake();
                // A test that has gone away does not mind.
                let _ = done.send(());
            }
        }
    }

    fn take(&mut self, now: Now, event: Event) {
        match event {
            Event::Input(input) => self.input(now, input),
            Event::ClientHello { connection, hello, outbox, verdict } => {
                let _ = verdict.send(self.welcome(now, connection, &hello, outbox));
            }
            Event::ClientGone { connection } => {
                if self.switchboard.remove_client(connection) {
                    self.node.handle(now, Input::ClientGone { connection }, &mut self.effects);
                }
            }
            Event::PeerHello { link, hello, outbox, verdict } => {
                let _ = verdict.send(self.greet(link, &hello, outbox));
            }
            Event::LinkGone { link } => self.switchboard.remove_link(link),
            Event::GossipUp { hello, link, verdict } => {
                let _ = verdict.send(self.gossip_up(now, &hello, link));
            }
            Event::GossipGone { node, id } => self.gossip_links.remove(node, id),
            Event::GossipUnreachable { node } => self.gossip_links.give_up(node),
            Event::OwnHello { answer } => {
                let _ = answer.send(self.node.hello());
            }
            Event::Found { hello, seed, verdict } => {
                let _ = verdict.send(self.found(now, &hello, seed));
            }
            Event::PeerUp { hello, outbox, verdict } => {
                let _ = verdict.send(self.peer_up(now, hello, outbox));
            }
            Event::PeerDown { node } => {
                if self.switchboard.remove_peer(node) {
                    self.gossip_links.cut(&BTreeSet::from([node]));
                    self.node.handle(now, Input::PeerDown { node }, &mut self.effects);
                }
            }
        }
    }

    /// Work for the node. A node that stops takes no more from clients; what it owes to other nodes it still does.
    fn input(&mut self, now: Now, input: Input) {
        match (input, self.stage) {
            (
                Input::ClientCall { connection, request, .. },
                Stage::Draining(_) | Stage::Leaving(_) | Stage::Parting(_),
            ) => {
                self.switchboard.answer_client(connection, request, &Err(stopping()));
            }
            (input, _) => self.node.handle(now, input, &mut self.effects),
        }
    }

    fn welcome(
        &mut self,
        now: Now,
        connection: ConnectionId,
        hello: &ClientHello,
        outbox: Rc<Outbox>,
    ) -> Result<Welcome, RequestError> {
        if self.stage != Stage::Serving {
            return Err(stopping());
        }
        let welcome = self.node.welcome(now, hello)?;
        self.switchboard.add_client(connection, outbox);
        Ok(welcome)
    }

    fn greet(&mut self, link: LinkId, hello: &PeerHello, outbox: Rc<Outbox>) -> Result<PeerHello, RequestError> {
        if !self.is_self(hello) {
            self.check(hello)?;
            self.switchboard.add_link(link, hello.member.node, hello.member.boot_nonce, outbox);
            self.peers.learn(&hello.member, None);
        }
        Ok(self.node.hello())
    }

    fn found(&mut self, now: Now, hello: &PeerHello, seed: String) -> Result<(), RequestError> {
        if !self.is_self(hello) {
            self.check(hello)?;
            self.peers.learn(&hello.member, Some(&seed));
        }
        let found = Input::SeedFound { seed, node: hello.member.node };
        self.node.handle(now, found, &mut self.effects);
        Ok(())
    }

    fn peer_up(&mut self, now: Now, hello: PeerHello, outbox: Rc<Outbox>) -> Result<(), RequestError> {
        self.check(&hello)?;
        info!(node = %hello.member.node, name = hello.member.name, "linked");
        self.switchboard.add_peer(hello.member.node, hello.member.boot_nonce, outbox);
        self.peers.learn(&hello.member, None);
        self.node.handle(now, Input::PeerUp { hello }, &mut self.effects);
        Ok(())
    }

    /// Also while this node stops: it has to say so.
    fn gossip_up(&mut self, now: Now, hello: &PeerHello, link: Rc<GossipLink>) -> Result<(), RequestError> {
        if matches!(self.stage, Stage::Parting(_)) {
            return Err(stopping());
        }
        self.check_trust(hello)?;
        let to = hello.member.node;
        let bytes = self.gossip_links.add(to, &self.node.hello(), link);
        self.node.handle(now, Input::PacketSize { to, bytes }, &mut self.effects);
        Ok(())
    }

    /// Sends gossip; a connection for it is opened when it is needed.
    fn gossip(&mut self, to: NodeId, parcel: Parcel) {
        match self.gossip_links.send(to, parcel) {
            Sent::Gone => {}
            Sent::Unconnected => {
                if !self.peers.dial_for_gossip(to) {
                    self.gossip_links.give_up(to);
                }
            }
            Sent::Sized(bytes) => {
                self.node.handle(self.clock.now(), Input::PacketSize { to, bytes }, &mut self.effects);
            }
        }
    }

    fn is_self(&self, hello: &PeerHello) -> bool {
        (hello.member.node, hello.member.boot_nonce) == self.own
    }

    fn check(&self, hello: &PeerHello) -> Result<(), RequestError> {
        if self.stage != Stage::Serving {
            return Err(stopping());
        }
        self.check_trust(hello)
    }

    fn check_trust(&self, hello: &PeerHello) -> Result<(), RequestError> {
        if self.cut.contains(&hello.member.node) {
            return Err(RequestError::NotServing { reason: "cut off on purpose".to_owned() });
        }
        self.node.check_peer(hello).inspect_err(|error| warn!(node = %hello.member.node, %error, "refused a node"))
    }

    fn perform(&mut self) {
        let mut for_storage: Vec<Vec<StoreEffect>> = self.storage.iter().map(|_| Vec::new()).collect();
        let mut effects = std::mem::take(&mut self.effects);
        while !effects.is_empty() {
            for effect in effects.drain(..) {
                self.perform_one(effect, &mut for_storage);
            }
            // Gossip may have learnt of a packet size.
            effects = std::mem::take(&mut self.effects);
        }
        for ((cell, threads), effects) in (0..).map(CellId).zip(&self.storage).zip(for_storage) {
            if !effects.is_empty() {
                threads.submit(effects, self.node.storage_pressure(cell));
            }
        }
    }

    fn perform_one(&mut self, effect: Effect, for_storage: &mut [Vec<StoreEffect>]) {
        match effect {
            Effect::AnswerClient { connection, request, result } => {
                self.switchboard.answer_client(connection, request, &result);
            }
            Effect::Call { to, request, call } => self.switchboard.call(to, request, &call),
            Effect::AnswerPeer { link, request, response } => {
                self.switchboard.answer_peer(link, request, &response);
            }
            Effect::Gossip { to, parcel } => self.gossip(to, parcel),
            Effect::Learn { member } => self.peers.learn(&member, None),
            Effect::Store { cell, effect } => for_storage[usize::from(cell.0)].push(effect),
        }
    }

    /// Moves a stop on; `true` when nothing is left to wait for.
    fn has_parted(&mut self) -> bool {
        let now = Instant::now();
        if let Stage::Draining(until) = self.stage
            && (now >= until || self.switchboard.client_requests_count() == 0)
        {
            self.node.handle(self.clock.now(), Input::Leave, &mut self.effects);
            self.perform();
            self.stage = Stage::Leaving(now + LEAVE_WITHIN);
        }
        if let Stage::Leaving(until) = self.stage
            && (now >= until || self.node.has_left())
        {
            self.peers.stop();
            self.gossip_links.end_all();
            self.switchboard.dismiss_all(&stopping());
            self.endpoint.set_server_config(None);
            self.stage = Stage::Parting(now + PART_WITHIN);
        }
        match self.stage {
            Stage::Serving | Stage::Draining(_) | Stage::Leaving(_) => false,
            Stage::Parting(until) => now >= until || self.switchboard.is_empty(),
        }
    }

    async fn finish(self) -> LoopEnd {
        // Whoever has read its goodbye closes; only who has not is cut off.
        let _ = timeout(PART_WITHIN, self.endpoint.wait_idle()).await;
        self.endpoint.close(CLOSED, b"");
        let _ = timeout(PART_WITHIN, self.endpoint.wait_idle()).await;
        // Closes the files once everything submitted is done.
        drop(self.storage);
        LoopEnd::Stopped
    }
}

fn stopping() -> RequestError {
    RequestError::NotServing { reason: "the node is stopping".to_owned() }
}

/// Inputs handed to the node before their effects are performed; guess: one group commit of small writes.
const BATCH_COUNT_MAX: usize = 1_024;
/// How long a stop waits for verdicts: requests' own deadlines are rarely longer.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to tell the other nodes; who is not told finds out.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// How long goodbyes may take.
const PART_WITHIN: Duration = Duration::from_secs(1);
