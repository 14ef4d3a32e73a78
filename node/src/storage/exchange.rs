//! What repair asks of a store: its change feed, its digests, a check of both, the bulk path, and dropping rows.
//!
//! Source: DESIGN §7 (digests, change feed), §9 (who uses them).
//! Invariants: a feed shows nothing unsynced; digests describe exactly the rows, so what is in memtables is flushed first.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use shoal_protocol::id::{Lsn, Partition};

use super::Store;
use super::dropping::{DropId, DropRows};
use super::effect::{
    FeedId, FeedRequest, Ingest, IngestId, KeysId, KeysRequest, ReadEffect, RowsEffect, ScanId, ScanRequest,
    StoreEffect, StoreEvent,
};
use super::feed::join_feed;
use super::hint::all_hints;
use super::key::{Extent, RowKey};
use super::rowset::{BucketKeys, FeedRows, IngestRow, Written};

impl Store {
    /// Reads what changed in a partition after an lsn: `StoreEvent::Feed` with this id.
    pub fn feed(&mut self, wanted: FeedRequest, out: &mut Vec<StoreEffect>) -> FeedId {
        let request = self.feeds.begin(|id| FeedRequest { id, rows_max: wanted.rows_max.max(1), ..wanted });
        let id = request.id;
        if self.progress.serving {
            out.push(StoreEffect::Reads(ReadEffect::Feed(request)));
        }
        id
    }

    /// Reads the digests of a partition's rows: `StoreEvent::Digests`. They describe the rows alone: `flush` first.
    pub fn read_digests(&self, partition: Partition, out: &mut Vec<StoreEffect>) {
        if self.progress.serving {
            out.push(StoreEffect::Reads(ReadEffect::Digests { partition }));
        }
    }

    /// Lists the partitions of which something is in the rows: `StoreEvent::Partitions`.
    pub fn list_partitions(&self, out: &mut Vec<StoreEffect>) {
        if self.progress.serving {
            out.push(StoreEffect::Reads(ReadEffect::Partitions));
        }
    }

    /// Lists the rows of some buckets, as they are in the rows: `StoreEvent::Keys`.
    pub fn list_keys(&self, request: KeysRequest, out: &mut Vec<StoreEffect>) {
        if self.progress.serving {
            out.push(StoreEffect::Reads(ReadEffect::Keys(request)));
        }
    }

    /// Recomputes the digests of a partition's rows and compares: `StoreEvent::Verified`. Nothing before the digest key is
    /// known.
    pub fn verify(&self, partition: Partition, out: &mut Vec<StoreEffect>) {
        if let Some(digest_key) = self.rules.digest_key.clone().filter(|_| self.progress.serving) {
            out.push(StoreEffect::Rows(RowsEffect::Verify { partition, digest_key }));
        }
    }

    /// The bulk path: joins canonical objects, in row order, into the rows without writing them to the log. They are durable
    /// and visible at `StoreEvent::Ingested` with this id; a failure before leaves any part of them. `None` while the store
    /// does not serve or no digest key is known.
    pub fn ingest(&mut self, rows: Vec<(RowKey, Bytes)>, out: &mut Vec<StoreEffect>) -> Option<IngestId> {
        let digest_key = self.rules.digest_key.clone().filter(|_| self.progress.serving)?;
        let id = IngestId(self.ingests_count);
        self.ingests_count += 1;
        let rows: Arc<[_]> =
            rows.into_iter().map(|(key, object)| IngestRow { key, object, lsn: self.leases.lsn() }).collect();
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            self.progress.ingest(first.lsn, last.lsn);
        }
        self.renew_leases(out);
        let lww = Arc::clone(&self.rules.lww);
        out.push(StoreEffect::Rows(RowsEffect::Ingest(Ingest { id, rows, lww, digest_key })));
        Some(id)
    }

    /// Removes for good every row of `extent` whose last delta is at or below `through` and synced, and those that cannot be
    /// read, memtables included: `StoreEvent::Dropped` with this id, and then no crash brings them back. Meanwhile reads of the
    /// extent may show them or not; a failure before leaves any part of them, and the drop is to be asked for again. The change
    /// feed of the partition is cut off at `through`, so that whoever follows it knows that something is missing. `None`
    /// while the store does not serve.
    pub fn drop_rows(&mut self, extent: Extent, through: Lsn, out: &mut Vec<StoreEffect>) -> Option<DropId> {
        if !self.progress.serving {
            return None;
        }
        let id = DropId(self.drops_count);
        self.drops_count += 1;
        let through = through.min(self.synced());
        // What is in none of them is in the rows when the work is begun: what flushes is asked of the same lane before it.
        self.memtables.drop_range(&extent, through);
        self.cache.forget_extent(&extent);
        out.push(StoreEffect::Rows(RowsEffect::Drop(DropRows { id, extent, through })));
        Some(id)
    }

    /// Reads a page of the hints that are kept here, whoever they are for: `StoreEvent::Scanned` with this id.
    pub fn scan_hints(&mut self, after: Option<&RowKey>, out: &mut Vec<StoreEffect>) -> ScanId {
        let mut range = all_hints();
        if let Some(after) = after {
            range.from = Bound::Excluded(Bytes::copy_from_slice(after.as_bytes()));
        }
        let (rows_max, bytes_max) = (HINTS_ROWS_MAX, HINTS_BYTES_MAX);
        let request = self.scans.begin(|id| ScanRequest { id, range, reverse: false, rows_max, bytes_max });
        let id = request.id;
        if self.progress.serving {
            out.push(StoreEffect::Reads(ReadEffect::Scan(request)));
        }
        id
    }

    /// What was written into the rows so far, and to the log since it was last opened, bytes.
    #[must_use]
    pub fn written(&self) -> (Written, u64) {
        (self.written, self.memtables.log_end())
    }

    /// The highest lsn that was given to anything.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.leases.last_lsn()
    }

    pub(super) fn dropped(&mut self, work: DropRows, written: &Written, events: &mut Vec<StoreEvent>) {
        self.written.add(written);
        self.progress.dropped();
        // What was read in between may have been read before.
        self.cache.forget_extent(&work.extent);
        events.push(StoreEvent::Dropped { id: work.id });
    }

    pub(super) fn keys_read(&self, id: KeysId, keys: BucketKeys, events: &mut Vec<StoreEvent>) {
        if !keys.damaged.is_empty() {
            events.push(StoreEvent::Damaged { keys: keys.damaged.clone() });
        }
        events.push(StoreEvent::Keys { id, keys });
    }

    pub(super) fn feed_read(
        &mut self,
        id: FeedId,
        read: FeedRows,
        out: &mut Vec<StoreEffect>,
        events: &mut Vec<StoreEvent>,
    ) {
        let Some(request) = self.feeds.running(id) else { return };
        if read.at.is_behind(&self.progress.rows) {
            out.push(StoreEffect::Reads(ReadEffect::Feed(request.clone())));
            return;
        }
        let limit = self.progress.feed_limit().min(self.leases.lsn_limit());
        let page = join_feed(request, read, self.memtables.tables(), limit);
        self.feeds.finish(id);
        if !page.damaged.is_empty() {
            events.push(StoreEvent::Damaged { keys: page.damaged.clone() });
        }
        events.push(StoreEvent::Feed { id, page });
    }
}

/// Rows of a page of hints when they are looked for.
const HINTS_ROWS_MAX: usize = 1_000;
/// Bytes after which such a page ends.
const HINTS_BYTES_MAX: usize = 1 << 20;
