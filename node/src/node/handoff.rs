//! Handoff's errands: its questions to stores and peers, and their answers; what others ask to be held or given.
//!
//! Glue, and what only the node knows: who can be reached, who holds a partition now, which keyspaces are gone.
//! Invariant: a hint is refused before it is stored, never dropped; whoever is asked to hold need not hold the partition.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Lsn, NodeId, Partition, RequestId};
use shoal_protocol::peer::{ApplyCause, PeerCall, PeerRequest, PeerResponse, PeerScan, Refusal};
use shoal_protocol::repair::{RepairAnswer, RepairAsk};
use shoal_protocol::time::{Instant, Now};

use super::{Asker, Effect, Node, Work, replica_work};
use crate::coordinator::Owing;
use crate::repair::{GiveId, HandoffEffect, HintsPage, JobId, Outcome, RepairInput, Row};
use crate::replica::{Question, ReplicaEffect};
use crate::storage::{
    CellId, CellPlace, DropId, FeedId, FeedRequest, Room, ScanId, ScanPage, StoreEvent, data_partition, hint_partition,
    hint_place, hinted, hints_for,
};

/// What handoff waits for.
#[derive(Debug, Default)]
pub(super) struct HandoffCalls {
    feeds: BTreeMap<(CellId, FeedId), JobId>,
    /// Each with the last delta of its store when it was asked for.
    scans: BTreeMap<(CellId, ScanId), (JobId, Lsn)>,
    drops: BTreeMap<(CellId, DropId), JobId>,
    gives: BTreeMap<RequestId, (GiveId, NodeId)>,
    /// Searches for the hints that a store has.
    searches: BTreeMap<CellId, ScanId>,
    /// What is to be said to others: to whom, and what from where on they owe to whom.
    owing: BTreeMap<(NodeId, NodeId, Partition), Lsn>,
    tell_at: Option<Instant>,
}

impl Node {
    /// A write ended without the ack of a primary.
    pub(super) fn owe(&mut self, now: Now, owing: Owing) {
        let Owing { target, partition, by, lsn } = owing;
        if !self.rings.as_ref().is_some_and(|rings| rings.is_owner(target, partition)) {
            return;
        }
        let after = Lsn(lsn.0.saturating_sub(1));
        if by == self.config.node {
            self.handoff.owe(now.instant, (target, partition), after);
        } else {
            let known = self.handoff_calls.owing.entry((by, target, partition)).or_insert(after);
            *known = after.min(*known);
            self.handoff_calls.tell_at.get_or_insert(now.instant + TELL_AFTER);
        }
    }

    /// Other layouts are active: whoever does not hold a partition any more is owed nothing of it.
    pub(super) fn forget_debts(&mut self) {
        let Some(rings) = &self.rings else { return };
        let me = self.config.node;
        self.handoff.keep_debts(|target, partition| rings.is_owner(target, partition) && rings.is_owner(me, partition));
    }

    /// A peer says that this node owes something to another.
    pub(super) fn asked_to_owe(
        &mut self,
        now: Now,
        (target, partition, after): (NodeId, Partition, Lsn),
    ) -> PeerResponse {
        let holds = |node| self.rings.as_ref().is_some_and(|rings| rings.is_owner(node, partition));
        if !holds(self.config.node) || !holds(target) {
            return PeerResponse::Refused(Refusal::NotReplica);
        }
        self.handoff.owe(now.instant, (target, partition), after);
        PeerResponse::Repair(RepairAnswer::Owed)
    }

    /// Somebody asks to hold a write for a primary.
    pub(super) fn hold_for(
        &mut self,
        now: Now,
        asker: Asker,
        (target, place, delta): (NodeId, &Place, Bytes),
    ) -> VecDeque<Work> {
        match self.check_hold(now, target, (place, &delta)) {
            Ok(partition) => {
                let place = hint_place(target, place);
                let request = PeerRequest::Apply { place, delta, cause: ApplyCause::Handoff, compact_epoch: 0 };
                let mut effects = Vec::new();
                let (cell, replica) = self.cells.of(partition);
                let question = Question { from: asker, deadline: now.instant, partition, request };
                replica.ask(now, question, &mut effects);
                replica_work(cell, effects)
            }
            Err(why) => {
                let refused = ReplicaEffect::Answer { to: asker, response: PeerResponse::Refused(why) };
                replica_work(CellId::HOME, vec![refused])
            }
        }
    }

    /// Where the hint is to be kept, if it may be.
    fn check_hold(&mut self, now: Now, target: NodeId, (place, delta): (&Place, &Bytes)) -> Result<Partition, Refusal> {
        let class = self.class_of(place.keyspace)?;
        if !self.leases.is_proven() {
            return Err(Refusal::NotSynced);
        }
        let partition = hint_partition(place.partition(class));
        let (_, replica) = self.cells.of(partition);
        if !replica.store().is_serving() {
            return Err(Refusal::Storage);
        }
        if replica.store().room() != Room::Enough {
            return Err(Refusal::Full);
        }
        let bytes = HINT_BYTES + place.collection.len() + place.key.len() + delta.len();
        if self.handoff.admit(now.instant, (target, partition), bytes) { Ok(partition) } else { Err(Refusal::Full) }
    }

    /// Looks for the hints that a store has kept, one page after the other.
    pub(super) fn search_hints(&mut self, cell: CellId, after: Option<&crate::storage::RowKey>, out: &mut Vec<Effect>) {
        let mut effects = Vec::new();
        let id = self.cells.get_mut(cell).store_mut().scan_hints(after, &mut effects);
        self.handoff_calls.searches.insert(cell, id);
        out.extend(effects.into_iter().map(|effect| Effect::Store { cell, effect }));
    }

    /// A store was opened again: what was asked of it is asked anew.
    pub(super) fn handoff_reopened(&mut self, now: Now, cell: CellId, out: &mut Vec<Effect>) {
        let calls = &mut self.handoff_calls;
        calls.feeds.retain(|(of, _), _| *of != cell);
        calls.scans.retain(|(of, _), _| *of != cell);
        calls.drops.retain(|(of, _), _| *of != cell);
        let count = self.cells.count();
        self.handoff.reopened(now.instant, |partition| CellPlace::of(partition, count) == cell);
        self.search_hints(cell, None, out);
    }

    /// What was asked of a store is done.
    pub(super) fn handoff_stored(
        &mut self,
        now: Now,
        (cell, event): (CellId, StoreEvent),
        (work, out): (&mut VecDeque<Work>, &mut Vec<Effect>),
    ) {
        let mut effects = Vec::new();
        match event {
            StoreEvent::Feed { id, page } => {
                if let Some(job) = self.handoff_calls.feeds.remove(&(cell, id)) {
                    self.handoff.feed_read(now.instant, job, page, &mut effects);
                }
            }
            StoreEvent::Scanned { id, page } if self.handoff_calls.searches.get(&cell) == Some(&id) => {
                self.found_hints(now, cell, &page, out);
            }
            StoreEvent::Scanned { id, page } => {
                if let Some((job, at)) = self.handoff_calls.scans.remove(&(cell, id)) {
                    let page = self.hints_page(page, at);
                    self.handoff.hints_read(now.instant, job, page, &mut effects);
                }
            }
            StoreEvent::Dropped { id } => {
                if let Some(job) = self.handoff_calls.drops.remove(&(cell, id)) {
                    self.handoff.dropped(now.instant, job);
                }
                self.repair_stored(now, cell, StoreEvent::Dropped { id }, work);
            }
            StoreEvent::Synced
            | StoreEvent::Ready { .. }
            | StoreEvent::Damaged { .. }
            | StoreEvent::Persisted { .. }
            | StoreEvent::Digests { .. }
            | StoreEvent::Partitions { .. }
            | StoreEvent::Keys { .. }
            | StoreEvent::Flushed
            | StoreEvent::Ingested { .. }
            | StoreEvent::Verified { .. }
            | StoreEvent::Room
            | StoreEvent::Leased
            | StoreEvent::Failed(_)
            | StoreEvent::Reopened { .. } => {}
        }
        self.run_errands(now, effects, (work, out));
    }

    /// A peer answers; whether it answers a question of handoff.
    pub(super) fn handoff_answered(
        &mut self,
        now: Now,
        from: NodeId,
        (request, response): (RequestId, &PeerResponse),
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some((id, _)) = self.handoff_calls.gives.get(&request).filter(|(_, to)| *to == from).copied() else {
            return false;
        };
        self.handoff_calls.gives.remove(&request);
        let mut work = VecDeque::new();
        self.handoff_given(now, (id, response), (&mut work, out));
        self.route(now, work, out);
        true
    }

    /// A node, perhaps this one, was given an object and answers.
    pub(super) fn handoff_given(
        &mut self,
        now: Now,
        (id, response): (GiveId, &PeerResponse),
        to: (&mut VecDeque<Work>, &mut Vec<Effect>),
    ) {
        let outcome = match response {
            PeerResponse::Applied(_) => Outcome::Taken,
            PeerResponse::Refused(Refusal::Request(RequestError::KeyspaceGone { .. })) => Outcome::Void,
            PeerResponse::Refused(_)
            | PeerResponse::Same
            | PeerResponse::State { .. }
            | PeerResponse::Rows { .. }
            | PeerResponse::Admitted
            | PeerResponse::Minted { .. }
            | PeerResponse::System { .. }
            | PeerResponse::Leases { .. }
            | PeerResponse::Members(_)
            | PeerResponse::Repair(_) => Outcome::Failed,
        };
        let mut effects = Vec::new();
        self.handoff.given(now.instant, id, outcome, &mut effects);
        self.run_errands(now, effects, to);
    }

    /// A node cannot be asked any more.
    pub(super) fn handoff_lose(&mut self, node: NodeId) {
        self.handoff_calls.gives.retain(|_, (_, to)| *to != node);
    }

    /// Does what is due, and finds out who can be reached now.
    pub(super) fn advance_handoff(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut reachable = self.alive.clone();
        if let Some(rings) = &self.rings {
            // Who is in no layout any more will not come back for it: others hold its partitions.
            reachable.extend(self.handoff.hint_targets().into_iter().filter(|node| !rings.lists(*node)));
        }
        self.handoff.reach(now.instant, reachable);
        let mut effects = Vec::new();
        self.handoff.tick(now.instant, &mut effects);
        if self.handoff_calls.tell_at.take_if(|at| *at <= now.instant).is_some() {
            self.tell_owing(out);
        }
        let mut work = VecDeque::new();
        self.run_errands(now, effects, (&mut work, out));
        self.route(now, work, out);
    }

    pub(super) fn handoff_deadline(&self) -> Option<Instant> {
        self.handoff.next_deadline().into_iter().chain(self.handoff_calls.tell_at).min()
    }

    fn tell_owing(&mut self, out: &mut Vec<Effect>) {
        for ((by, target, partition), after) in std::mem::take(&mut self.handoff_calls.owing) {
            if self.alive.contains(&by) {
                let id = self.system_calls.fresh();
                let ask = RepairAsk::Owe { target, partition, after, compact_epoch: 0 };
                out.push(repair_call(by, id, PeerRequest::Repair(ask)));
            }
        }
    }

    fn run_errands(
        &mut self,
        now: Now,
        effects: Vec<HandoffEffect>,
        (work, out): (&mut VecDeque<Work>, &mut Vec<Effect>),
    ) {
        for effect in effects {
            match effect {
                HandoffEffect::ReadFeed { job, partition, after } => self.read_feed(job, (partition, after), out),
                HandoffEffect::ReadHints { job, target, partition, after } => {
                    self.read_hints(job, (target, partition, after), out);
                }
                HandoffEffect::DropHints { job, target, partition, through } => {
                    let (cell, replica) = self.cells.of(partition);
                    let mut effects = Vec::new();
                    let extent = hints_for(target, partition);
                    // A store that does not serve is opened again, and then all its jobs are given up.
                    if let Some(id) = replica.store_mut().drop_rows(extent, through, &mut effects) {
                        self.handoff_calls.drops.insert((cell, id), job);
                    }
                    out.extend(effects.into_iter().map(|effect| Effect::Store { cell, effect }));
                }
                HandoffEffect::Give { id, to, hold_for, row } => self.give(now, (id, to), (hold_for, row), (work, out)),
                HandoffEffect::Lost { peer, partition } => {
                    tracing::warn!(node = %peer, ?partition, "what it missed is not known here any more");
                    let partitions = BTreeSet::from([partition]);
                    self.tell_repair(now, RepairInput::Lost { peer, partitions }, work);
                }
            }
        }
    }

    fn read_feed(&mut self, job: JobId, (partition, after): (Partition, Lsn), out: &mut Vec<Effect>) {
        let (cell, replica) = self.cells.of(partition);
        let mut effects = Vec::new();
        let (rows_max, bytes_max) = (PAGE_ROWS, PAGE_BYTES);
        let request = FeedRequest { id: FeedId(0), partition, after, rows_max, bytes_max };
        let id = replica.store_mut().feed(request, &mut effects);
        self.handoff_calls.feeds.insert((cell, id), job);
        out.extend(effects.into_iter().map(|effect| Effect::Store { cell, effect }));
    }

    fn read_hints(
        &mut self,
        job: JobId,
        (target, partition, after): (NodeId, Partition, Option<(Bytes, Bytes)>),
        out: &mut Vec<Effect>,
    ) {
        let scan = PeerScan {
            partition,
            keyspace: shoal_protocol::id::KeyspaceId(target.0),
            collection: None,
            prefix: Bytes::new(),
            after,
            reverse: false,
            rows_max: u32::try_from(PAGE_ROWS).unwrap_or(u32::MAX),
            bytes_max: u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX),
        };
        let (cell, replica) = self.cells.of(partition);
        let mut effects = Vec::new();
        let at = replica.store().last();
        let id = replica.store_mut().scan(&scan, &mut effects);
        self.handoff_calls.scans.insert((cell, id), (job, at));
        out.extend(effects.into_iter().map(|effect| Effect::Store { cell, effect }));
    }

    /// What a page of hints says, and who is to have it.
    fn hints_page(&self, page: ScanPage, at: Lsn) -> HintsPage {
        let last = page.rows.last().map(|row| row.key.place());
        let next = last.filter(|_| !page.finished).map(|place| (place.collection, place.key));
        let first = page.rows.first();
        let target = first.map(|row| NodeId(row.key.keyspace().0));
        let partition = first.map(|row| data_partition(row.key.partition()));
        let rows = page.rows.iter().filter_map(|row| {
            let (_, place) = hinted(&row.key.place())?;
            Some(Row { place, delta: row.object.clone() })
        });
        let rows = rows.filter(|row| !self.system.state().is_dropped(row.place.keyspace));
        let is_damaged = !page.damaged.is_empty() || page.nameless_count > 0;
        let receivers = target.zip(partition).map_or_else(Vec::new, |(to, of)| self.receivers(to, of));
        HintsPage { rows: rows.collect(), receivers, next, is_damaged, at }
    }

    /// Who is to have what was kept for a node: itself, or whoever holds the partition by now.
    fn receivers(&self, target: NodeId, partition: Partition) -> Vec<NodeId> {
        let Some(rings) = &self.rings else { return Vec::new() };
        if rings.is_owner(target, partition) {
            vec![target]
        } else {
            rings.target().preference(partition).primaries.clone()
        }
    }

    fn found_hints(&mut self, now: Now, cell: CellId, page: &ScanPage, out: &mut Vec<Effect>) {
        self.handoff_calls.searches.remove(&cell);
        for row in &page.rows {
            let target = NodeId(row.key.keyspace().0);
            let bytes = HINT_BYTES + row.key.as_bytes().len() + row.object.len();
            self.handoff.found(now.instant, (target, row.key.partition()), bytes);
        }
        if let Some(last) = page.rows.last().filter(|_| !page.finished) {
            self.search_hints(cell, Some(&last.key), out);
        }
    }

    fn give(
        &mut self,
        now: Now,
        (id, to): (GiveId, NodeId),
        (hold_for, row): (Option<NodeId>, Row),
        (work, out): (&mut VecDeque<Work>, &mut Vec<Effect>),
    ) {
        let Row { place, delta } = row;
        let request = match hold_for {
            Some(target) => PeerRequest::Repair(RepairAsk::Hold { target, place, delta, compact_epoch: 0 }),
            None => PeerRequest::Apply { place, delta, cause: ApplyCause::Handoff, compact_epoch: 0 },
        };
        if to == self.config.node {
            let deadline = now.instant + GIVE_DEADLINE;
            work.extend(self.serve(now, Asker::Handoff(id), (deadline, request, true)));
            return;
        }
        let request_id = self.system_calls.fresh();
        self.handoff_calls.gives.insert(request_id, (id, to));
        out.push(repair_call(to, request_id, request));
    }
}

/// A question for the sake of repair, which is served whatever the views.
fn repair_call(to: NodeId, request: RequestId, ask: PeerRequest) -> Effect {
    let deadline_ms = u32::try_from(GIVE_DEADLINE.as_millis()).unwrap_or(u32::MAX);
    Effect::Call { to, request, call: PeerCall { deadline_ms, view: None, request: ask } }
}

/// Rows of one page that is given back: what one group of the receiver's log takes easily.
const PAGE_ROWS: usize = 256;
/// Bytes after which a page ends.
const PAGE_BYTES: usize = 1 << 20;
/// What a hint takes beside its names and its delta, bytes: row, digest, feed entry.
const HINT_BYTES: usize = 128;
/// How long somebody may take to store what it was given: less than a job waits before it is given up.
const GIVE_DEADLINE: Duration = Duration::from_secs(10);
/// What others owe is said to them together, after so long.
const TELL_AFTER: Duration = Duration::from_millis(200);
