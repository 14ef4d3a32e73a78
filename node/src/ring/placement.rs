//! The map from partitions to nodes: capacity-bounded weighted rendezvous.
//!
//! Shape: every node scores every partition (`rendezvous`), shares say how much each node may hold (`shares`), and a
//! partition goes to the nodes with the best scores that fit, at the least cost in all (`assignment`). What remains unplaced
//! when caps run out where they are needed goes above a cap.
//! Source: DESIGN §5; docs/decisions/0013. Invariants: a partition's owners are different nodes, at most the zone cap in one
//! zone; the map is a pure function of (intent, replicas, partitions), path-independent.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::id::{Class, NodeId};
use shoal_protocol::layout::Intent;

use super::assignment::Assignment;
use super::rendezvous::Score;
use super::shares::{Holder, Shares};

/// The nodes of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreferenceList {
    /// The owners, best score first.
    pub primaries: Vec<NodeId>,
    /// Who stands in, in this order: zones without a primary first, then by score.
    pub fallbacks: Vec<NodeId>,
}

impl PreferenceList {
    /// Whether the node is an owner.
    #[must_use]
    pub fn is_primary(&self, node: NodeId) -> bool {
        self.primaries.contains(&node)
    }
}

/// Who holds what, for one number of replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    lists: Vec<PreferenceList>,
    unusable: BTreeMap<NodeId, u32>,
}

impl Placement {
    /// The map of `partitions_count` partitions with `class.n` replicas, or as many as there are nodes.
    #[must_use]
    pub fn compute(intent: &Intent, class: Class, partitions_count: u16) -> Self {
        let nodes = intent.holders();
        let zones: BTreeSet<&str> = nodes.iter().map(|(_, role)| role.zone.as_str()).collect();
        let zone_index = |zone: &str| zones.iter().take_while(|&&z| z < zone).count();
        let holders: Vec<Holder> =
            nodes.iter().map(|(_, role)| Holder { zone: zone_index(&role.zone), weight: role.weight }).collect();
        let replicas = usize::from(class.n).min(nodes.len());
        let shares = Shares::of(&holders, zones.len(), replicas, usize::from(partitions_count));
        let ids: Vec<NodeId> = nodes.iter().map(|&(node, _)| node).collect();
        let scores: Vec<Vec<Score>> =
            nodes.iter().map(|(node, role)| Score::of_node(*node, role.weight, partitions_count)).collect();
        let partitions = usize::from(partitions_count);
        let assignment = Assignment::of(&holders, &shares, &scores, (replicas, partitions));
        let lists = (0..partitions).map(|index| list(&ids, &holders, &assignment, index));
        let reported = ids.iter().zip(&shares.unusable).filter(|(_, slots)| **slots > 0);
        Self { lists: lists.collect(), unusable: reported.map(|(&node, &slots)| (node, slots)).collect() }
    }

    /// The preference list of one partition; `None` when there is no such index.
    #[must_use]
    pub fn preference(&self, index: u16) -> Option<&PreferenceList> {
        self.lists.get(usize::from(index))
    }

    /// All preference lists, by partition index.
    #[must_use]
    pub fn preferences(&self) -> &[PreferenceList] {
        &self.lists
    }

    /// Unusable capacity: replicas by which a node's share stays below what its weight asks for, because a node holds a
    /// partition once and zones hold few replicas each. Nodes that can use all their weight are not listed.
    #[must_use]
    pub const fn unusable(&self) -> &BTreeMap<NodeId, u32> {
        &self.unusable
    }
}

fn list(ids: &[NodeId], holders: &[Holder], assignment: &Assignment<'_>, partition: usize) -> PreferenceList {
    let owners = assignment.owners(partition);
    let has_primary = |node: usize| owners.iter().any(|&owner| holders[owner].zone == holders[node].zone);
    let mut others = assignment.ranked(partition);
    others.retain(|node| !owners.contains(node));
    others.sort_by_key(|&node| has_primary(node));
    let named = |nodes: &[usize]| nodes.iter().map(|&node| ids[node]).collect();
    PreferenceList { primaries: named(&owners), fallbacks: named(&others) }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};
    use shoal_protocol::layout::{NodeRole, NodeState};

    use super::*;

    const Q: u16 = 256;

    /// Nodes as (zone, weight), with ids that look like hashes.
    fn intent(nodes: &[(usize, u32)]) -> Intent {
        named(0, nodes)
    }

    /// The same with other ids, by series.
    fn named(series: u64, nodes: &[(usize, u32)]) -> Intent {
        let role = |&(zone, weight): &(usize, u32)| NodeRole { weight, ..NodeRole::active(format!("z{zone}")) };
        let id = |i: usize| NodeId((series * 1_000 + i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Intent { nodes: nodes.iter().enumerate().map(|(i, node)| (id(i), role(node))).collect() }
    }

    fn compute(intent: &Intent, n: u8) -> Placement {
        Placement::compute(intent, Class { n, r: 0, w: 0 }, Q)
    }

    fn loads(placement: &Placement) -> BTreeMap<NodeId, usize> {
        let mut loads = BTreeMap::new();
        for node in placement.preferences().iter().flat_map(|list| &list.primaries) {
            *loads.entry(*node).or_default() += 1;
        }
        loads
    }

    fn random(rng: &mut ChaCha8Rng, below: usize) -> usize {
        (rng.next_u64() % below as u64) as usize
    }

    fn random_nodes(rng: &mut ChaCha8Rng, is_uneven: bool) -> Vec<(usize, u32)> {
        let (count, zones) = (1 + random(rng, 30), 1 + random(rng, 5));
        (0..count).map(|_| (random(rng, zones), if is_uneven { 50 + random(rng, 151) as u32 } else { 100 })).collect()
    }

    /// The caps of each node, in id order.
    fn shares(intent: &Intent, n: u8) -> (Vec<NodeId>, Shares) {
        let zones: BTreeSet<String> = intent.nodes.values().map(|role| role.zone.clone()).collect();
        let holder = |role: &NodeRole| Holder {
            zone: zones.iter().position(|zone| *zone == role.zone).unwrap(),
            weight: role.weight,
        };
        let holders: Vec<Holder> = intent.nodes.values().map(holder).collect();
        let replicas = usize::from(n).min(holders.len());
        (intent.nodes.keys().copied().collect(), Shares::of(&holders, zones.len(), replicas, usize::from(Q)))
    }

    #[test]
    fn every_partition_has_n_owners_within_the_zone_cap_and_every_node_at_most_its_cap() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for round in 0..300 {
            let intent = intent(&random_nodes(&mut rng, round % 2 == 1));
            let n = 1 + random(&mut rng, 5) as u8;
            let placement = compute(&intent, n);
            let (ids, shares) = shares(&intent, n);
            for list in placement.preferences() {
                assert_eq!(list.primaries.len(), usize::from(n).min(ids.len()));
                let all: BTreeSet<NodeId> = list.primaries.iter().chain(&list.fallbacks).copied().collect();
                assert_eq!((all.len(), list.primaries.len() + list.fallbacks.len()), (ids.len(), ids.len()));
                let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
                for node in &list.primaries {
                    *zones.entry(&intent.nodes[node].zone).or_default() += 1;
                }
                assert!(zones.values().all(|&count| count <= shares.zone_cap), "{intent:?} {n}");
            }
            let loads = loads(&placement);
            for (node, cap) in ids.iter().zip(&shares.caps) {
                assert!(loads.get(node).is_none_or(|load| load <= cap), "{intent:?} {n}: {node} over {cap}");
            }
        }
    }

    /// Replicas that are on other nodes in `after` than in `before`.
    fn moved(before: &Placement, after: &Placement) -> usize {
        let pairs = before.preferences().iter().zip(after.preferences());
        pairs.map(|(old, new)| new.primaries.iter().filter(|node| !old.is_primary(**node)).count()).sum()
    }

    /// Most replicas moved by the last node's join or leave, in tenths of its fair share or load, whichever is more.
    fn tenths_moved(series: u64, nodes: &[(usize, u32)]) -> usize {
        let (small, large) = (named(series, &nodes[..nodes.len() - 1]), named(series, nodes));
        let (before, after) = (compute(&small, 3), compute(&large, 3));
        let (ids, shares) = shares(&large, 3);
        let newcomer = ids.iter().position(|node| !small.nodes.contains_key(node)).unwrap();
        let minimum = loads(&after)[&ids[newcomer]].max(shares.caps[newcomer] * 10 / 11);
        (moved(&before, &after).max(moved(&after, &before)) * 10).div_ceil(minimum)
    }

    #[test]
    fn a_join_or_a_leave_moves_at_most_1_6_times_the_minimum() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for (series, count) in (0..4).flat_map(|series| (4..=31).map(move |count| (series, count))) {
            for zones in 1..=3 {
                let equal: Vec<_> = (0..count).map(|i| (i % zones, 100)).collect();
                let tenths = tenths_moved(series, &equal);
                assert!(tenths <= 16, "{tenths} tenths: {count} equal nodes, {zones} zones, series {series}");
                let unequal: Vec<_> = (0..count).map(|i| (i % zones, 100 + 100 * random(&mut rng, 2) as u32)).collect();
                let tenths = tenths_moved(series, &unequal);
                assert!(tenths <= 16, "{tenths} tenths: {unequal:?}, series {series}");
            }
        }
    }

    #[test]
    fn a_join_undone_by_leaving_gives_the_old_map_back() {
        let nodes: Vec<_> = (0..8).map(|i| (i % 3, 100)).collect();
        let (small, mut large) = (intent(&nodes[..7]), intent(&nodes));
        let newcomer = *large.nodes.keys().find(|node| !small.nodes.contains_key(node)).unwrap();
        assert_ne!(compute(&large, 3), compute(&small, 3));
        large.nodes.get_mut(&newcomer).unwrap().state = NodeState::Leaving;
        assert_eq!(compute(&large, 3), compute(&small, 3));
    }

    #[test]
    fn fallbacks_of_zones_without_a_primary_come_first() {
        let intent = intent(&[(0, 100), (0, 100), (1, 100), (1, 100), (2, 100), (2, 100)]);
        for list in compute(&intent, 2).preferences() {
            let zone = |node: &NodeId| &intent.nodes[node].zone;
            let used: BTreeSet<_> = list.primaries.iter().map(zone).collect();
            assert!(list.fallbacks[..2].iter().all(|node| !used.contains(zone(node))));
        }
    }

    #[test]
    fn unusable_capacity_names_the_node_that_is_too_big_for_its_cluster() {
        let intent = intent(&[(0, 400), (1, 100), (2, 100), (3, 100)]);
        let big = *intent.nodes.iter().find(|(_, role)| role.weight == 400).unwrap().0;
        // It would hold 768 x 4/7 = 438 of 256 partitions.
        assert_eq!(compute(&intent, 3).unusable(), &BTreeMap::from([(big, 182)]));
        assert_eq!(compute(&self::intent(&[(0, 1), (1, 1), (2, 1)]), 3).unusable(), &BTreeMap::new());
    }

    #[test]
    fn fewer_nodes_than_replicas_hold_everything() {
        let placement = compute(&intent(&[(0, 100), (1, 100)]), 3);
        assert!(placement.preferences().iter().all(|list| list.primaries.len() == 2 && list.fallbacks.is_empty()));
        assert!(compute(&Intent::default(), 3).preferences().iter().all(|list| list.primaries.is_empty()));
    }

    #[test]
    fn the_map_is_the_same_on_every_machine_and_in_every_version() {
        let nodes: Vec<_> = (0..12).map(|i| (i % 3, if i % 4 == 0 { 200 } else { 100 })).collect();
        let mut hasher = blake3::Hasher::new();
        for list in compute(&intent(&nodes), 3).preferences() {
            for node in list.primaries.iter().chain(&list.fallbacks) {
                hasher.update(&node.0.to_be_bytes());
            }
        }
        assert_eq!(hasher.finalize().to_hex()[..16], *"b919cbadbb7b649c");
    }
}
