//! What repair asks of a store: its change feed, its digests, a check of both, and the bulk path.
//!
//! Source: DESIGN §7 (digests, change feed), §9 (who uses them).
//! Invariants: a feed shows nothing unsynced; digests describe exactly the rows, so what is in memtables is flushed first.

use std::sync::Arc;

use bytes::Bytes;
use shoal_protocol::id::Partition;

use super::Store;
use super::effect::{
    FeedId, FeedRequest, Ingest, IngestId, KeysId, KeysRequest, ReadEffect, RowsEffect, StoreEffect, StoreEvent,
};
use super::feed::join_feed;
use super::key::RowKey;
use super::rowset::{BucketKeys, FeedRows, IngestRow};

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
