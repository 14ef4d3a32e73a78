//! The world: machines, disks, network and time, all simulated; nodes and storage engines, all real.
//!
//! Shape: an agenda of events; `next` performs them in order until one is for somebody outside (a client's answer, a wake
//! of the sim's own). Rules that need no history are checked here: one answer for every request, by its deadline; one
//! formed layout; no damage without bit rot.

mod agenda;
mod compared;
mod host;
mod machines;
mod network;
mod storage;
mod wires;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use shoal_node::node::{Effect, Input, NodeConfig, NodeLimits, Parcel as GossipParcel};
use shoal_node::repair::RepairConfig;
use shoal_node::storage::engine::Doubt;
use shoal_node::storage::{Budget, CellId, StoreEffect};
use shoal_node::system::JoinMode;
use shoal_protocol::address::Place;
use shoal_protocol::client::{ClientCall, ClientResponse, MemberStatus, SessionGrant, Status, Welcome};
use shoal_protocol::cluster::{LayoutNode, Layouts};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{ClusterId, LayoutId, NodeId, RequestId};
use shoal_protocol::object::Object;
use shoal_protocol::peer::PeerResponse;
use shoal_protocol::time::{Instant, Now};

use self::agenda::Agenda;
use self::compared::Compared;
use self::host::Host;
use self::network::Network;
use self::storage::StorageStep;
use super::dice::Dice;
use super::disk::SimDisk;
use super::faults::Act;
use super::mutant::Mutant;
use super::scenario::Scenario;
use super::trace::Trace;

pub use self::network::Pair;

/// Everything around the clients.
#[derive(Debug)]
pub struct World {
    /// The present.
    pub now: Instant,
    /// The only randomness.
    pub dice: Dice,
    /// What happened.
    pub trace: Trace,
    /// Rules broken.
    pub findings: Vec<String>,
    /// How often what happened.
    pub figures: BTreeMap<&'static str, u64>,
    /// How the world is wrong on purpose.
    pub mutant: Option<Mutant>,
    profile: Scenario,
    agenda: Agenda<Event>,
    hosts: Vec<Host>,
    network: Network,
    layout: Option<LayoutId>,
    probes: BTreeMap<RequestId, PeerResponse>,
    probes_count: u64,
    /// For mutants: what each node has applied since it started.
    shadows: BTreeMap<(usize, Place), Object>,
    compared: Compared,
    calm: bool,
    /// The disk of the machine that is to lose it, as it was before the machine's last start.
    older: Option<SimDisk>,
}

/// What happens next.
#[derive(Debug)]
enum Event {
    Tick { node: usize, boot: u32 },
    Pulse { pair: Pair },
    Peer(Box<Parcel>),
    Gossip { from: usize, to: usize, parcel: GossipParcel },
    Client(Box<Letter>),
    Gone { node: usize, boot: u32, client: usize, session: SessionGrant },
    Storage { node: usize, boot: u32, cell: CellId, step: StorageStep },
    Boot { node: usize },
    Outside(Outside),
}

/// A message between nodes.
#[derive(Clone, Debug)]
struct Parcel {
    from: usize,
    to: usize,
    /// The process it is for.
    boot: u32,
    epoch: u64,
    request: RequestId,
    is_answer: bool,
    bytes: Bytes,
}

/// A message of a client.
#[derive(Debug)]
struct Letter {
    client: usize,
    node: usize,
    attempt: u64,
    ask: ClientAsk,
}

/// What a client asks of the world.
#[derive(Clone, Debug)]
pub enum ClientAsk {
    /// A fresh session.
    Hello,
    /// A request on a connection of this session.
    Call(SessionGrant, Box<ClientCall>),
}

/// How an attempt of a client ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A fresh session.
    Welcome(Welcome),
    /// A node's verdict.
    Answer(Result<ClientResponse, RequestError>),
    /// The node could not be reached; nothing was sent.
    NotSent,
    /// The connection ended before an answer.
    Lost,
}

/// What happens outside of the world.
#[derive(Debug)]
pub enum Outside {
    /// To a client.
    Answer {
        /// Which client.
        client: usize,
        /// The attempt, as it named it.
        attempt: u64,
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// Something planned earlier.
    Wake(Wake),
}

/// What was planned.
#[derive(Clone, Debug)]
pub enum Wake {
    /// A client may begin something.
    Client(usize),
    /// A client looks after an operation.
    Operation(usize, u64),
    /// The next fault.
    Nemesis,
    /// One step of a fault.
    Act(Act),
}

impl World {
    /// A world at its beginning: machines with empty disks, about to start.
    #[must_use]
    pub fn new(scenario: &Scenario, dice: Dice, trace: Trace) -> Self {
        let mut world = Self {
            now: Instant(0),
            dice,
            trace,
            findings: Vec::new(),
            figures: BTreeMap::new(),
            mutant: None,
            profile: scenario.clone(),
            agenda: Agenda::new(),
            hosts: Vec::new(),
            network: Network::new(scenario.network),
            layout: None,
            probes: BTreeMap::new(),
            probes_count: 0,
            shadows: BTreeMap::new(),
            compared: Compared::default(),
            calm: false,
            older: None,
        };
        for index in 0..scenario.machines() {
            let skew_ms = world.skew();
            let (config, disk) = (config(scenario, index), SimDisk::default());
            let doubt = vec![Doubt::Nothing; usize::from(scenario.stores)];
            world.hosts.push(Host {
                config,
                disk,
                process: None,
                boot: 0,
                skew_ms,
                doubt,
                slow_disk: 1,
                is_lost: false,
            });
            if index < scenario.nodes {
                let start = world.now + world.dice.millis((0, 500));
                world.agenda.plan(start, Event::Boot { node: index });
            }
        }
        for from in 0..scenario.machines() {
            for to in 0..scenario.machines() {
                world.plan_pulse((from, to));
            }
        }
        world
    }

    /// Performs what is planned, until something is for outside; `None` when nothing is before `until`.
    pub fn next(&mut self, until: Instant) -> Option<Outside> {
        while self.agenda.next_at().is_some_and(|at| at <= until) {
            let (at, event) = self.agenda.pop()?;
            self.now = self.now.max(at);
            if let Event::Outside(outside) = event {
                return Some(outside);
            }
            self.happen(event);
            if self.trace.events() > EVENTS_MAX {
                self.find("progress", "the world does not come to rest");
                return None;
            }
        }
        self.now = self.now.max(until);
        None
    }

    /// Plans something for outside.
    pub fn wake(&mut self, after: Duration, wake: Wake) {
        self.agenda.plan(self.now + after, Event::Outside(Outside::Wake(wake)));
    }

    /// Counts something.
    pub fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
    }

    /// A rule is broken.
    pub fn find(&mut self, rule: &str, what: impl std::fmt::Display) {
        self.findings.push(format!("[{:.6}] {rule}: {what}", self.now.0 as f64 / 1e6));
    }

    /// How many machines there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.hosts.len()
    }

    /// The id of a node.
    #[must_use]
    pub fn id(&self, node: usize) -> NodeId {
        self.hosts[node].config.node
    }

    /// Whether a node's process runs.
    #[must_use]
    pub fn is_running(&self, node: usize) -> bool {
        self.hosts[node].process.is_some()
    }

    /// What a node says of itself; `None` while it does not run.
    #[must_use]
    pub fn status(&self, node: usize) -> Option<Status> {
        self.hosts[node].process.as_ref().map(|process| process.node.status(self.now))
    }

    /// Whether a node loses its disk in this history: what fewer than W replicas acknowledged may go with it.
    #[must_use]
    pub fn is_risky(&self) -> bool {
        self.profile.wiped.is_some()
    }

    /// What a node says of itself, of the others and of the layouts, in short.
    #[must_use]
    pub fn standing(&self, node: usize) -> String {
        let Some(process) = &self.hosts[node].process else { return "does not run".into() };
        let (status, layouts) = (process.node.status(self.now), process.node.layouts_report());
        let member = |member: &MemberStatus| {
            let MemberStatus { endpoint, liveness, linked, in_layout, catching_up, .. } = member;
            format!("{} {liveness:?} linked {linked}, listed {in_layout}, catching up {catching_up}; ", endpoint.name)
        };
        let members: String = status.members.iter().map(member).collect();
        let Layouts { active, nodes, waits, pulls, .. } = layouts;
        let role =
            |node: &LayoutNode| format!("{}: {:?}", node.name, node.role.as_ref().map(|r| (r.state, r.revision)));
        let roles: Vec<String> = nodes.iter().map(role).collect();
        format!(
            "serves {:?}; {members}roles {roles:?}, layouts {active:?} wait for {waits:?}, pulls {pulls:?}",
            status.serving
        )
    }

    /// Siblings that nodes admit.
    #[must_use]
    pub fn siblings_max(&self) -> usize {
        self.profile.limits.siblings_max
    }

    /// Looks at all nodes: whether any waits too long with an answer, and whether they agree on who founded the cluster.
    pub fn inspect(&mut self) {
        for node in 0..self.hosts.len() {
            let Some(process) = &self.hosts[node].process else { continue };
            let (overdue, formed) = (process.door.overdue(self.now), process.node.founding());
            if overdue > 0 {
                self.find("one answer by the deadline", format!("node {node} owes {overdue} answers"));
            }
            if let Some(formed) = formed {
                let first = *self.layout.get_or_insert(formed);
                if first != formed {
                    self.find(
                        "one formed layout",
                        format!("node {node} says {formed} founded the cluster, others {first}"),
                    );
                }
            }
        }
    }

    /// A skew within the scenario's bounds.
    pub fn skew(&mut self) -> i64 {
        let bound = self.profile.skew_ms;
        let skew = i64::try_from(self.dice.between(0, 2 * bound)).unwrap_or_default();
        skew - i64::try_from(bound).unwrap_or_default()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { node, boot } => {
                let now = self.now;
                let Some(process) = self.process(node, boot) else { return };
                if process.tick_at.take_if(|at| *at <= now).is_some() {
                    self.trace.note(self.now, (node, "tick"), &[], String::new);
                    self.feed(node, Input::Tick);
                    self.watch_ticks(node);
                }
            }
            Event::Pulse { pair } => self.pulse(pair),
            Event::Peer(parcel) => self.deliver(*parcel),
            Event::Gossip { from, to, parcel } => {
                self.feed(to, Input::Gossip { from: self.hosts[from].config.node, parcel });
            }
            Event::Client(letter) => self.deliver_letter(*letter),
            Event::Gone { node, boot, client, session } => self.hang_up(node, boot, (client, session)),
            Event::Storage { node, boot, cell, step } => {
                if self.hosts[node].running() == Some(boot) {
                    self.storage_step((node, cell), step);
                }
            }
            Event::Boot { node } => self.boot(node),
            Event::Outside(_) => {}
        }
    }

    /// Gives a running node an input and does what it wants.
    fn feed(&mut self, node: usize, input: Input) {
        let now = self.clock(node);
        let Some(process) = &mut self.hosts[node].process else { return };
        let mut effects = Vec::new();
        process.node.handle(now, input, &mut effects);
        self.perform(node, effects);
        self.plan_tick(node);
    }

    fn perform(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::AnswerClient { connection, request, result } => {
                    self.answer_client(node, (connection, request), result);
                }
                Effect::Call { to, request, call } => self.send_call(node, to, (request, call)),
                Effect::AnswerPeer { link, request, response } => self.send_answer(node, (link, request), response),
                Effect::Gossip { to, parcel } => self.send_gossip(node, to, parcel),
                // Everybody dials everybody here.
                Effect::Learn { .. } => {}
                Effect::Store { cell, effect } => self.store(node, cell, effect),
            }
        }
    }

    fn store(&mut self, node: usize, cell: CellId, effect: StoreEffect) {
        let text = format!("{} {}", cell.0, storage::describe_effect(&effect));
        self.trace.note(self.now, (node, "store"), text.as_bytes(), || text.clone());
        self.push_storage((node, cell), effect);
    }

    fn plan_tick(&mut self, node: usize) {
        let boot = self.hosts[node].boot;
        let now = self.now;
        let Some(process) = &mut self.hosts[node].process else { return };
        let Some(deadline) = process.node.next_deadline() else { return };
        let at = Instant(deadline.0.saturating_sub(process.zero)).max(now);
        if process.tick_at.is_none_or(|planned| at < planned) {
            process.tick_at = Some(at);
            self.agenda.plan(at, Event::Tick { node, boot });
        }
    }

    /// A node that asks for its next tick at once, again and again, has stopped to live.
    fn watch_ticks(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = &mut self.hosts[node].process else { return };
        let is_vain = process.tick_at == Some(now);
        process.vain_ticks_count = if is_vain { process.vain_ticks_count + 1 } else { 0 };
        if process.vain_ticks_count > VAIN_TICKS_MAX {
            self.find("progress", format!("node {node} asks for ticks without end"));
            self.hosts[node].process = None;
        }
    }

    fn process(&mut self, node: usize, boot: u32) -> Option<&mut host::Process> {
        let host = &mut self.hosts[node];
        if host.boot == boot { host.process.as_mut() } else { None }
    }

    fn clock(&self, node: usize) -> Now {
        self.hosts[node].clock(self.now)
    }

    fn node_index(&self, id: NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.config.node == id)
    }
}

/// The wall clock of a client, and its monotonic clock.
#[must_use]
pub fn client_clock(now: Instant, skew_ms: i64) -> Now {
    Now { instant: now, wall: host::wall(now, skew_ms) }
}

fn config(scenario: &Scenario, index: usize) -> NodeConfig {
    let seeds = if scenario.nodes > 1 || index > 0 { vec![SEED_ADDRESS.into()] } else { Vec::new() };
    NodeConfig {
        cluster: ClusterId(7),
        node: NodeId(100 + index as u64),
        name: format!("node-{index}"),
        zone: String::new(),
        weight: 100,
        advertise_peer: vec![format!("node-{index}:7400")],
        advertise_client: vec![format!("node-{index}:7400")],
        version: "sim".into(),
        expect: scenario.nodes,
        join: JoinMode::Auto,
        seeds,
        found_alone: scenario.nodes == 1 && index == 0,
        boot_nonce: 0,
        allocations: None,
        limits: NodeLimits {
            objects: scenario.limits,
            storage: Budget { bytes: scenario.storage.budget_bytes, log_bytes: 8 << 20 },
            repair: RepairConfig {
                exchange_period_ms: EXCHANGE_PERIOD.as_millis() as usize,
                scrub_period_s: scenario.scrub_period_s,
                ..RepairConfig::default()
            },
            ..NodeLimits::default()
        },
    }
}

/// Replicas are compared so often, and so long they have after the faults to become equal unasked: twice.
pub const EXCHANGE_PERIOD: Duration = Duration::from_secs(20);
/// Where the first node listens: the seed of all.
const SEED_ADDRESS: &str = "node-0:7400";
/// No history needs as many; more is a loop.
const EVENTS_MAX: u64 = 3_000_000;
/// A tick may find that another is due at once; so many in a row are a loop.
const VAIN_TICKS_MAX: u32 = 1_000;
