//! The change feed of a partition: what changed after an lsn, in the order of lsns.
//!
//! Shape: a page merges the rows' feed with the memtables. A change is (key, lsn, object): of a row the whole object, of a
//! memtable the join of its deltas. Whoever joins the changes of a key after some lsn to the object as it was there has the
//! object as it is. Source: DESIGN §7.
//! Invariants: nothing above `Progress::feed_limit` is in a page, so a reader that goes on from `next` misses nothing; below
//! `floor` entries were trimmed, and the feed cannot help.

use std::collections::BTreeMap;
use std::ops::Bound;

use shoal_protocol::id::Lsn;

use super::effect::{FeedId, FeedPage, FeedRequest};
use super::key::{RowKey, partition_bounds};
use super::memtable::{Entry, Memtable};
use super::memtables::Parts;
use super::rowset::{FeedRow, FeedRows};

/// The readings under way.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    next: u64,
    running: BTreeMap<FeedId, FeedRequest>,
}

impl Feeds {
    pub(super) fn begin(&mut self, request: impl FnOnce(FeedId) -> FeedRequest) -> FeedRequest {
        let id = FeedId(self.next);
        self.next += 1;
        let request = request(id);
        self.running.insert(id, request.clone());
        request
    }

    pub(super) fn running(&self, id: FeedId) -> Option<&FeedRequest> {
        self.running.get(&id)
    }

    pub(super) fn finish(&mut self, id: FeedId) {
        self.running.remove(&id);
    }

    pub(super) fn clear(&mut self) {
        self.running.clear();
    }
}

/// The page that `read` and the memtables make, through `limit` at most.
pub(super) fn join_feed(request: &FeedRequest, read: FeedRows, memtables: Parts<&Memtable>, limit: Lsn) -> FeedPage {
    // Behind an unfinished page there are others.
    let horizon = if read.finished { limit } else { read.through.min(limit) };
    let mut changes: BTreeMap<Lsn, Change<'_>> = BTreeMap::new();
    for memtable in memtables.into_iter().flatten() {
        let held = memtable.range(partition_bounds(request.partition));
        changes.extend(held.map(|(key, entry)| (entry.lsn, Change::Held(key, entry))));
    }
    // A row that was flushed a moment ago is in a memtable too, with the same lsn: the row is more.
    changes.extend(read.rows.into_iter().map(|change| (change.lsn, Change::Row(change))));
    let next = horizon.max(request.after);
    let mut page = FeedPage { changes: Vec::new(), damaged: read.damaged, next, floor: read.floor, finished: true };
    let mut bytes = 0;
    for (_, change) in changes.range((Bound::Excluded(request.after), Bound::Included(page.next))) {
        if page.changes.len() >= request.rows_max || bytes >= request.bytes_max {
            page.finished = false;
            break;
        }
        let change = change.encode();
        bytes += change.object.len();
        page.changes.push(change);
    }
    page.finished &= horizon == limit;
    if let Some(last) = page.changes.last().filter(|_| !page.finished) {
        page.next = last.lsn;
    }
    page
}

enum Change<'a> {
    Row(FeedRow),
    Held(&'a RowKey, &'a Entry),
}

impl Change<'_> {
    fn encode(&self) -> FeedRow {
        match self {
            Self::Row(change) => change.clone(),
            Self::Held(key, entry) => {
                FeedRow { key: (*key).clone(), lsn: entry.lsn, object: entry.encoded().into_owned().into() }
            }
        }
    }
}
