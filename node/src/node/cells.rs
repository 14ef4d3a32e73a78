//! The cells of a node: each a replica over a store of its own, which holds the partitions p with p mod S = its number.
//!
//! Shape: a request for a partition goes to its cell, a completion of a store to the cell it names. The home cell also keeps
//! the node's blobs (system state, refill counts), and the incarnation of its store is the node's: acks, hellos and views
//! name it. Every cell mints under its own store's incarnation.
//! Source: DESIGN §3 (Threads). Invariants: there is at least one cell, and how many there are never changes; a cell that failed
//! refuses what is asked of it, the others go on.

use shoal_protocol::id::Partition;
use shoal_protocol::member::StoreLease;
use shoal_protocol::object::Limits;
use shoal_protocol::time::{Instant, Now};

use super::Asker;
use crate::replica::{RefillsError, Repaired, Replica, ReplicaEffect};
use crate::storage::{CellId, CellPlace, Room, Store, Written};

#[derive(Debug)]
pub(super) struct Cells {
    /// By number.
    cells: Vec<Replica<Asker>>,
}

impl Cells {
    /// A cell over each of these stores, the home store first, which holds these refill counts and floors (`None`: none).
    ///
    /// # Errors
    /// The refill counts are damaged, or of a newer version.
    pub(super) fn new(stores: Vec<Store>, limits: Limits, refills: Option<&[u8]>) -> Result<Self, RefillsError> {
        assert!(!stores.is_empty(), "a node has a home store");
        // The home cell writes them; the others mint by the floors.
        let cell = |store| Replica::new(store, limits, refills);
        Ok(Self { cells: stores.into_iter().map(cell).collect::<Result<_, _>>()? })
    }

    pub(super) fn count(&self) -> u8 {
        u8::try_from(self.cells.len()).unwrap_or(u8::MAX)
    }

    /// Every cell, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (CellId, &Replica<Asker>)> {
        (0..).map(CellId).zip(&self.cells)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (CellId, &mut Replica<Asker>)> {
        (0..).map(CellId).zip(&mut self.cells)
    }

    /// The cell of a partition.
    pub(super) fn of(&mut self, partition: Partition) -> (CellId, &mut Replica<Asker>) {
        let cell = CellPlace::of(partition, self.count());
        (cell, self.get_mut(cell))
    }

    pub(super) fn get(&self, cell: CellId) -> &Replica<Asker> {
        &self.cells[usize::from(cell.0)]
    }

    pub(super) fn get_mut(&mut self, cell: CellId) -> &mut Replica<Asker> {
        &mut self.cells[usize::from(cell.0)]
    }

    pub(super) fn home(&self) -> &Replica<Asker> {
        self.get(CellId::HOME)
    }

    /// The home store, to change it.
    pub(super) fn home_store(&mut self) -> &mut Store {
        self.get_mut(CellId::HOME).store_mut()
    }

    /// Whether some cell serves.
    pub(super) fn any_serves(&self) -> bool {
        self.cells.iter().any(|cell| cell.store().is_serving())
    }

    /// The cells whose storage failed and is being reopened.
    pub(super) fn failed(&self) -> Vec<CellId> {
        self.iter().filter(|(_, cell)| !cell.store().is_serving()).map(|(id, _)| id).collect()
    }

    /// The highest of all: which cell a write is for is not looked at before it is let in.
    pub(super) fn pressure(&self) -> f32 {
        self.cells.iter().map(|cell| cell.store().pressure()).fold(0.0, f32::max)
    }

    /// The least of all.
    pub(super) fn room(&self) -> Room {
        self.cells.iter().map(|cell| cell.store().room()).max().unwrap_or_default()
    }

    /// Requests that wait in any of them.
    pub(super) fn waiting_count(&self) -> usize {
        self.cells.iter().map(Replica::waiting_count).sum()
    }

    /// How far each store may have minted, the home store first.
    pub(super) fn leases(&self) -> Vec<StoreLease> {
        let lease = |cell: &Replica<Asker>| {
            let leases = cell.store().leases();
            StoreLease { incarnation: leases.incarnation, lease_end: leases.dots_end }
        };
        self.cells.iter().map(lease).collect()
    }

    /// What all stores wrote into rows, and into their logs since each was opened, bytes.
    pub(super) fn written(&self) -> (Written, u64) {
        let (mut sum, mut log_bytes) = (Written::default(), 0);
        for (_, cell) in self.iter() {
            let (written, log) = cell.store().written();
            sum.add(&written);
            log_bytes += log;
        }
        (sum, log_bytes)
    }

    /// What all cells joined for the sake of repair.
    pub(super) fn repaired(&self) -> Repaired {
        let mut sum = Repaired::default();
        self.cells.iter().for_each(|cell| sum.add(cell.repaired()));
        sum
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.cells.iter().filter_map(Replica::next_deadline).min()
    }

    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<(CellId, ReplicaEffect<Asker>)>) {
        for (id, cell) in self.iter_mut() {
            let mut effects = Vec::new();
            cell.tick(now, &mut effects);
            out.extend(effects.into_iter().map(|effect| (id, effect)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use shoal_protocol::address::{KeyspaceName, Place};
    use shoal_protocol::client::{
        ClientCall, ClientRequest, ClientResponse, KeyspaceLayout, KeyspaceSpec, QuorumMode, Status,
    };
    use shoal_protocol::error::RequestError;
    use shoal_protocol::id::{Actor, Class, ClusterId, KeyspaceId, NodeId, RequestId};
    use shoal_protocol::object::Conflict;
    use shoal_protocol::peer::{PeerCall, PeerRequest, PeerResponse, Refusal};
    use shoal_protocol::time::WallTime;

    use super::*;
    use crate::node::{ConnectionId, Effect, Input, LinkId, Node, NodeConfig, NodeLimits};
    use crate::storage::{Failure, Leases, LogEffect, Memtable, ReadEffect, Recovered, RowsAt, StoreDone, StoreEffect};

    const COUNT: u8 = 3;
    const CLASS: Class = Class { n: 1, r: 0, w: 0 };

    /// A node alone, whose stores have no disk: what is asked of their logs is done at once, what is read never comes.
    struct Rig {
        node: Node,
        reads: BTreeSet<CellId>,
        answers: Vec<Result<ClientResponse, RequestError>>,
        refusals: Vec<Refusal>,
    }

    fn now() -> Now {
        Now { instant: Instant(1_000_000), wall: WallTime(1_800_000_000_000) }
    }

    fn recovered(cell: u8, damaged_records: usize) -> Recovered {
        Recovered {
            created: false,
            cluster: Some(ClusterId(1)),
            leases: Leases { incarnation: Actor(100 + u64::from(cell)), dots_end: 0, lsns_end: 0 },
            memtable: Memtable::default(),
            room: Room::Enough,
            rows: RowsAt::default(),
            blobs: BTreeMap::new(),
            damaged_records,
        }
    }

    fn config() -> NodeConfig {
        NodeConfig {
            cluster: ClusterId(1),
            node: NodeId(1),
            name: "a".into(),
            zone: String::new(),
            weight: 100,
            advertise_peer: Vec::new(),
            advertise_client: Vec::new(),
            version: String::new(),
            expect: 1,
            join: crate::system::JoinMode::Auto,
            seeds: Vec::new(),
            found_alone: true,
            boot_nonce: 1,
            allocations: None,
            limits: NodeLimits::default(),
        }
    }

    impl Rig {
        fn start() -> Self {
            let stores = (0..COUNT).map(|cell| recovered(cell, 0)).collect();
            let mut effects = Vec::new();
            let node = Node::new(config(), stores, [1; 32], now(), &mut effects).unwrap();
            let mut rig = Self { node, reads: BTreeSet::new(), answers: Vec::new(), refusals: Vec::new() };
            rig.perform(effects);
            rig
        }

        fn handle(&mut self, input: Input) {
            let mut effects = Vec::new();
            self.node.handle(now(), input, &mut effects);
            self.perform(effects);
        }

        fn stored(&mut self, cell: u8, done: StoreDone) {
            self.handle(Input::Stored { cell: CellId(cell), done });
        }

        fn perform(&mut self, effects: Vec<Effect>) {
            for effect in effects {
                match effect {
                    Effect::Store { cell, effect: StoreEffect::Log(LogEffect::Lease(leases)) } => {
                        self.stored(cell.0, StoreDone::Leased(leases));
                    }
                    Effect::Store { cell, effect: StoreEffect::Log(LogEffect::Persist { ticket, .. }) } => {
                        assert!(cell.is_home(), "only the home store keeps blobs");
                        self.stored(cell.0, StoreDone::Persisted { ticket });
                    }
                    Effect::Store { cell, effect: StoreEffect::Reads(ReadEffect::Load { .. }) } => {
                        self.reads.insert(cell);
                    }
                    Effect::AnswerClient { result, .. } => self.answers.push(result),
                    Effect::AnswerPeer { response: PeerResponse::Refused(why), .. } => self.refusals.push(why),
                    Effect::AnswerPeer { .. }
                    | Effect::Call { .. }
                    | Effect::Gossip { .. }
                    | Effect::Learn { .. }
                    | Effect::Store { .. } => {}
                }
            }
        }

        fn keyspace(&mut self) -> KeyspaceId {
            let spec = KeyspaceSpec {
                class: CLASS,
                layout: KeyspaceLayout::Key,
                conflict: Conflict::Siblings,
                quorum: QuorumMode::Strict,
                ttl_s: None,
            };
            let request = ClientRequest::CreateKeyspace { name: KeyspaceName::new("app").unwrap(), spec };
            let call = ClientCall { deadline_ms: 1_000, request };
            let (connection, request) = (ConnectionId(1), RequestId(1));
            self.handle(Input::ClientCall { connection, request, session: Actor::session(30_000, 1), call });
            match self.answers.pop() {
                Some(Ok(ClientResponse::Keyspace(info))) => info.id,
                other => panic!("{other:?}"),
            }
        }

        /// Another node asks for an object whose partition is in this cell.
        fn get_from(&mut self, keyspace: KeyspaceId, cell: u8) {
            let mut places = (0..).map(|number: u32| Place {
                keyspace,
                collection: "".into(),
                key: number.to_string().into_bytes().into(),
            });
            let is_there = |place: &Place| place.partition(CLASS).index % u16::from(COUNT) == u16::from(cell);
            let place = places.find(is_there).unwrap();
            let call = PeerCall {
                deadline_ms: 1_000,
                view: Some(self.node.hello().view),
                request: PeerRequest::Get { place, have: None },
            };
            let (link, from, request) = (LinkId(1), NodeId(2), RequestId(u64::from(cell)));
            self.handle(Input::PeerCall { link, from, request, call });
        }

        fn status(&self) -> Status {
            self.node.status(now().instant)
        }
    }

    #[test]
    fn a_partition_is_in_the_cell_of_its_index() {
        let partition = |index| Partition { class: CLASS, index };
        let cells: Vec<u8> = (0..7).map(|index| CellPlace::of(partition(index), COUNT).0).collect();
        assert_eq!(cells, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(CellPlace::of(partition(255), 1), CellId::HOME);
        assert_eq!(CellPlace::of(partition(255), 16), CellId(15));
    }

    #[test]
    fn a_request_goes_to_the_store_of_its_partition() {
        let mut rig = Rig::start();
        let keyspace = rig.keyspace();
        for cell in 0..COUNT {
            rig.get_from(keyspace, cell);
            assert_eq!(std::mem::take(&mut rig.reads), BTreeSet::from([CellId(cell)]));
        }
    }

    #[test]
    fn a_cell_that_failed_refuses_and_the_others_go_on() {
        let mut rig = Rig::start();
        let keyspace = rig.keyspace();
        assert_eq!(rig.status().serving, Ok(()));
        rig.stored(1, StoreDone::Failed(Failure::Full));
        rig.get_from(keyspace, 1);
        assert_eq!((std::mem::take(&mut rig.refusals), rig.reads.len()), (vec![Refusal::Storage], 0));
        rig.get_from(keyspace, 2);
        assert_eq!((rig.refusals.len(), std::mem::take(&mut rig.reads)), (0, BTreeSet::from([CellId(2)])));
        let status = rig.status();
        assert!(status.serving.unwrap_err().contains("1 of 3") && status.members[0].is_reachable());
        rig.stored(0, StoreDone::Failed(Failure::Full));
        rig.stored(2, StoreDone::Failed(Failure::Full));
        assert!(!rig.status().members[0].is_reachable());
        for cell in 0..COUNT {
            rig.stored(cell, StoreDone::Reopened(Box::new(recovered(cell, 0))));
            assert!(rig.status().members[0].is_reachable());
            assert_eq!(rig.status().serving.is_ok(), cell == 2);
        }
        rig.get_from(keyspace, 1);
        assert_eq!(rig.reads, BTreeSet::from([CellId(1)]));
    }

    #[test]
    fn damage_in_a_cell_renews_its_store_and_the_home_store_so_that_everybody_sees_it() {
        let mut rig = Rig::start();
        rig.keyspace();
        let of = |rig: &Rig, cell| rig.node.cells.get(CellId(cell)).store().leases().incarnation;
        let before = [0, 1, 2].map(|cell| of(&rig, cell));
        assert_eq!(before, [Actor(100), Actor(101), Actor(102)]);
        assert!(!rig.status().members[0].catching_up);
        // The home store cannot be renewed while it has failed itself: it is when it serves again.
        rig.stored(0, StoreDone::Failed(Failure::Full));
        rig.stored(2, StoreDone::Failed(Failure::Full));
        rig.stored(2, StoreDone::Reopened(Box::new(recovered(2, 1))));
        assert_eq!((of(&rig, 0), of(&rig, 2) == before[2]), (before[0], false));
        assert!(rig.status().members[0].catching_up);
        rig.stored(0, StoreDone::Reopened(Box::new(recovered(0, 0))));
        assert_ne!(of(&rig, 0), before[0]);
        assert_eq!(of(&rig, 1), before[1]);
        let status = rig.status();
        assert_eq!(status.incarnation, of(&rig, 0));
        // There is nobody to pull from: the next layout names the new store, and what is gone is said to be gone.
        assert!(!status.members[0].catching_up && status.warnings.iter().any(|warning| warning.contains("are gone")));
    }
}
