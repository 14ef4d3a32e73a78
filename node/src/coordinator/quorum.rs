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
    /// A tally over the replicas of each layout, and how many of them it takes.
    pub(crate) fn new(layouts: Vec<(BTreeSet<NodeId>, u8)>) -> Self {
        Self { layouts, answered: BTreeSet::new(), lost: BTreeSet::new() }
    }

    /// Needs the quorums of these layouts besides.
    pub(crate) fn also(&mut self, layouts: Tally) {
        let new = layouts.layouts.into_iter().filter(|layout| !self.layouts.contains(layout));
        let new: Vec<_> = new.collect();
        self.layouts.extend(new);
    }

    /// How far nodes like these get: in the layout furthest from its quorum, how many there are and how many it takes.
    pub(crate) fn reach(&self, is_one: impl Fn(&NodeId) -> bool) -> (u8, u8) {
        let count = |members: &BTreeSet<NodeId>| members.iter().filter(|node| is_one(node)).count();
        let reached = self.layouts.iter().map(|(members, needed)| (small(count(members)), *needed));
        reached.max_by_key(|(found, needed)| needed.saturating_sub(*found)).unwrap_or((0, u8::MAX))
    }

    /// Whether another answer of `node` helps where nodes like these answer: some layout that lists it would lack some still.
    pub(crate) fn lacks(&self, node: NodeId, is_coming: impl Fn(&NodeId) -> bool) -> bool {
        self.layouts.iter().any(|(members, needed)| {
            members.contains(&node) && members.iter().filter(|member| is_coming(member)).count() < usize::from(*needed)
        })
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
        self.reach(|node| self.answered.contains(node)).0
    }

    /// How many that layout needs.
    pub(crate) fn needed(&self) -> u8 {
        self.reach(|node| self.answered.contains(node)).1
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
        self.layouts.iter().map(move |(members, needed)| {
            let answered = members.iter().filter(|m| self.answered.contains(m)).count();
            let possible = members.iter().filter(|m| !self.lost.contains(m)).count();
            (small(answered), small(possible), *needed)
        })
    }
}

fn small(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(members: impl IntoIterator<Item = u64>, needed: u8) -> Tally {
        Tally::new(vec![(members.into_iter().map(NodeId).collect(), needed)])
    }

    #[test]
    fn every_active_layout_needs_its_own_quorum() {
        let layout = |members: [u64; 3]| (members.map(NodeId).into(), 2);
        let mut tally = Tally::new(vec![layout([1, 2, 3]), layout([3, 4, 5])]);
        tally.answer(NodeId(1));
        tally.answer(NodeId(2));
        assert_eq!((tally.verdict(), tally.answered_count(), tally.needed()), (Verdict::Pending, 0, 2));
        let coming = |node: &NodeId| node.0 <= 3;
        assert!(tally.lacks(NodeId(4), coming) && !tally.lacks(NodeId(1), coming));
        tally.answer(NodeId(3));
        tally.lose(NodeId(4));
        assert_eq!(tally.verdict(), Verdict::Pending);
        tally.answer(NodeId(5));
        assert_eq!(tally.verdict(), Verdict::Reached);
    }

    #[test]
    fn an_ack_counted_twice_is_one_ack() {
        let mut tally = tally([1, 2, 3], 2);
        tally.answer(NodeId(1));
        tally.answer(NodeId(1));
        tally.answer(NodeId(9));
        assert_eq!((tally.verdict(), tally.answered_count()), (Verdict::Pending, 1));
    }

    #[test]
    fn an_answer_after_all_revives_a_lost_node() {
        let mut tally = tally([1, 2], 2);
        tally.lose(NodeId(2));
        assert_eq!(tally.verdict(), Verdict::Impossible);
        tally.answer(NodeId(2));
        assert_eq!(tally.verdict(), Verdict::Pending);
    }

    #[test]
    fn a_revoked_answer_is_lost() {
        let mut tally = tally([1, 2, 3], 2);
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
            let mut tally = tally(0..n, needed);
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
