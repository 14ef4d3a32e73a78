//! Dropping: rows that are not wanted here any more, removed for good.
//!
//! Shape: chunk by chunk, one transaction each, rows and what describes them; the feed of the partition is cut off with the
//! first. What is dropped may be in the log too, so a mark `dropped/EXTENT` (the extent's key prefix in hex -> the lsn dropped
//! through) stays in `state` until the log begins behind it: a replay leaves out what a mark covers.
//! Invariants: a row whose last delta lies above the lsn stays; at every commit digests, counts and feed describe exactly the
//! rows that are left; a drop that was cut short and is done again has the same outcome.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};
use shoal_protocol::id::{Lsn, Partition};
use shoal_protocol::object::Digest;

use crate::storage::dropping::DropRows;
use crate::storage::effect::Failure;
use crate::storage::engine::failed;
use crate::storage::key::{Extent, RowKey, encode_partition, successor};
use crate::storage::row::Row;
use crate::storage::rowset::{Chunk, Written};

use super::counts::Counts;
use super::digests::bucket_of;
use super::flush::{Tables, put_counts};
use super::rebuild::rebuild;
use super::{DROPS, RowsWriter, STATE, digests, feed, put_state, state_number, with_range};

impl RowsWriter {
    /// Removes rows. `throttle` is told each chunk when it is committed, and may take its time.
    pub(in crate::storage) fn drop_rows(
        &mut self,
        work: &DropRows,
        throttle: &mut dyn FnMut(Chunk),
    ) -> Result<Written, Failure> {
        let (mut written, mut from) = (Written::default(), Some(work.extent.prefix()));
        let drops = self.reader().at().drops + 1;
        while let Some(start) = from {
            let (rows_max, is_first) = (self.bounds.rows_max, written.chunks == 0);
            let (next, chunk) = self.commit(|transaction| {
                if is_first {
                    mark(transaction, work)?;
                }
                let (next, chunk) = drop_chunk(transaction, work, &start, rows_max)?;
                if next.is_none() {
                    put_state(transaction, DROPS, drops)?;
                }
                Ok((next, chunk))
            })?;
            written.add(&chunk);
            let bytes = chunk.rows_bytes + chunk.digests_bytes + chunk.feed_bytes;
            throttle(Chunk { rows: chunk.rows, bytes, is_first });
            from = next;
        }
        Ok(written)
    }

    /// What was dropped and may still be in the log.
    pub(in crate::storage::engine) fn dropped(&self) -> Result<Dropped, Failure> {
        let transaction = self.shared.database.begin_read().map_err(failed)?;
        let state = transaction.open_table(STATE).map_err(failed)?;
        let marks = marks(&state)?;
        Ok(Dropped(marks.into_iter().collect()))
    }
}

/// What was dropped and may still be in the log: by key prefix, the lsn it was dropped through.
#[derive(Debug)]
pub(in crate::storage::engine) struct Dropped(BTreeMap<String, Lsn>);

impl Dropped {
    /// Whether a record is of what was dropped.
    pub(in crate::storage::engine) fn covers(&self, key: &RowKey, lsn: Lsn) -> bool {
        let (partition, keyspace) = (key.partition(), key.keyspace());
        let extents = [None, Some(keyspace)].map(|keyspace| Extent { partition, keyspace });
        !self.0.is_empty() && extents.iter().any(|extent| self.0.get(&name(extent)).is_some_and(|end| lsn <= *end))
    }
}

/// Forgets the marks that a log which begins behind `replay_from` does not need.
pub(super) fn forget_drops(transaction: &WriteTransaction, replay_from: Lsn) -> Result<(), Failure> {
    let mut state = transaction.open_table(STATE).map_err(failed)?;
    for (name, _) in marks(&state)?.into_iter().filter(|(_, through)| *through <= replay_from) {
        state.remove(name.as_str()).map_err(failed)?;
    }
    Ok(())
}

/// Notes that nothing of `work` is to be replayed.
fn mark(transaction: &WriteTransaction, work: &DropRows) -> Result<(), Failure> {
    let name = name(&work.extent);
    let before = {
        let state = transaction.open_table(STATE).map_err(failed)?;
        let sealed = state.get(name.as_str()).map_err(failed)?;
        sealed.map(|sealed| state_number(&name, Some(sealed.value()))).transpose()?
    };
    put_state(transaction, &name, before.unwrap_or(0).max(work.through.0))
}

fn marks(state: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Vec<(String, Lsn)>, Failure> {
    let mut found = Vec::new();
    for item in state.range(MARK..).map_err(failed)? {
        let (name, sealed) = item.map_err(failed)?;
        let name = name.value();
        if !name.starts_with(MARK) {
            break;
        }
        found.push((name.to_owned(), Lsn(state_number(name, Some(sealed.value()))?)));
    }
    Ok(found)
}

fn name(extent: &Extent) -> String {
    let hex: String = extent.prefix().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{MARK}{hex}")
}

/// Removes up to `rows_max` rows from `start` on; says where the next chunk begins, if there is one.
fn drop_chunk(
    transaction: &WriteTransaction,
    work: &DropRows,
    start: &[u8],
    rows_max: usize,
) -> Result<(Option<Vec<u8>>, Written), Failure> {
    let mut tables = Tables::open(transaction)?;
    let mut written = Written { chunks: 1, ..Written::default() };
    let (victims, next) = victims(&tables, work, start, rows_max)?;
    let mut gone = Vec::new();
    for (key, digest) in victims {
        tables.rows.remove(key.as_ref()).map_err(failed)?;
        written.rows += 1;
        written.rows_bytes += key.len() as u64;
        // A row whose key is none was in no bucket.
        gone.extend(RowKey::decode(key).map(|key| (bucket_of(&key.place()), digest)));
    }
    let partition = work.extent.partition;
    let Some(digests_bytes) = digests::remove(&mut tables.digests, partition, &gone)? else {
        rebuild(&mut tables, partition, &mut written)?;
        return cut(&mut tables, work, None, &mut written).map(|()| (next, written));
    };
    written.digests_bytes += digests_bytes;
    match counted(&tables, partition)? {
        Some(counts) if counts.rows >= gone.len() as u64 => {
            let counts = Counts { rows: counts.rows - gone.len() as u64, ..counts };
            cut(&mut tables, work, Some(counts), &mut written)?;
        }
        // Nothing is left, or there never was anything: the feed begins anew all the same.
        None if is_empty(&tables, partition)? => cut(&mut tables, work, None, &mut written)?,
        Some(_) | None => {
            rebuild(&mut tables, partition, &mut written)?;
            cut(&mut tables, work, None, &mut written)?;
        }
    }
    Ok((next, written))
}

/// Rows to be removed, each with its digest if that can be read.
type Victims = Vec<(Bytes, Option<Digest>)>;

fn victims(
    tables: &Tables<'_>,
    work: &DropRows,
    start: &[u8],
    rows_max: usize,
) -> Result<(Victims, Option<Vec<u8>>), Failure> {
    let end = successor(work.extent.prefix());
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut victims = Vec::new();
    for row in tables.rows.range::<&[u8]>((Bound::Included(start), to)).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        if victims.len() >= rows_max {
            return Ok((victims, Some(key.value().to_vec())));
        }
        let row = Row::decode(key.value(), value.value());
        if row.is_none_or(|row| row.lsn <= work.through) {
            victims.push((Bytes::copy_from_slice(key.value()), row.map(|row| row.digest)));
        }
    }
    Ok((victims, None))
}

fn is_empty(tables: &Tables<'_>, partition: Partition) -> Result<bool, Failure> {
    let mut rows =
        with_range(&encode_partition(partition), |range| tables.rows.range::<&[u8]>(range)).map_err(failed)?;
    Ok(rows.next().is_none())
}

fn counted(tables: &Tables<'_>, partition: Partition) -> Result<Option<Counts>, Failure> {
    let key = encode_partition(partition);
    let sealed = tables.counts.get(key.as_slice()).map_err(failed)?;
    Ok(sealed.and_then(|sealed| Counts::decode(&key, sealed.value())))
}

/// Cuts the feed off and writes the counts: these, or those that a rebuild just wrote.
fn cut(tables: &mut Tables<'_>, work: &DropRows, counts: Option<Counts>, written: &mut Written) -> Result<(), Failure> {
    let partition = work.extent.partition;
    let rebuilt = if counts.is_some() { None } else { counted(tables, partition)? };
    let mut counts = counts.or(rebuilt).unwrap_or_default();
    feed::cut(&mut tables.feed, &mut counts, partition, work.through)?;
    written.feed_bytes += put_counts(&mut tables.counts, partition, counts)?;
    Ok(())
}

/// What the names of marks begin with.
const MARK: &str = "dropped/";
