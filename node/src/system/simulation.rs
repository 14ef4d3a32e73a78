//! Several nodes' system states over a bad network and disks that forget what was not synced.
//!
//! Shape: virtual time; every message is lost, doubled or delayed by the seed; connections are cut and healed; nodes crash
//! with an open `Persist` that may or may not have reached the disk, and start again. After that everything works.
//! Checked at every step from outside: no node ever shows two formed layouts, and no two nodes different ones.

mod formation;
mod keyspaces;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_protocol::id::{Actor, LayoutId, NodeId, RequestId};
use shoal_protocol::layout::NodeRole;
use shoal_protocol::time::{Instant, Now, WallTime};

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Input { to: usize, boot: u32, input: SystemInput },
    Synced { node: usize, boot: u32, version: u64, state: Bytes },
    Wake { node: usize },
    Crash { node: usize },
    Start { node: usize },
    Link { a: usize, b: usize, is_up: bool },
}

#[derive(Default)]
struct Machine {
    system: Option<System>,
    boot: u32,
    disk: Option<Bytes>,
    writing: Option<Bytes>,
    wipes: u64,
}

/// How the nodes are configured.
#[derive(Clone, Copy)]
struct Setup {
    nodes_count: usize,
    expect: usize,
    /// Which node all others name as their seed.
    seed_node: usize,
}

struct World {
    setup: Setup,
    rng: ChaCha8Rng,
    now: Instant,
    /// Until then faults happen.
    chaos_end: Instant,
    queue: BTreeMap<(Instant, u64), Event>,
    events_count: u64,
    machines: Vec<Machine>,
    links: BTreeSet<(usize, usize)>,
    formed: BTreeSet<LayoutId>,
    verdicts: BTreeMap<RequestId, Verdict>,
    requests_count: u64,
}

const CHAOS: Duration = Duration::from_secs(20);
/// Chaos, and time to settle.
const RUN: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(6);
const SEED: &str = "seed:7400";

fn node_id(index: usize) -> NodeId {
    NodeId(index as u64 + 1)
}

impl World {
    fn new(seed: u64, setup: Setup) -> Self {
        let mut world = Self {
            setup,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Instant(0),
            chaos_end: Instant(0),
            queue: BTreeMap::new(),
            events_count: 0,
            machines: (0..setup.nodes_count).map(|_| Machine::default()).collect(),
            links: BTreeSet::new(),
            formed: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            requests_count: 0,
        };
        for node in 0..setup.nodes_count {
            world.at(Instant(0), Event::Start { node });
            for other in 0..node {
                let first = world.below(3_000_000);
                world.at(Instant(first), Event::Link { a: other, b: node, is_up: true });
            }
        }
        world
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rng.next_u64() % limit
    }

    fn at(&mut self, when: Instant, event: Event) {
        self.events_count += 1;
        self.queue.insert((when, self.events_count), event);
    }

    /// Crashes, cuts, losses, duplicates and delays for `CHAOS` from now on; then everything is up and connected.
    fn add_faults(&mut self, count: usize) {
        self.chaos_end = self.now + CHAOS;
        let nodes_count = self.setup.nodes_count as u64;
        for _ in 0..count {
            let when = Instant(self.now.0 + self.below(CHAOS.as_micros() as u64));
            let again = Instant((when.0 + self.below(3_000_000)).min(self.chaos_end.0));
            let (a, b) = (self.below(nodes_count) as usize, self.below(nodes_count) as usize);
            if a == b {
                self.at(when, Event::Crash { node: a });
                self.at(again, Event::Start { node: a });
            } else {
                self.at(when, Event::Link { a, b, is_up: false });
                self.at(again, Event::Link { a, b, is_up: true });
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn run_until(&mut self, end: Instant) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((when, _), event) = entry.remove_entry();
            self.now = when;
            self.step(event);
        }
        self.now = end;
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Input { to, boot, input } => {
                if self.machines[to].boot == boot {
                    self.handle(to, input);
                }
            }
            Event::Synced { node, boot, version, state } => {
                if self.machines[node].boot == boot && self.machines[node].system.is_some() {
                    self.machines[node].disk = Some(state);
                    self.machines[node].writing = None;
                    self.handle(node, SystemInput::Persisted { version });
                }
            }
            Event::Wake { node } => {
                let due = self.machines[node].system.as_ref().and_then(System::next_deadline);
                if due.is_some_and(|due| due <= self.now) {
                    self.handle(node, SystemInput::Tick);
                }
            }
            Event::Crash { node } => self.crash(node),
            Event::Start { node } => self.start(node),
            Event::Link { a, b, is_up } => self.link(a, b, is_up),
        }
    }

    fn crash(&mut self, node: usize) {
        let has_landed = self.below(2) == 0;
        let machine = &mut self.machines[node];
        if machine.system.take().is_some() {
            let written = machine.writing.take();
            if has_landed && written.is_some() {
                machine.disk = written;
            }
            for other in 0..self.setup.nodes_count {
                self.handle(other, SystemInput::PeerDown(node_id(node)));
            }
        }
    }

    fn start(&mut self, node: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let incarnation = self.incarnation(node);
        let machine = &mut self.machines[node];
        if machine.system.is_some() {
            return;
        }
        machine.boot += 1;
        let config = SystemConfig {
            node: node_id(node),
            role: NodeRole::active("z"),
            incarnation,
            join: JoinMode::Auto,
            formation: FormationConfig { expect: self.setup.expect, seeds: vec![SEED.into()], found_alone: false },
            seed,
        };
        machine.system = Some(System::open(config, machine.disk.as_deref()).unwrap());
        self.handle(node, SystemInput::Tick);
        if node == self.setup.seed_node {
            self.handle(node, SystemInput::SeedFound { seed: SEED.into(), node: node_id(node) });
        }
        for (a, b) in self.links.clone() {
            self.greet(a, b);
            self.greet(b, a);
        }
    }

    fn incarnation(&self, node: usize) -> Actor {
        Actor(node as u64 + 100 + 1_000 * self.machines[node].wipes)
    }

    fn link(&mut self, a: usize, b: usize, is_up: bool) {
        let pair = (a.min(b), a.max(b));
        if is_up && self.links.insert(pair) {
            self.greet(a, b);
            self.greet(b, a);
        } else if !is_up && self.links.remove(&pair) {
            self.handle(a, SystemInput::PeerDown(node_id(b)));
            self.handle(b, SystemInput::PeerDown(node_id(a)));
        }
    }

    fn greet(&mut self, me: usize, other: usize) {
        if self.machines[other].system.is_some() {
            let (node, incarnation) = (node_id(other), self.incarnation(other));
            self.handle(me, SystemInput::PeerUp { node, role: NodeRole::active("z"), incarnation });
            if other == self.setup.seed_node {
                self.handle(me, SystemInput::SeedFound { seed: SEED.into(), node });
            }
        }
    }

    fn handle(&mut self, node: usize, input: SystemInput) {
        let now = Now { instant: self.now, wall: WallTime(1_000 + self.now.0 / 1_000 + node as u64 * 50) };
        let Some(system) = self.machines[node].system.as_mut() else { return };
        let mut effects = Vec::new();
        system.handle(now, input, &mut effects);
        self.formed.extend(system.state().formed().map(Layout::id));
        assert!(self.formed.len() <= 1, "two first layouts are formed: {:?}", self.formed);
        if let Some(due) = system.next_deadline() {
            self.at(due.max(self.now), Event::Wake { node });
        }
        for effect in effects {
            self.perform(node, effect);
        }
    }

    fn perform(&mut self, node: usize, effect: SystemEffect) {
        match effect {
            SystemEffect::Persist { version, state } => {
                assert!(self.machines[node].writing.is_none(), "two writes are open");
                self.machines[node].writing = Some(state.clone());
                let (when, boot) = (Instant(self.now.0 + self.below(30_000)), self.machines[node].boot);
                self.at(when, Event::Synced { node, boot, version, state });
            }
            SystemEffect::Ask { to, ask } => {
                // The request is the asker, so that the answer finds its way back.
                let input = SystemInput::Asked { from: node_id(node), request: RequestId(node as u64), ask };
                self.send(node, to, input);
            }
            SystemEffect::Answer { to, request, answer } => {
                assert_eq!(node_id(request.0 as usize), to);
                self.send(node, to, SystemInput::Answered { from: node_id(node), answer });
            }
            SystemEffect::Changed => {}
            SystemEffect::Intended { .. } => unreachable!("nobody here changes the layout"),
            SystemEffect::Verdict { request, verdict } => {
                assert!(self.verdicts.insert(request, verdict).is_none(), "two verdicts on {request:?}");
            }
            SystemEffect::Distrust { node, error } => panic!("{node}: {error}"),
        }
    }

    fn send(&mut self, from: usize, to: NodeId, input: SystemInput) {
        let to = to.0 as usize - 1;
        let is_chaos = self.now < self.chaos_end;
        if !self.links.contains(&(from.min(to), from.max(to))) || (is_chaos && self.below(5) == 0) {
            return;
        }
        let copies = if is_chaos && self.below(8) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let delay = if is_chaos { self.below(400_000) } else { self.below(20_000) };
            let boot = self.machines[to].boot;
            self.at(Instant(self.now.0 + delay), Event::Input { to, boot, input: input.clone() });
        }
    }

    fn change(&mut self, node: usize, command: KeyspaceCommand) -> RequestId {
        self.requests_count += 1;
        let request = RequestId(self.requests_count);
        let deadline = Instant(self.now.0 + 5_000_000);
        self.handle(node, SystemInput::Change(Change { request, deadline, command }));
        request
    }

    fn system(&self, node: usize) -> &System {
        self.machines[node].system.as_ref().unwrap()
    }

    fn assert_equal(&self) {
        for node in 1..self.setup.nodes_count {
            assert_eq!(self.system(node).state(), self.system(0).state(), "node {node}");
        }
    }
}

fn formed_world(seed: u64, nodes_count: usize) -> World {
    let mut world = World::new(seed, Setup { nodes_count, expect: nodes_count, seed_node: 0 });
    world.run_for(SETTLE);
    assert!((0..nodes_count).all(|node| world.system(node).standing() == Standing::Formed));
    world
}
