//! The simulated world: the real node, engine, session and retry code, in virtual time, from a seed.
//!
//! What: `run(seed, options)` plays one history: machines start and form a cluster, keyspaces are made, clients work while a
//! nemesis breaks links, disks, clocks and machines; then everything heals, what was unknown is repeated, every key is read
//! once from all replicas, and the checkers judge what clients were told against what there is.
//! Shape: `world` is everything around the clients; `client`, `workload` and `history` are the clients and what they know;
//! `faults` breaks; `ending` and `oracle` judge.
//! Invariants: one seeded generator, no clock, no thread; one seed gives one trace.
//! Source: notes/reliability.md §2, §4, §8; STYLE.md §8.

mod admin;
mod client;
pub mod dice;
pub mod disk;
mod ending;
pub mod faults;
mod history;
mod lasting;
pub mod mutant;
mod oracle;
mod rot;
pub mod scenario;
mod standing_in;
pub mod trace;
mod workload;
pub mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_protocol::time::Instant;

use self::admin::Admin;
use self::client::Client;
use self::dice::Dice;
use self::history::History;
use self::mutant::Mutant;
use self::scenario::Scenario;
use self::trace::Trace;
use self::world::{Outside, Wake, World};

/// How a history is to be run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Operations that clients begin; `None`: as the seed says.
    pub steps: Option<usize>,
    /// Whether to keep the text of the trace.
    pub trace: bool,
    /// How the world is to be wrong.
    pub mutant: Option<Mutant>,
    /// Whether one machine loses its disk while clients work, once or more often.
    pub wipes: bool,
    /// Whether nodes come and go while clients work.
    pub growth: bool,
    /// Whether bits of one machine's rows flip at the end.
    pub rots: bool,
}

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its setting.
    pub scenario: Scenario,
    /// Rules broken; none in a correct system.
    pub findings: Vec<String>,
    /// Hash of everything that was delivered and done.
    pub hash: u64,
    /// Events in the trace.
    pub events: u64,
    /// Virtual time it took.
    pub lasted: Duration,
    /// How often what happened.
    pub figures: BTreeMap<&'static str, u64>,
    /// The trace as text, if it was kept.
    pub trace: Vec<String>,
}

/// Plays the history of a seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    let mut sim = Sim::new(seed, options);
    sim.play();
    let World { findings, trace, figures, now, .. } = sim.world;
    Report {
        scenario: sim.scenario,
        findings,
        hash: trace.hash(),
        events: trace.events(),
        lasted: now.since(Instant(0)),
        figures,
        trace: trace.into_lines(),
    }
}

/// One history being played.
#[derive(Debug)]
struct Sim {
    scenario: Scenario,
    world: World,
    history: History,
    clients: Vec<Client>,
    admin: Admin,
    /// Faults come.
    is_stormy: bool,
}

impl Sim {
    fn new(seed: u64, options: Options) -> Self {
        let mut dice = Dice::new(seed);
        let mut scenario = Scenario::draw(seed, &mut dice, options.steps);
        if options.wipes {
            scenario.wipe_one(&mut dice);
        }
        if options.growth {
            scenario.grow(&mut dice);
        }
        if options.rots {
            scenario.rot_one(&mut dice);
        }
        let mut world = World::new(&scenario, dice, Trace::new(options.trace));
        world.mutant = options.mutant;
        let share = scenario.steps / scenario.clients;
        let clients = (0..scenario.clients).map(|index| Client::new(index, world.skew(), share)).collect();
        let admin = Admin::new(scenario.clients);
        Self { scenario, world, history: History::default(), clients, admin, is_stormy: false }
    }

    fn play(&mut self) {
        if self.scenario.faults.from_start {
            self.storm();
        }
        if !self.set_up() {
            self.calm();
            if !self.set_up() {
                self.world.find("progress", "the cluster does not form, or keyspaces cannot be made");
                return;
            }
        }
        self.storm();
        faults::plan_wipes(&mut self.world, &self.scenario);
        faults::plan_growth(&mut self.world, &self.scenario);
        for client in 0..self.clients.len() {
            self.world.wake(Duration::ZERO, Wake::Client(client));
        }
        self.work();
        self.end();
    }

    /// Clients work and the administrator interferes, until all is done or it takes too long.
    fn work(&mut self) {
        let until = self.world.now + WORK_MAX;
        let mut plays = self.world.dice.index(3);
        let mut leavers = self.scenario.leavers.clone();
        while self.world.now < until && !self.clients.iter().all(Client::is_done) {
            if plays > 0 && self.world.dice.percent(20) {
                plays -= 1;
                self.meddle();
            }
            if !leavers.is_empty() && self.world.dice.percent(10) {
                leavers.retain(|node| !self.let_leave(*node));
            }
            self.run_for(Duration::from_millis(300));
        }
    }

    fn storm(&mut self) {
        if !self.is_stormy {
            self.is_stormy = true;
            self.world.wake(Duration::ZERO, Wake::Nemesis);
        }
    }

    fn calm(&mut self) {
        self.is_stormy = false;
        self.world.heal();
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.world.now + time, |_| false);
    }

    /// Goes on until `goal` holds, at most until `end`; whether it holds.
    fn run_until(&mut self, end: Instant, goal: impl Fn(&Self) -> bool) -> bool {
        while !goal(self) {
            let Some(outside) = self.world.next(end) else { return goal(self) };
            self.happen(outside);
        }
        true
    }

    fn happen(&mut self, outside: Outside) {
        let (world, history) = (&mut self.world, &mut self.history);
        match outside {
            Outside::Answer { client, attempt, outcome } => match self.clients.get_mut(client) {
                Some(client) => client.answered(world, history, (attempt, *outcome)),
                None => self.admin.answered(attempt, *outcome),
            },
            Outside::Wake(Wake::Client(client)) => self.clients[client].woken(world, history),
            Outside::Wake(Wake::Operation(client, op)) => self.clients[client].drive(world, history, op),
            Outside::Wake(Wake::Nemesis) if self.is_stormy => {
                faults::begin(world, &self.scenario);
                world.inspect();
                let pause = world.dice.millis(self.scenario.faults.pause_ms);
                world.wake(pause, Wake::Nemesis);
            }
            Outside::Wake(Wake::Act(act)) if self.is_stormy => world.act(act),
            Outside::Wake(Wake::Nemesis | Wake::Act(_)) => {}
        }
    }
}

/// Clients get so much time; then the end comes.
const WORK_MAX: Duration = Duration::from_secs(60);
