//! The network: who can reach whom, how long it takes, what gets lost; and the connections between nodes.
//!
//! Shape: endpoints are numbered, nodes first, then clients. A cut stops directed pairs; cuts overlap, so they are counted.
//! A node has one connection to each other node for its own questions. A host dials at every pulse; it notices a dead
//! process soon, a silent link only after a while, and a short cut not at all.
//! Invariant: an answer arrives only on the connection its question went out on.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_protocol::time::Instant;

use crate::sim::dice::Dice;
use crate::sim::scenario::NetworkProfile;

/// A directed pair of endpoints.
pub type Pair = (usize, usize);

/// One direction of talk between two nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    /// Names the connection among all there ever are.
    pub(super) epoch: u64,
    /// The process it was made with.
    pub(super) boot: u32,
    /// Since when nothing passes.
    pub(super) silent_since: Option<Instant>,
}

/// The state of the network.
#[derive(Debug)]
pub(super) struct Network {
    profile: NetworkProfile,
    stopped: BTreeMap<Pair, u32>,
    /// Makes all messages of an endpoint so many times slower.
    slow: BTreeMap<usize, u32>,
    pub(super) connections: BTreeMap<Pair, Connection>,
    epochs: u64,
}

impl Network {
    pub(super) fn new(profile: NetworkProfile) -> Self {
        Self { profile, stopped: BTreeMap::new(), slow: BTreeMap::new(), connections: BTreeMap::new(), epochs: 0 }
    }

    pub(super) fn stop(&mut self, pairs: &[Pair]) {
        for pair in pairs {
            *self.stopped.entry(*pair).or_default() += 1;
        }
    }

    pub(super) fn free(&mut self, pairs: &[Pair]) {
        for pair in pairs {
            if let Some(count) = self.stopped.get_mut(pair) {
                *count -= 1;
                if *count == 0 {
                    self.stopped.remove(pair);
                }
            }
        }
    }

    pub(super) fn slow_down(&mut self, endpoint: usize, factor: u32) {
        self.slow.insert(endpoint, factor);
    }

    /// Ends every fault.
    pub(super) fn calm(&mut self) {
        self.stopped.clear();
        self.slow.clear();
        self.profile = NetworkProfile::CALM;
    }

    pub(super) fn passes(&self, pair: Pair) -> bool {
        !self.stopped.contains_key(&pair)
    }

    /// Whether everybody can reach everybody.
    pub(super) fn is_whole(&self) -> bool {
        self.stopped.is_empty()
    }

    /// How long a message takes; `None` if it is lost.
    pub(super) fn delay(&self, dice: &mut Dice, pair: Pair) -> Option<Duration> {
        if !self.passes(pair) || dice.permille(self.profile.loss_permille) {
            return None;
        }
        let slow = [pair.0, pair.1].iter().filter_map(|end| self.slow.get(end)).max().copied().unwrap_or(1);
        let slow = if dice.permille(self.profile.straggler_permille) { slow * 30 } else { slow };
        Some((dice.micros(self.profile.delay_us) * slow).min(DELAY_MAX))
    }

    pub(super) fn duplicates(&self, dice: &mut Dice) -> bool {
        dice.permille(self.profile.duplicate_permille)
    }

    /// A new connection, which has not been told of yet.
    pub(super) fn connect(&mut self, pair: Pair, boot: u32) -> u64 {
        self.epochs += 1;
        self.connections.insert(pair, Connection { epoch: self.epochs, boot, silent_since: None });
        self.epochs
    }

    /// Whether the caller of this connection notices by now that it is of no use.
    pub(super) fn is_broken(&mut self, now: Instant, pair: Pair, callee_boot: Option<u32>) -> bool {
        let passes = self.passes(pair) && self.passes((pair.1, pair.0));
        let notice = Duration::from_millis(self.profile.notice_ms);
        let Some(connection) = self.connections.get_mut(&pair) else { return false };
        if callee_boot != Some(connection.boot) && passes {
            return true;
        }
        let is_silent = !passes || callee_boot.is_none();
        connection.silent_since = connection.silent_since.or(Some(now)).filter(|_| is_silent);
        connection.silent_since.is_some_and(|since| now.since(since) >= notice)
    }

    /// Forgets the connections that a process had made.
    pub(super) fn forget_caller(&mut self, caller: usize) {
        self.connections.retain(|pair, _| pair.0 != caller);
    }

    /// Whose connection this is, if it still stands.
    pub(super) fn pair_of(&self, epoch: u64) -> Option<Pair> {
        self.connections.iter().find(|(_, connection)| connection.epoch == epoch).map(|(pair, _)| *pair)
    }
}

/// No message is on its way for longer.
const DELAY_MAX: Duration = Duration::from_secs(3);
