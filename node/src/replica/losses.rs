//! What this store and others lost, and what makes up for it: refill counts, floors, whole objects over damaged rows.
//!
//! Source: DESIGN §4 (Actors), §9. Invariant: a count is told only once it is durable here.

use shoal_protocol::id::{Actor, NodeId, Partition, RefillCount};
use shoal_protocol::object::Object;
use shoal_protocol::peer::{Custody, Refusal};

use super::refills::{DotFloor, REFILLS_BLOB};
use super::{Repaired, Replica, ReplicaEffect, refuse};
use crate::storage::RowKey;

impl<T: Clone> Replica<T> {
    /// How often this incarnation of a node refilled a partition, as far as is known durably.
    #[must_use]
    pub fn refill_count(&self, node: NodeId, partition: Partition, incarnation: Actor) -> RefillCount {
        self.refills.count(node, partition, incarnation)
    }

    /// Keeps for good under what a node (this one among them) holds a partition: acks tell it once it is durable. To be
    /// called when this node loses some of a partition, and when another says that it did.
    pub fn note_custody(
        &mut self,
        node: NodeId,
        partition: Partition,
        custody: Custody,
        out: &mut Vec<ReplicaEffect<T>>,
    ) {
        if self.refills.note(node, partition, custody) {
            self.write_refills(out);
        }
    }

    /// This store lost rows of a partition: nothing that it minted for it before is gone on with (`Refills::prev`).
    pub fn note_floor(&mut self, partition: Partition, floor: DotFloor) {
        self.refills.note_floor(partition, floor);
    }

    /// Writes a whole object over a row that cannot be read: an `Ack` once it is synced.
    pub fn heal(&mut self, from: T, key: &RowKey, object: &Object, out: &mut Vec<ReplicaEffect<T>>) {
        if !self.store.is_serving() {
            out.push(refuse(from, Refusal::Storage));
            return;
        }
        let mut effects = Vec::new();
        let lsn = self.store.heal(key, object, object.encode(), &mut effects);
        out.extend(effects.into_iter().map(ReplicaEffect::Store));
        self.leave_at(lsn, ReplicaEffect::Ack { to: from, partition: key.partition(), lsn, minted: None }, out);
    }

    /// What was joined here for the sake of repair.
    #[must_use]
    pub fn repaired(&self) -> &Repaired {
        &self.repaired
    }

    pub(super) fn write_refills(&mut self, out: &mut Vec<ReplicaEffect<T>>) {
        let mut effects = Vec::new();
        let ticket = self.store.persist(REFILLS_BLOB, self.refills.bytes(), &mut effects);
        self.refills.writing(ticket);
        out.extend(effects.into_iter().map(ReplicaEffect::Store));
    }
}
