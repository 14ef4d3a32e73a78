//! Which acks count: those given under the newest custody that anybody knows who answered, or this node itself.
//!
//! A store that was wiped after it acknowledged does not hold the write any more. Whoever it pulled from since knows its
//! successor and says so in its own ack; a quorum of acks has one of those. Source: DESIGN §4 (Binding), §5 (Views).
//! Invariant: an ack that once did not count never counts again.

use std::collections::BTreeMap;

use shoal_protocol::id::{Lsn, NodeId};
use shoal_protocol::peer::{Applied, Custody};

/// The acks of one write, and what came with them.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// Under what, and where it is in the acker's change feed.
    given: BTreeMap<NodeId, (Custody, Lsn)>,
    /// What others said of each replica.
    told: Vec<(NodeId, Custody)>,
}

impl Acks {
    /// `from` acknowledged.
    pub(crate) fn take(&mut self, from: NodeId, applied: Applied) {
        let given = (applied.custody, applied.lsn);
        let known = self.given.entry(from).or_insert(given);
        *known = given.max(*known);
        self.told.extend(applied.known);
    }

    /// Who acknowledged under a custody that is replaced, as the acks so far and `replaced` (this node's view) know.
    pub(crate) fn void<'a>(&'a self, replaced: &'a BTreeMap<NodeId, Custody>) -> impl Iterator<Item = NodeId> + 'a {
        self.given.keys().copied().filter(|node| !self.counts(*node, replaced))
    }

    /// Whether `node` acknowledged.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.given.contains_key(&node)
    }

    /// Whether `node` acknowledged under the newest custody that is known of it.
    pub(crate) fn counts(&self, node: NodeId, replaced: &BTreeMap<NodeId, Custody>) -> bool {
        let Some((custody, _)) = self.given.get(&node) else { return false };
        let told = self.told.iter().any(|(of, later)| *of == node && later > custody);
        !told && replaced.get(&node).is_none_or(|later| later <= custody)
    }

    /// Where the write is in the change feed of `node`, which acknowledged it.
    pub(crate) fn lsn(&self, node: NodeId) -> Option<Lsn> {
        self.given.get(&node).map(|(_, lsn)| *lsn)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_protocol::id::{Actor, Lsn, RefillCount};

    use super::*;

    fn custody(generation: u64, store: u64, refill: u32) -> Custody {
        Custody { generation, incarnation: Actor(store), refill: RefillCount(refill) }
    }

    fn void(acks: &Acks, replaced: &[(NodeId, Custody)]) -> Vec<NodeId> {
        acks.void(&replaced.iter().copied().collect()).collect()
    }

    #[test]
    fn an_ack_is_void_once_another_acker_knows_its_store_replaced_or_refilled() {
        let (first, second, third) = (NodeId(1), NodeId(2), NodeId(3));
        let mut acks = Acks::default();
        acks.take(first, Applied { custody: custody(0, 9, 0), lsn: Lsn(1), known: Vec::new() });
        assert_eq!(void(&acks, &[]), []);
        acks.take(second, Applied { custody: custody(0, 2, 1), lsn: Lsn(1), known: vec![(first, custody(1, 4, 0))] });
        assert_eq!(void(&acks, &[]), [first]);
        acks.take(third, Applied { custody: custody(0, 3, 0), lsn: Lsn(1), known: vec![(second, custody(0, 2, 2))] });
        assert_eq!(void(&acks, &[]), [first, second]);
    }

    #[test]
    fn what_another_acker_does_not_know_yet_voids_nothing() {
        let (first, second) = (NodeId(1), NodeId(2));
        let mut acks = Acks::default();
        acks.take(first, Applied { custody: custody(2, 4, 1), lsn: Lsn(1), known: Vec::new() });
        acks.take(second, Applied { custody: custody(0, 2, 0), lsn: Lsn(1), known: vec![(first, custody(1, 8, 3))] });
        assert_eq!(void(&acks, &[(first, custody(2, 4, 0))]), []);
        assert_eq!(void(&acks, &[(first, custody(2, 5, 0))]), [first]);
    }

    proptest! {
        #[test]
        fn the_order_of_the_acks_decides_nothing_and_a_void_one_stays_void(
            answers in prop::collection::vec((0u64..3, 0u64..3, 0u32..2, 0u64..3, 0u64..3, 0u32..2), 1..4)
        ) {
            let take = |acks: &mut Acks, answer: &(u64, u64, u32, u64, u64, u32)| {
                let (from, generation, refill, of, later, again) = *answer;
                let known = vec![(NodeId(of), custody(later, later, again))];
                acks.take(NodeId(from), Applied { custody: custody(generation, generation, refill), lsn: Lsn(1), known });
            };
            // One answer of each replica.
            let mut answers = answers;
            answers.sort_unstable();
            answers.dedup_by_key(|answer| answer.0);
            let (mut forward, mut backward) = (Acks::default(), Acks::default());
            let mut before = Vec::new();
            for answer in &answers {
                take(&mut forward, answer);
                let now = void(&forward, &[]);
                prop_assert!(before.iter().all(|node| now.contains(node)));
                before = now;
            }
            answers.iter().rev().for_each(|answer| take(&mut backward, answer));
            prop_assert_eq!(before, void(&backward, &[]));
        }
    }
}
