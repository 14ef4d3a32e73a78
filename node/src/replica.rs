//! One replica's side of every request.
//!
//! The replica checks what a client brings (`Admit`), joins deltas, mints for sessionless callers, and shows objects and
//! slices of rows. Together with its `Store` it is a *cell*: it alone owns its memtable, cache, lsns and dot lease, so check,
//! mint and apply are ordered.
//! Shape: `ask` takes one `PeerRequest` under the caller's name for it, `stored` the store's completions; answers and store
//! effects come out.
//! Invariants: an ack, and any answer built from an object, leaves only when the store has synced everything in it; a delta is
//! always merged, whatever it is; only `Admit` and `Mint` refuse for type or size (DESIGN §4).

mod losses;
mod minting;
mod refills;
mod repaired;
mod slowed;
mod waiting;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::error::RequestError;
use shoal_protocol::id::{Lsn, Partition};
use shoal_protocol::member::StoreLease;
use shoal_protocol::object::{Digest, Limits, Object, Refusal as Admission, admit, floors_known};
use shoal_protocol::peer::{ApplyCause, PeerRequest, PeerResponse, PeerScan, Refusal};
use shoal_protocol::time::{Hlc, Instant, Now, WallTime};

pub use self::refills::{DotFloor, RefillsError};
pub use self::repaired::{Joined, Repaired};

use self::minting::MintRequest;
pub(crate) use self::refills::REFILLS_BLOB;
use self::refills::Refills;
use self::slowed::Slowed;
use self::waiting::{Parked, Unsynced};
use crate::storage::{
    Failure, PersistTicket, Room, RowKey, ScanId, ScanPage, ScanRow, Store, StoreDone, StoreEffect, StoreEvent,
    Visible, slowdown,
};

/// What a replica wants done.
#[derive(Debug)]
pub enum ReplicaEffect<T> {
    /// Answer the asker.
    Answer {
        /// The asker's name for the request.
        to: T,
        /// The answer.
        response: PeerResponse,
    },
    /// A delta is synced here: acknowledge it, saying under what it was stored.
    Ack {
        /// The asker's name for the request.
        to: T,
        /// Whose partition it is of.
        partition: Partition,
        /// Its place in the change feed.
        lsn: Lsn,
        /// Its canonical bytes, if it was minted here.
        minted: Option<Bytes>,
    },
    /// Work for the storage engine.
    Store(StoreEffect),
    /// The node's own blob is durable.
    Persisted(PersistTicket),
    /// A lease is durable, and with it the incarnation it names.
    Leased,
    /// The store died: whatever it had not acknowledged has an unknown outcome.
    Failed(Failure),
    /// The store serves again.
    Reopened {
        /// Acknowledged writes that were found lost; above 0 this store must mint under a new incarnation.
        damaged_records: usize,
    },
    /// Rows that cannot be read: to be healed from other replicas.
    Damaged(Vec<RowKey>),
    /// Every refill count and floor noted so far is durable.
    Refilled,
    /// What was asked of the store for the sake of repair: digests, partitions, keys, feeds, pages of
    /// hints, ingests, checks, drops; and that rows have
    /// changed.
    Repair(StoreEvent),
}

/// A request for this replica.
#[derive(Debug)]
pub struct Question<T> {
    /// The asker's name for it.
    pub from: T,
    /// When the asker stops waiting: what is not begun by then is dropped.
    pub deadline: Instant,
    /// The partition of its place, which this node holds.
    pub partition: Partition,
    /// What is asked.
    pub request: PeerRequest,
}

/// A cell: a store, and the requests that wait for it.
#[derive(Debug)]
pub struct Replica<T> {
    store: Store,
    limits: Limits,
    hlc: Hlc,
    refills: Refills,
    repaired: Repaired,
    parked: Parked<T>,
    unsynced: Unsynced<T>,
    slowed: Slowed<T>,
    scans: BTreeMap<ScanId, T>,
    /// Mints that wait for a lease.
    unleased: Vec<(RowKey, Work<T>)>,
}

/// A request that needs the visible object.
#[derive(Debug)]
pub(crate) struct Work<T> {
    pub(crate) from: T,
    pub(crate) deadline: Instant,
    pub(crate) kind: WorkKind,
}

#[derive(Debug)]
pub(crate) enum WorkKind {
    Get { have: Option<Digest> },
    Admit { delta: Box<Object>, bytes: Bytes },
    Mint(Box<MintRequest>),
}

impl<T: Clone> Replica<T> {
    /// A cell over an opened store, which holds these refill counts (`None`: none).
    ///
    /// # Errors
    /// The refill counts are damaged, or of a newer version.
    pub fn new(store: Store, limits: Limits, refills: Option<&[u8]>) -> Result<Self, RefillsError> {
        Ok(Self {
            store,
            limits,
            hlc: Hlc::default(),
            refills: Refills::open(refills)?,
            repaired: Repaired::default(),
            parked: Parked::default(),
            unsynced: Unsynced::default(),
            slowed: Slowed::default(),
            scans: BTreeMap::new(),
            unleased: Vec::new(),
        })
    }

    /// The store, for what the node asks of it directly (blobs, leases, figures).
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The store, to change it.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Requests that wait for a row, a sync, a lease or a page.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.parked.len() + self.unsynced.len() + self.slowed.len() + self.scans.len() + self.unleased.len()
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let unleased = self.unleased.iter().map(|(_, work)| work.deadline + PAST);
        self.slowed.next_deadline().into_iter().chain(unleased).min()
    }

    /// Lets answers go that were held back to slow writers down, and drops what nobody waits for any more.
    pub fn tick(&mut self, now: Now, out: &mut Vec<ReplicaEffect<T>>) {
        self.unleased.retain(|(_, work)| work.deadline >= now.instant);
        for (lsn, ack) in self.slowed.due(now.instant) {
            self.leave_at(lsn, ack, out);
        }
    }

    /// Takes one request.
    pub fn ask(&mut self, now: Now, question: Question<T>, out: &mut Vec<ReplicaEffect<T>>) {
        let Question { from, deadline, partition, request } = question;
        if !self.store.is_serving() {
            out.push(refuse(from, Refusal::Storage));
            return;
        }
        match request {
            PeerRequest::Apply { place, delta: bytes, cause, compact_epoch: _ } => {
                let Ok(delta) = Object::decode_shared(&bytes) else {
                    out.push(refuse(from, Refusal::Malformed));
                    return;
                };
                let is_write = cause == ApplyCause::Write;
                self.repaired.count(cause, bytes.len());
                if is_write && !self.has_room_for(&delta) {
                    out.push(refuse(from, Refusal::Full));
                    return;
                }
                let lsn = self.apply(&RowKey::new(partition, &place), &delta, bytes, out);
                let ack = ReplicaEffect::Ack { to: from, partition, lsn, minted: None };
                if is_write {
                    self.leave_slowed(now, lsn, ack, out);
                } else {
                    self.leave_at(lsn, ack, out);
                }
            }
            PeerRequest::Get { place, have } => {
                self.work(
                    now,
                    &RowKey::new(partition, &place),
                    Work { from, deadline, kind: WorkKind::Get { have } },
                    out,
                );
            }
            PeerRequest::Admit { place, delta: bytes } => {
                let Ok(delta) = Object::decode_shared(&bytes) else {
                    out.push(refuse(from, Refusal::Malformed));
                    return;
                };
                let kind = WorkKind::Admit { delta: Box::new(delta), bytes };
                self.work(now, &RowKey::new(partition, &place), Work { from, deadline, kind }, out);
            }
            PeerRequest::Mint { place, operation, expires_at, observed } => {
                let kind = WorkKind::Mint(Box::new(MintRequest::new(operation, expires_at, observed)));
                self.work(now, &RowKey::new(partition, &place), Work { from, deadline, kind }, out);
            }
            PeerRequest::Scan(scan) => self.scan(from, &scan, out),
            PeerRequest::CompareSystem { .. }
            | PeerRequest::System { .. }
            | PeerRequest::ConfirmLeases { .. }
            | PeerRequest::Members
            | PeerRequest::Repair(_) => {
                out.push(refuse(from, Refusal::Malformed));
            }
        }
    }

    /// Mints may go on below this end.
    pub fn lease_confirmed(&mut self, now: Now, store: StoreLease, out: &mut Vec<ReplicaEffect<T>>) {
        self.store.confirm_lease(store);
        for (key, work) in std::mem::take(&mut self.unleased) {
            self.work(now, &key, work, out);
        }
    }

    /// A store effect is done.
    pub fn stored(&mut self, now: Now, done: StoreDone, out: &mut Vec<ReplicaEffect<T>>) {
        let (mut effects, mut events) = (Vec::new(), Vec::new());
        self.store.handle(done, &mut effects, &mut events);
        out.extend(effects.into_iter().map(ReplicaEffect::Store));
        for event in events {
            self.event(now, event, out);
        }
    }

    fn event(&mut self, now: Now, event: StoreEvent, out: &mut Vec<ReplicaEffect<T>>) {
        match event {
            StoreEvent::Synced => self.unsynced.release(self.store.synced(), out),
            StoreEvent::Ready { keys } => {
                for key in keys {
                    for work in self.parked.take(&key) {
                        self.work(now, &key, work, out);
                    }
                }
            }
            StoreEvent::Damaged { keys } => {
                for key in &keys {
                    for work in self.parked.take(key) {
                        out.push(refuse(work.from, Refusal::NotSynced));
                    }
                }
                out.push(ReplicaEffect::Damaged(keys));
            }
            StoreEvent::Scanned { id, page } => {
                out.push(match self.scans.remove(&id) {
                    Some(from) => ReplicaEffect::Answer { to: from, response: rows(page) },
                    None => ReplicaEffect::Repair(StoreEvent::Scanned { id, page }),
                });
            }
            StoreEvent::Digests { .. }
            | StoreEvent::Partitions { .. }
            | StoreEvent::Keys { .. }
            | StoreEvent::Flushed
            | StoreEvent::Ingested { .. }
            | StoreEvent::Verified { .. }
            | StoreEvent::Feed { .. }
            | StoreEvent::Dropped { .. } => out.push(ReplicaEffect::Repair(event)),
            // The room is asked for when it matters.
            StoreEvent::Room => {}
            StoreEvent::Persisted { ticket } => {
                let is_refills = self.refills.persisted(ticket);
                out.push(if is_refills { ReplicaEffect::Refilled } else { ReplicaEffect::Persisted(ticket) });
            }
            StoreEvent::Leased => {
                out.push(ReplicaEffect::Leased);
                for (key, work) in std::mem::take(&mut self.unleased) {
                    self.work(now, &key, work, out);
                }
            }
            StoreEvent::Failed(failure) => self.failed(failure, out),
            StoreEvent::Reopened { damaged_records } => {
                if self.refills.is_writing() {
                    self.write_refills(out);
                }
                out.push(ReplicaEffect::Reopened { damaged_records });
            }
        }
    }

    /// What was asked but not applied is refused; what was applied but not synced has no answer, for nobody knows.
    fn failed(&mut self, failure: Failure, out: &mut Vec<ReplicaEffect<T>>) {
        self.unsynced.forget();
        self.slowed.forget();
        let unleased = std::mem::take(&mut self.unleased).into_iter().map(|(_, work)| work.from);
        let scans = std::mem::take(&mut self.scans).into_values();
        let parked = self.parked.take_all().into_iter().map(|work| work.from);
        out.extend(unleased.chain(scans).chain(parked).map(|from| refuse(from, Refusal::Storage)));
        out.push(ReplicaEffect::Failed(failure));
    }

    /// Does `work` if the visible object is at hand, else parks it behind the load, in order.
    fn work(&mut self, now: Now, key: &RowKey, work: Work<T>, out: &mut Vec<ReplicaEffect<T>>) {
        if work.deadline < now.instant {
            return;
        }
        let mut effects = Vec::new();
        match self.store.visible(key, &mut effects) {
            Visible::Loading => self.parked.push(key, work),
            Visible::Damaged => out.push(refuse(work.from, Refusal::NotSynced)),
            Visible::Failed => out.push(refuse(work.from, Refusal::Storage)),
            Visible::Ready(visible) => match work.kind {
                WorkKind::Get { have } => {
                    let lsn = visible.lsn;
                    self.show(key, lsn, (work.from, have), out);
                }
                WorkKind::Admit { delta, bytes } => match check(&visible.object, &delta, &self.limits, now.wall) {
                    Ok(()) if self.has_room_for(&delta) => self.admit((now, work.from), key, (&delta, bytes), out),
                    Ok(()) => out.push(refuse(work.from, Refusal::Full)),
                    Err(refusal) => out.push(refuse(work.from, refusal)),
                },
                WorkKind::Mint(request) => self.mint(now, key, (work.from, work.deadline, request), out),
            },
        }
        out.extend(effects.into_iter().map(ReplicaEffect::Store));
    }

    fn show(&mut self, key: &RowKey, lsn: Lsn, (from, have): (T, Option<Digest>), out: &mut Vec<ReplicaEffect<T>>) {
        let Some(digest) = self.store.digest(key) else {
            out.push(refuse(from, Refusal::NotSynced));
            return;
        };
        let response = match self.store.visible(key, &mut Vec::new()) {
            _ if have == Some(digest) => PeerResponse::Same,
            Visible::Ready(visible) => PeerResponse::State { object: visible.object.encode(), digest },
            Visible::Loading | Visible::Damaged | Visible::Failed => PeerResponse::Refused(Refusal::NotSynced),
        };
        self.leave_at(lsn, ReplicaEffect::Answer { to: from, response }, out);
    }

    fn admit(&mut self, (now, from): (Now, T), key: &RowKey, delta: (&Object, Bytes), out: &mut Vec<ReplicaEffect<T>>) {
        let lsn = self.apply(key, delta.0, delta.1, out);
        out.push(ReplicaEffect::Answer { to: from.clone(), response: PeerResponse::Admitted });
        let ack = ReplicaEffect::Ack { to: from, partition: key.partition(), lsn, minted: None };
        self.leave_slowed(now, lsn, ack, out);
    }

    /// On a disk that is nearly full only what brings no content gets in: deletes and removes.
    fn has_room_for(&self, delta: &Object) -> bool {
        self.store.room() == Room::Enough || delta.is_vacant()
    }

    fn apply(&mut self, key: &RowKey, delta: &Object, bytes: Bytes, out: &mut Vec<ReplicaEffect<T>>) -> Lsn {
        let mut effects = Vec::new();
        let lsn = self.store.apply(key, delta, bytes, &mut effects);
        out.extend(effects.into_iter().map(ReplicaEffect::Store));
        lsn
    }

    fn scan(&mut self, from: T, scan: &PeerScan, out: &mut Vec<ReplicaEffect<T>>) {
        let mut effects = Vec::new();
        let id = self.store.scan(scan, &mut effects);
        self.scans.insert(id, from);
        out.extend(effects.into_iter().map(ReplicaEffect::Store));
    }

    /// Lets an answer go now if everything up to `lsn` is synced, else when it is.
    fn leave_at(&mut self, lsn: Lsn, answer: ReplicaEffect<T>, out: &mut Vec<ReplicaEffect<T>>) {
        if lsn <= self.store.synced() {
            out.push(answer);
        } else {
            self.unsynced.push(lsn, answer);
        }
    }

    /// Like `leave_at`, of the ack of a client's write: held back while the store is under pressure.
    fn leave_slowed(&mut self, now: Now, lsn: Lsn, ack: ReplicaEffect<T>, out: &mut Vec<ReplicaEffect<T>>) {
        let wait = slowdown(self.store.pressure());
        if wait.is_zero() {
            self.leave_at(lsn, ack, out);
        } else {
            self.slowed.push(now.instant + wait, lsn, ack);
        }
    }
}

/// The checks that need the stored object.
fn check(current: &Object, delta: &Object, limits: &Limits, wall: WallTime) -> Result<(), Refusal> {
    admit(current, delta, limits, wall).map_err(|refusal| Refusal::Request(request_error(refusal)))?;
    if floors_known(current, delta) { Ok(()) } else { Err(Refusal::Behind) }
}

fn rows(page: ScanPage) -> PeerResponse {
    if !page.damaged.is_empty() || page.nameless_count > 0 {
        return PeerResponse::Refused(Refusal::NotSynced);
    }
    let row = |row: ScanRow| {
        let Place { collection, key, .. } = row.key.place();
        (collection, key, row.object)
    };
    PeerResponse::Rows { rows: page.rows.into_iter().map(row).collect(), finished: page.finished }
}

fn refuse<T>(to: T, refusal: Refusal) -> ReplicaEffect<T> {
    ReplicaEffect::Answer { to, response: PeerResponse::Refused(refusal) }
}

/// What a client is told when its operation is not admitted.
fn request_error(refusal: Admission) -> RequestError {
    let limit = |limit: &str, actual: usize, max: usize| RequestError::Limit {
        limit: limit.into(),
        actual: actual as u64,
        max: max as u64,
    };
    match refusal {
        Admission::WrongType { live, wanted } => RequestError::WrongType { found: live, wanted },
        Admission::ValueTooLarge { bytes, bytes_max } => limit("value", bytes, bytes_max),
        Admission::TooManySiblings { count, count_max } => limit("siblings", count, count_max),
        Admission::TooDeep { depth, depth_max } => limit("depth", depth, depth_max),
        Admission::ObjectTooLarge { bytes, bytes_max } => limit("object", bytes, bytes_max),
        Admission::TooManySessions { count, count_max } => limit("actors", count, count_max),
        Admission::TooManyGaps { count, count_max } => limit("ranges", count, count_max),
        other => RequestError::BadRequest { reason: other.to_string() },
    }
}

/// A deadline is past only after it: the clock counts in these.
const PAST: Duration = Duration::from_micros(1);
