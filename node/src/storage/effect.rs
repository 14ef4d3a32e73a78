//! The words between a store and those who do its work: effects out, completions in, events for the replica.
//!
//! Rule: each effect belongs to a lane. Effects of one lane are performed in the order given, lanes go on beside each other.
//! Completions of one kind arrive in the order of their effects; between kinds any order and any delay
//! is fine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use shoal_protocol::id::{ClusterId, KeyspaceId, Lsn, Partition};
use shoal_protocol::object::DigestKey;

use super::dropping::{DropId, DropRows};
use super::key::{RowKey, RowRange};
use super::lease::Leases;
use super::memtable::Memtable;
use super::progress::RowsAt;
use super::rowset::{
    BucketKeys, FeedRow, FeedRows, IngestRow, LoadedRow, PartitionDigests, ScannedRows, VerifyReport, Written,
};

/// Work for the engine, by the lane that does it.
#[derive(Clone, Debug)]
pub enum StoreEffect {
    /// For the log and the meta file.
    Log(LogEffect),
    /// For whatever writes rows.
    Rows(RowsEffect),
    /// For whatever reads rows.
    Reads(ReadEffect),
    /// For who owns the engine: drop the dead one, forget every effect before this one, open another: `Reopened`. Tried until
    /// it succeeds.
    Reopen,
}

/// Work on the log and the meta file.
#[derive(Clone, Debug)]
pub enum LogEffect {
    /// Put these records on stable storage, in order: `Synced` through the last.
    Append {
        /// The records.
        records: Vec<Record>,
    },
    /// Forget the log up to here: it is in the rows. Nothing answers.
    Trim {
        /// Records up to here are not needed any more.
        replay_from: Lsn,
    },
    /// Make a lease durable: `Leased`.
    Lease(Leases),
    /// Keep a small named blob beside the rows: `Persisted`.
    Persist {
        /// Names the write.
        ticket: PersistTicket,
        /// Names the blob.
        name: String,
        /// Its content.
        bytes: Bytes,
    },
}

/// Work that writes rows, or needs them to stand still.
#[derive(Clone, Debug)]
pub enum RowsEffect {
    /// Join a piece of a frozen memtable, whose records are all on stable storage, into the rows: `Flushed`.
    Flush(Flush),
    /// Join sorted objects that are in no log into the rows: `Ingested`.
    Ingest(Ingest),
    /// Remove rows for good, and what describes them: `Dropped`.
    Drop(DropRows),
    /// Recompute the digests of a partition's rows and compare: `Verified`.
    Verify {
        /// Which.
        partition: Partition,
        /// What the rows are digested with.
        digest_key: DigestKey,
    },
}

/// Work that reads rows.
#[derive(Clone, Debug)]
pub enum ReadEffect {
    /// Read rows: `Loaded`.
    Load {
        /// Which.
        keys: Vec<RowKey>,
    },
    /// Read a page of rows in order: `Scanned`.
    Scan(ScanRequest),
    /// Read a page of a partition's change feed: `FeedRead`.
    Feed(FeedRequest),
    /// Read the digests of a partition's rows: `DigestsRead`.
    Digests {
        /// Which.
        partition: Partition,
    },
    /// List the partitions of which something is in the rows: `PartitionsRead`.
    Partitions,
    /// List the rows of some buckets: `KeysRead`.
    Keys(KeysRequest),
}

/// One delta in the log, as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub lsn: Lsn,
    /// The object.
    pub key: RowKey,
    /// Canonical bytes.
    pub delta: Bytes,
    /// Whether it is a whole state that makes up for a damaged row.
    pub heals: bool,
}

/// A piece of a frozen memtable on its way into the rows.
#[derive(Clone, Debug)]
pub struct Flush {
    /// The deltas to join.
    pub rows: Arc<Memtable>,
    /// With the last piece: every record up to here is in the rows once this is done.
    pub replay_from: Option<Lsn>,
    /// Whether it is the first piece.
    pub is_first: bool,
    /// Keyspaces whose objects keep only the winner.
    pub lww: Arc<BTreeSet<KeyspaceId>>,
    /// What rows are digested with.
    pub digest_key: DigestKey,
}

/// Sorted objects on the bulk path: transfers and restores.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Returned when it is done.
    pub id: IngestId,
    /// In row order, each key once.
    pub rows: Arc<[IngestRow]>,
    /// Keyspaces whose objects keep only the winner.
    pub lww: Arc<BTreeSet<KeyspaceId>>,
    /// What rows are digested with.
    pub digest_key: DigestKey,
}

/// Names one `Ingest` of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IngestId(pub u64);

/// Names one reading of a change feed of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedId(pub u64);

/// Which stretch of a change feed to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRequest {
    /// Returned with the page.
    pub id: FeedId,
    /// Whose changes.
    pub partition: Partition,
    /// Those after this.
    pub after: Lsn,
    /// At most so many.
    pub rows_max: usize,
    /// Stop behind the change that reaches this many bytes of objects.
    pub bytes_max: usize,
}

/// Names one listing of keys of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeysId(pub u64);

/// Which rows to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysRequest {
    /// Returned with the list.
    pub id: KeysId,
    /// Whose rows.
    pub partition: Partition,
    /// Of which of its buckets.
    pub buckets: BTreeSet<u16>,
    /// Stop behind the bucket that reaches this many bytes of keys and digests.
    pub bytes_max: usize,
}

/// Names one scan of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScanId(pub u64);

/// Names one `Persist` of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistTicket(pub u64);

/// Which rows to read.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// Returned with the page.
    pub id: ScanId,
    /// The rows.
    pub range: RowRange,
    /// Descending.
    pub reverse: bool,
    /// At most so many.
    pub rows_max: usize,
    /// Stop behind the row that reaches this many bytes of objects.
    pub bytes_max: usize,
}

/// A completion.
#[derive(Clone, Debug)]
pub enum StoreDone {
    /// Records up to here are on stable storage.
    Synced {
        /// The last of them.
        through: Lsn,
        /// Bytes written to the log since it was opened: what freezing by the log's size goes by.
        log_end: u64,
    },
    /// Rows as read.
    Loaded {
        /// One for each key asked.
        rows: Vec<LoadedRow>,
        /// Which rows were read.
        at: RowsAt,
    },
    /// A page of rows as read.
    Scanned(ScannedRows),
    /// A page of a change feed as read.
    FeedRead {
        /// As in the request.
        id: FeedId,
        /// The page.
        read: FeedRows,
    },
    /// The digests of a partition's rows.
    DigestsRead {
        /// As in the effect.
        partition: Partition,
        /// What was read.
        digests: PartitionDigests,
    },
    /// The partitions of which something is in the rows.
    PartitionsRead {
        /// Which.
        partitions: BTreeSet<Partition>,
    },
    /// The rows of some buckets.
    KeysRead {
        /// As in the request.
        id: KeysId,
        /// What was read.
        keys: BucketKeys,
    },
    /// The objects are in the rows, durable.
    Ingested {
        /// As in the effect.
        id: IngestId,
        /// Which they were.
        keys: Vec<RowKey>,
        /// What that took.
        written: Written,
    },
    /// The rows are gone, durably: no crash brings them back.
    Dropped {
        /// As in the effect.
        work: DropRows,
        /// What that took.
        written: Written,
    },
    /// What recomputing a partition's digests found.
    Verified {
        /// As in the effect.
        partition: Partition,
        /// What was found.
        report: Box<VerifyReport>,
    },
    /// The room left on the disk has changed.
    Space(Room),
    /// The piece is in the rows.
    Flushed {
        /// As in the effect.
        replay_from: Option<Lsn>,
        /// What that took.
        written: Written,
    },
    /// The lease is durable.
    Leased(Leases),
    /// The blob is durable.
    Persisted {
        /// As in the effect.
        ticket: PersistTicket,
    },
    /// The engine is dead. What was not completed may or may not be on disk; nothing more completes until `Reopened`.
    Failed(Failure),
    /// Another engine serves, with what was on disk.
    Reopened(Box<Recovered>),
}

/// What happened, for the replica.
#[derive(Clone, Debug)]
pub enum StoreEvent {
    /// `synced()` has grown.
    Synced,
    /// `visible` answers for these keys now.
    Ready {
        /// In the order they were asked for.
        keys: Vec<RowKey>,
    },
    /// These rows cannot be read. They are never shown, neither as data nor as absent, until `heal`.
    Damaged {
        /// Which.
        keys: Vec<RowKey>,
    },
    /// A page of visible, synced objects.
    Scanned {
        /// As `scan` returned it.
        id: ScanId,
        /// The page.
        page: ScanPage,
    },
    /// The blob is durable.
    Persisted {
        /// As `persist` returned it.
        ticket: PersistTicket,
    },
    /// A page of synced changes.
    Feed {
        /// As `feed` returned it.
        id: FeedId,
        /// The page.
        page: FeedPage,
    },
    /// The digests of a partition's rows.
    Digests {
        /// Which.
        partition: Partition,
        /// What was read.
        digests: PartitionDigests,
    },
    /// The partitions of which something is in the rows.
    Partitions {
        /// Which.
        partitions: BTreeSet<Partition>,
    },
    /// The rows of some buckets.
    Keys {
        /// As `list_keys` was given it.
        id: KeysId,
        /// What was read.
        keys: BucketKeys,
    },
    /// The rows have changed, other than by what `Ingested` and `Verified` tell; `flushed_through()` may have grown.
    Flushed,
    /// The objects are durable and visible.
    Ingested {
        /// As `ingest` returned it.
        id: IngestId,
    },
    /// The rows are gone for good.
    Dropped {
        /// As `drop_rows` returned it.
        id: DropId,
    },
    /// What `verify` found.
    Verified {
        /// Which.
        partition: Partition,
        /// What was found.
        report: Box<VerifyReport>,
    },
    /// `room()` has changed.
    Room,
    /// A lease became durable: `mint` may succeed now, and `leases()` has changed.
    Leased,
    /// Nothing is acknowledged or answered until `Reopened`. Loads, scans, persists and leases under way are forgotten. The
    /// outcome of every delta above `synced()` is unknown, and their lsns must be forgotten: they are never used again,
    /// so a later `synced()` above one of them says nothing about it.
    Failed(Failure),
    /// The store serves again, with everything it ever called synced.
    Reopened {
        /// See `Recovered::damaged_records`.
        damaged_records: usize,
    },
}

/// A page of a change feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedPage {
    /// In the order of their lsns: of a row the whole object, of a memtable the join of its deltas.
    pub changes: Vec<FeedRow>,
    /// Rows changed in this stretch that cannot be read.
    pub damaged: Vec<RowKey>,
    /// Where the next page begins.
    pub next: Lsn,
    /// A reader that comes from below this misses changes: what it lacks is found by comparing digests.
    pub floor: Lsn,
    /// Whether these were all for now.
    pub finished: bool,
}

/// The room left on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough.
    #[default]
    Enough,
    /// Less than the reserve: writes of clients that need more are refused.
    Low,
    /// Next to none: the ballast was given up so that reads, deletes and repair can go on.
    None,
}

/// A page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// In scan order; vacant objects included.
    pub rows: Vec<ScanRow>,
    /// Rows of the same stretch that cannot be read.
    pub damaged: Vec<RowKey>,
    /// Rows of the same stretch of which not even the key can be read.
    pub nameless_count: usize,
    /// Whether the range ends with this page.
    pub finished: bool,
}

/// One visible object of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRow {
    /// Which.
    pub key: RowKey,
    /// Canonical bytes.
    pub object: Bytes,
    /// The last delta in it.
    pub lsn: Lsn,
}

/// Why an engine died.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No space left. Reads work again after reopening, writes once there is space.
    #[error("no space left on the disk")]
    Full,
    /// The disk reported an error.
    #[error("disk error: {reason}")]
    Io {
        /// What it said.
        reason: String,
    },
    /// A file is not what was written.
    #[error("damaged file: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// The storage library panicked, which it does on some damaged pages.
    #[error("the storage library panicked: {reason}")]
    Panicked {
        /// Its message.
        reason: String,
    },
}

/// What was found on disk when a store was opened.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Whether the store was made just now.
    pub created: bool,
    /// The cluster it belongs to, once known.
    pub cluster: Option<ClusterId>,
    /// Who mints, and what may have been used.
    pub leases: Leases,
    /// The log, replayed.
    pub memtable: Memtable,
    /// The room left on the disk.
    pub room: Room,
    /// What is in the rows.
    pub rows: RowsAt,
    /// The blobs.
    pub blobs: BTreeMap<String, Bytes>,
    /// Log records that are missing or cannot be read: acknowledged writes are lost here. The caller begins a new
    /// incarnation and catches up before it serves.
    pub damaged_records: usize,
}

pub(super) fn push_load(key: RowKey, out: &mut Vec<StoreEffect>) {
    match out.last_mut() {
        Some(StoreEffect::Reads(ReadEffect::Load { keys })) => keys.push(key),
        _ => out.push(StoreEffect::Reads(ReadEffect::Load { keys: vec![key] })),
    }
}

pub(super) fn push_record(record: Record, out: &mut Vec<StoreEffect>) {
    match out.last_mut() {
        Some(StoreEffect::Log(LogEffect::Append { records })) => records.push(record),
        _ => out.push(StoreEffect::Log(LogEffect::Append { records: vec![record] })),
    }
}
