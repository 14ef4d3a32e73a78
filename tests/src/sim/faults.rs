//! Faults as data: what a scenario's nemesis does to the world, step by step.
//!
//! Shape: `begin` draws one fault and plans its steps; the last step undoes it, so that any number of them overlap. Sources:
//! notes/reliability.md §1 (swizzle-clogging: FoundationDB), §8 (the fault matrix).

use std::time::Duration;

use super::dice::Dice;
use super::scenario::{FaultKind, Scenario};
use super::world::{Pair, Wake, World};

/// One step of a fault.
#[derive(Clone, Debug)]
pub enum Act {
    /// Nothing passes between these pairs.
    Stop(Vec<Pair>),
    /// One `Stop` of these pairs ends.
    Free(Vec<Pair>),
    /// An endpoint's messages take so many times as long.
    SlowNode(usize, u32),
    /// A machine loses power.
    Crash(usize),
    /// A machine loses its disk, and gets an empty one.
    Wipe(usize),
    /// A machine loses power and gets back the disk of before its last start.
    Restore(usize),
    /// A machine loses power and stays off.
    Lose(usize),
    /// A process stops in good order.
    Halt(usize),
    /// A machine starts.
    Boot(usize),
    /// A wall clock jumps.
    Skew(usize),
    /// Something about a disk.
    Disk(usize, DiskAct),
}

/// What happens to a disk.
#[derive(Clone, Copy, Debug)]
pub enum DiskAct {
    /// An I/O error at the n-th operation from now.
    ErrorIn(u64),
    /// An I/O error at the n-th read from now.
    ReadErrorIn(u64),
    /// Power is lost at the n-th operation from now.
    CrashIn(u64),
    /// No space is left.
    Full,
    /// There is space again.
    Free,
    /// It takes so many times as long.
    Slow(u32),
}

/// Begins one fault of the scenario.
pub fn begin(world: &mut World, scenario: &Scenario) {
    if scenario.faults.kinds.is_empty() {
        return;
    }
    let kind = world.dice.pick(&scenario.faults.kinds);
    let lasts = world.dice.millis(scenario.faults.lasts_ms);
    world.count(name(kind));
    for (after, act) in steps(&mut world.dice, scenario, (kind, lasts)) {
        world.wake(after, Wake::Act(act));
    }
}

/// Plans when the scenario's machine loses its disk while clients work: a store that had just come back may be lost too.
pub fn plan_wipes(world: &mut World, scenario: &Scenario) {
    let Some(node) = scenario.wiped else { return };
    for _ in 0..world.dice.between(1, 3) {
        let at = world.dice.millis((0, 4_000));
        let back = at + world.dice.millis((0, 2_000));
        let act = if world.dice.percent(50) { Act::Wipe(node) } else { Act::Restore(node) };
        world.wake(at, Wake::Act(act));
        world.wake(back, Wake::Act(Act::Boot(node)));
    }
}

/// Plans when nodes come that did not form the cluster.
pub fn plan_growth(world: &mut World, scenario: &Scenario) {
    for node in scenario.nodes..scenario.machines() {
        let at = world.dice.millis((0, 6_000));
        world.wake(at, Wake::Act(Act::Boot(node)));
    }
}

fn steps(dice: &mut Dice, scenario: &Scenario, (kind, lasts): (FaultKind, Duration)) -> Vec<(Duration, Act)> {
    let zero = Duration::ZERO;
    let node = dice.index(scenario.machines());
    let cut = |pairs: Vec<Pair>| vec![(zero, Act::Stop(pairs.clone())), (lasts, Act::Free(pairs))];
    let disk = |act: DiskAct| (zero, Act::Disk(node, act));
    match kind {
        FaultKind::Split => cut(split(&sides(dice, scenario), None)),
        FaultKind::Bridge => cut(split(&sides(dice, scenario), Some(node))),
        FaultKind::Isolate => {
            let sides: Vec<bool> = (0..endpoints(scenario)).map(|end| end == node).collect();
            cut(split(&sides, None))
        }
        FaultKind::OneWay => {
            let pair = dice.pick(&node_pairs(scenario));
            cut(vec![pair])
        }
        FaultKind::Flap => flap(dice, scenario, lasts),
        FaultKind::Swizzle => swizzle(dice, scenario, lasts),
        FaultKind::Crash => vec![(zero, Act::Crash(node)), (lasts, Act::Boot(node))],
        FaultKind::Restart => vec![(zero, Act::Halt(node)), (lasts, Act::Boot(node))],
        FaultKind::PowerCut => (0..scenario.machines())
            .flat_map(|node| {
                let back = lasts / 2 + dice.millis((0, 500));
                [(zero, Act::Crash(node)), (back, Act::Boot(node))]
            })
            .collect(),
        FaultKind::TornWrite => vec![disk(DiskAct::CrashIn(dice.between(1, 60)))],
        FaultKind::SlowNode => vec![(zero, Act::SlowNode(node, 50)), (lasts, Act::SlowNode(node, 1))],
        FaultKind::SlowDisk => {
            vec![disk(DiskAct::Slow(dice.pick(&[20, 200]))), (lasts, Act::Disk(node, DiskAct::Slow(1)))]
        }
        FaultKind::DiskError if dice.percent(30) => vec![disk(DiskAct::ReadErrorIn(dice.between(1, 5)))],
        FaultKind::DiskError => vec![disk(DiskAct::ErrorIn(dice.between(1, 60)))],
        FaultKind::DiskFull => vec![disk(DiskAct::Full), (lasts, Act::Disk(node, DiskAct::Free))],
        FaultKind::ClockJump => vec![(zero, Act::Skew(node))],
    }
}

fn endpoints(scenario: &Scenario) -> usize {
    scenario.machines() + scenario.clients
}

/// A side for every endpoint; clients may stand on either.
fn sides(dice: &mut Dice, scenario: &Scenario) -> Vec<bool> {
    let mut sides: Vec<bool> = (0..endpoints(scenario)).map(|_| dice.percent(50)).collect();
    // Both sides have a node.
    let first = dice.index(scenario.machines());
    sides[first] = true;
    sides[(first + 1) % scenario.machines()] = false;
    sides
}

fn split(sides: &[bool], bridge: Option<usize>) -> Vec<Pair> {
    let ends = 0..sides.len();
    let pairs = ends.clone().flat_map(|a| ends.clone().map(move |b| (a, b)));
    let apart = |&(a, b): &Pair| sides[a] != sides[b] && bridge != Some(a) && bridge != Some(b);
    pairs.filter(apart).collect()
}

fn node_pairs(scenario: &Scenario) -> Vec<Pair> {
    let nodes = 0..scenario.machines();
    nodes.clone().flat_map(|a| nodes.clone().map(move |b| (a, b))).filter(|(a, b)| a != b).collect()
}

fn flap(dice: &mut Dice, scenario: &Scenario, lasts: Duration) -> Vec<(Duration, Act)> {
    let (a, b) = dice.pick(&node_pairs(scenario));
    let pairs = vec![(a, b), (b, a)];
    let (mut at, mut steps) = (Duration::ZERO, Vec::new());
    while at < lasts {
        steps.push((at, Act::Stop(pairs.clone())));
        at += dice.millis((20, 400));
        steps.push((at, Act::Free(pairs.clone())));
        at += dice.millis((20, 400));
    }
    steps
}

fn swizzle(dice: &mut Dice, scenario: &Scenario, lasts: Duration) -> Vec<(Duration, Act)> {
    let links = dice.some(node_pairs(scenario));
    let each = lasts / 2 / u32::try_from(links.len().max(1)).unwrap_or(1);
    let stop = links.iter().zip(0..).map(|(link, turn)| (each * turn, Act::Stop(vec![*link])));
    let mut steps: Vec<_> = stop.collect();
    let freed = dice.shuffled(links);
    steps.extend(freed.into_iter().zip(0..).map(|(link, turn)| (lasts / 2 + each * turn, Act::Free(vec![link]))));
    steps
}

const fn name(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Split => "fault split",
        FaultKind::Bridge => "fault bridge",
        FaultKind::OneWay => "fault one-way",
        FaultKind::Flap => "fault flap",
        FaultKind::Isolate => "fault isolate",
        FaultKind::Swizzle => "fault swizzle",
        FaultKind::Crash => "fault crash",
        FaultKind::PowerCut => "fault power cut",
        FaultKind::TornWrite => "fault torn write",
        FaultKind::Restart => "fault restart",
        FaultKind::SlowNode => "fault slow node",
        FaultKind::SlowDisk => "fault slow disk",
        FaultKind::DiskError => "fault disk error",
        FaultKind::DiskFull => "fault disk full",
        FaultKind::ClockJump => "fault clock jump",
    }
}
