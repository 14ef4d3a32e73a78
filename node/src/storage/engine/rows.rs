//! The rows file: rows, what they add up to, and in which order they changed.
//!
//! Shape: five tables. `rows` (row key -> row), `digests` (partition, group -> 64 bucket digests), `feed` (partition, lsn ->
//! row key), `counts` (partition -> rows, feed entries, feed floor), `state` (name -> number). One `RowsWriter` joins
//! frozen memtables (`flush`) and bulk loads (`ingest`) into them, chunk by chunk, one transaction each, in row order;
//! `RowsReader`s read the last commit beside it without waiting. Byte by byte: docs/formats/rows.md.
//! Invariants: at every commit the digests, the feed and the counts describe exactly the rows; doing the same work again
//! changes nothing; every value is sealed, and one that is damaged is never returned: what can be recomputed from the rows
//! is, what cannot is reported. Source: DESIGN §7.

mod counts;
mod digests;
mod dropping;
mod feed;
mod flush;
mod join;
mod read;
mod rebuild;
mod snapshot;
mod sorted;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition, WriteTransaction};
use shoal_protocol::id::KeyspaceId;
use shoal_protocol::object::DigestKey;

use crate::storage::effect::Failure;
use crate::storage::key::successor;
use crate::storage::progress::RowsAt;
use crate::storage::row::{Kind, seal, unseal};

use super::failed;
pub(super) use dropping::Dropped;
use flush::Bounds;
use snapshot::Snapshot;

/// Writes the rows file. There is one.
#[derive(Debug)]
pub(super) struct RowsWriter {
    shared: Arc<Shared>,
    bounds: Bounds,
}

/// Reads the rows file as of the last commit. It keeps the file open: drop it before opening the file again.
#[derive(Clone, Debug)]
pub(super) struct RowsReader {
    shared: Arc<Shared>,
}

/// How objects become rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// Keyspaces whose objects keep only the winner.
    pub(super) lww: &'a BTreeSet<KeyspaceId>,
    /// What rows are digested with.
    pub(super) digest_key: &'a DigestKey,
}

#[derive(Debug)]
struct Shared {
    /// What readers see; before `database`, because it has to be dropped first for the file to be closed in order.
    current: Mutex<Arc<Snapshot>>,
    database: Database,
}

/// Makes the tables of an empty file, which belongs to the store `store_id`.
pub(super) fn begin(database: &Database, store_id: u64) -> Result<(), Failure> {
    let transaction = write(database)?;
    transaction.open_table(ROWS).map_err(failed)?;
    transaction.open_table(DIGESTS).map_err(failed)?;
    transaction.open_table(FEED).map_err(failed)?;
    transaction.open_table(COUNTS).map_err(failed)?;
    put_state(&transaction, STORE_ID, store_id)?;
    put_state(&transaction, REPLAY_FROM, 0)?;
    put_state(&transaction, INGESTED, 0)?;
    transaction.commit().map_err(failed)
}

/// Whether nothing was ever written into the tables.
pub(super) fn is_unused(database: &Database) -> Result<bool, Failure> {
    let transaction = database.begin_read().map_err(failed)?;
    transaction.open_table(ROWS).map_err(failed)?.is_empty().map_err(failed)
}

impl RowsWriter {
    /// The rows in `database`, if they belong to the store `store_id`. So many bytes of pages are kept in memory.
    pub(super) fn open(database: Database, store_id: u64, cache_bytes: usize) -> Result<Self, Failure> {
        let snapshot = Snapshot::take(&database)?;
        if snapshot.store_id != store_id {
            return Err(Failure::Damaged { reason: "it belongs to another store than the meta file".into() });
        }
        let shared = Shared { current: Mutex::new(Arc::new(snapshot)), database };
        Ok(Self { shared: Arc::new(shared), bounds: Bounds::within(cache_bytes) })
    }

    /// Something that reads beside this writer.
    pub(super) fn reader(&self) -> RowsReader {
        RowsReader { shared: Arc::clone(&self.shared) }
    }

    /// Runs `work` in one transaction and shows its outcome to the readers.
    fn commit<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>) -> Result<T, Failure> {
        let transaction = write(&self.shared.database)?;
        let done = work(&transaction)?;
        transaction.commit().map_err(failed)?;
        let snapshot = Arc::new(Snapshot::take(&self.shared.database)?);
        let before = {
            let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, snapshot)
        };
        // Behind the lock: the last to let go of a snapshot gives its pages back.
        drop(before);
        Ok(done)
    }
}

impl RowsReader {
    /// The last commit. Whoever holds it on keeps its pages from being used again: hold it for one answer.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is in the rows.
    pub(super) fn at(&self) -> RowsAt {
        self.snapshot().at
    }
}

/// A transaction that leaves the file so that it opens at once after a crash (docs/decisions/0011).
fn write(database: &Database) -> Result<WriteTransaction, Failure> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn put_state(transaction: &WriteTransaction, name: &str, number: u64) -> Result<(), Failure> {
    let mut state = transaction.open_table(STATE).map_err(failed)?;
    let sealed = seal(Kind::State, name.as_bytes(), &[&number.to_be_bytes()]);
    state.insert(name, sealed.as_slice()).map_err(failed)?;
    Ok(())
}

fn state_number(name: &str, sealed: Option<&[u8]>) -> Result<u64, Failure> {
    sealed
        .and_then(|sealed| unseal(Kind::State, name.as_bytes(), sealed)?.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| Failure::Damaged { reason: format!("`{name}` is unreadable") })
}

/// Runs `over` on the range of everything that begins with `prefix`.
fn with_range<T>(prefix: &[u8], over: impl FnOnce((Bound<&[u8]>, Bound<&[u8]>)) -> T) -> T {
    let end = successor(prefix.to_vec());
    over((Bound::Included(prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded)))
}

/// Bytes to bytes: what every table but `state` holds.
type Pairs = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Row key -> row.
const ROWS: Pairs = TableDefinition::new("rows");
/// Partition, group -> the digests of its buckets.
const DIGESTS: Pairs = TableDefinition::new("digests");
/// Partition, lsn -> the rest of the row key.
const FEED: Pairs = TableDefinition::new("feed");
/// Partition -> counts.
const COUNTS: Pairs = TableDefinition::new("counts");
/// Name -> number.
const STATE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("state");
/// Records of the log through this lsn are in the rows.
const REPLAY_FROM: &str = "replay_from";
/// Objects ingested through this lsn are in the rows.
const INGESTED: &str = "ingested";
/// So many pieces of memtables were flushed; absent before the first.
const PIECES: &str = "pieces";
/// So often were rows dropped; absent before the first.
const DROPS: &str = "drops";
const STORE_ID: &str = "store_id";
