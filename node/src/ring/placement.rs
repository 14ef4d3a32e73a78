//! The map from partitions to nodes: capacity-bounded weighted rendezvous as a stable matching.
//!
//! Shape: a partition proposes to nodes in the order of their scores, as many as it needs and no more per zone than allowed;
//! a node keeps its best `cap` proposals and refuses the others for good (Gale & Shapley 1962, with quotas). The result
//! does not depend on the order of processing. What stays unplaced because caps ran out where they were needed is placed by
//! moving one replica aside, else above a cap: by partition index, in rendezvous order.
//! Source: DESIGN §5; notes/model.md §5.1. Invariants: a partition's owners are different nodes, at most the zone cap in one
//! zone; the map is a pure function of (intent, replicas, partitions), path-independent.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::id::{Class, NodeId};
use shoal_protocol::layout::Intent;

use super::rendezvous::Draw;
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
        let mut matching = Matching::new(&ids, &holders, replicas, &shares);
        matching.draw(partitions_count);
        matching.propose();
        matching.place_the_rest();
        let reported = ids.iter().zip(&shares.unusable).filter(|(_, slots)| **slots > 0);
        Self { lists: matching.lists(), unusable: reported.map(|(&node, &slots)| (node, slots)).collect() }
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

/// The matching while it is made. Nodes are indexes into `ids`, partitions are indexes.
struct Matching<'a> {
    ids: &'a [NodeId],
    holders: &'a [Holder],
    replicas: usize,
    shares: &'a Shares,
    /// Per partition: nodes, best score first.
    order: Vec<Vec<usize>>,
    /// Per partition and node.
    draws: Vec<Vec<Draw>>,
    /// Per partition and node: refused for good.
    refused: Vec<Vec<bool>>,
    /// Per node: what it keeps, best first.
    kept: Vec<BTreeSet<(Draw, usize)>>,
}

impl<'a> Matching<'a> {
    fn new(ids: &'a [NodeId], holders: &'a [Holder], replicas: usize, shares: &'a Shares) -> Self {
        let kept = vec![BTreeSet::new(); ids.len()];
        Self { ids, holders, replicas, shares, order: Vec::new(), draws: Vec::new(), refused: Vec::new(), kept }
    }

    fn draw(&mut self, partitions_count: u16) {
        for index in 0..partitions_count {
            let draws: Vec<Draw> = self.ids.iter().map(|&node| Draw::of(node, index)).collect();
            let mut order: Vec<usize> = (0..self.ids.len()).collect();
            let weight = |node: usize| self.holders[node].weight;
            // The sort is stable and starts in id order: equal scores rank by id.
            order.sort_by(|&a, &b| draws[a].cmp_weighted(weight(a), draws[b], weight(b)));
            self.order.push(order);
            self.draws.push(draws);
            self.refused.push(vec![false; self.ids.len()]);
        }
    }

    /// Every partition proposes until its best choices among those that have not refused it keep it.
    fn propose(&mut self) {
        let mut waiting: Vec<usize> = (0..self.order.len()).collect();
        while let Some(partition) = waiting.pop() {
            for node in self.choice(partition) {
                self.kept[node].insert((self.draws[partition][node], partition));
                if self.kept[node].len() > self.shares.caps[node]
                    && let Some((_, worst)) = self.kept[node].pop_last()
                {
                    self.refused[worst][node] = true;
                    waiting.push(worst);
                }
            }
        }
    }

    /// The best nodes for a partition that respect the zone cap and have not refused it.
    fn choice(&self, partition: usize) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(self.replicas);
        for &node in &self.order[partition] {
            if chosen.len() < self.replicas && !self.refused[partition][node] && self.fits(&chosen, node) {
                chosen.push(node);
            }
        }
        chosen
    }

    /// Whether `node` can join these owners of one partition.
    fn fits(&self, owners: &[usize], node: usize) -> bool {
        let zone = self.holders[node].zone;
        !owners.contains(&node)
            && owners.iter().filter(|&&owner| self.holders[owner].zone == zone).count() < self.shares.zone_cap
    }

    fn keeps(&self, node: usize, partition: usize) -> bool {
        self.kept[node].contains(&(self.draws[partition][node], partition))
    }

    fn owners(&self, partition: usize) -> Vec<usize> {
        self.order[partition].iter().copied().filter(|&node| self.keeps(node, partition)).collect()
    }

    fn place_the_rest(&mut self) {
        for partition in 0..self.order.len() {
            for _ in self.owners(partition).len()..self.replicas {
                if !self.place_aside(partition) {
                    self.place_above_a_cap(partition);
                }
            }
        }
    }

    /// Lets a full node that `partition` can use give one replica to a node with room; the worst such replica moves.
    fn place_aside(&mut self, partition: usize) -> bool {
        let owners = self.owners(partition);
        for full in self.order[partition].clone().into_iter().filter(|&node| self.fits(&owners, node)) {
            for (draw, moved) in self.kept[full].clone().into_iter().rev() {
                let others: Vec<usize> = self.owners(moved).into_iter().filter(|&owner| owner != full).collect();
                let has_room = |&node: &usize| self.kept[node].len() < self.shares.caps[node] && node != full;
                let target = self.order[moved].iter().copied().filter(has_room).find(|&node| self.fits(&others, node));
                if let Some(target) = target {
                    self.kept[full].remove(&(draw, moved));
                    self.kept[target].insert((self.draws[moved][target], moved));
                    self.kept[full].insert((self.draws[partition][full], partition));
                    return true;
                }
            }
        }
        false
    }

    fn place_above_a_cap(&mut self, partition: usize) {
        let owners = self.owners(partition);
        if let Some(node) = self.order[partition].iter().copied().find(|&node| self.fits(&owners, node)) {
            self.kept[node].insert((self.draws[partition][node], partition));
        }
    }

    fn lists(&self) -> Vec<PreferenceList> {
        let list = |partition: usize| {
            let owners = self.owners(partition);
            let has_primary = |node: usize| owners.iter().any(|&o| self.holders[o].zone == self.holders[node].zone);
            let mut others = self.order[partition].clone();
            others.retain(|node| !owners.contains(node));
            others.sort_by_key(|&node| has_primary(node));
            let named = |nodes: &[usize]| nodes.iter().map(|&node| self.ids[node]).collect();
            PreferenceList { primaries: named(&owners), fallbacks: named(&others) }
        };
        (0..self.order.len()).map(list).collect()
    }
}
