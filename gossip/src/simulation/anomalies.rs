//! Lifeguard's experiment: some members are blocked and released again and again; who is wrongly believed down?
//!
//! Source: Lifeguard §V. A false positive is a change of one member's belief about a *healthy* member (never blocked, not
//! dead) to down; it is at a healthy member when the observer is healthy too. Anomalous members are stopped all at the same
//! time for `stopped`, released for `released`, and so on.

use std::time::Duration;

use super::{Network, Protocol};
use crate::member::Liveness;

/// What stops in an anomalous member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sending and receiving; its timers run and judge. Harder than in the paper, where a probe that cannot be sent keeps the
    /// next ones from beginning.
    Network,
    /// Everything, as in a process that is stopped or starved.
    Process,
}

/// One cell of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// What stops.
    pub stop: Stop,
    /// How many members.
    pub count: usize,
    /// For how long.
    pub stopped: Duration,
    /// How long they run in between.
    pub released: Duration,
}

/// Wrong verdicts on healthy members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FalsePositives {
    /// At anybody.
    pub all: usize,
    /// At healthy members.
    pub at_healthy: usize,
}

impl Anomaly {
    /// The grid of the mini-simulation that the parameters were chosen by: 48 cells.
    #[must_use]
    pub fn grid(stop: Stop) -> Vec<Self> {
        let mut cells = Vec::new();
        for count in [4, 16, 32] {
            for stopped in [2048, 8192, 16_384, 32_768] {
                for released in [1, 64, 1024, 4096] {
                    cells.push(Self::of(stop, count, stopped, released));
                }
            }
        }
        cells
    }

    /// `count` members, stopped and released for so many milliseconds.
    #[must_use]
    pub const fn of(stop: Stop, count: usize, stopped_ms: u64, released_ms: u64) -> Self {
        Self { stop, count, stopped: Duration::from_millis(stopped_ms), released: Duration::from_millis(released_ms) }
    }

    /// Plays it for `time` in a network that has calmed down; the first members are the anomalous ones.
    pub fn play<P: Protocol>(&self, network: &mut Network<P>, time: Duration) -> FalsePositives {
        network.take_history();
        let end = network.now() + time;
        while network.now() < end {
            for index in 0..self.count {
                match self.stop {
                    Stop::Network => network.block(index),
                    Stop::Process => network.freeze(index),
                }
            }
            network.run_for(self.stopped.min(end.since(network.now())));
            (0..self.count).for_each(|index| network.release(index));
            network.run_for(self.released.min(end.since(network.now())));
        }
        let is_healthy = |index: usize| index >= self.count;
        let mut wrong = network.take_history();
        wrong.retain(|seen| seen.liveness == Liveness::Down && is_healthy(seen.subject) && network.lives(seen.subject));
        let at_healthy = wrong.iter().filter(|seen| is_healthy(seen.observer)).count();
        FalsePositives { all: wrong.len(), at_healthy }
    }
}
