//! Repair in its place: what it asks of peers and of this node's own cells, and what peers ask of these for it.
//!
//! Shape: the room's questions to this node go past custody, because it compares what it has, whatever that is; those of peers
//! are answered by whoever is synced. Flushes that answers wait for are counted here, cell by cell.
//! Invariants: a call of repair names no view; a loss of rows is durable, with its floor, before anything heals it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{
    Class, KeyspaceId, LayoutId, Lsn, NodeId, PARTITIONS_COUNT, Partition, RefillCount, RequestId,
};
use shoal_protocol::peer::{Custody, PeerCall, PeerRequest, PeerResponse, Refusal};
use shoal_protocol::repair::RepairAsk;
use shoal_protocol::time::{Instant, Now};

use super::exchange::REPAIR_ID_BITS;
use super::{Asker, Effect, Node, NodeConfig, Work, replica_work};
use crate::repair::{
    Asked, Held, Holding, KEYS_BYTES_MAX, QuestionId, Repair, RepairEffect, RepairInput, ServeEffect, Server,
};
use crate::replica::{DotFloor, Question, ReplicaEffect};
use crate::storage::{CellId, IngestId, KeysId, KeysRequest, RowKey, StoreEffect, StoreEvent};

/// The room, and what it waits for in the cells.
#[derive(Debug)]
pub(super) struct Repairs {
    room: Repair,
    server: Server<Asker>,
    /// How far each cell is to be flushed before a question can be answered.
    flushes: BTreeMap<QuestionId, BTreeMap<CellId, Lsn>>,
    ingests: BTreeMap<(CellId, IngestId), RequestId>,
    /// What is held follows from these.
    held_by: Option<(Vec<LayoutId>, Keyspaces)>,
}

/// The keyspaces of each class.
type Keyspaces = BTreeMap<Class, BTreeSet<KeyspaceId>>;

impl Repairs {
    pub(super) fn new(config: &NodeConfig, cells_count: usize, seed: [u8; 32]) -> Self {
        Self {
            room: Repair::new(config.node, config.limits.repair, seed),
            server: Server::new(u8::try_from(cells_count).unwrap_or(u8::MAX)),
            flushes: BTreeMap::new(),
            ingests: BTreeMap::new(),
            held_by: None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.room.next_deadline()
    }
}

impl Node {
    /// One input for the room, and everything that follows from it.
    pub(super) fn repair(&mut self, now: Now, input: RepairInput, out: &mut Vec<Effect>) {
        let mut work = VecDeque::new();
        self.tell_repair(now, input, &mut work);
        self.route(now, work, out);
    }

    /// One input for the room; what it wants is left to be routed.
    pub(super) fn tell_repair(&mut self, now: Now, input: RepairInput, work: &mut VecDeque<Work>) {
        let mut effects = Vec::new();
        self.repairs.room.handle(now.instant, input, &mut effects);
        work.extend(effects.into_iter().map(Work::Repair));
    }

    /// Takes over what this node holds, if that has changed.
    pub(super) fn hold(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(rings) = &self.rings else { return };
        let mut keyspaces = Keyspaces::new();
        for info in self.system.keyspaces().values() {
            keyspaces.entry(info.spec.class).or_default().insert(info.id);
        }
        let held_by = (rings.ids().collect(), keyspaces);
        if self.repairs.held_by.as_ref() == Some(&held_by) {
            return;
        }
        let (me, mut held) = (self.config.node, Held::default());
        for class in held_by.1.keys() {
            for index in 0..PARTITIONS_COUNT {
                let partition = Partition { class: *class, index };
                let owners = rings.owners(partition);
                if !owners.contains(&me) {
                    continue;
                }
                let others: BTreeSet<NodeId> = owners.into_iter().filter(|node| *node != me).collect();
                // On the way to another layout it is not settled which few have everything: all are asked.
                let few = rings.target().numbers(*class).pulls_of_others();
                let heal_count = if rings.older().is_empty() { few } else { others.len() };
                held.partitions.insert(partition, Holding { others, heal_count });
            }
        }
        held.keyspaces = held_by.1.clone();
        self.repairs.held_by = Some(held_by);
        self.repair(now, RepairInput::Held(held), out);
    }

    /// Somebody compares itself with this node.
    pub(super) fn compare_asked(&mut self, from: Asker, ask: RepairAsk) -> VecDeque<Work> {
        let is_own = matches!(from, Asker::Repair(_));
        let is_shown = |partition: &Partition| is_own || self.may_compare(*partition);
        let asked = match ask {
            RepairAsk::Roots { partitions, .. } => {
                let shown = |partition| (partition, is_shown(&partition));
                Ok(Asked::Roots(partitions.into_iter().map(shown).collect()))
            }
            RepairAsk::Nodes { partition, level, nodes, .. } if is_shown(&partition) => {
                Ok(Asked::Nodes { partition, level, nodes })
            }
            RepairAsk::Keys { partition, buckets, .. } if is_shown(&partition) => {
                Ok(Asked::Keys { partition, buckets })
            }
            RepairAsk::Nodes { .. } | RepairAsk::Keys { .. } => Err(Refusal::NotSynced),
            RepairAsk::Hold { .. } | RepairAsk::Owe { .. } => Err(Refusal::Malformed),
        };
        let mut effects = Vec::new();
        match asked {
            Ok(asked) => self.repairs.server.ask(from, asked, &mut effects),
            Err(why) => {
                let response = PeerResponse::Refused(why);
                effects.push(ServeEffect::Answer { to: from, response });
            }
        }
        effects.into_iter().map(Work::Serve).collect()
    }

    /// Whether others may compare themselves with what this node has of a partition.
    fn may_compare(&self, partition: Partition) -> bool {
        let is_held = self.rings.as_ref().is_some_and(|rings| rings.is_owner(self.config.node, partition));
        let question = PeerRequest::Repair(RepairAsk::Roots { partitions: Vec::new(), compact_epoch: 0 });
        is_held && self.check_custody(partition, (&question, true)).is_ok()
    }

    pub(super) fn route_serve(
        &mut self,
        now: Now,
        effect: ServeEffect<Asker>,
        work: &mut VecDeque<Work>,
        out: &mut Vec<Effect>,
    ) {
        let mut effects = Vec::new();
        let cell = match effect {
            ServeEffect::Answer { to, response } => return self.answer_asker(now, to, response, (work, out)),
            ServeEffect::Flush { question, partitions } => return self.flush_for(question, &partitions, work),
            ServeEffect::List(cell) => {
                self.cells.get(cell).store().list_partitions(&mut effects);
                if !effects.is_empty() {
                    self.former.listing(cell, false);
                }
                cell
            }
            ServeEffect::Digests(partition) => {
                let (cell, replica) = self.cells.of(partition);
                replica.store().read_digests(partition, &mut effects);
                cell
            }
            ServeEffect::Keys { question, partition, buckets } => {
                let (cell, replica) = self.cells.of(partition);
                let id = KeysId(question);
                let request = KeysRequest { id, partition, buckets, bytes_max: KEYS_BYTES_MAX };
                replica.store().list_keys(request, &mut effects);
                cell
            }
        };
        self.perform_stores(cell, effects, work);
    }

    /// What the store of a cell is to do; one that has failed says so to who waits for it.
    fn perform_stores(&mut self, cell: CellId, effects: Vec<StoreEffect>, work: &mut VecDeque<Work>) {
        if self.cells.get(cell).store().is_serving() {
            work.extend(effects.into_iter().map(|effect| Work::Replica(cell, ReplicaEffect::Store(effect))));
        } else {
            let mut refusals = Vec::new();
            self.repairs.server.failed(cell, &mut refusals);
            work.extend(refusals.into_iter().map(Work::Serve));
        }
    }

    /// Brings what memtables hold of these partitions into the rows.
    fn flush_for(&mut self, question: QuestionId, partitions: &[Partition], work: &mut VecDeque<Work>) {
        let mut waits = BTreeMap::new();
        for partition in partitions {
            let (cell, replica) = self.cells.of(*partition);
            if waits.contains_key(&cell) || !replica.store().holds_unflushed(*partition) {
                continue;
            }
            let mut effects = Vec::new();
            waits.insert(cell, replica.store_mut().flush_all(&mut effects));
            self.perform_stores(cell, effects, work);
        }
        self.repairs.flushes.insert(question, waits);
        self.finish_flushes(work);
    }

    /// Lets questions go on whose flushes are done.
    fn finish_flushes(&mut self, work: &mut VecDeque<Work>) {
        let cells = &self.cells;
        let is_done = |waits: &BTreeMap<CellId, Lsn>| {
            waits.iter().all(|(cell, lsn)| *lsn <= cells.get(*cell).store().flushed_through())
        };
        let done = self.repairs.flushes.extract_if(.., |_, waits| is_done(waits));
        let done: Vec<QuestionId> = done.map(|(question, _)| question).collect();
        let mut effects = Vec::new();
        for question in done {
            self.repairs.server.flushed(question, &mut effects);
        }
        work.extend(effects.into_iter().map(Work::Serve));
    }

    /// A store did what was asked of it for repair.
    pub(super) fn repair_stored(&mut self, now: Now, cell: CellId, event: StoreEvent, work: &mut VecDeque<Work>) {
        let (server, mut effects) = (&mut self.repairs.server, Vec::new());
        match event {
            StoreEvent::Digests { partition, digests } => server.digests_read(partition, &digests, &mut effects),
            StoreEvent::Partitions { partitions } if self.former.listed(cell) => {
                self.found_partitions(partitions, work);
            }
            StoreEvent::Partitions { partitions } => server.listed(cell, partitions, &mut effects),
            StoreEvent::Keys { id, keys } => server.keys_read(id.0, keys, &mut effects),
            StoreEvent::Dropped { id } => {
                server.changed(cell);
                self.transition.is_due |= self.former.dropped(cell, id);
            }
            StoreEvent::Flushed => {
                server.changed(cell);
                self.finish_flushes(work);
            }
            StoreEvent::Ingested { id } => {
                server.changed(cell);
                if let Some(ask) = self.repairs.ingests.remove(&(cell, id)) {
                    self.tell_repair(now, RepairInput::Ingested { ask }, work);
                }
            }
            StoreEvent::Verified { partition, report } => {
                if !report.digests_wrong.is_empty() || !report.counts_wrong.is_empty() {
                    server.changed(cell);
                }
                if let Some(damage) = &report.first_damage {
                    tracing::error!(?partition, damage, "the scrub found damage");
                }
                self.tell_repair(now, RepairInput::Verified { partition, report }, work);
            }
            StoreEvent::Synced
            | StoreEvent::Ready { .. }
            | StoreEvent::Damaged { .. }
            | StoreEvent::Scanned { .. }
            | StoreEvent::Persisted { .. }
            | StoreEvent::Feed { .. }
            | StoreEvent::Room
            | StoreEvent::Leased
            | StoreEvent::Failed(_)
            | StoreEvent::Reopened { .. } => {}
        }
        work.extend(effects.into_iter().map(Work::Serve));
    }

    /// A cell's storage failed: what was asked of it has no answer.
    pub(super) fn repair_failed(&mut self, now: Now, cell: CellId, work: &mut VecDeque<Work>) {
        let mut effects = Vec::new();
        self.repairs.server.failed(cell, &mut effects);
        self.former.failed(cell);
        work.extend(effects.into_iter().map(Work::Serve));
        self.repairs.flushes.retain(|_, waits| !waits.contains_key(&cell));
        self.repairs.ingests.retain(|(of, _), _| *of != cell);
        self.tell_repair(now, RepairInput::Failed, work);
    }

    pub(super) fn route_repair(
        &mut self,
        now: Now,
        effect: RepairEffect,
        work: &mut VecDeque<Work>,
        out: &mut Vec<Effect>,
    ) {
        match effect {
            RepairEffect::Ask { to, ask, deadline, request } if to == self.config.node => {
                self.ask_own(now, ask, (deadline, request), work);
            }
            RepairEffect::Ask { to, ask, deadline, request } => {
                let deadline_ms = u32::try_from(deadline.since(now.instant).as_millis()).unwrap_or(u32::MAX);
                let call = PeerCall { deadline_ms, view: None, request };
                out.push(Effect::Call { to, request: RequestId(REPAIR_ID_BITS | ask.0), call });
            }
            RepairEffect::Ingest { ask, partition, rows } => self.ingest(now, (ask, partition), rows, work),
            RepairEffect::Heal { ask, key, object } => {
                let mut effects = Vec::new();
                let (cell, replica) = self.cells.of(key.partition());
                replica.heal(Asker::Repair(ask), &key, &object, &mut effects);
                work.extend(replica_work(cell, effects));
            }
            RepairEffect::Verify(partition) => {
                let mut effects = Vec::new();
                let (cell, replica) = self.cells.of(partition);
                replica.store().verify(partition, &mut effects);
                work.extend(effects.into_iter().map(|effect| Work::Replica(cell, ReplicaEffect::Store(effect))));
            }
            RepairEffect::Refill(partitions) => self.refill(&partitions, work),
            RepairEffect::Pulled { partition, from } => {
                tracing::debug!(?partition, %from, "all that was there is here");
                self.pulled(partition, from);
            }
        }
    }

    /// This node's own replica answers, whatever it has: what it lacks is what is looked for.
    fn ask_own(
        &mut self,
        now: Now,
        ask: RequestId,
        (deadline, request): (Instant, PeerRequest),
        work: &mut VecDeque<Work>,
    ) {
        let from = Asker::Repair(ask);
        let keyspace = match &request {
            PeerRequest::Apply { place, .. } | PeerRequest::Get { place, .. } => place.keyspace,
            PeerRequest::Repair(asked) => {
                let asked = asked.clone();
                return work.extend(self.compare_asked(from, asked));
            }
            PeerRequest::Scan(_)
            | PeerRequest::Admit { .. }
            | PeerRequest::Mint { .. }
            | PeerRequest::CompareSystem { .. }
            | PeerRequest::System { .. }
            | PeerRequest::ConfirmLeases { .. }
            | PeerRequest::Members => return,
        };
        let partition = match (&request, self.system.keyspace_by_id(keyspace)) {
            (PeerRequest::Apply { place, .. } | PeerRequest::Get { place, .. }, Some(info)) => {
                place.partition(info.spec.class)
            }
            (_, Some(_) | None) => {
                let gone = RequestError::KeyspaceGone { id: keyspace };
                let why = if self.system.state().is_dropped(keyspace) {
                    Refusal::Request(gone)
                } else {
                    Refusal::UnknownView
                };
                let response = PeerResponse::Refused(why);
                return self.tell_repair(now, RepairInput::Answered { ask, response }, work);
            }
        };
        let mut effects = Vec::new();
        let (cell, replica) = self.cells.of(partition);
        replica.ask(now, Question { from, deadline, partition, request }, &mut effects);
        work.extend(replica_work(cell, effects));
    }

    fn ingest(
        &mut self,
        now: Now,
        (ask, partition): (RequestId, Partition),
        rows: Vec<(RowKey, Bytes)>,
        work: &mut VecDeque<Work>,
    ) {
        let mut effects = Vec::new();
        let (cell, replica) = self.cells.of(partition);
        let Some(id) = replica.store_mut().ingest(rows, &mut effects) else {
            return self.tell_repair(now, RepairInput::Failed, work);
        };
        self.repairs.ingests.insert((cell, id), ask);
        work.extend(effects.into_iter().map(|effect| Work::Replica(cell, ReplicaEffect::Store(effect))));
    }

    /// Rows of these partitions are lost: what was acknowledged under the count of before must not count, and nothing minted
    /// before is gone on with.
    pub(super) fn refill(&mut self, partitions: &BTreeSet<Partition>, work: &mut VecDeque<Work>) {
        let me = self.config.node;
        let incarnation = self.cells.home().store().leases().incarnation;
        let generation = self.system.custody().map_or(0, |custody| custody.generation);
        let mut effects = Vec::new();
        for partition in partitions {
            let (cell, replica) = self.cells.of(*partition);
            let next = replica.store().next_dot();
            let floor = DotFloor { incarnation: next.actor, n: next.n };
            replica.note_floor(*partition, floor);
            let home = self.cells.get_mut(CellId::HOME);
            if !cell.is_home() {
                home.note_floor(*partition, floor);
            }
            let RefillCount(count) = home.refill_count(me, *partition, incarnation);
            let custody = Custody { generation, incarnation, refill: RefillCount(count + 1) };
            home.note_custody(me, *partition, custody, &mut effects);
        }
        work.extend(replica_work(CellId::HOME, effects));
    }

    pub(super) fn repair_figures(&self) -> Vec<(String, u64)> {
        let (figures, repaired) = (self.repairs.room.figures(), self.cells.repaired());
        let pulls = self.repairs.room.pulls();
        let named = [
            ("repair_exchanges", figures.exchanges_count),
            ("repair_partitions_clean_age_max_s", self.repairs.room.clean_age_max().as_secs()),
            ("repair_partitions_never_clean", self.repairs.room.never_clean_count() as u64),
            ("repair_bytes_compared", figures.exchanged.bytes),
            ("repair_bytes_exchange", repaired.exchange.bytes),
            ("repair_keys_exchange", repaired.exchange.keys),
            ("repair_bytes_transfer", figures.streamed.bytes),
            ("repair_keys_transfer", figures.streamed.objects),
            ("repair_bytes_read_repair", repaired.read_repair.bytes),
            ("repair_keys_read_repair", repaired.read_repair.keys),
            ("repair_bytes_handoff", repaired.handoff.bytes),
            ("repair_keys_handoff", repaired.handoff.keys),
            ("repair_bytes_scrub", figures.healed.bytes),
            ("repair_keys_scrub", figures.healed.objects),
            ("repair_pulls_wanted", pulls.wanted_count as u64),
            ("repair_pulls_done", pulls.done_count as u64),
            ("scrub_partitions", figures.scrubbed_count),
            ("damaged_rows", figures.damaged_count - figures.healed_count),
        ];
        named.map(|(name, value)| (name.to_owned(), value)).into()
    }
}
