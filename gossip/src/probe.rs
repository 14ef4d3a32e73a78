//! Probes: whom to probe next, which probes are under way, and which are made for others.
//!
//! Source: SWIM §4.1, §4.3 (round robin in random order: every member is probed once in so many periods); Lifeguard §IV-A
//! (nacks). Invariants: a member joins the round at a random place; one probe per target at a time; only who was asked can
//! answer; at most `RELAYS_COUNT_MAX` probes for others.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use crate::random;

/// One probe of this node.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) target: NodeId,
    /// Others are asked at this time, once.
    pub(crate) ask_at: Option<Instant>,
    /// It has failed when there was no ack by then.
    pub(crate) end: Instant,
    /// Who was asked to probe too, and whether it said that it is there.
    pub(crate) asked: BTreeMap<NodeId, bool>,
}

/// One probe for another node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relay {
    pub(crate) origin: NodeId,
    pub(crate) origin_sequence: u32,
    pub(crate) target: NodeId,
    /// The nack is due.
    pub(crate) nack_at: Option<Instant>,
    /// An ack is passed on until then.
    pub(crate) end: Instant,
}

/// What an ack was for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Acked {
    /// A probe of this node, which has succeeded.
    Own,
    /// A probe for another.
    Relayed(Relay),
    /// Nothing that waits.
    Nothing,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Probes {
    own: BTreeMap<u32, Probe>,
    relays: BTreeMap<u32, Relay>,
    /// To be probed before the others.
    first: VecDeque<NodeId>,
    round: Vec<NodeId>,
    place: usize,
    sequence: u32,
}

impl Probes {
    pub(crate) const fn new(sequence: u32) -> Self {
        Self {
            own: BTreeMap::new(),
            relays: BTreeMap::new(),
            first: VecDeque::new(),
            round: Vec::new(),
            place: 0,
            sequence,
        }
    }

    /// A member joins the round, at a random place of it.
    pub(crate) fn join(&mut self, rng: &mut ChaCha8Rng, node: NodeId) {
        let place = random::below(rng, self.round.len() + 1);
        self.round.insert(place, node);
        self.place += usize::from(place < self.place);
    }

    /// A member is forgotten.
    pub(crate) fn forget(&mut self, node: NodeId) {
        if let Some(place) = self.round.iter().position(|other| *other == node) {
            self.round.remove(place);
            self.place -= usize::from(place < self.place);
        }
        self.first.retain(|other| *other != node);
        self.own.retain(|_, probe| probe.target != node);
    }

    /// There is reason to probe this member before the others.
    pub(crate) fn hurry(&mut self, node: NodeId) {
        if !self.first.contains(&node) {
            self.first.push_back(node);
        }
    }

    /// The next member to probe of those that are `live`; a round that is over begins anew in another order.
    pub(crate) fn next(&mut self, rng: &mut ChaCha8Rng, live: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        while let Some(node) = self.first.pop_front() {
            if live(node) {
                return Some(node);
            }
        }
        for _ in 0..self.round.len() {
            if self.place >= self.round.len() {
                let count = self.round.len();
                random::choose(rng, &mut self.round, count);
                self.place = 0;
            }
            self.place += 1;
            let node = self.round[self.place - 1];
            if live(node) {
                return Some(node);
            }
        }
        None
    }

    pub(crate) fn is_probed(&self, target: NodeId) -> bool {
        self.own.values().any(|probe| probe.target == target)
    }

    /// A number that no ack which is still on its way has.
    pub(crate) const fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Begins a probe; returns its number.
    pub(crate) fn begin(&mut self, target: NodeId, ask_at: Instant, end: Instant) -> u32 {
        let sequence = self.next_sequence();
        self.own.insert(sequence, Probe { target, ask_at: Some(ask_at), end, asked: BTreeMap::new() });
        sequence
    }

    /// Begins a probe for another; returns its number, or nothing when there are too many.
    pub(crate) fn relay(&mut self, relay: Relay) -> Option<u32> {
        if self.relays.len() >= RELAYS_COUNT_MAX {
            return None;
        }
        let sequence = self.next_sequence();
        self.relays.insert(sequence, relay);
        Some(sequence)
    }

    pub(crate) fn ack(&mut self, from: NodeId, sequence: u32) -> Acked {
        let is_asked = |probe: &Probe| probe.target == from || probe.asked.contains_key(&from);
        if self.own.get(&sequence).is_some_and(is_asked) {
            self.own.remove(&sequence);
            return Acked::Own;
        }
        match self.relays.get(&sequence).copied().filter(|relay| relay.target == from) {
            Some(relay) => {
                self.relays.remove(&sequence);
                Acked::Relayed(relay)
            }
            None => Acked::Nothing,
        }
    }

    pub(crate) fn nack(&mut self, from: NodeId, sequence: u32) {
        if let Some(is_there) = self.own.get_mut(&sequence).and_then(|probe| probe.asked.get_mut(&from)) {
            *is_there = true;
        }
    }

    /// The probes for which others are to be asked now, each once.
    pub(crate) fn due_to_ask(&mut self, now: Instant) -> Vec<(u32, NodeId)> {
        let mut due = Vec::new();
        for (sequence, probe) in &mut self.own {
            if probe.ask_at.is_some_and(|at| at <= now) {
                probe.ask_at = None;
                due.push((*sequence, probe.target));
            }
        }
        due
    }

    /// These were asked to probe too.
    pub(crate) fn asked(&mut self, sequence: u32, others: &[NodeId]) {
        if let Some(probe) = self.own.get_mut(&sequence) {
            probe.asked = others.iter().map(|other| (*other, false)).collect();
        }
    }

    /// The probes that have failed.
    pub(crate) fn failed(&mut self, now: Instant) -> Vec<Probe> {
        self.own.extract_if(.., |_, probe| probe.end <= now).map(|(_, probe)| probe).collect()
    }

    /// The nacks that are due, each once; probes for others that nobody waits for any more are dropped.
    pub(crate) fn due_nacks(&mut self, now: Instant) -> Vec<Relay> {
        self.relays.retain(|_, relay| relay.end > now);
        let due = self.relays.values_mut().filter(|relay| relay.nack_at.is_some_and(|at| at <= now));
        due.map(|relay| {
            relay.nack_at = None;
            *relay
        })
        .collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let own = self.own.values().map(|probe| probe.ask_at.unwrap_or(probe.end));
        let relays = self.relays.values().map(|relay| relay.nack_at.unwrap_or(relay.end));
        own.chain(relays).min()
    }
}

/// When the nack leaves, in parts of the probe timeout (Lifeguard §IV-A).
pub(crate) fn nack_after(probe_timeout: Duration) -> Duration {
    probe_timeout.mul_f64(0.8)
}

/// Each member asks for at most k at a time, and chooses among all; this is far more than chance brings.
const RELAYS_COUNT_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_core::SeedableRng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn probes(count: u64) -> (Probes, ChaCha8Rng) {
        let mut rng = ChaCha8Rng::from_seed([7; 32]);
        let mut probes = Probes::new(0);
        (0..count).for_each(|node| probes.join(&mut rng, NodeId(node)));
        (probes, rng)
    }

    #[test]
    fn in_each_round_every_member_is_probed_once_in_another_order() {
        let (mut probes, mut rng) = probes(20);
        probes.next(&mut rng, |_| true);
        probes.place = 20;
        let mut round = || (0..20).filter_map(|_| probes.next(&mut rng, |_| true)).collect::<Vec<_>>();
        let (one, other) = (round(), round());
        assert_eq!(one.iter().collect::<BTreeSet<_>>().len(), 20);
        assert_eq!(other.iter().collect::<BTreeSet<_>>().len(), 20);
        assert_ne!(one, other);
    }

    #[test]
    fn a_member_that_joins_does_not_shift_the_round() {
        let (mut probes, mut rng) = probes(10);
        let mut seen: Vec<_> = (0..5).filter_map(|_| probes.next(&mut rng, |_| true)).collect();
        (10..15).for_each(|node| probes.join(&mut rng, NodeId(node)));
        let rest = probes.round.len() - probes.place;
        seen.extend((0..rest).filter_map(|_| probes.next(&mut rng, |_| true)));
        let old: Vec<_> = seen.iter().filter(|node| node.0 < 10).collect();
        assert_eq!((old.len(), old.iter().collect::<BTreeSet<_>>().len()), (10, 10));
    }

    #[test]
    fn who_is_not_live_is_passed_over_and_who_is_urgent_comes_first() {
        let (mut probes, mut rng) = probes(5);
        probes.hurry(NodeId(3));
        probes.hurry(NodeId(4));
        assert_eq!(probes.next(&mut rng, |node| node != NodeId(3)), Some(NodeId(4)));
        assert_eq!(probes.next(&mut rng, |_| false), None);
    }

    #[test]
    fn only_the_target_and_who_was_asked_can_ack() {
        let (mut probes, _) = probes(0);
        let sequence = probes.begin(NodeId(1), Instant(0) + SECOND / 2, Instant(0) + SECOND);
        assert!(matches!(probes.ack(NodeId(2), sequence), Acked::Nothing));
        assert_eq!(probes.due_to_ask(Instant(500_000)), [(sequence, NodeId(1))]);
        assert_eq!(probes.due_to_ask(Instant(500_000)), []);
        probes.asked(sequence, &[NodeId(2)]);
        assert!(matches!(probes.ack(NodeId(2), sequence), Acked::Own));
        assert!(matches!(probes.ack(NodeId(1), sequence), Acked::Nothing));
    }

    #[test]
    fn a_failed_probe_knows_who_was_there() {
        let (mut probes, _) = probes(0);
        let sequence = probes.begin(NodeId(1), Instant(0), Instant(0) + SECOND);
        probes.due_to_ask(Instant(0));
        probes.asked(sequence, &[NodeId(2), NodeId(3)]);
        probes.nack(NodeId(3), sequence);
        probes.nack(NodeId(4), sequence);
        assert!(probes.failed(Instant(999_999)).is_empty());
        let failed = probes.failed(Instant(1_000_000));
        assert_eq!(failed[0].asked, BTreeMap::from([(NodeId(2), false), (NodeId(3), true)]));
    }

    #[test]
    fn probes_for_others_are_bounded_nacked_once_and_end() {
        let (mut probes, _) = probes(0);
        let relay = Relay {
            origin: NodeId(1),
            origin_sequence: 5,
            target: NodeId(2),
            nack_at: Some(Instant(400_000)),
            end: Instant(1_000_000),
        };
        let count = (0..RELAYS_COUNT_MAX + 9).filter(|_| probes.relay(relay).is_some()).count();
        assert_eq!(count, RELAYS_COUNT_MAX);
        assert_eq!(probes.due_nacks(Instant(400_000)).len(), RELAYS_COUNT_MAX);
        assert!(probes.due_nacks(Instant(400_000)).is_empty());
        assert!(matches!(probes.ack(NodeId(2), 1), Acked::Relayed(relay) if relay.origin_sequence == 5));
        assert!(matches!(probes.ack(NodeId(1), 2), Acked::Nothing));
        probes.due_nacks(Instant(1_000_000));
        assert_eq!(probes.next_deadline(), None);
    }
}
