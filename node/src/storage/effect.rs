//! The words between a store and those who do its work: effects out, completions in, events for the replica.
//!
//! Rule: effects are performed in the order given, `Load` and `Scan` aside, which may overtake the rest. Completions of one
//! kind arrive in the order of their effects; between kinds any order and any delay is fine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use shoal_protocol::id::{ClusterId, KeyspaceId, Lsn};
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
