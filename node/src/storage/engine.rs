//! The engine: performs a store's effects on redb, blocking.
//!
//! Shape: two files. `rows.redb` holds the tables `rows` (row key -> row), `log` (lsn -> record) and `state`; `meta.redb` holds
//! identity, leases and blobs. All `Append`s of one call to `perform` become one durable transaction: group commit. A
//! `Flush` joins the frozen objects into their rows and drops their log records in one transaction.
//! Sources: DESIGN §7; notes/reliability.md §3 (redb under faults).
//! Invariants: every value is sealed by `row` and checked when read; redb runs under `catch_unwind`; after the first error or
//! panic the engine closes its files and only says `Failed`; what was reported done before stays done.

mod disk;
pub mod log;
mod meta;
mod open;
mod reader;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Database, ReadableTable, TableDefinition};
use shoal_protocol::id::Lsn;
use shoal_protocol::object::{Digest, Object};

use super::effect::{Failure, Flush, Record, StoreDone, StoreEffect};
use super::key::RowKey;
use super::memtable::Entry;
use super::row::{Kind, Row, encode_record, seal};
use meta::Meta;

pub use disk::{Disk, LogMode};
pub use open::{Doubt, OpenError, OpenOptions};
pub use reader::Reader;

/// Row key -> row.
const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
/// Lsn -> record.
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Name -> sealed value.
const STATE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("state");
const REPLAY_FROM: &str = "replay_from";
const STORE_ID: &str = "store_id";

/// Performs the effects of one store.
#[derive(Debug)]
pub struct Engine {
    /// `None` once dead.
    files: Option<Files>,
    /// The last record in the log.
    last: Lsn,
}

#[derive(Debug)]
struct Files {
    meta: Meta,
    rows: Arc<Database>,
}

impl Engine {
    /// Performs `effects` in order, all `Append`s first in one transaction, and says what was done. After `Failed`, which
    /// comes last, the engine is dead; the store asks for `Reopen`, which whoever owns this does: drop it (and its readers),
    /// then open another.
    pub fn perform(&mut self, effects: Vec<StoreEffect>) -> Vec<StoreDone> {
        let mut done = Vec::new();
        let Some(files) = &self.files else { return done };
        let worked = guarded(|| perform(files, &mut self.last, effects, &mut done));
        if let Err(failure) = worked {
            self.close();
            done.push(StoreDone::Failed(failure));
        }
        done
    }

    /// Something that performs `Load` and `Scan` beside this engine; `None` once dead.
    #[must_use]
    pub fn reader(&self) -> Option<Reader> {
        self.files.as_ref().map(|files| Reader::new(Arc::clone(&files.rows)))
    }

    /// Whether a failure was reported.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.files.is_none()
    }

    /// Closes the files; the engine is dead from here on. (A database that failed may fail or panic once more on its way
    /// out: nothing depends on it.)
    pub fn close(&mut self) {
        let files = self.files.take();
        let _ = guarded(|| {
            drop(files);
            Ok(())
        });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn perform(files: &Files, last: &mut Lsn, effects: Vec<StoreEffect>, done: &mut Vec<StoreDone>) -> Result<(), Failure> {
    let (appends, others): (Vec<_>, Vec<_>) =
        effects.into_iter().partition(|effect| matches!(effect, StoreEffect::Append { .. }));
    let records: Vec<Record> = appends.into_iter().flat_map(records_of).collect();
    if let Some(through) = records.last().map(|record| record.lsn) {
        append(&files.rows, *last, &records)?;
        *last = through;
        done.push(StoreDone::Synced { through });
    }
    let reader = Reader::new(Arc::clone(&files.rows));
    for effect in others {
        done.push(match effect {
            // Appends are done above; reopening is for who owns the engine.
            StoreEffect::Append { .. } | StoreEffect::Reopen => continue,
            StoreEffect::Load { keys } => reader.load(keys)?,
            StoreEffect::Scan(request) => StoreDone::Scanned(reader.scan(&request)?),
            StoreEffect::Flush(work) => {
                flush(&files.rows, &work)?;
                StoreDone::Flushed { replay_from: work.replay_from }
            }
            StoreEffect::Lease(leases) => {
                files.meta.put_leases(leases)?;
                StoreDone::Leased(leases)
            }
            StoreEffect::Persist { ticket, name, bytes } => {
                files.meta.put_blob(&name, &bytes)?;
                StoreDone::Persisted { ticket }
            }
        });
    }
    Ok(())
}

fn records_of(effect: StoreEffect) -> Vec<Record> {
    match effect {
        StoreEffect::Append { records } => records,
        StoreEffect::Load { .. }
        | StoreEffect::Scan(_)
        | StoreEffect::Flush(_)
        | StoreEffect::Lease(_)
        | StoreEffect::Persist { .. }
        | StoreEffect::Reopen => Vec::new(),
    }
}

fn append(rows: &Database, last: Lsn, records: &[Record]) -> Result<(), Failure> {
    let transaction = rows.begin_write().map_err(failed)?;
    {
        let mut log = transaction.open_table(LOG).map_err(failed)?;
        let mut previous = last;
        for record in records {
            log.insert(record.lsn.0, encode_record(record, previous).as_slice()).map_err(failed)?;
            previous = record.lsn;
        }
    }
    transaction.commit().map_err(failed)
}

fn flush(rows: &Database, work: &Flush) -> Result<(), Failure> {
    let transaction = rows.begin_write().map_err(failed)?;
    {
        let mut table = transaction.open_table(ROWS).map_err(failed)?;
        for (key, entry) in work.frozen.iter() {
            let value = {
                let beneath = table.get(key.as_bytes()).map_err(failed)?;
                join_row(work, key, entry, beneath.as_ref().map(|value| value.value()))
            };
            table.insert(key.as_bytes(), value.as_slice()).map_err(failed)?;
        }
        let mut log = transaction.open_table(LOG).map_err(failed)?;
        log.retain_in(..=work.replay_from.0, |_, _| false).map_err(failed)?;
        let mut state = transaction.open_table(STATE).map_err(failed)?;
        let sealed = seal(Kind::State, REPLAY_FROM.as_bytes(), &work.replay_from.0.to_be_bytes());
        state.insert(REPLAY_FROM, sealed.as_slice()).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// The row of `key` with `entry` joined in. Over an unreadable row the result stays marked until something heals it.
fn join_row(work: &Flush, key: &RowKey, entry: &Entry, beneath: Option<&[u8]>) -> Vec<u8> {
    let (mut object, mut lsn, mut partial) = (Object::default(), Lsn::default(), false);
    if let Some(value) = beneath {
        match Row::decode(key.as_bytes(), value).and_then(|row| Some((Object::decode(row.object).ok()?, row))) {
            Some((stored, row)) => (object, lsn, partial) = (stored, row.lsn, row.partial),
            None => partial = true,
        }
    }
    object.merge_into(&entry.object);
    if work.lww.contains(&key.keyspace()) {
        object.prune_lww();
    }
    let object = object.encode();
    let digest = Digest::of_encoded(&work.digest_key, &key.place(), &object);
    let partial = partial && !entry.heals;
    Row { lsn: lsn.max(entry.lsn), digest, object: &object, partial }.encode(key.as_bytes())
}

/// Runs redb; its panics (some damaged pages cause them) are failures.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // Whatever a panic leaves half done is behind the database, which is closed and never used again.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::Panicked { reason: message(&*panic) }))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn failed(error: impl Into<redb::Error>) -> Failure {
    let error = error.into();
    if let redb::Error::Io(error) = error {
        error.into()
    } else if matches!(error, redb::Error::PreviousIo | redb::Error::DatabaseClosed) {
        Failure::Io { reason: error.to_string() }
    } else if matches!(error, redb::Error::LockPoisoned(_)) {
        Failure::Panicked { reason: error.to_string() }
    } else {
        // A file that we did not write: a tree that makes no sense, a table of another type or none at all.
        Failure::Damaged { reason: error.to_string() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full
        } else {
            Self::Io { reason: error.to_string() }
        }
    }
}
