//! Who owns what: every partition's best nodes, corrected along the cheapest paths until no node is over its cap.
//!
//! Shape: a flow of least cost. Each partition sends `replicas` units over its zones, at most the zone cap through each, to
//! nodes; a unit costs the node's score. First every partition takes its best nodes, which is the cheapest flow without
//! caps; then, as long as a node is over its cap, the cheapest chain of exchanges leads one unit from such a node to one
//! with room (successive shortest paths: Busacker & Gowen 1960; by Bellman & Ford with a queue, since giving a replica up
//! is a negative cost). What cannot be led away stays above the cap.
//! Why not a stable matching: a node that must refuse there refuses what it likes least, wherever that has to go, and the
//! chains it starts grow long when most nodes are full; see docs/decisions/0013. Invariants: owners of a partition are
//! different nodes, at most the zone cap in one zone; the result is a pure function of the scores, shares and zones.

use std::collections::VecDeque;

use super::rendezvous::Score;
use super::shares::{Holder, Shares};

/// The flow. Nodes, partitions and zones are indexes.
pub(super) struct Assignment<'a> {
    holders: &'a [Holder],
    shares: &'a Shares,
    /// Per node and partition.
    scores: &'a [Vec<Score>],
    partitions_count: usize,
    zones_count: usize,
    /// Per partition and node.
    owned: Vec<Vec<bool>>,
    /// Per partition and zone: owners.
    zone_counts: Vec<Vec<usize>>,
    /// Per node: partitions owned.
    loads: Vec<usize>,
}

/// A place that a unit passes on its way.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Node(usize),
    /// A partition looks for one more owner, in whatever zone.
    Partition(usize),
    /// A partition looks for one more owner in this zone.
    Zone(usize, usize),
}

impl<'a> Assignment<'a> {
    /// So many replicas of so many partitions, with scores by node and partition.
    pub(super) fn of(
        holders: &'a [Holder],
        shares: &'a Shares,
        scores: &'a [Vec<Score>],
        (replicas, partitions_count): (usize, usize),
    ) -> Self {
        let zones_count = holders.iter().map(|holder| holder.zone + 1).max().unwrap_or(0);
        let mut assignment = Self {
            holders,
            shares,
            scores,
            partitions_count,
            zones_count,
            owned: vec![vec![false; holders.len()]; partitions_count],
            zone_counts: vec![vec![0; zones_count]; partitions_count],
            loads: vec![0; holders.len()],
        };
        for partition in 0..partitions_count {
            assignment.take_the_best(partition, replicas);
        }
        while let Some(path) = assignment.cheapest_path() {
            assignment.shift(&path);
        }
        assignment
    }

    /// The owners of a partition, best score first.
    pub(super) fn owners(&self, partition: usize) -> Vec<usize> {
        let mut ranked = self.ranked(partition);
        ranked.retain(|&node| self.owned[partition][node]);
        ranked
    }

    /// All nodes, best score first; equal scores rank by id.
    pub(super) fn ranked(&self, partition: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.holders.len()).collect();
        nodes.sort_by_key(|&node| self.scores[node][partition]);
        nodes
    }

    fn take_the_best(&mut self, partition: usize, replicas: usize) {
        let mut left = replicas;
        for node in self.ranked(partition) {
            let zone = self.holders[node].zone;
            if left > 0 && self.zone_counts[partition][zone] < self.shares.zone_cap {
                left -= 1;
                self.owned[partition][node] = true;
                self.zone_counts[partition][zone] += 1;
                self.loads[node] += 1;
            }
        }
    }

    /// The cheapest way from a node above its cap to one with room, if there is any.
    fn cheapest_path(&self) -> Option<Vec<Stop>> {
        let mut search = Search::new(self.index(Stop::Zone(self.partitions_count, 0)));
        for node in (0..self.loads.len()).filter(|&node| self.loads[node] > self.shares.caps[node]) {
            search.begin(self.index(Stop::Node(node)), Stop::Node(node));
        }
        while let Some((stop, cost)) = search.next(|stop| self.index(stop)) {
            self.steps(stop, |next, more| search.reach(self.index(next), next, (stop, cost + more)));
        }
        let with_room = (0..self.loads.len()).filter(|&node| self.loads[node] < self.shares.caps[node]);
        let reached = with_room.filter_map(|node| Some((search.costs[self.index(Stop::Node(node))]?, node)));
        let (_, end) = reached.min()?;
        Some(search.path(Stop::Node(end), |stop| self.index(stop)))
    }

    /// Where a unit can go from here, and what it costs.
    fn steps(&self, from: Stop, mut go: impl FnMut(Stop, i64)) {
        match from {
            Stop::Node(node) => {
                for partition in (0..self.partitions_count).filter(|&partition| self.owned[partition][node]) {
                    go(Stop::Zone(partition, self.holders[node].zone), -self.scores[node][partition].0);
                }
            }
            Stop::Zone(partition, zone) => {
                if self.zone_counts[partition][zone] > 0 {
                    go(Stop::Partition(partition), 0);
                }
                for (node, holder) in self.holders.iter().enumerate() {
                    if holder.zone == zone && !self.owned[partition][node] {
                        go(Stop::Node(node), self.scores[node][partition].0);
                    }
                }
            }
            Stop::Partition(partition) => {
                for (zone, &count) in self.zone_counts[partition].iter().enumerate() {
                    if count < self.shares.zone_cap {
                        go(Stop::Zone(partition, zone), 0);
                    }
                }
            }
        }
    }

    /// Leads one unit along a path.
    fn shift(&mut self, path: &[Stop]) {
        for pair in path.windows(2) {
            match (pair[0], pair[1]) {
                (Stop::Node(node), Stop::Zone(partition, _)) => {
                    self.owned[partition][node] = false;
                    self.loads[node] -= 1;
                }
                (Stop::Zone(partition, _), Stop::Node(node)) => {
                    self.owned[partition][node] = true;
                    self.loads[node] += 1;
                }
                (Stop::Zone(partition, zone), Stop::Partition(_)) => self.zone_counts[partition][zone] -= 1,
                (Stop::Partition(_), Stop::Zone(partition, zone)) => self.zone_counts[partition][zone] += 1,
                (Stop::Node(_) | Stop::Partition(_), Stop::Node(_) | Stop::Partition(_))
                | (Stop::Zone(..), Stop::Zone(..)) => {
                    unreachable!("`steps` leads from nodes and partitions to zones, and from zones back")
                }
            }
        }
    }

    /// A number for each stop, without gaps; one past the last partition's zones is their count.
    fn index(&self, stop: Stop) -> usize {
        let nodes = self.holders.len();
        match stop {
            Stop::Node(node) => node,
            Stop::Partition(partition) => nodes + partition,
            Stop::Zone(partition, zone) => nodes + self.partitions_count + partition * self.zones_count + zone,
        }
    }
}

/// A search for cheapest paths from several beginnings.
struct Search {
    /// Per stop: what the cheapest known way costs.
    costs: Vec<Option<i64>>,
    /// Per stop: where that way comes from.
    before: Vec<Option<Stop>>,
    waits: Vec<bool>,
    queue: VecDeque<Stop>,
}

impl Search {
    fn new(stops_count: usize) -> Self {
        Self {
            costs: vec![None; stops_count],
            before: vec![None; stops_count],
            waits: vec![false; stops_count],
            queue: VecDeque::new(),
        }
    }

    fn begin(&mut self, index: usize, stop: Stop) {
        self.costs[index] = Some(0);
        self.waits[index] = true;
        self.queue.push_back(stop);
    }

    fn next(&mut self, index: impl Fn(Stop) -> usize) -> Option<(Stop, i64)> {
        let stop = self.queue.pop_front()?;
        let index = index(stop);
        self.waits[index] = false;
        Some((stop, self.costs[index]?))
    }

    fn reach(&mut self, index: usize, stop: Stop, (before, cost): (Stop, i64)) {
        if self.costs[index].is_some_and(|known| known <= cost) {
            return;
        }
        self.costs[index] = Some(cost);
        self.before[index] = Some(before);
        if !std::mem::replace(&mut self.waits[index], true) {
            self.queue.push_back(stop);
        }
    }

    /// The way to `end`, from its beginning.
    fn path(&self, end: Stop, index: impl Fn(Stop) -> usize) -> Vec<Stop> {
        let mut path = vec![end];
        while let Some(before) = path.last().and_then(|&stop| self.before[index(stop)]) {
            path.push(before);
        }
        path.reverse();
        path
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    const REPLICAS: usize = 2;
    const PARTITIONS: usize = 4;

    /// Every way to choose owners of one partition among four nodes.
    fn choices(holders: &[Holder], zone_cap: usize) -> Vec<Vec<usize>> {
        let pairs = (0..4).flat_map(|a| (a + 1..4).map(move |b| vec![a, b]));
        pairs.filter(|pair| zone_cap > 1 || holders[pair[0]].zone != holders[pair[1]].zone).collect()
    }

    fn least_cost(choices: &[Vec<usize>], scores: &[Vec<Score>], caps: &[usize], partition: usize) -> Option<i64> {
        if partition == PARTITIONS {
            return Some(0);
        }
        let with = |nodes: &Vec<usize>| {
            let mut caps = caps.to_vec();
            for &node in nodes {
                caps[node] = caps[node].checked_sub(1)?;
            }
            let cost: i64 = nodes.iter().map(|&node| scores[node][partition].0).sum();
            Some(cost + least_cost(choices, scores, &caps, partition + 1)?)
        };
        choices.iter().filter_map(with).min()
    }

    #[test]
    fn no_other_assignment_within_the_caps_costs_less() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut feasible = 0;
        for case in 0..300 {
            let zones = if case % 2 == 0 { [0, 0, 1, 1] } else { [0, 1, 2, 2] };
            let holders = zones.map(|zone| Holder { zone, weight: 1 });
            let caps: Vec<usize> = (0..4).map(|_| 1 + (rng.next_u64() % 4) as usize).collect();
            let zone_cap = 1 + (rng.next_u64() % 2) as usize;
            let shares = Shares { zone_cap, caps, unusable: Vec::new() };
            let mut score = || Score((rng.next_u64() >> 20).cast_signed());
            let scores: Vec<Vec<Score>> = (0..4).map(|_| (0..PARTITIONS).map(|_| score()).collect()).collect();
            let assignment = Assignment::of(&holders, &shares, &scores, (REPLICAS, PARTITIONS));
            let owned =
                (0..PARTITIONS).flat_map(|index| assignment.owners(index).into_iter().map(move |node| (node, index)));
            let cost: i64 = owned.map(|(node, partition)| scores[node][partition].0).sum();
            let is_within = assignment.loads.iter().zip(&shares.caps).all(|(load, cap)| load <= cap);
            let least = least_cost(&choices(&holders, zone_cap), &scores, &shares.caps, 0);
            assert_eq!(is_within.then_some(cost), least, "{scores:?} {shares:?}");
            feasible += usize::from(is_within);
        }
        assert!(feasible > 100 && feasible < 300, "{feasible} of 300 have an answer");
    }

    #[test]
    fn what_no_cap_allows_goes_above_one() {
        let holders = [0, 0, 1].map(|zone| Holder { zone, weight: 1 });
        let shares = Shares { zone_cap: 1, caps: vec![1, 1, 1], unusable: Vec::new() };
        let scores = [1, 2, 3].map(|score| vec![Score(score); 2]);
        let assignment = Assignment::of(&holders, &shares, &scores, (2, 2));
        assert_eq!(assignment.loads, [1, 1, 2]);
    }
}
