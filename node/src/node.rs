//! A node: one input in, effects out. Routes between rooms, decides nothing.
//!
//! Shape: the host (or the simulator) feeds `Input`s with the time and performs `Effect`s in order. Inside, rooms exchange
//! values through one work queue: a coordinator's ask to this node goes to its own replica with the same words that
//! travel to others, and the answer comes back the same way.
//! Invariants: no clock, no sockets, no files, no ambient randomness; one seed and one sequence of inputs give one sequence
//! of effects; until a layout is formed every data request is answered `not_serving`.

mod admin;
mod clients;
mod config;
mod custody;
mod lookups;
mod members;
mod peers;
mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_gossip::Membership;
use shoal_protocol::client::{ClientCall, ClientResponse};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, NodeId, RequestId};
use shoal_protocol::layout::NodeRole;
use shoal_protocol::peer::{Custody, PeerCall, PeerHello, PeerRequest, PeerResponse};
use shoal_protocol::time::{Instant, Now};

pub use self::config::{NodeConfig, NodeLimits};
use self::lookups::Lookups;
use self::members::SystemCalls;
use crate::coordinator::{self, Coordinator, Surroundings};
use crate::replica::{REFILLS_BLOB, RefillsError, Replica, ReplicaEffect};
use crate::ring::Ring;
use crate::storage::{Recovered, Store, StoreDone, StoreEffect};
use crate::system::{FormationConfig, StateError, System, SystemConfig, SystemInput};

/// Names a client's connection in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a connection on which another node asks us, in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

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
    Stored(StoreDone),
}

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
    /// Work for the storage engine.
    Store(StoreEffect),
}

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
}

/// What rooms have for each other within one input.
#[derive(Debug)]
enum Work {
    Coordinator(coordinator::Effect<ClientTag>),
    Replica(ReplicaEffect<Asker>),
}

/// What the store keeps for the node cannot be read. Nothing was changed; start the version that wrote it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// The system state.
    #[error(transparent)]
    State(#[from] StateError),
    /// How often it refilled partitions.
    #[error(transparent)]
    Refills(#[from] RefillsError),
}

/// One node of a cluster.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    rng: ChaCha8Rng,
    membership: Membership,
    system: System,
    system_calls: SystemCalls,
    lookups: Lookups,
    /// Why nobody was found at these seeds.
    failed_seeds: BTreeMap<String, String>,
    /// The formed layout's, once there is one.
    ring: Option<Ring>,
    /// Nodes that can be asked; this one while its storage serves.
    alive: BTreeSet<NodeId>,
    coordinator: Coordinator<ClientTag>,
    replica: Replica<Asker>,
    /// The holders that are catching up, as the durable system state has it.
    replaced: BTreeMap<NodeId, Custody>,
    /// The incarnation that this node's store is to go on as, until it is durable.
    renewing: Option<Actor>,
}

impl Node {
    /// A node over an opened store. Its first effects go to `out`.
    ///
    /// # Errors
    /// What the store keeps for the node is damaged, or of a newer version.
    pub fn new(
        config: NodeConfig,
        recovered: Recovered,
        seed: [u8; 32],
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Self, StoredError> {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let stored = recovered.blobs.get(SYSTEM_BLOB).cloned();
        let system = System::open(system_config(&config, recovered.leases.incarnation, &mut rng), stored.as_deref())?;
        let refills = recovered.blobs.get(REFILLS_BLOB).cloned();
        let damaged_records = recovered.damaged_records;
        let mut effects = Vec::new();
        let store = Store::new(config.limits.storage, recovered, &mut effects);
        out.extend(effects.into_iter().map(Effect::Store));
        let mut node = Self {
            alive: BTreeSet::from([config.node]),
            coordinator: Coordinator::new(rng.next_u64() >> 1),
            replica: Replica::new(store, config.limits.objects, refills.as_deref())?,
            replaced: BTreeMap::new(),
            renewing: None,
            rng,
            membership: Membership::new(),
            system,
            system_calls: SystemCalls::default(),
            lookups: Lookups::default(),
            failed_seeds: BTreeMap::new(),
            ring: None,
            config,
        };
        if damaged_records > 0 {
            node.begin_incarnation(damaged_records, out);
        }
        node.system_changed(out);
        node.tell_system(now, SystemInput::Tick, out);
        Ok(node)
    }

    /// Takes one input; appends what is to be done to `out`, in order.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Tick => {
                self.coordinate(now, out, |coordinator, around, effects| coordinator.tick(around, effects));
                self.tell_system(now, SystemInput::Tick, out);
                self.advance_lookups(now, out);
            }
            Input::ClientCall { connection, request, session, call } => {
                self.client_call(now, ClientTag { connection, request }, (session, call), out);
            }
            Input::ClientGone { connection } => {
                self.coordinator.forget(|tag| tag.connection == connection);
                self.lookups.forget(|tag| tag.connection == connection);
            }
            Input::PeerUp { hello } => self.peer_up(now, hello, out),
            Input::PeerDown { node } => self.peer_down(now, node, out),
            Input::SeedFound { seed, node } => {
                self.failed_seeds.remove(&seed);
                self.tell_system(now, SystemInput::SeedFound { seed, node }, out);
            }
            Input::SeedFailed { seed, reason } => {
                self.failed_seeds.insert(seed, reason);
            }
            Input::PeerCall { link, from, request, call } => self.peer_call(now, (link, from, request), call, out),
            Input::PeerAnswer { from, request, response } => self.peer_answer(now, from, (request, response), out),
            Input::Stored(done) => {
                let mut effects = Vec::new();
                self.replica.stored(now, done, &mut effects);
                self.route(now, effects.into_iter().map(Work::Replica).collect(), out);
            }
        }
    }

    /// When `handle` wants a `Tick`.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let rooms = [self.coordinator.next_deadline(), self.system.next_deadline(), self.membership.next_deadline()];
        rooms.into_iter().chain([self.lookups.next_deadline()]).flatten().min()
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
        let (Some(ring), Some(keys)) = (&self.ring, self.system.keys()) else { return };
        let around = Surroundings {
            now,
            me: self.config.node,
            ring,
            alive: &self.alive,
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
                Work::Replica(effect) => self.route_replica(now, effect, &mut work, out),
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
                let mut effects = Vec::new();
                self.serve(now, Asker::Coordinator(ask), (deadline, request), &mut effects);
                work.extend(effects.into_iter().map(Work::Replica));
            }
            coordinator::Effect::Ask { to, ask, deadline, request } => {
                out.push(self.call(to, ask, (deadline.since(now.instant), request)));
            }
            coordinator::Effect::Answer { to, result } => clients::answer(to, result, out),
            coordinator::Effect::Exchange { with } => self.tell_system(now, SystemInput::Differs(with), out),
        }
    }

    fn route_replica(
        &mut self,
        now: Now,
        effect: ReplicaEffect<Asker>,
        work: &mut VecDeque<Work>,
        out: &mut Vec<Effect>,
    ) {
        match effect {
            ReplicaEffect::Answer { to, response } => self.answer_asker(now, to, response, (work, out)),
            ReplicaEffect::Ack { to, partition, minted } => {
                let ack = self.ack(partition, minted);
                self.answer_asker(now, to, ack, (work, out));
            }
            ReplicaEffect::Leased => self.leased(now, out),
            ReplicaEffect::Store(effect) => out.push(Effect::Store(effect)),
            ReplicaEffect::Persisted(ticket) => self.system_persisted(now, ticket, out),
            ReplicaEffect::Failed(failure) => {
                tracing::error!(%failure, "storage failed; nothing is acknowledged until it is reopened");
                let me = self.config.node;
                self.alive.remove(&me);
                self.coordinate(now, out, |coordinator, around, effects| {
                    coordinator.peer_down(around, me, effects);
                });
            }
            ReplicaEffect::Reopened { damaged_records } => {
                self.alive.insert(self.config.node);
                self.persist_again(out);
                if damaged_records > 0 || self.renewing.is_some() {
                    self.begin_incarnation(damaged_records, out);
                }
            }
            ReplicaEffect::Damaged(keys) => {
                tracing::error!(rows = keys.len(), first = ?keys.first(), "rows cannot be read; they are not shown");
            }
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
        Effect::Call { to, request, call: PeerCall { deadline_ms, view: self.system.view(), request: ask } }
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
        seed,
    }
}

/// What a node is to be in a first layout.
fn role(zone: String, weight: u32) -> NodeRole {
    NodeRole { weight, ..NodeRole::active(zone) }
}

/// The name of the blob that holds the system state.
pub(crate) const SYSTEM_BLOB: &str = "system";
