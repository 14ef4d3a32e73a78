//! Counting answers: enough, not yet, or never.
//!
//! Shape: one `Tally` per operation; for each active layout its members and how many of them are needed. An answer counts in
//! every layout that lists its sender, once. Source: DESIGN §5 "Each active layout's own R and W apply"; etcd
//! raft `quorum` for the three verdicts.
//! Invariant: a verdict other than `Pending` changes only when a lost node answers after all, or an answer is revoked.

use std::collections::BTreeSet;

use shoal_protocol::id::NodeId;

/// What a tally says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// More answers can decide it.
    Pending,
    /// Every layout has its quorum.
    Reached,
    /// Some layout cannot get its quorum any more from those still asked or askable.
    Impossible,
}

/// Who was to answer, who did, who will not.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    layouts: Vec<(BTreeSet<NodeId>, u8)>,
    answered: BTreeSet<NodeId>,
    lost: BTreeSet<NodeId>,
}

impl Tally {
    /// A tally over one layout's replicas.
    pub(crate) fn new(members: impl IntoIterator<Item = NodeId>, needed: u8) -> Self {
        Self {
            layouts: vec![(members.into_iter().collect(), needed)],
            answered: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    /// `from` answered; a second answer of the same node changes nothing.
    pub(crate) fn answer(&mut self, from: NodeId) {
        self.answered.insert(from);
        self.lost.remove(&from);
    }

    /// `from` will not answer any more (refused, or its connection is gone).
    pub(crate) fn lose(&mut self, from: NodeId) {
        if !self.answered.contains(&from) {
            self.lost.insert(from);
        }
    }

    /// Somebody else is asked in the place of `from`, and answers for it.
    pub(crate) fn hope(&mut self, from: NodeId) {
        self.lost.remove(&from);
    }

    /// The answer of `from` does not count after all.
    pub(crate) fn revoke(&mut self, from: NodeId) {
        if self.answered.remove(&from) {
            self.lost.insert(from);
        }
    }

    /// How many answered in the layout that is furthest from its quorum.
    pub(crate) fn answered_count(&self) -> u8 {
        self.counts().map(|(answered, _, _)| answered).min().unwrap_or(0)
    }

    /// How many that layout needs.
    pub(crate) fn needed(&self) -> u8 {
        self.layouts.iter().map(|(_, needed)| *needed).max().unwrap_or(0)
    }

    /// Where it stands.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.counts().all(|(answered, _, needed)| answered >= needed) {
            Verdict::Reached
        } else if self.counts().any(|(_, possible, needed)| possible < needed) {
            Verdict::Impossible
        } else {
            Verdict::Pending
        }
    }

    /// Per layout: answered, answered or still possible, needed.
    fn counts(&self) -> impl Iterator<Item = (u8, u8, u8)> + '_ {
        let small = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
        self.layouts.iter().map(move |(members, needed)| {
            let answered = members.iter().filter(|m| self.answered.contains(m)).count();
            let possible = members.iter().filter(|m| !self.lost.contains(m)).count();
            (small(answered), small(possible), *needed)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_ack_counted_twice_is_one_ack() {
        let mut tally = Tally::new([NodeId(1), NodeId(2), NodeId(3)], 2);
        tally.answer(NodeId(1));
        tally.answer(NodeId(1));
        tally.answer(NodeId(9));
        assert_eq!((tally.verdict(), tally.answered_count()), (Verdict::Pending, 1));
    }

    #[test]
    fn an_answer_after_all_revives_a_lost_node() {
        let mut tally = Tally::new([NodeId(1), NodeId(2)], 2);
        tally.lose(NodeId(2));
        assert_eq!(tally.verdict(), Verdict::Impossible);
        tally.answer(NodeId(2));
        assert_eq!(tally.verdict(), Verdict::Pending);
    }

    #[test]
    fn a_revoked_answer_is_lost() {
        let mut tally = Tally::new([NodeId(1), NodeId(2), NodeId(3)], 2);
        tally.answer(NodeId(1));
        tally.answer(NodeId(2));
        tally.revoke(NodeId(1));
        tally.revoke(NodeId(3));
        assert_eq!((tally.verdict(), tally.answered_count()), (Verdict::Pending, 1));
        tally.lose(NodeId(3));
        assert_eq!(tally.verdict(), Verdict::Impossible);
    }

    proptest! {
        #[test]
        fn the_tally_agrees_with_a_naive_count(
            n in 1u64..6, needed in 1u8..6, events in prop::collection::vec((0u64..7, any::<bool>()), 0..20)
        ) {
            let mut tally = Tally::new((0..n).map(NodeId), needed);
            let (mut yes, mut no) = (vec![false; 7], vec![false; 7]);
            for (node, answered) in events {
                if answered { tally.answer(NodeId(node)); yes[node as usize] = true; }
                else { tally.lose(NodeId(node)); no[node as usize] = true; }
            }
            let answered = (0..n as usize).filter(|i| yes[*i]).count();
            let possible = (0..n as usize).filter(|i| yes[*i] || !no[*i]).count();
            let expected = if answered >= needed as usize { Verdict::Reached }
                else if possible < needed as usize { Verdict::Impossible }
                else { Verdict::Pending };
            prop_assert_eq!(tally.verdict(), expected);
        }
    }
}
