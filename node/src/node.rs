//! A node: one input in, effects out. Routes between rooms, decides nothing.
//!
//! Shape: the host (or the simulator) feeds `Input`s with the time and performs `Effect`s in order. Inside, rooms exchange
//! values through one work queue: a coordinator's ask to this node goes to its own replica with the same words that
//! travel to others, and the answer comes back the same way.
//! Invariants: no clock, no sockets, no files, no ambient randomness; one seed and one sequence of inputs give one sequence
//! of effects; until a layout is formed every data request is answered `not_serving`.

mod admin;
mod cells;
mod clients;
mod config;
mod custody;
mod effect;
mod exchange;
mod former;
mod handoff;
mod input;
mod layouts;
mod leases;
mod lookups;
mod membership;
mod peers;
mod repair;
mod report;
mod transition;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_gossip::{Gossip, GossipConfig, Input as GossipInput};
use shoal_protocol::id::{Actor, NodeId, RequestId};
use shoal_protocol::layout::NodeRole;
use shoal_protocol::object::DigestKey;
use shoal_protocol::peer::{Custody, PeerCall, PeerRequest, PeerResponse};
use shoal_protocol::time::{Instant, Now};

use self::cells::Cells;
pub use self::config::{NodeConfig, NodeLimits};
pub use self::effect::Effect;
use self::exchange::SystemCalls;
use self::former::Former;
use self::handoff::HandoffCalls;
pub use self::input::{ConnectionId, Input, LinkId, Parcel};
use self::leases::{LEASES_BLOB, Leases, LeasesError};
use self::lookups::Lookups;
use self::repair::Repairs;
use self::transition::Transition;
use self::views::Views;
use crate::coordinator::{self, Coordinator, Surroundings};
use crate::repair::{GiveId, Handoff, RepairEffect, RepairInput, ServeEffect};
use crate::replica::{REFILLS_BLOB, RefillsError, ReplicaEffect};
use crate::ring::Rings;
use crate::storage::{CellId, Recovered, Store, StoreEvent, is_hint_partition};
use crate::system::{FormationConfig, StateError, System, SystemConfig, SystemInput, SystemState};

/// A client's request, as the coordinator knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientTag {
    connection: ConnectionId,
    request: RequestId,
}

/// Who asked this node's replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// This node's own coordinator.
    Coordinator(RequestId),
    /// Another node.
    Peer(LinkId, RequestId),
    /// This node's own handoff.
    Handoff(GiveId),
    /// This node's own repair.
    Repair(RequestId),
}

/// What rooms have for each other within one input.
#[derive(Debug)]
enum Work {
    Coordinator(coordinator::Effect<ClientTag>),
    Replica(CellId, ReplicaEffect<Asker>),
    Repair(RepairEffect),
    Serve(ServeEffect<Asker>),
}

/// What the store keeps for the node cannot be read. Nothing was changed; start the version that wrote it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// The system state.
    #[error(transparent)]
    State(#[from] StateError),
    /// What it has seen of others' leases.
    #[error(transparent)]
    Leases(#[from] LeasesError),
    /// How often it refilled partitions.
    #[error(transparent)]
    Refills(#[from] RefillsError),
}

/// One node of a cluster.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    rng: ChaCha8Rng,
    gossip: Gossip,
    leases: Leases,
    views: Views,
    system: System,
    system_calls: SystemCalls,
    lookups: Lookups,
    /// Why nobody was found at these seeds.
    failed_seeds: BTreeMap<String, String>,
    /// Those of the active layouts, once there is one.
    rings: Option<Arc<Rings>>,
    transition: Transition,
    former: Former,
    /// Nodes to which a connection is open.
    linked: BTreeSet<NodeId>,
    /// Nodes that can be asked; this one while any of its cells serves.
    alive: BTreeSet<NodeId>,
    /// Nodes that are suspected to be down.
    suspects: BTreeSet<NodeId>,
    /// Whether another process runs under this node's id.
    has_double: bool,
    /// Whether the others know that this node leaves.
    has_left: bool,
    coordinator: Coordinator<ClientTag>,
    cells: Cells,
    handoff: Handoff,
    handoff_calls: HandoffCalls,
    repairs: Repairs,
    /// The holders that are catching up, as the durable system state has it.
    replaced: BTreeMap<NodeId, Custody>,
    /// The incarnations that stores are to go on as, until they are durable.
    renewing: BTreeMap<CellId, Actor>,
}

impl Node {
    /// How hard the writers of a cell should be slowed, 0 to 1; its storage takes less time off while it is above 0.
    #[must_use]
    pub fn storage_pressure(&self, cell: CellId) -> f32 {
        self.cells.get(cell).store().pressure()
    }

    /// A node over its opened stores, the home store first. Its first effects go to `out`.
    ///
    /// # Errors
    /// What the home store keeps for the node is damaged, or of a newer version.
    ///
    /// # Panics
    /// If there is no store.
    pub fn new(
        config: NodeConfig,
        recovered: Vec<Recovered>,
        seed: [u8; 32],
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Self, StoredError> {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let home = recovered.first().expect("a node has a home store");
        let stored = home.blobs.get(SYSTEM_BLOB).cloned();
        let system = System::open(system_config(&config, home.leases.incarnation, &mut rng), stored.as_deref())?;
        let refills = home.blobs.get(REFILLS_BLOB).cloned();
        let leases = Leases::open(home.blobs.get(LEASES_BLOB).map(AsRef::as_ref))?;
        let damaged: Vec<_> = recovered.iter().map(|recovered| recovered.damaged_records).collect();
        let budget = config.limits.storage.shared_by(u8::try_from(recovered.len()).unwrap_or(u8::MAX));
        let open = |(cell, recovered)| {
            let mut effects = Vec::new();
            let store = Store::new(budget, recovered, &mut effects);
            out.extend(effects.into_iter().map(|effect| Effect::Store { cell, effect }));
            store
        };
        let stores = (0..).map(CellId).zip(recovered).map(open).collect();
        let mut gossip_seed = [0; 32];
        rng.fill_bytes(&mut gossip_seed);
        let mut repair_seed = [0; 32];
        rng.fill_bytes(&mut repair_seed);
        let own = config.member(Vec::new(), Vec::new());
        let mut node = Self {
            gossip: Gossip::new(GossipConfig::default(), own, gossip_seed, now.instant),
            leases,
            views: Views::default(),
            linked: BTreeSet::new(),
            suspects: BTreeSet::new(),
            has_double: false,
            has_left: false,
            alive: BTreeSet::from([config.node]),
            coordinator: Coordinator::new(rng.next_u64() >> 1),
            repairs: Repairs::new(&config, damaged.len(), repair_seed),
            cells: Cells::new(stores, config.limits.objects, refills.as_deref())?,
            handoff: Handoff::new(config.limits.handoff),
            handoff_calls: HandoffCalls::default(),
            replaced: BTreeMap::new(),
            renewing: BTreeMap::new(),
            rng,
            system,
            system_calls: SystemCalls::default(),
            lookups: Lookups::default(),
            failed_seeds: BTreeMap::new(),
            rings: None,
            transition: Transition::default(),
            former: Former::default(),
            config,
        };
        for (cell, damaged_records) in (0..).map(CellId).zip(damaged).filter(|(_, records)| *records > 0) {
            node.found_damaged(cell, damaged_records, out);
        }
        let cells: Vec<CellId> = node.cells.iter().map(|(cell, _)| cell).collect();
        cells.into_iter().for_each(|cell| node.search_hints(cell, None, out));
        node.system_changed(now, out);
        node.describe(now, out);
        node.tell_system(now, SystemInput::Tick, out);
        Ok(node)
    }

    /// Takes one input; appends what is to be done to `out`, in order.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Tick => {
                self.coordinate(now, out, |coordinator, around, effects| coordinator.tick(around, effects));
                self.tell_system(now, SystemInput::Tick, out);
                let mut effects = Vec::new();
                self.cells.tick(now, &mut effects);
                let work = effects.into_iter().map(|(cell, effect)| Work::Replica(cell, effect));
                self.route(now, work.collect(), out);
                self.advance_lookups(now, out);
                self.advance_views(now, out);
                self.confirm_leases_again(now, out);
                self.advance_handoff(now, out);
                self.repair(now, RepairInput::Tick, out);
                self.gossip(now, GossipInput::Tick, out);
            }
            Input::ClientCall { connection, request, session, call } => {
                self.client_call(now, ClientTag { connection, request }, (session, call), out);
            }
            Input::ClientGone { connection } => {
                self.coordinator.forget(|tag| tag.connection == connection);
                self.lookups.forget(|tag| tag.connection == connection);
                self.views.forget(|tag| tag.connection == connection);
            }
            Input::PeerUp { hello } => self.peer_up(now, hello, out),
            Input::PeerDown { node } => self.peer_down(now, node, out),
            Input::Gossip { from, parcel: Parcel::Packet(bytes) } => {
                self.gossip(now, GossipInput::Packet { from, bytes }, out);
            }
            Input::Gossip { from, parcel: Parcel::Message(bytes) } => {
                self.gossip(now, GossipInput::Message { from, bytes }, out);
            }
            Input::PacketSize { to, bytes } => self.gossip(now, GossipInput::PacketSize { to, bytes }, out),
            Input::Leave => self.gossip(now, GossipInput::Leave, out),
            Input::SeedFound { seed, node } => {
                self.failed_seeds.remove(&seed);
                self.tell_system(now, SystemInput::SeedFound { seed, node }, out);
            }
            Input::SeedFailed { seed, reason } => {
                self.failed_seeds.insert(seed, reason);
            }
            Input::PeerCall { link, from, request, call } => self.peer_call(now, (link, from, request), call, out),
            Input::PeerAnswer { from, request, response } => self.peer_answer(now, from, (request, response), out),
            Input::Stored { cell, done } => {
                let mut effects = Vec::new();
                self.cells.get_mut(cell).stored(now, done, &mut effects);
                self.route(now, replica_work(cell, effects), out);
            }
        }
        if std::mem::take(&mut self.transition.is_due) {
            self.advance_transition(now, out);
        }
    }

    /// When `handle` wants a `Tick`.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let rooms = [self.coordinator.next_deadline(), self.cells.next_deadline(), self.system.next_deadline()];
        let own = [self.lookups.next_deadline(), self.views.next_deadline(), self.leases.next_deadline()];
        let repairs = [self.repairs.next_deadline(), self.handoff_deadline()];
        rooms.into_iter().chain(own).chain(repairs).chain([self.gossip.next_deadline()]).flatten().min()
    }

    /// The incarnation of its home store, as far as it is durable.
    #[must_use]
    pub fn incarnation(&self) -> Actor {
        self.cells.home().store().leases().incarnation
    }

    /// Whether the others know that this node leaves, after `Input::Leave`.
    #[must_use]
    pub const fn has_left(&self) -> bool {
        self.has_left
    }

    /// Runs the coordinator with a view of everything around it, then routes what it wants.
    fn coordinate(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
        run: impl FnOnce(&mut Coordinator<ClientTag>, Surroundings<'_>, &mut Vec<coordinator::Effect<ClientTag>>),
    ) {
        let mut effects = Vec::new();
        self.run_coordinator(now, &mut effects, run);
        self.route(now, effects.into_iter().map(Work::Coordinator).collect(), out);
    }

    fn run_coordinator(
        &mut self,
        now: Now,
        effects: &mut Vec<coordinator::Effect<ClientTag>>,
        run: impl FnOnce(&mut Coordinator<ClientTag>, Surroundings<'_>, &mut Vec<coordinator::Effect<ClientTag>>),
    ) {
        let (Some(rings), Some(keys)) = (&self.rings, self.system.keys()) else { return };
        let around = Surroundings {
            now,
            me: self.config.node,
            rings,
            view: self.system.view(),
            alive: &self.alive,
            suspects: &self.suspects,
            replaced: &self.replaced,
            keyspaces: self.system.keyspaces(),
            context_keys: &keys.contexts,
            digest_key: &keys.digest,
        };
        run(&mut self.coordinator, around, effects);
    }

    /// Carries values between rooms until only effects for the host are left.
    fn route(&mut self, now: Now, mut work: VecDeque<Work>, out: &mut Vec<Effect>) {
        while let Some(next) = work.pop_front() {
            match next {
                Work::Coordinator(effect) => self.route_coordinator(now, effect, &mut work, out),
                Work::Replica(cell, effect) => self.route_replica(now, (cell, effect), &mut work, out),
                Work::Repair(effect) => self.route_repair(now, effect, &mut work, out),
                Work::Serve(effect) => self.route_serve(now, effect, &mut work, out),
            }
        }
    }

    fn route_coordinator(
        &mut self,
        now: Now,
        effect: coordinator::Effect<ClientTag>,
        work: &mut VecDeque<Work>,
        out: &mut Vec<Effect>,
    ) {
        match effect {
            coordinator::Effect::Ask { to, ask, deadline, request } if to == self.config.node => {
                work.extend(self.serve(now, Asker::Coordinator(ask), (deadline, request, false)));
            }
            coordinator::Effect::Ask { to, ask, deadline, request } => {
                out.push(self.call(to, ask, (deadline.since(now.instant), request)));
            }
            coordinator::Effect::Answer { to, result } => clients::answer(to, result, out),
            coordinator::Effect::Owe(owing) => self.owe(now, owing),
            coordinator::Effect::Exchange { with } => self.tell_system(now, SystemInput::Differs(with), out),
        }
    }

    fn route_replica(
        &mut self,
        now: Now,
        (cell, effect): (CellId, ReplicaEffect<Asker>),
        work: &mut VecDeque<Work>,
        out: &mut Vec<Effect>,
    ) {
        match effect {
            ReplicaEffect::Answer { to, response } => self.answer_asker(now, to, response, (work, out)),
            ReplicaEffect::Ack { to, partition, lsn, minted } => {
                let ack = self.ack((partition, lsn), minted);
                self.answer_asker(now, to, ack, (work, out));
            }
            ReplicaEffect::Leased => self.leased(now, cell, out),
            ReplicaEffect::Store(effect) => out.push(Effect::Store { cell, effect }),
            ReplicaEffect::Persisted(ticket) => {
                self.system_persisted(now, ticket, out);
                self.leases_persisted(ticket, out);
            }
            ReplicaEffect::Failed(failure) => {
                let store = self.place(cell);
                tracing::error!(%store, %failure, "storage failed; nothing of it is acknowledged until it is reopened");
                let me = self.config.node;
                if !self.cells.any_serves() {
                    self.alive.remove(&me);
                }
                // What was asked of the other cells is given up with it: the verdict is no worse than `unknown`.
                self.coordinate(now, out, |coordinator, around, effects| {
                    coordinator.peer_down(around, me, effects);
                });
                self.repair_failed(now, cell, work);
            }
            ReplicaEffect::Reopened { damaged_records } => {
                self.alive.insert(self.config.node);
                self.handoff_reopened(now, cell, out);
                if cell.is_home() {
                    self.persist_again(out);
                    self.write_leases_again(out);
                }
                if damaged_records > 0 {
                    self.found_damaged(cell, damaged_records, out);
                } else {
                    self.renew_again(cell, out);
                }
            }
            ReplicaEffect::Damaged(keys) => {
                tracing::error!(rows = keys.len(), first = ?keys.first(), "rows cannot be read; they are not shown");
                // Nobody else has a hint: its target is compared with instead.
                let keys = keys.into_iter().filter(|key| !is_hint_partition(key.partition())).collect();
                self.tell_repair(now, RepairInput::Damaged { keys }, work);
            }
            ReplicaEffect::Refilled => {
                self.tell_repair(now, RepairInput::Refilled, work);
                self.drop_former(work);
            }
            ReplicaEffect::Repair(
                event @ (StoreEvent::Feed { .. } | StoreEvent::Scanned { .. } | StoreEvent::Dropped { .. }),
            ) => self.handoff_stored(now, (cell, event), (work, out)),
            ReplicaEffect::Repair(event) => self.repair_stored(now, cell, event, work),
        }
    }

    fn answer_asker(
        &mut self,
        now: Now,
        to: Asker,
        response: PeerResponse,
        (work, out): (&mut VecDeque<Work>, &mut Vec<Effect>),
    ) {
        match to {
            Asker::Peer(link, request) => out.push(Effect::AnswerPeer { link, request, response }),
            Asker::Handoff(id) => self.handoff_given(now, (id, &response), (work, out)),
            Asker::Repair(ask) => self.tell_repair(now, RepairInput::Answered { ask, response }, work),
            Asker::Coordinator(ask) => {
                let mut effects = Vec::new();
                self.run_coordinator(now, &mut effects, |coordinator, around, effects| {
                    coordinator.answered(around, ask, response, effects);
                });
                work.extend(effects.into_iter().map(Work::Coordinator));
            }
        }
    }

    /// A question to another node.
    fn call(&self, to: NodeId, request: RequestId, (left, ask): (Duration, PeerRequest)) -> Effect {
        let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        // What is held for another is served whatever the views.
        let view = if matches!(ask, PeerRequest::Repair(_)) { None } else { Some(self.system.view()) };
        Effect::Call { to, request, call: PeerCall { deadline_ms, view, request: ask } }
    }
}

fn system_config(config: &NodeConfig, incarnation: Actor, rng: &mut ChaCha8Rng) -> SystemConfig {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    SystemConfig {
        node: config.node,
        role: role(config.zone.clone(), config.weight),
        incarnation,
        formation: FormationConfig {
            expect: config.expect,
            seeds: config.seeds.clone(),
            found_alone: config.found_alone,
        },
        join: config.join,
        seed,
    }
}

fn replica_work(cell: CellId, effects: Vec<ReplicaEffect<Asker>>) -> VecDeque<Work> {
    effects.into_iter().map(|effect| Work::Replica(cell, effect)).collect()
}

/// The digest key of the cluster, if what a store keeps names it.
#[must_use]
pub fn stored_digest_key(blobs: &BTreeMap<String, Bytes>) -> Option<DigestKey> {
    let state = SystemState::decode(blobs.get(SYSTEM_BLOB)?).ok()?;
    Some(state.keys()?.digest.clone())
}

/// What a node is to be in a first layout.
fn role(zone: String, weight: u32) -> NodeRole {
    NodeRole { weight, ..NodeRole::active(zone) }
}

/// The name of the blob that holds the system state.
pub(crate) const SYSTEM_BLOB: &str = "system";
