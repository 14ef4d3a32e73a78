//! Writing: sorted chunks, each one transaction.
//!
//! Shape: a chunk = up to 8,000 rows or 8 MiB in row order, fewer where redb keeps few pages, joined with what stands there;
//! then, partition by partition, digests, feed and counts follow what changed. How far flushes and loads have come is noted
//! with the last chunk.
//! Invariant: work that was cut short between two chunks is done again from its beginning, with the same outcome.
//! Source: DESIGN §7; notes/storage-and-network.md T10 (one transaction for all doubles the file and stalls writers).

use std::borrow::Cow;

use redb::{ReadableTable, WriteTransaction};
use shoal_protocol::id::{Lsn, Partition};

use crate::storage::effect::{Failure, Flush};
use crate::storage::engine::failed;
use crate::storage::key::encode_partition;
use crate::storage::rowset::{Chunk, IngestRow, Written};

use super::counts::Counts;
use super::dropping::forget_drops;
use super::feed::{self, FeedEntry};
use super::join::{Before, Change, Frozen, Source};
use super::rebuild::rebuild;
use super::sorted::{Bytes, write_sorted};
use super::{
    COUNTS, DIGESTS, FEED, INGESTED, PIECES, REPLAY_FROM, ROWS, RowsWriter, Rules, digests, put_state, with_range,
};

/// How large chunks and feeds are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Rows of a chunk.
    pub(super) rows_max: usize,
    /// Bytes of values after which a chunk ends.
    pub(super) bytes_max: usize,
    /// Entries that a feed keeps beyond two per row.
    pub(super) feed_slack: u64,
}

impl Bounds {
    /// For a file of which so many bytes of pages are kept in memory. redb holds changed pages back until the commit in half
    /// of that; what does not fit it writes twice, for it reads every page again at the commit to checksum it.
    pub(super) fn within(cache_bytes: usize) -> Self {
        let pages_max = cache_bytes / 2 / PAGE_BYTES;
        // At worst each row is in a page of its own; an eighth is for what else a chunk changes.
        let rows_max = (pages_max - pages_max / 8).clamp(CHUNK_ROWS_MIN, CHUNK_ROWS_MAX);
        Self { rows_max, bytes_max: (cache_bytes / 4).clamp(PAGE_BYTES, CHUNK_BYTES_MAX), ..Self::default() }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { rows_max: CHUNK_ROWS_MAX, bytes_max: CHUNK_BYTES_MAX, feed_slack: FEED_SLACK }
    }
}

impl RowsWriter {
    /// Joins a piece of a memtable into the rows. `throttle` is told each chunk when it is committed, and may take its time.
    pub(in crate::storage) fn flush(
        &mut self,
        work: &Flush,
        throttle: &mut dyn FnMut(Chunk),
    ) -> Result<Written, Failure> {
        let rows: Vec<_> = work.rows.iter().map(|(key, entry)| Frozen { key, entry }).collect();
        let rules = Rules { lww: &work.lww, digest_key: &work.digest_key };
        let mut marks = vec![(PIECES, self.reader().at().pieces + 1)];
        marks.extend(work.replay_from.map(|replay_from| (REPLAY_FROM, replay_from.0)));
        self.write(&rows, rules, &marks, &mut |chunk| {
            throttle(Chunk { is_first: chunk.is_first && work.is_first, ..chunk });
        })
    }

    /// Joins rows that come sorted, each once, past log and memtable: durable when this returns. Over a damaged row they
    /// heal nothing, being what one other replica holds.
    pub(in crate::storage) fn ingest(
        &mut self,
        rows: &[IngestRow],
        rules: Rules<'_>,
        throttle: &mut dyn FnMut(Chunk),
    ) -> Result<Written, Failure> {
        assert!(rows.is_sorted_by(|a, b| a.key < b.key), "rows to ingest ascend");
        let through = rows.iter().map(|row| row.lsn).max().unwrap_or(self.reader().at().ingested);
        self.write(rows, rules, &[(INGESTED, through.0)], throttle)
    }

    fn write<T: Source>(
        &mut self,
        mut rest: &[T],
        rules: Rules<'_>,
        marks: &[(&str, u64)],
        throttle: &mut dyn FnMut(Chunk),
    ) -> Result<Written, Failure> {
        let mut written = Written::default();
        loop {
            let rows = &rest[..rest.len().min(self.bounds.rows_max)];
            let bounds = self.bounds;
            let (done, chunk) = self.commit(|transaction| {
                let (done, chunk) = write_chunk(transaction, rows, rules, bounds)?;
                if done == rest.len() {
                    marks.iter().try_for_each(|(name, number)| put_state(transaction, name, *number))?;
                    let replay_from = marks.iter().find(|(name, _)| *name == REPLAY_FROM);
                    replay_from.map_or(Ok(()), |(_, replay_from)| forget_drops(transaction, Lsn(*replay_from)))?;
                }
                Ok((done, chunk))
            })?;
            rest = &rest[done..];
            written.chunks += 1;
            written.rows += chunk.rows;
            written.rows_bytes += chunk.rows_bytes;
            written.digests_bytes += chunk.digests_bytes;
            written.feed_bytes += chunk.feed_bytes;
            let bytes = chunk.rows_bytes + chunk.digests_bytes + chunk.feed_bytes;
            throttle(Chunk { rows: chunk.rows, bytes, is_first: written.chunks == 1 });
            if rest.is_empty() {
                return Ok(written);
            }
        }
    }
}

/// The tables that describe rows, in a write transaction.
pub(super) struct Tables<'txn> {
    pub(super) rows: Bytes<'txn>,
    pub(super) digests: Bytes<'txn>,
    pub(super) feed: Bytes<'txn>,
    pub(super) counts: Bytes<'txn>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            rows: transaction.open_table(ROWS).map_err(failed)?,
            digests: transaction.open_table(DIGESTS).map_err(failed)?,
            feed: transaction.open_table(FEED).map_err(failed)?,
            counts: transaction.open_table(COUNTS).map_err(failed)?,
        })
    }
}

/// Writes as many of `rows` as fit and says how many it dealt with.
fn write_chunk<T: Source>(
    transaction: &WriteTransaction,
    rows: &[T],
    rules: Rules<'_>,
    bounds: Bounds,
) -> Result<(usize, Written), Failure> {
    let mut tables = Tables::open(transaction)?;
    let (mut written, mut changes) = (Written::default(), Vec::new());
    let done = write_sorted(&mut tables.rows, rows, bounds.bytes_max, |row, beneath| {
        Ok(row.join(&rules, beneath)?.map(|joined| {
            written.rows += 1;
            written.rows_bytes += (row.key().len() + joined.value.len()) as u64;
            changes.push(joined.change);
            Cow::Owned(joined.value)
        }))
    })?;
    for changes in changes.chunk_by(|a, b| a.key.partition() == b.key.partition()) {
        let partition = changes[0].key.partition();
        if !follow(&mut tables, changes, bounds, &mut written)? {
            rebuild(&mut tables, partition, &mut written)?;
        }
    }
    Ok((done, written))
}

/// Lets digests, feed and counts follow `changes`, all of one partition. False if something does not add up.
fn follow(
    tables: &mut Tables<'_>,
    changes: &[Change<'_>],
    bounds: Bounds,
    written: &mut Written,
) -> Result<bool, Failure> {
    let partition = changes[0].key.partition();
    let added = changes.iter().filter(|change| change.before == Before::Absent).count();
    let key = encode_partition(partition);
    let counts = match tables.counts.get(key.as_slice()).map_err(failed)? {
        Some(sealed) => Counts::decode(&key, sealed.value()),
        // A new partition, unless rows of it are known elsewhere.
        None => {
            let digests = with_range(&key, |range| tables.digests.range::<&[u8]>(range)).map_err(failed)?;
            (added == changes.len() && digests.count() == 0).then(Counts::default)
        }
    };
    let Some(mut counts) = counts else { return Ok(false) };
    let Some(digests_bytes) = digests::update(&mut tables.digests, partition, changes)? else { return Ok(false) };
    written.digests_bytes += digests_bytes;
    counts.rows += added as u64;
    let listed = changes.iter().filter(|change| change.lsn > counts.floor);
    let entries = listed.map(|change| FeedEntry::new(change.key, change.lsn)).collect();
    written.feed_bytes += feed::append(&mut tables.feed, &mut counts, entries)?;
    feed::trim(&mut tables.feed, &mut counts, partition, bounds.feed_slack)?;
    written.feed_bytes += put_counts(&mut tables.counts, partition, counts)?;
    Ok(true)
}

/// Writes the counts of `partition` and says how many bytes.
pub(super) fn put_counts(table: &mut Bytes<'_>, partition: Partition, counts: Counts) -> Result<u64, Failure> {
    let key = encode_partition(partition);
    let sealed = counts.encode(&key);
    table.insert(key.as_slice(), sealed.as_slice()).map_err(failed)?;
    Ok((key.len() + sealed.len()) as u64)
}

/// Of redb.
const PAGE_BYTES: usize = 4096;
/// Rows of a chunk, however little memory there is: below, two syncs for each would cost more than pages written twice.
const CHUNK_ROWS_MIN: usize = 256;
/// Rows of a chunk. Source: notes/storage-and-network.md T10.
const CHUNK_ROWS_MAX: usize = 8_000;
/// Bytes of values after which a chunk ends: 8,000 rows of 1 KiB.
const CHUNK_BYTES_MAX: usize = 8 << 20;
/// Entries. Guess: in a partition of a few busy rows, how many changes a peer may be behind before it compares digests.
const FEED_SLACK: u64 = 256;
