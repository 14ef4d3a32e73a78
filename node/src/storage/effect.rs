//! The words between a store and those who do its work: effects out, completions in, events for the replica.
//!
//! Rule: effects are performed in the order given, `Load` and `Scan` aside, which may overtake the rest. Completions of one
//! kind arrive in the order of their effects; between kinds any order and any delay is fine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use shoal_protocol::id::{ClusterId, KeyspaceId, Lsn, Partition};
use shoal_protocol::object::{Digest, DigestKey, Object};

use super::key::{RowKey, RowRange};
use super::lease::Leases;
use super::memtable::Memtable;

/// Work for the engine.
#[derive(Clone, Debug)]
pub enum StoreEffect {
    /// Put these records on stable storage, in order: `Synced` through the last.
    Append {
        /// The records.
        records: Vec<Record>,
    },
    /// Read rows: `Loaded`.
    Load {
        /// Which.
        keys: Vec<RowKey>,
    },
    /// Read a page of rows in order: `Scanned`.
    Scan(ScanRequest),
    /// Join a frozen memtable into the rows and forget the log up to `replay_from`, in one step: `Flushed`.
    Flush(Flush),
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
    /// Drop the dead engine, forget every effect before this one, open another: `Reopened`. Tried until it succeeds.
    Reopen,
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

/// A frozen memtable on its way into the rows.
#[derive(Clone, Debug)]
pub struct Flush {
    /// The deltas to join.
    pub frozen: Arc<Memtable>,
    /// Every record up to here is in the rows once this is done.
    pub replay_from: Lsn,
    /// Keyspaces whose objects keep only the winner.
    pub lww: Arc<BTreeSet<KeyspaceId>>,
    /// What rows are digested with.
    pub digest_key: DigestKey,
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
    },
    /// Rows as read.
    Loaded {
        /// One for each key asked.
        rows: Vec<LoadedRow>,
        /// What was flushed into the rows when they were read.
        replay_from: Lsn,
    },
    /// A page of rows as read.
    Scanned(ScannedRows),
    /// The frozen memtable is in the rows.
    Flushed {
        /// As in the effect.
        replay_from: Lsn,
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

/// One row as read.
#[derive(Clone, Debug)]
pub struct LoadedRow {
    /// Which.
    pub key: RowKey,
    /// What was there.
    pub row: RowRead,
}

/// What was found at a key.
#[derive(Clone, Debug)]
pub enum RowRead {
    /// Nothing.
    Absent,
    /// A row whose checksum is right.
    Found(StoredRow),
    /// A row that is, or once was, unreadable. `rest` is what was flushed over it since.
    Damaged {
        /// Not the whole object.
        rest: Option<StoredRow>,
    },
}

/// A row, decoded.
#[derive(Clone, Debug)]
pub struct StoredRow {
    /// The object.
    pub object: Object,
    /// The last delta in it.
    pub lsn: Lsn,
    /// Its digest.
    pub digest: Digest,
}

/// A page of rows as read, in scan order.
#[derive(Clone, Debug)]
pub struct ScannedRows {
    /// As in the request.
    pub id: ScanId,
    /// The rows; objects in canonical bytes.
    pub rows: Vec<ScannedRow>,
    /// Rows whose key is unreadable: nobody can say what they were.
    pub nameless_count: usize,
    /// Whether the range ends with these rows. An unfinished page has at least one.
    pub finished: bool,
    /// What was flushed into the rows when they were read.
    pub replay_from: Lsn,
}

/// One row of a page as read.
#[derive(Clone, Debug)]
pub struct ScannedRow {
    /// Which.
    pub key: RowKey,
    /// Canonical bytes and the last delta in them; of a damaged row what was flushed over it since.
    pub object: Option<(Bytes, Lsn)>,
    /// Whether the row is, or once was, unreadable.
    pub damaged: bool,
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
    /// Everything up to here is in the rows.
    pub replay_from: Lsn,
    /// The blobs.
    pub blobs: BTreeMap<String, Bytes>,
    /// Log records that are missing or cannot be read: acknowledged writes are lost here. The caller begins a new
    /// incarnation and catches up before it serves.
    pub damaged_records: usize,
}

/// A chunk that was committed into the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Rows written.
    pub rows: u64,
    /// Keys and values written, of every kind.
    pub bytes: u64,
}

/// What a flush or an ingest wrote: keys and values, before pages are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Transactions.
    pub chunks: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of rows.
    pub rows_bytes: u64,
    /// Bytes of bucket digests.
    pub digests_bytes: u64,
    /// Bytes of the change feed and its counts.
    pub feed_bytes: u64,
}

/// One row of a bulk load: a whole object, or what another replica holds of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestRow {
    /// Which.
    pub key: RowKey,
    /// Canonical bytes, decoded once by whoever received them.
    pub object: Bytes,
    /// Its lsn in this store: fresh, above everything flushed before, no two alike.
    pub lsn: Lsn,
}

/// Part of a partition's change feed: rows in the order of their last change.
#[derive(Clone, Debug)]
pub struct FeedRows {
    /// Rows whose last change lies in `(after, through]`, ascending; vacant objects included.
    pub rows: Vec<FeedRow>,
    /// Rows changed in there that cannot be read.
    pub damaged: Vec<RowKey>,
    /// The feed is complete above this only. A reader whose `after` lies below has missed changes and compares digests.
    pub floor: Lsn,
    /// Where the next page begins.
    pub through: Lsn,
    /// Whether the feed ends here.
    pub finished: bool,
    /// What was flushed into the rows when they were read.
    pub replay_from: Lsn,
}

/// One row of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRow {
    /// Which.
    pub key: RowKey,
    /// Canonical bytes.
    pub object: Bytes,
    /// The last delta in it.
    pub lsn: Lsn,
}

/// The bucket digests of a partition: exactly what its rows add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDigests {
    /// Buckets that are not empty, ascending.
    pub buckets: Vec<(u16, BucketDigest)>,
    /// Rows in all of them.
    pub rows_count: u64,
    /// What stands in the file was damaged: these were added up from the rows.
    pub recomputed: bool,
    /// What was flushed into the rows when they were read.
    pub replay_from: Lsn,
}

/// One bucket of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketDigest {
    /// The digests of its readable rows, added up modulo 2^128.
    pub sum: u128,
    /// Its rows.
    pub count: u32,
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Partitions looked at.
    pub partitions: u64,
    /// Rows looked at.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub rows_bytes: u64,
    /// Rows that cannot be read, or were flushed over one that could not, or whose digest is not their object's.
    pub damaged_rows: Vec<RowKey>,
    /// Rows of which not even the key can be read.
    pub nameless_count: u64,
    /// Buckets whose digest is unreadable or is not what their rows add up to.
    pub digests_wrong: Vec<(Partition, u16)>,
    /// Partitions whose counts are unreadable or wrong.
    pub counts_wrong: Vec<Partition>,
    /// Entries of change feeds, stale ones included.
    pub feed_entries: u64,
    /// Entries that cannot be read.
    pub feed_damaged: u64,
    /// Rows above the feed's floor without an entry.
    pub feed_missing: u64,
    /// The first damage met, in words.
    pub first_damage: Option<String>,
}
