//! Under what this node holds its data, and what it may do while its store is not the one its layout named.
//!
//! A member is synced from the start only if every layout that lists it names its store. With any other store (a wiped or
//! restored directory, a log that lost acknowledged writes) it is *catching up*: it stores and acknowledges, once it exchanged
//! views with enough other holders of the partition, and refuses to read, mint or scan: it never calls absent what it has lost.
//! It stays so until it has pulled what is missing (`transition`). Source: DESIGN §4 (Actors, Binding), §5 (Views, Catching up).
//! Nothing at all is served by a process whose leases nobody confirmed yet: its directory may be an older copy.
//! Invariant: an ack says what is known when it leaves, so whoever was taught in between of a replaced holder says so.

use std::collections::BTreeSet;

use bytes::Bytes;
use rand_core::Rng;
use shoal_protocol::id::{Actor, Lsn, NodeId, Partition};
use shoal_protocol::peer::{Applied, Custody, PeerRequest, PeerResponse, Refusal};
use shoal_protocol::time::Now;

use super::{Effect, Node};
use crate::ring::Ring;
use crate::storage::{CellId, CellPlace, data_partition};
use crate::system::SystemInput;

impl Node {
    /// Whether this node's home store is the one that every active layout names which lists the node, or has caught up; and no
    /// other of its stores lost anything.
    pub(super) fn is_synced(&self) -> bool {
        let (Some(rings), Some(custody)) = (&self.rings, self.system.custody()) else { return false };
        let (me, store) = (self.config.node, custody.store());
        let has_all = |ring: &Ring| {
            let layout = ring.layout();
            !layout.lists(me) || layout.names(me, store) || self.transition.has_caught_up(layout.id())
        };
        self.renewing.is_empty() && rings.iter().all(has_all)
    }

    /// Whether a data request for a partition held here may be served. What comes for the sake of repair is stored in any case.
    pub(super) fn check_custody(
        &self,
        partition: Partition,
        (request, is_repair): (&PeerRequest, bool),
    ) -> Result<(), Refusal> {
        let may_be_served = match request {
            PeerRequest::Apply { .. } | PeerRequest::Admit { .. } => {
                is_repair || self.is_synced() || self.has_met_owners(partition)
            }
            PeerRequest::Get { .. }
            | PeerRequest::Scan(_)
            | PeerRequest::Mint { .. }
            | PeerRequest::CompareSystem { .. }
            | PeerRequest::System { .. }
            | PeerRequest::ConfirmLeases { .. }
            | PeerRequest::Members
            | PeerRequest::Repair(_) => self.is_synced(),
        };
        if may_be_served && !self.former.is_dropping(partition) && self.leases.is_proven() {
            Ok(())
        } else {
            Err(Refusal::NotSynced)
        }
    }

    /// Whether this store has met enough other holders under every active layout that lists it for a partition.
    fn has_met_owners(&self, partition: Partition) -> bool {
        let Some(rings) = &self.rings else { return false };
        let mut lists_me = rings.iter().filter(|ring| ring.preference(partition).is_primary(self.config.node));
        self.renewing.is_empty()
            && self.system.custody().is_some()
            && lists_me.all(|ring| self.has_met_enough(ring, partition))
    }

    /// Whether this store and N - W + 1 other holders know each other's views: any holder that was replaced since, or that
    /// an earlier ack names, is then known to one of them. With W = 1 there are not so many: all others.
    pub(super) fn has_met_enough(&self, ring: &Ring, partition: Partition) -> bool {
        let others = ring.preference(partition).primaries.iter().filter(|node| **node != self.config.node);
        let met = others.filter(|node| self.system.has_met(**node)).count();
        met >= ring.numbers(partition.class).pulls_of_others().min(self.others_left(ring, partition))
    }

    /// The acknowledgement of a delta that is synced here.
    pub(super) fn ack(&self, (partition, lsn): (Partition, Lsn), minted: Option<Bytes>) -> PeerResponse {
        // Of a hint, whoever holds what it is of.
        let partition = data_partition(partition);
        let incarnation = self.cells.home().store().leases().incarnation;
        let me = self.config.node;
        let generation = self.system.custody().map_or(0, |custody| custody.generation);
        let refill = self.cells.home().refill_count(me, partition, incarnation);
        let known = self.co_owners(partition).filter_map(|node| Some((node, self.later_custody(node, partition)?)));
        let applied = Applied { custody: Custody { generation, incarnation, refill }, lsn, known: known.collect() };
        match minted {
            Some(delta) => PeerResponse::Minted { delta, applied },
            None => PeerResponse::Applied(applied),
        }
    }

    /// The custody of another holder, unless it is its first.
    fn later_custody(&self, node: NodeId, partition: Partition) -> Option<Custody> {
        let newest = self.system.state().custody(node)?;
        let refill = self.cells.home().refill_count(node, partition, newest.incarnation);
        let custody = Custody { refill, ..newest };
        (custody.generation > 0 || custody.refill.0 > 0).then_some(custody)
    }

    fn co_owners(&self, partition: Partition) -> impl Iterator<Item = NodeId> {
        let owners = self.rings.iter().flat_map(move |rings| rings.owners(partition));
        owners.filter(|node| *node != self.config.node)
    }

    /// Acknowledged writes are lost in a cell: what its store minted before must not be gone on with (DESIGN §4, Actors).
    ///
    /// The home store gets a new incarnation with it, because that is the one which acks and views name: so the whole node is
    /// catching up, for a loss in any of its cells. That is more than is needed, and keeps one incarnation per node in the
    /// protocol.
    pub(super) fn begin_incarnation(&mut self, cell: CellId, out: &mut Vec<Effect>) {
        for cell in BTreeSet::from([CellId::HOME, cell]) {
            let incarnation = Actor::incarnation(self.rng.next_u64());
            self.renewing.insert(cell, incarnation);
            self.renew_again(cell, out);
        }
    }

    /// A cell's log lost acknowledged writes.
    pub(super) fn found_damaged(&mut self, cell: CellId, damaged_records: usize, out: &mut Vec<Effect>) {
        let store = self.place(cell);
        tracing::error!(%store, damaged_records, "a log is damaged: this node lost acknowledged writes and is catching up");
        self.begin_incarnation(cell, out);
    }

    /// Asks a store for the incarnation it is to go on as, if there is one: after a failure, it may not have got it.
    pub(super) fn renew_again(&mut self, cell: CellId, out: &mut Vec<Effect>) {
        let Some(incarnation) = self.renewing.get(&cell) else { return };
        let mut effects = Vec::new();
        self.cells.get_mut(cell).store_mut().begin_incarnation(*incarnation, &mut effects);
        out.extend(effects.into_iter().map(|effect| Effect::Store { cell, effect }));
    }

    /// A lease of a cell is durable: perhaps that of a new incarnation. The home store's is what everybody is to know.
    pub(super) fn leased(&mut self, now: Now, cell: CellId, out: &mut Vec<Effect>) {
        let durable = self.cells.get(cell).store().leases().incarnation;
        if self.renewing.get(&cell) == Some(&durable) {
            self.renewing.remove(&cell);
            if cell.is_home() {
                self.tell_system(now, SystemInput::Replaced { incarnation: durable }, out);
            }
        }
        self.describe(now, out);
        self.confirm_leases(now, out);
        self.transition.is_due = true;
    }

    /// Which of this node's stores a cell has, in words.
    pub(super) fn place(&self, cell: CellId) -> CellPlace {
        CellPlace { cell, count: self.cells.count() }
    }
}
