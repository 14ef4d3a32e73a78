//! Rebuilding what describes the rows of a partition: digests, feed and counts.
//!
//! Done when they are damaged or do not fit the rows, by the chunk that meets that or on behalf of a scrub. Costs one pass
//! over the partition. Afterwards the feed has exactly one entry per readable row above its floor.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use redb::ReadableTable;
use shoal_protocol::id::Partition;

use crate::storage::effect::Failure;
use crate::storage::engine::failed;
use crate::storage::key::{RowKey, encode_partition};
use crate::storage::row::Row;
use crate::storage::rowset::Written;

use super::counts::Counts;
use super::digests::Sums;
use super::feed::{self, FeedEntry};
use super::flush::{Tables, put_counts};
use super::{RowsWriter, with_range};

impl RowsWriter {
    /// Makes digests, feed and counts of `partition` anew from its rows: after a scrub found them wrong.
    pub(in crate::storage) fn rebuild(&mut self, partition: Partition) -> Result<Written, Failure> {
        self.commit(|transaction| {
            let mut written = Written { chunks: 1, ..Written::default() };
            rebuild(&mut Tables::open(transaction)?, partition, &mut written)?;
            Ok(written)
        })
    }
}

/// Makes digests, feed and counts of `partition` anew from its rows.
pub(super) fn rebuild(tables: &mut Tables<'_>, partition: Partition, written: &mut Written) -> Result<(), Failure> {
    let prefix = encode_partition(partition);
    let (mut sums, mut by_lsn) = (Sums::default(), BTreeMap::new());
    for row in with_range(&prefix, |range| tables.rows.range::<&[u8]>(range)).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let Some(key) = RowKey::decode(bytes::Bytes::copy_from_slice(key.value())) else { continue };
        let row = Row::decode(key.as_bytes(), value.value());
        sums.add(&key, row.as_ref());
        if let Some(row) = row
            && by_lsn.insert(row.lsn, key).is_some()
        {
            return Err(feed::claimed_twice());
        }
    }
    written.digests_bytes += sums.write(&mut tables.digests, partition)?;
    with_range(&prefix, |range| tables.feed.retain_in::<&[u8], _>(range, |_, _| false)).map_err(failed)?;
    // What was dropped or cut off is not in the rows any more, or was there with another lsn: the floor stays, if it is known.
    let sealed = tables.counts.get(prefix.as_slice()).map_err(failed)?;
    let before = sealed.and_then(|sealed| Counts::decode(&prefix, sealed.value())).unwrap_or_default();
    let mut counts = Counts { rows: sums.rows_count(), entries: 0, floor: before.floor };
    let entries =
        by_lsn.range((Excluded(counts.floor), Unbounded)).map(|(lsn, key)| FeedEntry::new(key, *lsn)).collect();
    written.feed_bytes += feed::append(&mut tables.feed, &mut counts, entries)?;
    written.feed_bytes += put_counts(&mut tables.counts, partition, counts)?;
    Ok(())
}
