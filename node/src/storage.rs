//! Storage: what one cell keeps of its objects, in memory and on disk.
//!
//! Two halves. `Store` is the core without I/O: memtables, object cache, lsns, leases; it says what to write and read
//! (`StoreEffect`) and is told when that is done (`StoreDone`). `engine::Engine` does it, blocking, on redb over a byte-level
//! disk. The host runs an engine in a thread, the simulator runs it in virtual time.
//!
//! Shape: **visible object = row ⊔ frozen memtable ⊔ active memtable.** A delta is joined into the active memtable without
//! reading its row; only `visible` and `scan` read. When the active memtable is big enough it is frozen, joined into the
//! rows piece by piece (`Flush`), each forgotten as it is in; behind the last its log records are.
//! Units: bytes of one budget; see `Budget`. Source: DESIGN §7, docs/decisions/0015.
//! Invariants:
//! - Nothing unsynced is revealed: a caller shows an object, or acknowledges a delta, only once `synced() >= lsn`.
//! - A row read before a flush is never joined with memtables from after it: reads name the flush they saw.
//! - What an `lww` keyspace drops as lost it drops by a delta of its own or as a part of the one that won, in the log like any
//!   other: the visible object is always the join of row and memtables, before a crash as after it.
//! - A damaged row is never shown, neither as data nor as absent.
//! - After a failure nothing becomes synced, ready or scanned until the engine was reopened and its log replayed.

mod budget;
mod cache;
mod cell;
mod dropping;
mod effect;
pub mod engine;
mod exchange;
mod feed;
mod flushing;
mod hint;
mod key;
mod lease;
mod memtable;
mod memtables;
mod progress;
mod row;
mod rowset;
mod scan;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use shoal_protocol::id::{Actor, KeyspaceId, Lsn};
use shoal_protocol::object::{Digest, DigestKey, Object, merge};
use shoal_protocol::peer::PeerScan;

use cache::{Cache, Cached};
use effect::{push_load, push_record};
use feed::Feeds;
use lease::LeaseBook;
use memtables::Memtables;
use progress::Progress;
use scan::{Scans, Tables, join_page};

pub use budget::{Budget, slowdown};
pub use cache::VisibleObject;
pub use cell::{CELLS_COUNT_MAX, CellId, CellPlace};
pub use dropping::{DropId, DropRows};
pub use effect::{
    Failure, FeedId, FeedPage, FeedRequest, Flush, Ingest, IngestId, KeysId, KeysRequest, LogEffect, PersistTicket,
    ReadEffect, Record, Recovered, Room, RowsEffect, ScanId, ScanPage, ScanRequest, ScanRow, StoreDone, StoreEffect,
    StoreEvent,
};
pub use hint::{data_partition, hint_partition, hint_place, hinted, hints_for, is_hint_partition};
pub use key::{Extent, RowKey, RowRange};
pub use lease::{DOTS_BLOCK, Leases};
pub use memtable::{Delta, Entry, Memtable};
pub use progress::RowsAt;
pub use rowset::{
    BucketDigest, BucketKeys, Chunk, FeedRow, FeedRows, IngestRow, LoadedRow, PartitionDigests, RowRead, ScannedRow,
    ScannedRows, StoredRow, VerifyReport, Written,
};

/// What can be said of an object now.
#[derive(Debug)]
pub enum Visible<'a> {
    /// The object, vacant if there is none. To be shown once `synced() >= lsn`.
    Ready(&'a VisibleObject),
    /// The row is being read; `StoreEvent::Ready` will name the key.
    Loading,
    /// The row cannot be read: neither its content nor its absence is known.
    Damaged,
    /// The engine is dead; wait for `StoreEvent::Reopened`.
    Failed,
}

/// The store of one cell.
#[derive(Debug)]
pub struct Store {
    budget: Budget,
    rules: Rules,
    leases: LeaseBook,
    progress: Progress,
    memtables: Memtables,
    cache: Cache,
    loads: BTreeSet<RowKey>,
    scans: Scans,
    feeds: Feeds,
    room: Room,
    /// What flushes and ingests wrote since this store was made.
    written: Written,
    persists_count: u64,
    ingests_count: u64,
    drops_count: u64,
    /// What is to be in the rows soon, however little it is.
    flush_to: Lsn,
}

/// What the system state says about rows.
#[derive(Debug, Default)]
struct Rules {
    digest_key: Option<DigestKey>,
    lww: Arc<BTreeSet<KeyspaceId>>,
}

impl Store {
    /// The store that an engine found on disk. Asks for its first leases.
    #[must_use]
    pub fn new(budget: Budget, recovered: Recovered, out: &mut Vec<StoreEffect>) -> Self {
        let mut store = Self {
            budget,
            rules: Rules::default(),
            leases: LeaseBook::new(recovered.leases, Lsn::default()),
            progress: Progress::new(Lsn::default(), RowsAt::default()),
            memtables: Memtables::new(budget, Memtable::default()),
            cache: Cache::default(),
            loads: BTreeSet::new(),
            scans: Scans::default(),
            feeds: Feeds::default(),
            room: Room::default(),
            written: Written::default(),
            persists_count: 0,
            ingests_count: 0,
            drops_count: 0,
            flush_to: Lsn::default(),
        };
        store.recover(recovered, out);
        store
    }

    /// The cluster's key for digests. Nothing is flushed before it is known.
    pub fn set_digest_key(&mut self, key: DigestKey, out: &mut Vec<StoreEffect>) {
        self.rules.digest_key = Some(key);
        self.flush_when_big(out);
    }

    /// The keyspaces in which only the winner of concurrent register values is kept. Fixed per keyspace at its creation;
    /// to be named before anything of it is applied, and after a start before `set_digest_key`, so that no row is flushed
    /// with losers in it.
    pub fn set_lww(&mut self, keyspaces: BTreeSet<KeyspaceId>) {
        if *self.rules.lww != keyspaces {
            self.cache.clear();
            self.rules.lww = Arc::new(keyspaces);
        }
    }

    /// Joins `delta` (and logs `bytes`, its canonical form) without reading the row. It is durable, and may be
    /// acknowledged, once `synced()` has reached the lsn returned. Without an engine nothing is done, and that never happens.
    pub fn apply(&mut self, key: &RowKey, delta: &Object, bytes: Bytes, out: &mut Vec<StoreEffect>) -> Lsn {
        self.join(key, delta, Logged { bytes, heals: false }, out)
    }

    /// Like `apply`, of a whole state that makes up for a damaged row: gathered from enough other replicas to contain
    /// every write acknowledged before. The object can be shown again.
    pub fn heal(&mut self, key: &RowKey, whole: &Object, bytes: Bytes, out: &mut Vec<StoreEffect>) -> Lsn {
        let lsn = self.join(key, whole, Logged { bytes, heals: true }, out);
        self.cache.remove(key);
        lsn
    }

    /// The object of `key`; its row is asked for when it is not at hand.
    pub fn visible(&mut self, key: &RowKey, out: &mut Vec<StoreEffect>) -> Visible<'_> {
        if !self.progress.serving {
            return Visible::Failed;
        }
        match self.cache.get(key) {
            Some(Cached::Object(visible)) => Visible::Ready(visible),
            Some(Cached::Damaged) => Visible::Damaged,
            None => {
                if self.loads.insert(key.clone()) {
                    push_load(key.clone(), out);
                }
                Visible::Loading
            }
        }
    }

    /// The digest of an object that `visible` has ready, once the digest key is known.
    pub fn digest(&mut self, key: &RowKey) -> Option<Digest> {
        self.cache.digest(key, self.rules.digest_key.as_ref()?)
    }

    /// Reads a page of visible objects: `StoreEvent::Scanned` with this id, once everything in it is synced.
    ///
    /// A prefix without a collection is a filter over the whole partition; with one it is a range.
    pub fn scan(&mut self, scan: &PeerScan, out: &mut Vec<StoreEffect>) -> ScanId {
        let request = self.scans.begin(|id| ScanRequest {
            id,
            range: RowRange::of(scan),
            reverse: scan.reverse,
            rows_max: scan.rows_max.max(1) as usize,
            bytes_max: scan.bytes_max.max(1) as usize,
        });
        let id = request.id;
        if self.progress.serving {
            out.push(StoreEffect::Reads(ReadEffect::Scan(request)));
        }
        id
    }

    /// Whether there is an engine: false from `StoreEvent::Failed` to `Reopened`.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.progress.serving
    }

    /// Everything with an lsn up to here survives any crash.
    #[must_use]
    pub fn synced(&self) -> Lsn {
        self.progress.durable().min(self.leases.lsn_limit())
    }

    /// The counter of a fresh dot of `leases().incarnation`, unless the lease for it is not durable yet
    /// (`StoreEvent::Leased` says when to try again). Gaps are fine: a dot that is not used is never used.
    pub fn mint(&mut self, out: &mut Vec<StoreEffect>) -> Option<u64> {
        if !self.progress.serving {
            return None;
        }
        let dot = self.leases.dot();
        self.renew_leases(out);
        dot
    }

    /// What is durable of incarnation and leases.
    #[must_use]
    pub fn leases(&self) -> Leases {
        self.leases.durable()
    }

    /// Mints under a new incarnation once `leases()` shows it (`StoreEvent::Leased`), and under none before. After a
    /// failure in between it is to be asked for again.
    pub fn begin_incarnation(&mut self, incarnation: Actor, out: &mut Vec<StoreEffect>) {
        if self.progress.serving {
            out.push(StoreEffect::Log(LogEffect::Lease(self.leases.change_incarnation(incarnation))));
        }
    }

    /// Keeps `bytes` as the blob `name`: `StoreEvent::Persisted` with this ticket. The last one of a name wins.
    pub fn persist(&mut self, name: &str, bytes: Bytes, out: &mut Vec<StoreEffect>) -> PersistTicket {
        let ticket = PersistTicket(self.persists_count);
        self.persists_count += 1;
        if self.progress.serving {
            out.push(StoreEffect::Log(LogEffect::Persist { ticket, name: name.into(), bytes }));
        }
        ticket
    }

    /// How hard writers should be slowed (see `slowdown`): 0 until memtables or log are half full, 1 when they are full. At 1
    /// a caller accepts no new client writes; deltas from peers are still joined.
    #[must_use]
    pub fn pressure(&self) -> f32 {
        self.memtables.pressure()
    }

    /// The room left on the disk. Below `Enough` a caller accepts no client writes but those that shrink an object.
    #[must_use]
    pub fn room(&self) -> Room {
        self.room
    }

    /// Takes a completion in.
    pub fn handle(&mut self, done: StoreDone, out: &mut Vec<StoreEffect>, events: &mut Vec<StoreEvent>) {
        self.cache.shrink_to(self.budget.cache_bytes_max(self.memtables.bytes()));
        if !self.progress.serving && !matches!(done, StoreDone::Reopened(_)) {
            // A late answer of a dead engine: what it did is found again when it is reopened.
            return;
        }
        match done {
            StoreDone::Reopened(recovered) => {
                events.push(StoreEvent::Reopened { damaged_records: recovered.damaged_records });
                self.recover(*recovered, out);
            }
            StoreDone::Failed(failure) => self.fail(failure, out, events),
            StoreDone::Synced { through, log_end } => {
                self.progress.synced(through);
                self.memtables.log_ends(log_end);
                self.flush_when_big(out);
                self.flush_frozen(out);
                self.reveal(events);
            }
            StoreDone::Leased(leases) => {
                self.leases.leased(leases);
                events.push(StoreEvent::Leased);
                self.flush_frozen(out);
                self.reveal(events);
            }
            StoreDone::Loaded { rows, at } => self.loaded(rows, at, out, events),
            StoreDone::Scanned(read) => self.scanned(&read, out, events),
            StoreDone::FeedRead { id, read } => self.feed_read(id, read, out, events),
            StoreDone::DigestsRead { partition, digests } => events.push(StoreEvent::Digests { partition, digests }),
            StoreDone::PartitionsRead { partitions } => events.push(StoreEvent::Partitions { partitions }),
            StoreDone::KeysRead { id, keys } => self.keys_read(id, keys, events),
            StoreDone::Verified { partition, report } => events.push(StoreEvent::Verified { partition, report }),
            StoreDone::Flushed { replay_from, written } => {
                self.written.add(&written);
                self.flushed(replay_from, out);
                events.push(StoreEvent::Flushed);
            }
            StoreDone::Ingested { id, keys, written } => {
                self.written.add(&written);
                self.progress.ingested();
                self.cache.forget(keys.iter());
                events.push(StoreEvent::Ingested { id });
                self.reveal(events);
            }
            StoreDone::Dropped { work, written } => self.dropped(work, &written, events),
            StoreDone::Persisted { ticket } => events.push(StoreEvent::Persisted { ticket }),
            StoreDone::Space(room) => {
                self.room = room;
                events.push(StoreEvent::Room);
            }
        }
    }

    fn join(&mut self, key: &RowKey, delta: &Object, logged: Logged, out: &mut Vec<StoreEffect>) -> Lsn {
        if !self.progress.serving {
            return NEVER;
        }
        let lsn = self.leases.lsn();
        self.progress.append(lsn);
        let Logged { mut bytes, heals } = logged;
        let entry = self.memtables.join(key, Delta { object: delta, bytes: &bytes, lsn, heals });
        self.cache.join(key, delta, lsn);
        if self.rules.lww.contains(&key.keyspace()) {
            let mut losers = if entry.is_single() { delta.lww_losers() } else { entry.object().lww_losers() };
            losers.join(&self.cache.lww_losers(key));
            if !losers.is_empty() {
                let removal = Object::of_context(losers);
                self.memtables.remove_losers(key, &removal);
                self.cache.join(key, &removal, lsn);
                bytes = merge(delta, &removal).encode();
            }
        }
        let record = Record { lsn, key: key.clone(), delta: bytes, heals };
        push_record(record, out);
        self.renew_leases(out);
        self.flush_when_big(out);
        lsn
    }

    fn loaded(&mut self, rows: Vec<LoadedRow>, at: RowsAt, out: &mut Vec<StoreEffect>, events: &mut Vec<StoreEvent>) {
        let (mut keys, mut damaged) = (Vec::new(), Vec::new());
        for LoadedRow { key, row } in rows {
            if !self.loads.contains(&key) {
                continue;
            }
            if at.is_behind(&self.progress.rows) {
                push_load(key, out);
                continue;
            }
            self.loads.remove(&key);
            let cached = self.with_memtables(&key, row);
            if matches!(cached, Cached::Damaged) {
                damaged.push(key.clone());
            }
            let read_at = self.memtables.last().unwrap_or(self.progress.rows.replay_from);
            self.cache.insert(key.clone(), cached, read_at);
            self.drop_losers(&key, out);
            keys.push(key);
        }
        if !damaged.is_empty() {
            events.push(StoreEvent::Damaged { keys: damaged });
        }
        if !keys.is_empty() {
            events.push(StoreEvent::Ready { keys });
        }
    }

    /// Row ⊔ frozen ⊔ active.
    fn with_memtables(&self, key: &RowKey, row: RowRead) -> Cached {
        let entries = self.memtables.entries(key);
        let stored = match row {
            RowRead::Absent => None,
            RowRead::Found(stored) => Some(stored),
            RowRead::Damaged { rest } if entries.iter().flatten().any(|entry| entry.heals) => rest,
            RowRead::Damaged { .. } => return Cached::Damaged,
        };
        let mut visible = match stored {
            Some(StoredRow { object, lsn, digest, .. }) => VisibleObject { object, lsn, digest: Some(digest) },
            None => VisibleObject { object: Object::default(), lsn: Lsn::default(), digest: None },
        };
        for entry in entries.into_iter().flatten() {
            visible.object.merge_into(&entry.object());
            visible.lsn = visible.lsn.max(entry.lsn);
            visible.digest = None;
        }
        Cached::Object(visible)
    }

    /// In an `lww` keyspace: removes what lost from an object just read.
    fn drop_losers(&mut self, key: &RowKey, out: &mut Vec<StoreEffect>) {
        let losers = self.cache.lww_losers(key);
        if self.rules.lww.contains(&key.keyspace()) && !losers.is_empty() {
            let removal = Object::of_context(losers);
            self.join(key, &removal, Logged { bytes: removal.encode(), heals: false }, out);
        }
    }

    fn scanned(&mut self, read: &ScannedRows, out: &mut Vec<StoreEffect>, events: &mut Vec<StoreEvent>) {
        let Some(request) = self.scans.running(read.id) else { return };
        if read.at.is_behind(&self.progress.rows) {
            out.push(StoreEffect::Reads(ReadEffect::Scan(request.clone())));
            return;
        }
        let lww = self.rules.lww.contains(&request.range.keyspace);
        let page = join_page(request, read, &Tables { memtables: self.memtables.tables(), lww });
        if !page.damaged.is_empty() {
            events.push(StoreEvent::Damaged { keys: page.damaged.clone() });
        }
        self.scans.finish(read.id, page);
        self.reveal(events);
    }

    fn reveal(&mut self, events: &mut Vec<StoreEvent>) {
        let synced = self.synced();
        events.push(StoreEvent::Synced);
        events.extend(self.scans.release(synced).into_iter().map(|(id, page)| StoreEvent::Scanned { id, page }));
    }

    fn fail(&mut self, failure: Failure, out: &mut Vec<StoreEffect>, events: &mut Vec<StoreEvent>) {
        self.progress.serving = false;
        self.loads.clear();
        self.scans.clear();
        self.feeds.clear();
        out.push(StoreEffect::Reopen);
        events.push(StoreEvent::Failed(failure));
    }

    /// Starts over from what is on disk. Lsns and dots go on behind whatever was handed out.
    fn recover(&mut self, recovered: Recovered, out: &mut Vec<StoreEffect>) {
        let Recovered { leases, memtable, rows, room, .. } = recovered;
        let last = memtable.last().max(rows.replay_from).max(rows.ingested);
        self.leases = LeaseBook::new(leases, last);
        self.progress = Progress::new(last, rows);
        self.memtables = Memtables::new(self.budget, memtable);
        self.cache.clear();
        self.loads.clear();
        self.scans.clear();
        self.feeds.clear();
        self.room = room;
        out.push(StoreEffect::Log(LogEffect::Trim { replay_from: rows.replay_from }));
        self.renew_leases(out);
        self.flush_when_big(out);
    }

    fn renew_leases(&mut self, out: &mut Vec<StoreEffect>) {
        out.extend(self.leases.wanted().map(|leases| StoreEffect::Log(LogEffect::Lease(leases))));
    }
}

/// A delta on its way into the log.
struct Logged {
    bytes: Bytes,
    heals: bool,
}

/// No record ever has this lsn.
const NEVER: Lsn = Lsn(u64::MAX);
