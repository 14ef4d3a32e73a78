//! System state: what every node knows of the cluster, and how they come to know the same.
//!
//! What: the front desk of one node's `SystemState`: it joins what peers send, forms the first layout by votes, takes
//! changes of keyspaces to a majority. Shape: `handle(now, SystemInput, &mut Vec<SystemEffect>)` and `next_deadline`; no I/O.
//! There are two copies: the *working* one has everything joined so far, the *durable* one is what the host has confirmed.
//! Only the durable one is shown: queries, answers and questions to peers come from it alone. So a vote, a proposal or a
//! keyspace that somebody saw survives any crash of this node.
//! Exchange: a change is sent to every reachable peer at once; besides, one peer in turn is compared by fingerprint every
//! `COMPARE_PERIOD`, and whoever differs sends.
//! Source: DESIGN §5. Invariants: at most one `Persist` is open; the durable state only grows.

mod changes;
mod copies;
mod encoding;
mod formation;
mod founding;
mod input;
mod intents;
mod joining;
mod keys;
mod keyspaces;
mod layouts;
mod peers;
#[cfg(test)]
mod simulation;
mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::KeyspaceInfo;
use shoal_protocol::id::{Actor, KeyspaceId, NodeId, RequestId, ViewId};
use shoal_protocol::layout::{Layout, NodeRole};
use shoal_protocol::peer::Custody;
use shoal_protocol::time::{Instant, Now};

pub use changes::{Change, KEYSPACES_COUNT_MAX, KeyspaceCommand, Verdict};
pub use formation::{FormationConfig, Standing};
pub use input::{SystemAnswer, SystemAsk, SystemEffect, SystemInput};
pub use intents::{IntentChange, IntentCommand};
pub use joining::JoinMode;
pub use keys::{ClusterKeys, SessionKey};
pub use layouts::{Fenced, Synced};
pub use state::{StateError, SystemState};

use self::changes::Changes;
use self::copies::Copies;
use self::formation::Formation;
use self::intents::Intents;
use self::joining::Joining;
use self::peers::Peers;

/// What a node is in the system state.
#[derive(Clone, Debug)]
pub struct SystemConfig {
    /// This node.
    pub node: NodeId,
    /// Its zone and weight in a first layout.
    pub role: NodeRole,
    /// Its store.
    pub incarnation: Actor,
    /// How it takes part in founding.
    pub formation: FormationConfig,
    /// What it does with nodes that no layout lists.
    pub join: JoinMode,
    /// Seeds the randomness of keys and keyspace ids; from the operating system in a real node.
    pub seed: [u8; 32],
}

/// The system state of one node.
#[derive(Debug)]
pub struct System {
    node: NodeId,
    incarnation: Actor,
    formation: Formation,
    joining: Joining,
    intents: Intents,
    changes: Changes,
    peers: Peers,
    /// Peers whose durable state named this store, and the version that has all of it.
    met: BTreeMap<NodeId, u64>,
    rng: ChaCha8Rng,
    copies: Copies,
    /// Peers to answer once this version is durable.
    waiting: Vec<(NodeId, RequestId, u64)>,
    next_compare: Instant,
}

impl System {
    /// The system state of a node whose store holds `stored` (`None`: a new store).
    ///
    /// # Errors
    /// `stored` is damaged, or of a newer version.
    pub fn open(config: SystemConfig, stored: Option<&[u8]>) -> Result<Self, StateError> {
        let state = stored.map_or(Ok(SystemState::default()), SystemState::decode)?;
        let (node, incarnation) = (config.node, config.incarnation);
        Ok(Self {
            node,
            incarnation,
            intents: Intents::default(),
            joining: Joining::new(node, config.role.clone(), config.join),
            formation: Formation::new(node, config.role, incarnation, config.formation),
            changes: Changes::new(node, incarnation),
            peers: Peers::default(),
            met: BTreeMap::new(),
            rng: ChaCha8Rng::from_seed(config.seed),
            copies: Copies::new(state),
            waiting: Vec::new(),
            next_compare: Instant(0),
        })
    }

    /// Takes one input; appends what follows to `out`, in order. Send a `Tick` first thing after `open`.
    pub fn handle(&mut self, now: Now, input: SystemInput, out: &mut Vec<SystemEffect>) {
        match input {
            SystemInput::PeerUp { node, role, incarnation } => self.peers.up(node, role, incarnation),
            SystemInput::PeerDown(node) => self.peers.down(node),
            SystemInput::Differs(node) => self.peers.differs(node),
            SystemInput::SeedFound { seed, node } => self.formation.seed_found(seed, node),
            SystemInput::Asked { from, request, ask } => self.asked(from, request, ask, out),
            SystemInput::Answered { from, answer } => self.answered(from, answer, out),
            SystemInput::Heard { from, state } => _ = self.learn(from, &state, out),
            SystemInput::Replaced { incarnation } => self.replaced(incarnation),
            SystemInput::Fenced { layouts } => self.attest(|state, store| {
                layouts.into_iter().fold(false, |new, layout| state.fence(Fenced { store, layout }) | new)
            }),
            SystemInput::Synced { from, to, class } => {
                self.attest(|state, store| state.sync(Synced { store, from, to, class }));
            }
            SystemInput::CaughtUp => {
                let me = self.node;
                self.attest(|state, _| state.may_publish() && state.publish(BTreeMap::new(), |node| node == me));
            }
            SystemInput::Retire { layout } => self.attest(|state, _| state.retire(layout)),
            SystemInput::Persisted { version } => self.persisted(version, out),
            SystemInput::Change(change) => {
                let request = change.request;
                let started = self.changes.begin(now.wall, change, &mut self.copies.working, &mut self.rng);
                match started {
                    Some(verdict) => out.push(SystemEffect::Verdict { request, verdict }),
                    None => self.copies.version += 1,
                }
            }
            SystemInput::Intend(change) => {
                let request = change.request;
                match self.intents.begin(change, &mut self.copies.working, &self.peers) {
                    Ok(()) => {
                        self.copies.version += 1;
                        // Whoever knows it already says so as well.
                        self.peers.all_differ();
                    }
                    Err(error) => out.push(SystemEffect::Intended { request, result: Err(error) }),
                }
            }
            SystemInput::Tick => {}
        }
        self.settle(now.instant, out);
    }

    /// When to send a `Tick` at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let compare = self.peers.is_any_up().then_some(self.next_compare);
        let parts = [self.peers.next_deadline(), self.changes.next_deadline(), self.joining.next_deadline()];
        parts.into_iter().chain([compare, self.intents.next_deadline()]).flatten().min()
    }

    /// The durable state.
    #[must_use]
    pub const fn state(&self) -> &SystemState {
        &self.copies.durable
    }

    /// The fingerprint that requests carry.
    #[must_use]
    pub const fn view(&self) -> ViewId {
        self.copies.view
    }

    /// The active layouts, the target first; none before one is formed. A node serves only with one.
    #[must_use]
    pub fn layouts(&self) -> &[Layout] {
        &self.copies.active
    }

    /// The layout that is to be reached: the only active one when nothing is on the way.
    #[must_use]
    pub fn target(&self) -> Option<&Layout> {
        self.copies.active.first()
    }

    /// Under what this node holds data: `None` until its store is the newest that is known of it.
    #[must_use]
    pub fn custody(&self) -> Option<Custody> {
        self.copies.durable.custody(self.node).filter(|custody| custody.incarnation == self.incarnation)
    }

    /// Whether this store exchanged views with a peer: the peer's durable state names it, and all of that state is durable
    /// here. Exchanges of earlier processes do not count.
    #[must_use]
    pub fn has_met(&self, peer: NodeId) -> bool {
        self.met.get(&peer).is_some_and(|version| *version <= self.copies.durable_version)
    }

    /// How many peers this store exchanged views with.
    #[must_use]
    pub fn met_count(&self) -> usize {
        self.met.values().filter(|version| **version <= self.copies.durable_version).count()
    }

    /// Whether everything heard so far is durable, and so shown.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.copies.is_settled()
    }

    /// The cluster's keys, once a layout is formed.
    #[must_use]
    pub fn keys(&self) -> Option<&ClusterKeys> {
        self.copies.founded.as_ref().map(|proposal| &proposal.keys)
    }

    /// The keyspaces anybody may use, by id.
    #[must_use]
    pub const fn keyspaces(&self) -> &BTreeMap<KeyspaceId, KeyspaceInfo> {
        &self.copies.keyspaces
    }

    /// The keyspace with this id.
    #[must_use]
    pub fn keyspace_by_id(&self, id: KeyspaceId) -> Option<&KeyspaceInfo> {
        self.copies.keyspaces.get(&id)
    }

    /// The keyspace of this name.
    #[must_use]
    pub fn keyspace_by_name(&self, name: &KeyspaceName) -> Option<KeyspaceInfo> {
        self.copies.durable.keyspace_by_name(name)
    }

    /// How far forming is, for `status` and for refusals.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.formation.standing(&self.copies.durable, &self.peers)
    }

    fn asked(&mut self, from: NodeId, request: RequestId, ask: SystemAsk, out: &mut Vec<SystemEffect>) {
        let answer = match ask {
            SystemAsk::Compare(theirs) if theirs == self.copies.fingerprint => SystemAnswer::Same,
            SystemAsk::Compare(_) => SystemAnswer::State(self.copies.bytes.clone()),
            SystemAsk::Join(bytes) => {
                if self.learn(from, &bytes, out) {
                    self.waiting.push((from, request, self.copies.version));
                    return self.answer_waiting(out);
                }
                SystemAnswer::Malformed
            }
        };
        out.push(SystemEffect::Answer { to: from, request, answer });
    }

    fn answered(&mut self, from: NodeId, answer: SystemAnswer, out: &mut Vec<SystemEffect>) {
        let Some(peer) = self.peers.by_id.get_mut(&from) else { return };
        match answer {
            // The question stays open until it is given up, which spaces further attempts.
            SystemAnswer::Malformed => {}
            SystemAnswer::State(bytes) => {
                peer.asked = None;
                self.learn(from, &bytes, out);
            }
            // A late one may belong to an earlier question, so it proves nothing: it only saves sending the state, and not
            // while a change waits for acks or before the peer's state was read.
            SystemAnswer::Same => {
                if let Some(asked) = peer.asked.take()
                    && peer.has_answered
                    && self.changes.is_idle()
                    && self.intents.is_idle()
                {
                    peer.known = Some(asked.about);
                }
            }
        }
    }

    /// Joins a peer's durable state; whether the bytes were one.
    fn learn(&mut self, from: NodeId, bytes: &Bytes, out: &mut Vec<SystemEffect>) -> bool {
        let state = match SystemState::decode(bytes) {
            Ok(state) => state,
            Err(error) => {
                out.push(SystemEffect::Distrust { node: from, error });
                return false;
            }
        };
        if let Some(peer) = self.peers.by_id.get_mut(&from) {
            peer.has_answered = true;
            peer.known = Some(SystemState::fingerprint_of(bytes));
        }
        // What a state says of its own holder is whose it is: a store announces itself in the first one that it keeps.
        if let Some(store) = state.incarnation(from) {
            self.changes.stored(from, store, &state);
            self.intents.stored(from, store, &state);
        }
        if self.copies.working.join(&state) {
            self.copies.version += 1;
        }
        // One that has itself to learn what its predecessor may have been told has nothing to teach.
        let may_teach = state
            .incarnation(from)
            .is_some_and(|store| !state.replaced().contains_key(&from) || state.has_rejoined(store));
        if may_teach && state.incarnation(self.node) == Some(self.incarnation) {
            self.met.entry(from).or_insert(self.copies.version);
        }
        true
    }

    /// Changes the state by something that this store says of itself, if it is its node's newest.
    fn attest(&mut self, change: impl FnOnce(&mut SystemState, Actor) -> bool) {
        let working = &mut self.copies.working;
        if working.incarnation(self.node) == Some(self.incarnation) && change(working, self.incarnation) {
            self.copies.version += 1;
        }
    }

    fn replaced(&mut self, incarnation: Actor) {
        self.incarnation = incarnation;
        self.formation.go_on_as(incarnation);
        self.changes.go_on_as(incarnation);
        self.met.clear();
    }

    fn persisted(&mut self, version: u64, out: &mut Vec<SystemEffect>) {
        if let Some((_, state)) = self.copies.persisting.take_if(|(persisting, _)| *persisting == version) {
            self.copies.show(version, state);
            self.changes.stored(self.node, self.incarnation, &self.copies.durable);
            self.intents.stored(self.node, self.incarnation, &self.copies.durable);
            out.push(SystemEffect::Changed);
            self.answer_waiting(out);
        }
    }

    fn answer_waiting(&mut self, out: &mut Vec<SystemEffect>) {
        let copies = &self.copies;
        self.waiting.retain(|&(to, request, version)| {
            let is_durable = version <= copies.durable_version;
            if is_durable {
                out.push(SystemEffect::Answer { to, request, answer: SystemAnswer::State(copies.bytes.clone()) });
            }
            !is_durable
        });
    }

    /// Does everything that what is known now asks for.
    fn settle(&mut self, now: Instant, out: &mut Vec<SystemEffect>) {
        let mut verdicts = Vec::new();
        let working = &mut self.copies.working;
        while self.formation.advance(working, &self.peers, &mut self.rng)
            || (working.formed().is_some() && working.announce(self.node, self.incarnation))
            || working.rejoin(self.node, self.incarnation, self.met.keys().copied())
            || working.unite()
            || self.joining.advance(now, working, &self.peers)
            || self.changes.advance(now, working, &mut verdicts)
        {
            self.copies.version += 1;
        }
        out.extend(verdicts.into_iter().map(|(request, verdict)| SystemEffect::Verdict { request, verdict }));
        let intended = self.intents.verdicts(now, &self.copies.working);
        out.extend(intended.into_iter().map(|(request, result)| SystemEffect::Intended { request, result }));
        if !self.copies.is_settled() && self.copies.persisting.is_none() {
            let (version, state) = (self.copies.version, self.copies.working.clone());
            out.push(SystemEffect::Persist { version, state: state.encode().into() });
            self.copies.persisting = Some((version, state));
        }
        self.exchange(now, out);
    }

    /// Sends the durable state to peers that lack it, once all that is known is durable; compares in turn.
    fn exchange(&mut self, now: Instant, out: &mut Vec<SystemEffect>) {
        self.peers.expire(now);
        let mine = self.copies.fingerprint;
        if self.copies.is_settled() {
            for to in self.peers.begin_push(mine, now) {
                out.push(SystemEffect::Ask { to, ask: SystemAsk::Join(self.copies.bytes.clone()) });
            }
        }
        if now >= self.next_compare {
            self.next_compare = now + COMPARE_PERIOD;
            if let Some(to) = self.peers.begin_compare(mine, now) {
                out.push(SystemEffect::Ask { to, ask: SystemAsk::Compare(mine) });
            }
        }
    }
}

/// How often one peer is compared with; a safety net behind the sending of every change.
const COMPARE_PERIOD: Duration = Duration::from_secs(1);
