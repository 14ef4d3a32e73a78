//! Hints: how much this node keeps for whom. The rows are in the stores, under a reserved place (`storage::hint`).
//!
//! Units: bytes as they came in, names included: deltas of one key that were joined since take less. Bounds are per target
//! and in total. Invariant: what was let in and not given back is counted, so nothing beyond the bounds is kept.

use std::collections::BTreeMap;

use shoal_protocol::id::{NodeId, Partition};
use shoal_protocol::time::Instant;

use super::errand::HandoffLimits;

/// What is kept for whom.
#[derive(Debug)]
pub(super) struct Hints {
    held: BTreeMap<(NodeId, Partition), Held>,
    bytes_by_target: BTreeMap<NodeId, u64>,
    bytes: u64,
    limits: HandoffLimits,
}

/// What is kept for one target of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    count: u64,
    bytes: u64,
    oldest: Instant,
}

impl Hints {
    pub(super) fn new(limits: HandoffLimits) -> Self {
        Self { held: BTreeMap::new(), bytes_by_target: BTreeMap::new(), bytes: 0, limits }
    }

    /// Whether one more of so many bytes may be kept for `target`; it counts from then on.
    pub(super) fn admit(&mut self, now: Instant, to: (NodeId, Partition), bytes: usize) -> bool {
        let of_target = self.bytes_by_target.get(&to.0).copied().unwrap_or(0);
        let bytes = bytes as u64;
        let fits = of_target + bytes <= self.limits.hint_bytes_per_target_max as u64
            && self.bytes + bytes <= self.limits.hint_bytes_max as u64;
        if fits {
            self.count(to, Held { count: 1, bytes, oldest: now });
        }
        fits
    }

    /// Kept before this process began.
    pub(super) fn found(&mut self, now: Instant, to: (NodeId, Partition), bytes: usize) {
        self.count(to, Held { count: 1, bytes: bytes as u64, oldest: now });
    }

    /// Something kept for `target`.
    pub(super) fn first(&self, target: NodeId) -> Option<Partition> {
        self.held.keys().find(|(of, _)| *of == target).map(|(_, partition)| *partition)
    }

    /// Takes out what is counted now: it is being given back.
    pub(super) fn take(&mut self, to: (NodeId, Partition)) -> Option<Held> {
        self.held.remove(&to)
    }

    /// It was not given back after all.
    pub(super) fn put_back(&mut self, to: (NodeId, Partition), held: Held) {
        self.uncount(to.0, held);
        self.count(to, held);
    }

    /// It was given back, and is gone here.
    pub(super) fn given(&mut self, target: NodeId, held: Held) {
        self.uncount(target, held);
    }

    /// Forgets what is counted of these partitions.
    pub(super) fn forget(&mut self, is_gone: impl Fn(Partition) -> bool) {
        let gone: Vec<_> = self.held.extract_if(.., |(_, partition), _| is_gone(*partition)).collect();
        gone.into_iter().for_each(|((target, _), held)| self.uncount(target, held));
    }

    /// For whom something is kept.
    pub(super) fn targets(&self) -> Vec<NodeId> {
        let mut targets: Vec<NodeId> = self.held.keys().map(|(target, _)| *target).collect();
        targets.dedup();
        targets
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hints not being given back, and when the oldest was taken in, or found at a start.
    pub(super) fn pending(&self) -> (u64, Option<Instant>) {
        (self.held.values().map(|held| held.count).sum(), self.held.values().map(|held| held.oldest).min())
    }

    fn count(&mut self, to: (NodeId, Partition), more: Held) {
        let held = self.held.entry(to).or_insert(Held { count: 0, bytes: 0, oldest: more.oldest });
        held.count += more.count;
        held.bytes += more.bytes;
        held.oldest = held.oldest.min(more.oldest);
        *self.bytes_by_target.entry(to.0).or_default() += more.bytes;
        self.bytes += more.bytes;
    }

    fn uncount(&mut self, target: NodeId, held: Held) {
        self.bytes = self.bytes.saturating_sub(held.bytes);
        if let Some(bytes) = self.bytes_by_target.get_mut(&target) {
            *bytes = bytes.saturating_sub(held.bytes);
        }
        self.bytes_by_target.retain(|_, bytes| *bytes > 0);
    }
}

impl Held {
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn oldest(&self) -> Instant {
        self.oldest
    }
}

#[cfg(test)]
mod tests {
    use shoal_protocol::id::Class;

    use super::*;

    #[test]
    fn each_target_and_all_together_have_a_bound_and_what_was_given_back_makes_room() {
        let limits = HandoffLimits { hint_bytes_per_target_max: 100, hint_bytes_max: 150, ..HandoffLimits::default() };
        let mut hints = Hints::new(limits);
        let at = |target| (NodeId(target), Partition { class: Class { n: 0x83, r: 0, w: 0 }, index: 1 });
        let now = Instant(1);
        assert!(hints.admit(now, at(1), 60) && !hints.admit(now, at(1), 60) && hints.admit(now, at(1), 40));
        assert!(!hints.admit(now, at(2), 60) && hints.admit(now, at(2), 50), "in total");
        let held = hints.take(at(1)).unwrap();
        assert!(!hints.admit(now, at(1), 10), "it is still here");
        hints.put_back(at(1), held);
        assert_eq!((hints.bytes(), hints.pending().0), (150, 3));
        let held = hints.take(at(1)).unwrap();
        hints.given(NodeId(1), held);
        assert!(hints.admit(now, at(1), 100) && hints.bytes() == 150);
    }
}
