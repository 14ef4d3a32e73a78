//! What the engine reads from the rows and writes into them: rows, pages of them, stretches of a feed, digests, and how much
//! there was.
//!
//! Invariant: what is damaged is marked as damaged, never given as content and never left out as absent.

use bytes::Bytes;
use shoal_protocol::id::{Lsn, Partition};
use shoal_protocol::object::{Digest, Object};

use super::effect::ScanId;
use super::key::RowKey;
use super::progress::RowsAt;

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
    /// Which rows were read.
    pub at: RowsAt,
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
    /// Which rows were read.
    pub at: RowsAt,
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
    /// Which rows were read.
    pub at: RowsAt,
}

/// One bucket of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketDigest {
    /// The digests of its readable rows, added up modulo 2^128.
    pub sum: u128,
    /// Its rows.
    pub count: u32,
}

/// The rows of some buckets of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketKeys {
    /// Readable rows with their digests, bucket by bucket, each in row order.
    pub keys: Vec<(RowKey, Digest)>,
    /// Rows that are, or once were, unreadable.
    pub damaged: Vec<RowKey>,
    /// The last bucket looked at: those behind it are to be asked for again.
    pub through: u16,
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

/// A chunk that was committed into the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Rows written.
    pub rows: u64,
    /// Keys and values written, of every kind.
    pub bytes: u64,
    /// Whether it is the first of its flush.
    pub is_first: bool,
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

impl Written {
    /// Adds what other work wrote.
    pub fn add(&mut self, other: &Self) {
        self.chunks += other.chunks;
        self.rows += other.rows;
        self.rows_bytes += other.rows_bytes;
        self.digests_bytes += other.digests_bytes;
        self.feed_bytes += other.feed_bytes;
    }
}
