//! Faults that end: does everybody find everybody again, how soon, and does it stay so?

use std::time::Duration;

use super::{Network, Protocol};
use crate::member::Liveness;

/// What is broken for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The first so many members see only each other, and the others only each other.
    Partition(usize),
    /// Member 0 hears nobody, but is heard.
    Deaf,
    /// Member 0 is heard by nobody, but hears.
    Mute,
    /// What member 0 sends to member 1 is lost.
    OneWay,
    /// Member 0 is cut off for 3 s of every 6 s.
    Flapping,
    /// So much of all datagrams is lost.
    Loss(f64),
    /// Member 0 stands still, its clock with it.
    Freeze,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Changes of belief to down while the fault lasted, about members that lived.
    pub down_during: usize,
    /// From the end of the fault until all believed all alive.
    pub recovered_after: Duration,
    /// Changes of belief in the two minutes after that.
    pub restless: usize,
}

impl Fault {
    /// Plays it for `time` in a network that has calmed down; nothing when not all are found again within `bound`.
    pub fn play<P: Protocol>(self, network: &mut Network<P>, time: Duration, bound: Duration) -> Option<Recovery> {
        network.take_history();
        let end = network.now() + time;
        self.begin(network);
        while self == Self::Flapping && network.now() < end {
            network.run_for(FLAP);
            network.mend();
            network.run_for(FLAP);
            self.begin(network);
        }
        network.run_for(end.since(network.now()));
        let down_during = network.take_history().iter().filter(|seen| seen.liveness == Liveness::Down).count();
        network.mend();
        network.set_loss(0.0);
        if self == Self::Freeze {
            network.release(0);
        }
        let fault_end = network.now();
        if !network.run_while(fault_end + bound, |network| !network.agrees()) {
            return None;
        }
        let recovered_after = network.now().since(fault_end);
        // What was said last may still be under way.
        network.run_for(SETTLE);
        network.take_history();
        network.run_for(WATCH);
        Some(Recovery { down_during, recovered_after, restless: network.take_history().len() })
    }

    fn begin<P: Protocol>(self, network: &mut Network<P>) {
        match self {
            Self::Partition(count) => network.partition(|index| index < count),
            Self::Deaf => (1..network.count()).for_each(|other| network.cut(other, 0)),
            Self::Mute => (1..network.count()).for_each(|other| network.cut(0, other)),
            Self::OneWay => network.cut(0, 1),
            Self::Flapping => network.partition(|index| index == 0),
            Self::Loss(loss) => network.set_loss(loss),
            Self::Freeze => network.freeze(0),
        }
    }
}

const FLAP: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(10);
const WATCH: Duration = Duration::from_secs(120);
