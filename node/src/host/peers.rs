//! Dialing: one outgoing connection to every known node, kept up for ever.
//!
//! What: a task per seed finds out who lives at its addresses; a task per node found keeps a link to it. Names are resolved
//! anew at each attempt and every address is tried, because addresses move. Gossip tells of nodes that no seed named, and has
//! connections of its own dialed when it needs them. Whoever was met once is remembered on disk, so
//! that a seed is needed only to meet. Source: DESIGN §8; notes on deployment §2.
//! Invariants: a link is to the node it was meant for, by certificate and hello; this node's own address among the seeds
//! is recognised and dropped; nobody known is ever given up; waits are jittered and grow from 20 ms to 2 s; who is refused,
//! or refuses, for good reasons (another secret or cluster) is said once, and tried again all the same.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use quinn::{ClientConfig, ConnectError, Connecting, Connection, ConnectionError, Endpoint};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::NodeId;
use shoal_protocol::member::Member;
use tokio::net::lookup_host;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::acceptor::close;
use super::address_book::AddressBook;
use super::endpoint;
use super::event::{Door, Event};
use super::gossip::{Opened, gossip};
use super::links::{Errand, call_peer};
use super::outbox::LinkEnd;
use super::tls::{NODE_SERVER_NAME, PeerIdentity, untrusted};
use crate::node::Input;

/// Who is known, and the means to dial them.
pub(super) struct Peers {
    endpoint: Endpoint,
    gossip: ClientConfig,
    door: Door,
    own: NodeId,
    known: BTreeMap<NodeId, Rc<Known>>,
    book: AddressBook,
    rng: ChaCha8Rng,
    is_stopped: Rc<Cell<bool>>,
}

/// A node found once, by this process or an earlier one.
#[derive(Default)]
struct Known {
    /// What it last said of itself, or others said of it.
    member: RefCell<Option<Member>>,
    /// Where an earlier process met it; given up once it has said where it is.
    remembered: RefCell<Vec<String>>,
    /// Where it answered, for the case that it does not know its own address.
    found_at: RefCell<Option<String>>,
    /// A reason to try now.
    wake: Notify,
}

impl Peers {
    /// Begins to keep links to those in the book.
    pub(super) fn new(opened: endpoint::Opened, door: Door, own: NodeId, seed: [u8; 32], book: AddressBook) -> Self {
        let endpoint::Opened { endpoint, gossip } = opened;
        let remembered = book.known().clone();
        let (known, rng) = (BTreeMap::new(), ChaCha8Rng::from_seed(seed));
        let mut peers = Self { endpoint, gossip, door, own, known, book, rng, is_stopped: Rc::default() };
        for (node, addresses) in remembered.into_iter().filter(|(node, _)| *node != own) {
            peers.know(node).remembered.replace(addresses);
        }
        peers
    }

    /// Begins to look for a node at this address, and never stops: another may move in.
    pub(super) fn find(&mut self, seed: String) {
        let (dialer, waits) = (self.dialer(), self.waits());
        spawn_local(find(dialer, seed, waits));
    }

    /// Begins to keep a link to this node, or learns where it lives now, and tries at once if there is no link.
    pub(super) fn learn(&mut self, member: &Member, found_at: Option<&str>) {
        if member.node == self.own {
            return;
        }
        let known = self.know(member.node);
        if known.member.replace(Some(member.clone())).is_none() {
            info!(node = %member.node, name = member.name, addresses = ?member.advertise_peer, "found a node");
        }
        known.remembered.take();
        if found_at.is_some() {
            known.found_at.replace(found_at.map(str::to_owned));
        }
        known.wake.notify_one();
        self.book.note(member.node, known.addresses());
    }

    /// The node, to which a link is kept from now on.
    fn know(&mut self, node: NodeId) -> Rc<Known> {
        if let Some(known) = self.known.get(&node) {
            return Rc::clone(known);
        }
        let known = Rc::<Known>::default();
        self.known.insert(node, Rc::clone(&known));
        let (dialer, waits) = (self.dialer(), self.waits());
        spawn_local(keep(dialer, node, Rc::clone(&known), waits));
        known
    }

    /// Opens a connection for gossip, if the node can be found; the event loop hears how that went. Whether there is such a node.
    pub(super) fn dial_for_gossip(&self, node: NodeId) -> bool {
        let known = self.known.get(&node).map(Rc::clone);
        known.map(|known| spawn_local(dial_for_gossip(self.dialer(), node, known))).is_some()
    }

    /// Tries everybody without a link now.
    pub(super) fn wake(&self) {
        for known in self.known.values() {
            known.wake.notify_one();
        }
    }

    /// Dials nobody any more.
    pub(super) fn stop(&self) {
        self.is_stopped.set(true);
    }

    fn dialer(&self) -> Dialer {
        let (endpoint, gossip, door) = (self.endpoint.clone(), self.gossip.clone(), self.door.clone());
        Dialer { endpoint, gossip, door, is_stopped: Rc::clone(&self.is_stopped) }
    }

    fn waits(&mut self) -> Waits {
        Waits { next: WAIT_MIN, rng: ChaCha8Rng::from_rng(&mut self.rng) }
    }
}

impl Known {
    /// Where to try: what it advertises, then where it was found, then where it was.
    fn addresses(&self) -> Vec<String> {
        let mut addresses = self.member.borrow().as_ref().map_or_else(Vec::new, |member| member.advertise_peer.clone());
        addresses.truncate(ADDRESSES_COUNT_MAX);
        let others = self.found_at.borrow().iter().chain(self.remembered.borrow().iter()).cloned().collect::<Vec<_>>();
        for address in others.into_iter().take(ADDRESSES_COUNT_MAX) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

async fn find(dialer: Dialer, seed: String, mut waits: Waits) {
    let mut told = None;
    let mut complaint = Complaint::default();
    loop {
        let addresses = resolve(&seed).await;
        let mut failure = addresses.is_empty().then(|| "its name has no address".to_owned());
        for address in addresses {
            let end = dialer.dial(address, Errand::Find { seed: seed.clone() }).await;
            debug!(seed, %address, %end, "looked for a node");
            if matches!(end, LinkEnd::Closed) {
                told = None;
            } else {
                complaint.note(&seed, &end);
                failure = Some(end.to_string());
            }
        }
        let Some(reason) = failure else {
            waits.reset();
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            continue;
        };
        if told.as_ref() != Some(&reason) {
            told = Some(reason.clone());
            // A node that ends needs no news.
            let _ = dialer.door.tell(Event::Input(Input::SeedFailed { seed: seed.clone(), reason })).await;
        }
        tokio::time::sleep(waits.next()).await;
    }
}

async fn dial_for_gossip(dialer: Dialer, node: NodeId, known: Rc<Known>) {
    for name in known.addresses() {
        for address in resolve(&name).await {
            let (was_up, end) = dialer.gossip(address, node).await;
            debug!(%node, %address, %end, "gossip ended");
            if was_up {
                return;
            }
        }
    }
    // A node that ends needs no news.
    let _ = dialer.door.tell(Event::GossipUnreachable { node }).await;
}

async fn keep(dialer: Dialer, node: NodeId, known: Rc<Known>, mut waits: Waits) {
    let mut complaint = Complaint::default();
    loop {
        for name in known.addresses() {
            for address in resolve(&name).await {
                let began = tokio::time::Instant::now();
                let end = dialer.dial(address, Errand::Link { node }).await;
                debug!(%node, %address, %end, "link ended");
                complaint.note(&name, &end);
                if began.elapsed() > WAIT_MAX {
                    waits.reset();
                }
            }
        }
        let _ = timeout(waits.next(), known.wake.notified()).await;
    }
}

/// What a name stands for now; nothing while it cannot be resolved, which is as passing as any other failure.
async fn resolve(name: &str) -> Vec<SocketAddr> {
    match lookup_host(name).await {
        Ok(addresses) => addresses.take(ADDRESSES_COUNT_MAX).collect(),
        Err(error) => {
            debug!(name, %error, "name not resolved");
            Vec::new()
        }
    }
}

struct Dialer {
    endpoint: Endpoint,
    gossip: ClientConfig,
    door: Door,
    is_stopped: Rc<Cell<bool>>,
}

impl Dialer {
    /// A connection for gossip: whether it came to that, and why it ended.
    async fn gossip(&self, address: SocketAddr, node: NodeId) -> (bool, LinkEnd) {
        let connecting = self.endpoint.connect_with(self.gossip.clone(), address, NODE_SERVER_NAME);
        let connection = match self.connect(connecting).await {
            Ok(connection) => connection,
            Err(end) => return (false, end),
        };
        let (was_up, end) = match connection.open_bi().await {
            Ok(streams) => gossip(&connection, streams, Opened::Here(node), &self.door).await,
            Err(error) => (false, failed(error)),
        };
        close(&connection, &end).await;
        (was_up, end)
    }

    async fn connect(&self, connecting: Result<Connecting, ConnectError>) -> Result<Connection, LinkEnd> {
        if self.is_stopped.get() {
            return Err(LinkEnd::Stopping);
        }
        match timeout(DIAL_WITHIN, connecting.map_err(failed)?).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refused(&error).unwrap_or_else(|| failed(error))),
            Err(_) => Err(failed("no answer")),
        }
    }

    async fn dial(&self, address: SocketAddr, errand: Errand) -> LinkEnd {
        let connecting = self.endpoint.connect(address, NODE_SERVER_NAME);
        let connection = match self.connect(connecting).await {
            Ok(connection) => connection,
            Err(end) => return end,
        };
        let end = match connection.open_bi().await {
            Ok((send, receive)) => call_peer(receive, send, PeerIdentity::of(&connection), errand, &self.door).await,
            Err(error) => failed(error),
        };
        // The other end judges this node's certificate after this end has judged its own: the verdict comes by the close.
        let end = connection.close_reason().as_ref().and_then(refused).unwrap_or(end);
        close(&connection, &end).await;
        end
    }
}

fn failed(error: impl ToString) -> LinkEnd {
    LinkEnd::Failed(std::io::Error::other(error.to_string()))
}

/// Whether a connection failed because of a certificate.
fn refused(error: &ConnectionError) -> Option<LinkEnd> {
    untrusted(error).map(LinkEnd::Untrusted)
}

/// Says once what time alone will not mend.
#[derive(Default)]
struct Complaint {
    said: Option<String>,
}

impl Complaint {
    fn note(&mut self, address: &str, end: &LinkEnd) {
        let is_lasting = match end {
            LinkEnd::Untrusted(_) => true,
            LinkEnd::Refused(error) | LinkEnd::Dismissed(error) => matches!(error, RequestError::Incompatible { .. }),
            LinkEnd::Closed
            | LinkEnd::Failed(_)
            | LinkEnd::GoodbyeSaid
            | LinkEnd::Dropped
            | LinkEnd::SlowReader { .. }
            | LinkEnd::StalledReader { .. }
            | LinkEnd::Stopping => false,
        };
        let reason = is_lasting.then(|| end.to_string());
        if reason.is_some() && self.said != reason {
            warn!(address, reason, "no node of this cluster");
            self.said = reason;
        }
    }
}

/// Growing, jittered waits between attempts.
struct Waits {
    next: Duration,
    rng: ChaCha8Rng,
}

impl Waits {
    fn reset(&mut self) {
        self.next = WAIT_MIN;
    }

    /// Between half of the current wait and all of it; the following one is twice as long.
    fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(WAIT_MAX);
        let half_us = u64::try_from(wait.as_micros() / 2).unwrap_or(u64::MAX);
        Duration::from_micros(half_us + self.rng.next_u64() % (half_us + 1))
    }
}

/// First wait after a failed attempt.
const WAIT_MIN: Duration = Duration::from_millis(20);
/// Longest wait: a node that returns dials everybody itself, so this is only the second chance.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How long an attempt may take; a handshake is one round trip, its first packet is repeated after 0.3, 0.9 and 2.1 s.
const DIAL_WITHIN: Duration = Duration::from_secs(3);
/// A seed whose every address has answered is asked again after this: its name may stand for more nodes by then.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Addresses tried per name, and names taken from one member.
pub(super) const ADDRESSES_COUNT_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_stay_jittered() {
        let mut waits = Waits { next: WAIT_MIN, rng: ChaCha8Rng::from_seed([7; 32]) };
        let drawn: Vec<Duration> = (0..12).map(|_| waits.next()).collect();
        assert!(drawn[0] >= WAIT_MIN / 2 && drawn[0] <= WAIT_MIN);
        assert!(drawn[8..].iter().all(|wait| *wait >= WAIT_MAX / 2 && *wait <= WAIT_MAX));
        assert!(drawn[9] != drawn[10]);
        waits.reset();
        assert!(waits.next() <= WAIT_MIN);
    }
}
