//! Which partitions are to be compared with which peer, and when.
//!
//! Shape: per peer the time of the next routine exchange of all that both hold, and a set of partitions that cannot wait for
//! it: asked for from outside, or failed. Beside it the pulls that are wanted: comparisons somebody waits for.
//! Units: µs of `Instant`. Source: DESIGN §9. Invariants: a peer that cannot be asked is never due; only an exchange that began
//! after a pull was wanted fulfils it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_protocol::id::{NodeId, Partition};
use shoal_protocol::time::Instant;

use super::exchange::Verdict;

#[derive(Debug)]
pub(super) struct Schedule {
    period: Duration,
    rng: ChaCha8Rng,
    peers: BTreeMap<NodeId, Peer>,
    wanted: BTreeMap<(Partition, NodeId), Pull>,
}

#[derive(Debug, Default)]
struct Peer {
    is_alive: bool,
    /// What both hold, and when it was last found or made equal.
    shared: BTreeMap<Partition, Clean>,
    due_at: Instant,
    soon: BTreeSet<Partition>,
    soon_at: Instant,
    began_at: Option<Instant>,
    failures_count: u32,
}

/// When a partition was last known to be equal here and there: never, perhaps, since it is held by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clean {
    /// Since when both hold it, as far as this process knows.
    pub since: Instant,
    /// The last comparison that ended well.
    pub at: Option<Instant>,
}

/// A comparison that somebody waits for.
#[derive(Clone, Copy, Debug)]
struct Pull {
    /// Exchanges up to this one began too early.
    after: u64,
    is_done: bool,
}

impl Schedule {
    pub(super) fn new(period: Duration, seed: [u8; 32]) -> Self {
        Self { period, rng: ChaCha8Rng::from_seed(seed), peers: BTreeMap::new(), wanted: BTreeMap::new() }
    }

    /// What this node holds together with each peer.
    pub(super) fn hold(&mut self, now: Instant, shared: &BTreeMap<NodeId, BTreeSet<Partition>>) {
        for (node, peer) in &mut self.peers {
            let kept = shared.get(node);
            peer.shared.retain(|partition, _| kept.is_some_and(|kept| kept.contains(partition)));
        }
        for (node, partitions) in shared {
            let due_at = now + self.soonish();
            let peer = self.peers.entry(*node).or_insert_with(|| Peer { due_at, ..Peer::default() });
            for partition in partitions {
                if !peer.shared.contains_key(partition) {
                    peer.shared.insert(*partition, Clean { since: now, at: None });
                    peer.due_at = peer.due_at.min(due_at);
                }
            }
        }
    }

    /// A peer can be asked: everything is to be compared with it.
    pub(super) fn came(&mut self, now: Instant, node: NodeId) {
        let due_at = now + self.soonish();
        let peer = self.peers.entry(node).or_default();
        peer.is_alive = true;
        peer.failures_count = 0;
        peer.due_at = peer.began_at.map_or(due_at, |began| due_at.max(began + GAP_MIN));
    }

    /// A peer cannot be asked.
    pub(super) fn went(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.is_alive = false;
        }
    }

    /// Some partitions cannot wait for the next exchange with a peer.
    pub(super) fn hurry(&mut self, now: Instant, node: NodeId, partitions: impl IntoIterator<Item = Partition>) {
        let peer = self.peers.entry(node).or_default();
        peer.soon.extend(partitions);
        peer.soon_at = now;
        peer.failures_count = 0;
    }

    /// These pulls are wanted, and no others. `last` is the number of the last exchange that began.
    pub(super) fn want(&mut self, now: Instant, last: u64, pulls: &BTreeSet<(Partition, NodeId)>) {
        self.wanted.retain(|pull, _| pulls.contains(pull));
        for (partition, node) in pulls {
            if let Entry::Vacant(new) = self.wanted.entry((*partition, *node)) {
                new.insert(Pull { after: last, is_done: false });
                self.hurry(now, *node, [*partition]);
            }
        }
    }

    /// Pulls wanted, and how many of them are done.
    pub(super) fn pulls(&self) -> (usize, usize) {
        (self.wanted.len(), self.wanted.values().filter(|pull| pull.is_done).count())
    }

    pub(super) fn is_wanted(&self, partition: Partition, node: NodeId) -> bool {
        self.wanted.get(&(partition, node)).is_some_and(|pull| !pull.is_done)
    }

    /// When the next exchange is due with a peer that is not busy.
    pub(super) fn next_at(&self, is_busy: impl Fn(NodeId) -> bool) -> Option<Instant> {
        let free = self.peers.iter().filter(|(node, _)| !is_busy(**node));
        free.filter_map(|(_, peer)| peer.next_at()).min()
    }

    /// The peer whose exchange is due for longest, if one is and it is not busy, with what is to be compared: what is waited
    /// for first.
    pub(super) fn take(&mut self, now: Instant, is_busy: impl Fn(NodeId) -> bool) -> Option<(NodeId, Vec<Partition>)> {
        let due = self.peers.iter().filter(|(node, _)| !is_busy(**node));
        let due = due.filter_map(|(node, peer)| Some((peer.next_at().filter(|at| *at <= now)?, *node)));
        let (_, node) = due.min()?;
        let again_at = now + self.jittered(self.period);
        let peer = self.peers.get_mut(&node)?;
        let mut partitions: Vec<Partition> = std::mem::take(&mut peer.soon).into_iter().collect();
        if peer.due_at <= now {
            partitions.extend(
                peer.shared
                    .keys()
                    .filter(|partition| partitions.binary_search(partition).is_err())
                    .copied()
                    .collect::<Vec<_>>(),
            );
            peer.due_at = again_at;
        }
        peer.began_at = Some(now);
        partitions.sort_by_key(|partition| (!self.is_wanted(*partition, node), *partition));
        Some((node, partitions))
    }

    /// What came of a partition in an exchange; whether a pull is done by that.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        (node, number): (NodeId, u64),
        (partition, verdict): (Partition, Verdict),
    ) -> bool {
        let is_wanted = self.is_wanted(partition, node);
        let peer = self.peers.entry(node).or_default();
        let is_again = match verdict {
            Verdict::Clean => {
                peer.failures_count = 0;
                if let Some(clean) = peer.shared.get_mut(&partition) {
                    clean.at = Some(now);
                }
                false
            }
            Verdict::Absent => is_wanted,
            Verdict::Failed => true,
        };
        if is_again {
            let retry_after = self.jittered(RETRY);
            let peer = self.peers.entry(node).or_default();
            if peer.soon.is_empty() {
                peer.failures_count += 1;
                peer.soon_at = now + retry_after * (1 << peer.failures_count.min(FAILURES_MAX));
            }
            peer.soon.insert(partition);
        }
        if verdict != Verdict::Clean {
            return false;
        }
        match self.wanted.get_mut(&(partition, node)) {
            Some(pull) if !pull.is_done && number > pull.after => {
                pull.is_done = true;
                true
            }
            Some(pull) if !pull.is_done => {
                self.hurry(now, node, [partition]);
                false
            }
            Some(_) | None => false,
        }
    }

    /// For every partition shared with a peer, when it was last known to be equal.
    pub(super) fn clean(&self) -> impl Iterator<Item = (Partition, NodeId, Clean)> {
        let of = |(node, peer): (&NodeId, &'_ Peer)| {
            let node = *node;
            peer.shared.iter().map(move |(partition, clean)| (*partition, node, *clean)).collect::<Vec<_>>()
        };
        self.peers.iter().flat_map(of)
    }

    /// A little later, so that not all nodes begin at once.
    fn soonish(&mut self) -> Duration {
        Duration::from_micros(u64::from(self.rng.next_u32()) % SOON_US_MAX)
    }

    /// Up to a quarter more or less.
    fn jittered(&mut self, time: Duration) -> Duration {
        time.mul_f64(0.75 + 0.5 * f64::from(self.rng.next_u32()) / f64::from(u32::MAX))
    }
}

impl Peer {
    fn next_at(&self) -> Option<Instant> {
        let routine = (!self.shared.is_empty()).then_some(self.due_at);
        let soon = (!self.soon.is_empty()).then_some(self.soon_at);
        routine.into_iter().chain(soon).min().filter(|_| self.is_alive)
    }
}

/// After a failure, doubled with each in a row.
const RETRY: Duration = Duration::from_secs(1);
/// Doublings.
const FAILURES_MAX: u32 = 5;
/// A connection that comes and goes does not bring an exchange each time.
const GAP_MIN: Duration = Duration::from_secs(2);
const SOON_US_MAX: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use shoal_protocol::id::Class;

    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const PERIOD: Duration = Duration::from_secs(600);

    fn partition(index: u16) -> Partition {
        Partition { class: Class { n: 3, r: 0, w: 0 }, index }
    }

    fn schedule() -> Schedule {
        let mut schedule = Schedule::new(PERIOD, [1; 32]);
        let shared =
            BTreeMap::from([(A, BTreeSet::from([partition(1), partition(2)])), (B, BTreeSet::from([partition(2)]))]);
        schedule.hold(Instant(0), &shared);
        schedule
    }

    const NOBODY: fn(NodeId) -> bool = |_| false;

    #[test]
    fn a_peer_is_due_when_it_comes_and_then_once_a_period_and_never_while_it_is_away() {
        let mut schedule = schedule();
        let (now, soon) = (Instant(0), Instant(SOON_US_MAX));
        assert_eq!(schedule.take(soon, NOBODY), None);
        schedule.came(now, A);
        assert_eq!(schedule.take(soon, NOBODY), Some((A, vec![partition(1), partition(2)])));
        assert_eq!(schedule.take(soon, NOBODY), None);
        let next = schedule.next_at(NOBODY).unwrap();
        assert!((PERIOD.mul_f64(0.75)..=PERIOD.mul_f64(1.25)).contains(&next.since(soon)));
        schedule.went(A);
        assert_eq!(schedule.next_at(NOBODY), None);
        schedule.came(soon, A);
        assert!(schedule.next_at(NOBODY) >= Some(soon + GAP_MIN));
        assert_eq!(schedule.next_at(|node| node == A), None);
    }

    #[test]
    fn a_pull_is_done_by_a_comparison_that_began_after_it_was_wanted_and_only_once() {
        let mut schedule = schedule();
        let now = Instant(5_000_000);
        schedule.came(Instant(0), A);
        schedule.take(now, NOBODY);
        let pulls = BTreeSet::from([(partition(2), A)]);
        schedule.want(now, 7, &pulls);
        assert!(!schedule.judge(now, (A, 7), (partition(2), Verdict::Clean)), "it began before");
        assert_eq!(schedule.take(now, NOBODY), Some((A, vec![partition(2)])));
        assert!(!schedule.judge(now, (A, 8), (partition(2), Verdict::Absent)));
        assert_eq!(schedule.take(now, NOBODY), None, "not at once again");
        let later = schedule.next_at(NOBODY).unwrap();
        assert_eq!(schedule.take(later, NOBODY), Some((A, vec![partition(2)])));
        assert!(schedule.judge(later, (A, 9), (partition(2), Verdict::Clean)));
        schedule.want(later, 9, &pulls);
        assert!(!schedule.judge(later, (A, 10), (partition(2), Verdict::Clean)), "it was done");
        assert_eq!(schedule.pulls(), (1, 1));
        schedule.want(later, 10, &BTreeSet::new());
        schedule.want(later, 10, &pulls);
        assert_eq!(schedule.pulls(), (1, 0));
    }

    #[test]
    fn failures_are_tried_again_later_and_later() {
        let mut schedule = schedule();
        schedule.came(Instant(0), A);
        let mut now = Instant(5_000_000);
        schedule.take(now, NOBODY);
        let mut waits = Vec::new();
        for number in 0..9 {
            schedule.judge(now, (A, number), (partition(1), Verdict::Failed));
            let next = schedule.next_at(NOBODY).unwrap();
            waits.push(next.since(now));
            now = next;
            assert_eq!(schedule.take(now, NOBODY), Some((A, vec![partition(1)])));
        }
        assert!(waits[0] < Duration::from_secs(3) && waits[8] > Duration::from_secs(20), "{waits:?}");
        let never = schedule.clean().filter(|(_, node, clean)| *node == A && clean.at.is_none()).count();
        assert_eq!(never, 2);
    }
}
