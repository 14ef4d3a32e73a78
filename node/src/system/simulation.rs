//! Several nodes' system states over a bad network and disks that forget what was not synced.
//!
//! Shape: virtual time; every message is lost, doubled or delayed by the seed; connections are cut and healed; nodes crash
//! with an open `Persist` that may or may not have reached the disk, and start again. After that everything works.
//! Checked at every step from outside: no node ever shows two formed layouts, and no two nodes different ones.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::{KeyspaceChange, KeyspaceInfo, KeyspaceLayout, KeyspaceSpec, QuorumMode};
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Actor, Class, LayoutId, NodeId, RequestId};
use shoal_protocol::layout::NodeRole;
use shoal_protocol::object::Conflict;
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
        let machine = &mut self.machines[node];
        if machine.system.is_some() {
            return;
        }
        machine.boot += 1;
        let config = SystemConfig {
            node: node_id(node),
            role: NodeRole::active("z"),
            incarnation: Actor(node as u64 + 100),
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
            let (node, incarnation) = (node_id(other), Actor(other as u64 + 100));
            self.handle(me, SystemInput::PeerUp { node, zone: "z".into(), incarnation });
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
        self.formed.extend(system.formed().map(|layout| layout.id()));
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

fn name(text: &str) -> KeyspaceName {
    KeyspaceName::new(text).unwrap()
}

fn create(text: &str) -> KeyspaceCommand {
    let class = Class { n: 3, r: 0, w: 0 };
    let (layout, conflict, quorum) = (KeyspaceLayout::Collection, Conflict::Siblings, QuorumMode::Strict);
    KeyspaceCommand::Create { name: name(text), spec: KeyspaceSpec { class, layout, conflict, quorum, ttl_s: None } }
}

fn formed_world(seed: u64, nodes_count: usize) -> World {
    let mut world = World::new(seed, Setup { nodes_count, expect: nodes_count, seed_node: 0 });
    world.run_for(SETTLE);
    assert!((0..nodes_count).all(|node| world.system(node).standing() == Standing::Formed));
    world
}

#[test]
fn three_and_five_nodes_form_exactly_once_whatever_is_lost_or_crashes() {
    for seed in 0..150 {
        for nodes_count in [3, 5] {
            let setup = Setup { nodes_count, expect: nodes_count, seed_node: seed as usize % nodes_count };
            let mut world = World::new(seed, setup);
            world.add_faults(12);
            world.run_for(RUN);
            assert_eq!(world.formed.len(), 1, "seed {seed}");
            assert_eq!(world.system(0).formed().unwrap().incarnations().len(), nodes_count);
            world.assert_equal();
        }
    }
}

#[test]
fn rivals_that_know_too_few_members_still_form_exactly_one_layout() {
    let (mut rivalries, mut later_rounds) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed, Setup { nodes_count: 7, expect: 3, seed_node: seed as usize % 7 });
        world.add_faults(12);
        world.run_for(RUN);
        assert_eq!(world.formed.len(), 1, "seed {seed}: {}", world.system(0).standing());
        world.assert_equal();
        let founding = &world.system(0).state().founding;
        rivalries += usize::from(founding.proposals.len() > 1);
        later_rounds += usize::from(founding.formed().unwrap().round > 0);
    }
    assert!(rivalries >= 20, "the histories are too tame: {rivalries} with rivals");
    assert!(later_rounds > 0, "votes never split: {later_rounds}");
}

#[test]
fn one_seed_is_one_history() {
    let run = || {
        let mut world = World::new(7, Setup { nodes_count: 5, expect: 3, seed_node: 2 });
        world.add_faults(12);
        world.run_for(RUN);
        (world.events_count, world.system(0).state().fingerprint())
    };
    assert_eq!(run(), run());
}

#[test]
fn nobody_founds_alone_unless_asked_to() {
    let config = |expect, found_alone| SystemConfig {
        node: NodeId(1),
        role: NodeRole::active("z"),
        incarnation: Actor(1),
        formation: FormationConfig { expect, seeds: Vec::new(), found_alone },
        seed: [0; 32],
    };
    let run = |config| {
        let mut system = System::open(config, None).unwrap();
        let mut out = Vec::new();
        system.handle(Now::default(), SystemInput::Tick, &mut out);
        while let Some(SystemEffect::Persist { version, .. }) =
            std::mem::take(&mut out).into_iter().find(|effect| matches!(effect, SystemEffect::Persist { .. }))
        {
            assert!(system.formed().is_none(), "a vote was shown before it was durable");
            system.handle(Now::default(), SystemInput::Persisted { version }, &mut out);
        }
        system.standing()
    };
    assert_eq!(run(config(1, true)), Standing::Formed);
    assert_eq!(run(config(1, false)), Standing::NotAskedToFound);
    assert_eq!(run(config(3, true)), Standing::AwaitingMembers { seen: 1, expect: 3 });
}

#[test]
fn of_concurrent_creations_of_one_name_at_most_one_is_acknowledged_and_it_stays() {
    let mut won = 0;
    for seed in 0..150 {
        let nodes_count = if seed % 2 == 0 { 3 } else { 5 };
        let mut world = formed_world(seed, nodes_count);
        world.add_faults(8);
        let mut requests = Vec::new();
        for _ in 0..6 {
            let pause = Duration::from_micros(world.below(700_000));
            world.run_for(pause);
            let node = world.below(nodes_count as u64) as usize;
            requests.push(world.change(node, create("app")));
        }
        world.run_for(RUN);
        let acked: Vec<&KeyspaceInfo> =
            requests.iter().filter_map(|request| world.verdicts.get(request)?.as_ref().ok()).collect();
        assert!(acked.len() <= 1, "seed {seed}: {acked:?}");
        world.assert_equal();
        let visible: Vec<&KeyspaceInfo> = world.system(0).keyspaces().values().collect();
        assert!(visible.len() <= 1, "seed {seed}: {visible:?}");
        if let Some(acked) = acked.first() {
            assert_eq!(visible, [*acked], "seed {seed}");
            won += 1;
        }
        assert_eq!(
            world.system(0).state().keyspaces.records.len(),
            visible.len(),
            "seed {seed}: something was left behind"
        );
    }
    assert!(won >= 100, "too few creations succeeded: {won}");
}

#[test]
fn a_change_is_acknowledged_by_a_majority_and_seen_by_all() {
    let mut world = formed_world(1, 3);
    let made = world.change(0, create("app"));
    world.run_for(SETTLE);
    let info = world.verdicts[&made].clone().unwrap();
    assert_eq!(world.system(2).keyspace_by_name(&name("app")), Some(info.clone()));

    let change = KeyspaceChange { quorum: Some(QuorumMode::Sloppy), ttl_s: Some(Some(60)) };
    let set = world.change(1, KeyspaceCommand::Set { name: name("app"), change });
    world.run_for(SETTLE);
    let set = world.verdicts[&set].clone().unwrap();
    assert_eq!((set.id, set.spec.quorum, set.spec.ttl_s), (info.id, QuorumMode::Sloppy, Some(60)));
    assert_eq!(world.system(0).keyspace_by_id(info.id), Some(&set));

    let dropped = world.change(2, KeyspaceCommand::Drop { name: name("app") });
    world.run_for(SETTLE);
    assert_eq!(world.verdicts[&dropped], Ok(set));
    let again = world.change(0, create("app"));
    world.run_for(SETTLE);
    assert_ne!(world.verdicts[&again].as_ref().unwrap().id, info.id);
    assert!(world.system(1).state().is_dropped(info.id));
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_a_creation_leaves_nothing() {
    let mut world = formed_world(1, 3);
    let made = world.change(0, create("app"));
    world.run_for(SETTLE);
    assert!(world.verdicts[&made].is_ok());
    world.link(0, 1, false);
    world.link(0, 2, false);
    let change = KeyspaceChange { quorum: Some(QuorumMode::Sloppy), ttl_s: None };
    let set = world.change(0, KeyspaceCommand::Set { name: name("app"), change });
    let other = world.change(0, create("other"));
    world.run_for(SETTLE);
    assert_eq!(world.verdicts[&set], Err(RequestError::Unknown { acked: 1, needed: 2 }));
    assert_eq!(world.verdicts[&other], Err(RequestError::Unavailable { replied: 1, needed: 2 }));
    world.link(0, 1, true);
    world.run_for(SETTLE);
    world.assert_equal();
    assert_eq!(world.system(1).keyspaces().len(), 1);
}

#[test]
fn what_cannot_be_a_keyspace_is_refused_at_once() {
    let mut world = formed_world(1, 3);
    let mut refused = |command| {
        let request = world.change(0, command);
        world.verdicts[&request].clone().unwrap_err().code()
    };
    let with = |change: fn(&mut KeyspaceSpec)| match create("app") {
        KeyspaceCommand::Create { name, mut spec } => {
            change(&mut spec);
            KeyspaceCommand::Create { name, spec }
        }
        KeyspaceCommand::Set { .. } | KeyspaceCommand::Drop { .. } => unreachable!(),
    };
    assert_eq!(refused(create("_system")), "bad_request");
    assert_eq!(refused(with(|spec| spec.class.n = 0)), "bad_request");
    assert_eq!(refused(with(|spec| spec.class.n = 16)), "bad_request");
    assert_eq!(refused(with(|spec| spec.class.w = 4)), "bad_request");
    assert_eq!(refused(with(|spec| spec.ttl_s = Some(0))), "bad_request");
    assert_eq!(refused(KeyspaceCommand::Drop { name: name("app") }), "unknown_keyspace");
    let change = KeyspaceChange { quorum: None, ttl_s: Some(Some(9)) };
    assert_eq!(refused(KeyspaceCommand::Set { name: name("app"), change }), "unknown_keyspace");
    let mut fresh = World::new(1, Setup { nodes_count: 1, expect: 2, seed_node: 0 });
    fresh.run_for(Duration::ZERO);
    let request = fresh.change(0, create("app"));
    assert_eq!(fresh.verdicts[&request].as_ref().unwrap_err().code(), "not_serving");
}
