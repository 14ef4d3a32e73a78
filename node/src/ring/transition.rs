//! The way from an older layout to the target: who pulls what, and when the older one may go.
//!
//! Shape: `Step` of two rings. A partition is held *alike* under both if the same stores hold it: then every quorum under one
//! is a quorum under the other, and nothing moves. Otherwise each of its new holders pulls it from P old ones, and the
//! older layout goes when, for every partition, F old holders are fenced and S new ones are synced (`Numbers`); and a majority of its
//! members is fenced, so that every keyspace that was acknowledged under it is known to whoever retires it.
//! Source: DESIGN §5, notes/model.md §5.3. A departure: a layout is retired as a whole (docs/decisions/0019).
//! Invariant: nothing here asks who can be reached.

use std::collections::BTreeSet;

use shoal_protocol::id::{Class, NodeId, PARTITIONS_COUNT, Partition};

use super::Ring;

/// From an older layout to the target.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The older one's ring.
    pub from: &'a Ring,
    /// The target's.
    pub to: &'a Ring,
}

/// What is known of the members' newest stores.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Whose know the target durably.
    pub fenced: BTreeSet<NodeId>,
    /// Whose have all of a class that they are to hold, from the older layout.
    pub synced: BTreeSet<(NodeId, Class)>,
    /// Whose are gone for ever, so that nobody waits for them.
    pub gone: BTreeSet<NodeId>,
}

impl Evidence {
    /// Whether so many of these nodes are among `have`, or all that are not gone.
    fn suffices(&self, nodes: &[NodeId], needed: usize, has: impl Fn(&NodeId) -> bool) -> bool {
        let there = nodes.iter().filter(|node| !self.gone.contains(node));
        let (there, having) = there.fold((0, 0), |(there, having), node| (there + 1, having + usize::from(has(node))));
        having >= needed.min(there)
    }
}

impl Step<'_> {
    /// Whether a partition has to be pulled by its new holders.
    #[must_use]
    pub fn moves(&self, partition: Partition) -> bool {
        let holders = |ring: &Ring| {
            let store = |node: &NodeId| (*node, ring.layout().stores().get(node).copied());
            let mut holders: Vec<_> = ring.preference(partition).primaries.iter().map(store).collect();
            holders.sort_unstable();
            holders
        };
        self.from.numbers(partition.class) != self.to.numbers(partition.class) || holders(self.from) != holders(self.to)
    }

    /// The partitions of a class that a node has to pull.
    pub fn incoming(&self, class: Class, node: NodeId) -> impl Iterator<Item = Partition> + '_ {
        partitions(class)
            .filter(move |partition| self.to.preference(*partition).is_primary(node) && self.moves(*partition))
    }

    /// Whether nothing depends on the older layout any more, with keyspaces of these classes.
    pub fn is_over(&self, classes: impl IntoIterator<Item = Class>, evidence: &Evidence) -> bool {
        let layout = self.from.layout();
        // Two nodes that are made weightless at the same time leave nobody: then what there was stays.
        !self.to.layout().members().is_empty()
            && evidence.suffices(layout.members(), layout.majority(), |node| evidence.fenced.contains(node))
            && classes.into_iter().flat_map(partitions).all(|partition| self.is_done(partition, evidence))
    }

    fn is_done(&self, partition: Partition, evidence: &Evidence) -> bool {
        let class = partition.class;
        let (old, new) = (&self.from.preference(partition).primaries, &self.to.preference(partition).primaries);
        let is_synced = |node: &NodeId| evidence.synced.contains(&(*node, class));
        evidence.suffices(old, self.from.numbers(class).fences(), |node| evidence.fenced.contains(node))
            && (!self.moves(partition) || evidence.suffices(new, self.to.numbers(class).syncs(), is_synced))
    }
}

/// All partitions of a class.
fn partitions(class: Class) -> impl Iterator<Item = Partition> {
    (0..PARTITIONS_COUNT).map(move |index| Partition { class, index })
}

#[cfg(test)]
mod tests {
    use shoal_protocol::id::Actor;
    use shoal_protocol::layout::{Intent, Layout, NodeRole, StoreMark};

    use super::*;

    const CLASS: Class = Class { n: 3, r: 0, w: 0 };

    /// A layout of nodes 1 to `count`, whose stores have the nodes' numbers; that of `renewed` has another.
    fn ring(count: u64, renewed: Option<u64>) -> Ring {
        let nodes = (1..=count).map(|n| (NodeId(n), NodeRole::active("z"))).collect();
        let store = |n| match renewed == Some(n) {
            true => StoreMark { generation: 1, incarnation: Actor(n + 100) },
            false => StoreMark::first(Actor(n)),
        };
        Ring::new(Layout::new(Intent { nodes }, (1..=count).map(|n| (NodeId(n), store(n))).collect()))
    }

    fn is_over(step: Step<'_>, fenced: &[u64], synced: &[u64]) -> bool {
        step.is_over([CLASS], &evidence(fenced, synced, &[]))
    }

    fn evidence(fenced: &[u64], synced: &[u64], gone: &[u64]) -> Evidence {
        Evidence {
            fenced: fenced.iter().copied().map(NodeId).collect(),
            synced: synced.iter().map(|&node| (NodeId(node), CLASS)).collect(),
            gone: gone.iter().copied().map(NodeId).collect(),
        }
    }

    #[test]
    fn only_what_a_join_moves_is_pulled() {
        let (three, four) = (ring(3, None), ring(4, None));
        let step = Step { from: &three, to: &four };
        let moved: Vec<usize> = (1..=4).map(|n| step.incoming(CLASS, NodeId(n)).count()).collect();
        // Each partition that the fourth takes over is pulled by all three of its holders, to have a quorum of them.
        let fourth = moved[3];
        assert!((150..=220).contains(&fourth), "{moved:?}");
        assert_eq!(moved.iter().sum::<usize>(), 3 * fourth);
        let same = Step { from: &three, to: &three };
        assert!((1..=3).all(|n| same.incoming(CLASS, NodeId(n)).next().is_none()));
    }

    #[test]
    fn a_layout_goes_when_enough_old_holders_are_fenced_and_enough_new_ones_synced() {
        let (three, four) = (ring(3, None), ring(4, None));
        let step = Step { from: &three, to: &four };
        assert!(!is_over(step, &[1], &[1, 2, 3, 4]));
        assert!(is_over(step, &[1, 2], &[1, 2, 3, 4]));
        assert!(is_over(step, &[1, 3], &[1, 2, 4]), "any one may stay away");
        assert!(!is_over(step, &[1, 2, 3], &[1, 4]));
        assert!(!is_over(step, &[4, 1], &[1, 2, 3, 4]), "a newcomer's fence is no old holder's");
    }

    #[test]
    fn a_renewed_store_is_pulled_for_and_a_layout_without_keyspaces_still_takes_a_majority() {
        let (before, after) = (ring(3, None), ring(3, Some(2)));
        let step = Step { from: &before, to: &after };
        let holders: BTreeSet<u64> =
            (1..=3).filter(|n| step.incoming(CLASS, NodeId(*n)).count() == usize::from(PARTITIONS_COUNT)).collect();
        assert_eq!(holders, BTreeSet::from([1, 2, 3]));
        assert!(!step.is_over([], &evidence(&[], &[1, 2, 3], &[])));
        assert!(step.is_over([], &evidence(&[1, 2], &[], &[])));
    }

    #[test]
    fn nobody_waits_for_what_is_gone() {
        let (three, two) = (ring(3, None), ring(2, None));
        let step = Step { from: &three, to: &two };
        assert!(!step.is_over([CLASS], &evidence(&[1], &[1], &[])));
        assert!(!step.is_over([CLASS], &evidence(&[1], &[1], &[3])), "two are there");
        assert!(step.is_over([CLASS], &evidence(&[1], &[1], &[2, 3])));
    }
}
