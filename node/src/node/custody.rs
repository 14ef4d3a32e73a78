//! Under what this node holds its data, and what it may do while its store is not the one its layout named.
//!
//! A member is synced from the start only if the layout names its store. With any other store (a wiped or restored
//! directory, a log that lost acknowledged writes) it is *catching up*: it stores and acknowledges, once it exchanged views
//! with enough other holders of the partition, and refuses to read, mint or scan: it never calls absent what it has lost.
//! It stays so until the repair room pulls what is missing. Source: DESIGN §4 (Actors, Binding), §5 (Views, Catching up).
//! Invariant: an ack says what is known when it leaves, so whoever was taught in between of a replaced holder says so.

use bytes::Bytes;
use rand_core::Rng;
use shoal_protocol::id::{Actor, NodeId, Partition};
use shoal_protocol::peer::{Applied, Custody, PeerRequest, PeerResponse, Refusal};
use shoal_protocol::time::Now;

use super::{Effect, Node};
use crate::system::SystemInput;

impl Node {
    /// Whether this node's store is the one its layout named.
    pub(super) fn is_synced(&self) -> bool {
        self.renewing.is_none() && self.system.custody().is_some_and(|custody| custody.generation == 0)
    }

    /// Whether a data request for a partition held here may be served.
    pub(super) fn check_custody(&self, partition: Partition, request: &PeerRequest) -> Result<(), Refusal> {
        let may_be_served = match request {
            PeerRequest::Apply { .. } | PeerRequest::Admit { .. } => self.is_synced() || self.has_met_enough(partition),
            PeerRequest::Get { .. }
            | PeerRequest::Scan(_)
            | PeerRequest::Mint { .. }
            | PeerRequest::CompareSystem { .. }
            | PeerRequest::System { .. } => self.is_synced(),
        };
        if may_be_served { Ok(()) } else { Err(Refusal::NotSynced) }
    }

    /// Whether this store and N - W + 1 other holders know each other's views: any holder that was replaced since, or that
    /// an earlier ack names, is then known to one of them. With W = 1 there are not so many: all others.
    fn has_met_enough(&self, partition: Partition) -> bool {
        let Some(ring) = &self.ring else { return false };
        let others = self.co_owners(partition);
        let met = others.filter(|node| self.system.has_met(*node)).count();
        let numbers = ring.numbers(partition.class);
        let needed = usize::from(numbers.n - numbers.w + 1).min(usize::from(numbers.n.saturating_sub(1)));
        self.renewing.is_none() && self.system.custody().is_some() && met >= needed
    }

    /// The acknowledgement of a delta that is synced here.
    pub(super) fn ack(&self, partition: Partition, minted: Option<Bytes>) -> PeerResponse {
        let incarnation = self.replica.store().leases().incarnation;
        let me = self.config.node;
        let generation = self.system.custody().map_or(0, |custody| custody.generation);
        let refill = self.replica.refill_count(me, partition, incarnation);
        let known = self.co_owners(partition).filter_map(|node| Some((node, self.later_custody(node, partition)?)));
        let applied = Applied { custody: Custody { generation, incarnation, refill }, known: known.collect() };
        match minted {
            Some(delta) => PeerResponse::Minted { delta, applied },
            None => PeerResponse::Applied(applied),
        }
    }

    /// The custody of another holder, unless it is its first.
    fn later_custody(&self, node: NodeId, partition: Partition) -> Option<Custody> {
        let newest = self.system.state().custody(node)?;
        let refill = self.replica.refill_count(node, partition, newest.incarnation);
        let custody = Custody { refill, ..newest };
        (custody.generation > 0 || custody.refill.0 > 0).then_some(custody)
    }

    fn co_owners(&self, partition: Partition) -> impl Iterator<Item = NodeId> {
        let primaries = self.ring.iter().flat_map(move |ring| &ring.preference(partition).primaries);
        primaries.copied().filter(|node| *node != self.config.node)
    }

    /// Acknowledged writes are lost here: what this store minted before must not be gone on with (DESIGN §4, Actors).
    pub(super) fn begin_incarnation(&mut self, damaged_records: usize, out: &mut Vec<Effect>) {
        tracing::error!(damaged_records, "the log is damaged: this node lost acknowledged writes and is catching up");
        let mut effects = Vec::new();
        let incarnation = Actor::incarnation(self.rng.next_u64());
        self.renewing = Some(incarnation);
        self.replica.store_mut().begin_incarnation(incarnation, &mut effects);
        out.extend(effects.into_iter().map(Effect::Store));
    }

    /// A lease is durable: perhaps that of the new incarnation, which everybody is to know.
    pub(super) fn leased(&mut self, now: Now, out: &mut Vec<Effect>) {
        let durable = self.replica.store().leases().incarnation;
        if let Some(incarnation) = self.renewing.take_if(|incarnation| *incarnation == durable) {
            self.tell_system(now, SystemInput::Replaced { incarnation }, out);
        }
    }
}
