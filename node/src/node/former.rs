//! Partitions that this node gave away: what it still has of them is dropped, once no active layout lists it for them.
//!
//! Shape: when one layout is left, every store lists what it has something of; what this node does not own is first counted as
//! lost, with the floor below which nothing minted is gone on with, should the partition come back (DESIGN §4, Actors); when
//! that is durable the rows go. Hints are no partition of this node's, and stay.
//! Source: DESIGN §5 (past owner). Invariant: what any active layout lists this node for stays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shoal_protocol::id::{Lsn, Partition};

use super::{Effect, Node, Work};
use crate::replica::ReplicaEffect;
use crate::storage::{CellId, DropId, Extent, is_hint_partition};

/// What is to be dropped once the loss of it is durable.
#[derive(Debug, Default)]
pub(super) struct Former {
    partitions: BTreeSet<Partition>,
    /// What is being dropped, which no comparison may take for held.
    dropping: BTreeMap<(CellId, DropId), Partition>,
    /// The lists under way, in the order they were asked for: whether each is for this.
    lists: BTreeMap<CellId, VecDeque<bool>>,
}

impl Former {
    /// A store is to list its partitions.
    pub(super) fn listing(&mut self, cell: CellId, is_own: bool) {
        self.lists.entry(cell).or_default().push_back(is_own);
    }

    /// It has; whether for this.
    pub(super) fn listed(&mut self, cell: CellId) -> bool {
        self.lists.get_mut(&cell).and_then(VecDeque::pop_front).unwrap_or(false)
    }

    /// Something was dropped; whether that was for this.
    pub(super) fn dropped(&mut self, cell: CellId, id: DropId) -> bool {
        self.dropping.remove(&(cell, id)).is_some()
    }

    /// Whether a partition is being dropped.
    pub(super) fn is_dropping(&self, partition: Partition) -> bool {
        self.dropping.values().any(|dropping| *dropping == partition)
    }

    /// It has failed, and will not.
    pub(super) fn failed(&mut self, cell: CellId) {
        self.lists.remove(&cell);
        self.dropping.retain(|(of, _), _| *of != cell);
    }
}

impl Node {
    /// Looks for what this node does not hold any more.
    pub(super) fn look_for_former(&mut self, out: &mut Vec<Effect>) {
        if self.rings.as_ref().is_none_or(|rings| !rings.older().is_empty()) {
            return;
        }
        for (cell, replica) in self.cells.iter() {
            let mut effects = Vec::new();
            if !replica.store().is_serving() {
                continue;
            }
            replica.store().list_partitions(&mut effects);
            self.former.listing(cell, true);
            out.extend(effects.into_iter().map(|effect| Effect::Store { cell, effect }));
        }
    }

    /// A store has something of these.
    pub(super) fn found_partitions(&mut self, partitions: BTreeSet<Partition>, work: &mut VecDeque<Work>) {
        let former: BTreeSet<Partition> =
            partitions.into_iter().filter(|partition| self.is_former(*partition)).collect();
        if !former.is_empty() {
            self.refill(&former, work);
            self.former.partitions.extend(former);
        }
    }

    /// Every loss that was counted is durable.
    pub(super) fn drop_former(&mut self, work: &mut VecDeque<Work>) {
        for partition in std::mem::take(&mut self.former.partitions) {
            if self.is_former(partition) {
                let mut effects = Vec::new();
                let (cell, replica) = self.cells.of(partition);
                tracing::info!(?partition, "dropping what was given away");
                let extent = Extent { partition, keyspace: None };
                let id = replica.store_mut().drop_rows(extent, Lsn(u64::MAX), &mut effects);
                self.former.dropping.extend(id.map(|id| ((cell, id), partition)));
                work.extend(effects.into_iter().map(|effect| Work::Replica(cell, ReplicaEffect::Store(effect))));
            }
        }
    }

    fn is_former(&self, partition: Partition) -> bool {
        let Some(rings) = &self.rings else { return false };
        let is_held = rings.is_owner(self.config.node, partition) || rings.target().layout().members().is_empty();
        !is_hint_partition(partition) && !is_held
    }
}
