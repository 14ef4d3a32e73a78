//! The lanes of an engine: three workers that may run beside each other, each over its own part of the files.
//!
//! Shape: `LogLane` (log and meta file), `RowsLane` (whatever writes rows), `ReadLane`.
//! Invariants: each works under `guarded`; after a failure a lane says `Failed`, last, and does nothing more; what was
//! reported done before stays done.

use super::log::Log;
use super::meta::Meta;
use super::room::RoomWatch;
use super::rows::{RowsReader, RowsWriter, Rules};
use super::{Disk, guarded};
use crate::storage::effect::{Failure, FeedRequest, LogEffect, ReadEffect, Record, RowsEffect, StoreDone};
use crate::storage::rowset::{Chunk, VerifyReport};

/// One worker of an engine.
pub trait Lane {
    /// What it performs.
    type Effect;

    /// Performs effects in order. After `Failed`, which comes last, the lane is dead and performs nothing.
    fn perform(&mut self, effects: Vec<Self::Effect>) -> Vec<StoreDone>;

    /// To be called when nothing was asked for a while, and before a clean stop.
    fn idle(&mut self) -> Vec<StoreDone> {
        Vec::new()
    }
}

/// Something that is gone after its first failure.
#[derive(Debug)]
struct Mortal<T>(Option<T>);

impl<T> Mortal<T> {
    fn work(&mut self, work: impl FnOnce(&mut T, &mut Vec<StoreDone>) -> Result<(), Failure>) -> Vec<StoreDone> {
        let mut done = Vec::new();
        let Some(alive) = &mut self.0 else { return done };
        if let Err(failure) = guarded(|| work(alive, &mut done)) {
            self.close();
            done.push(StoreDone::Failed(failure));
        }
        done
    }

    fn close(&mut self) {
        let dead = self.0.take();
        // A database that failed may fail or panic once more on its way out: nothing depends on it.
        let _ = guarded(|| {
            drop(dead);
            Ok(())
        });
    }
}

impl<T> Drop for Mortal<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Appends to the log, makes leases and blobs durable, watches the room.
#[derive(Debug)]
pub struct LogLane<D: Disk>(Mortal<LogWork<D>>);

#[derive(Debug)]
pub(super) struct LogWork<D: Disk> {
    pub(super) disk: D,
    pub(super) log: Log<D::LogFile>,
    pub(super) meta: Meta,
    pub(super) room: RoomWatch,
    /// Where the log ended when the room was last looked at.
    pub(super) looked_at: u64,
}

impl<D: Disk> LogLane<D> {
    pub(super) fn new(work: LogWork<D>) -> Self {
        Self(Mortal(Some(work)))
    }
}

impl<D: Disk> Lane for LogLane<D> {
    type Effect = LogEffect;

    /// All `Append`s first, as one group.
    fn perform(&mut self, effects: Vec<LogEffect>) -> Vec<StoreDone> {
        self.0.work(|work, done| work.perform(effects, done))
    }

    /// Closes the log's last group off, so that damage in it can be told from a tear; makes the next segment, so that no
    /// append has to wait for it; looks at the room.
    fn idle(&mut self) -> Vec<StoreDone> {
        self.0.work(|work, done| {
            work.log.seal(&work.disk)?;
            work.log.prepare(&work.disk)?;
            work.look(done)
        })
    }
}

impl<D: Disk> LogWork<D> {
    fn perform(&mut self, effects: Vec<LogEffect>, done: &mut Vec<StoreDone>) -> Result<(), Failure> {
        let mut records: Vec<Record> = Vec::new();
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                LogEffect::Append { records: more } if records.is_empty() => records = more,
                LogEffect::Append { records: more } => records.extend(more),
                LogEffect::Trim { .. } | LogEffect::Lease(_) | LogEffect::Persist { .. } => others.push(effect),
            }
        }
        if let Some(through) = records.last().map(|record| record.lsn) {
            self.log.append(&self.disk, &records)?;
            done.push(StoreDone::Synced { through, log_end: self.log.position() });
        }
        for effect in others {
            match effect {
                LogEffect::Append { .. } => {}
                LogEffect::Trim { replay_from } => self.log.release(&self.disk, replay_from)?,
                LogEffect::Lease(leases) => {
                    self.meta.put_leases(leases)?;
                    done.push(StoreDone::Leased(leases));
                }
                LogEffect::Persist { ticket, name, bytes } => {
                    self.meta.put_blob(&name, &bytes)?;
                    done.push(StoreDone::Persisted { ticket });
                }
            }
        }
        if self.log.position() - self.looked_at >= LOOK_BYTES {
            self.look(done)?;
        }
        Ok(())
    }

    fn look(&mut self, done: &mut Vec<StoreDone>) -> Result<(), Failure> {
        self.looked_at = self.log.position();
        done.extend(self.room.look(&self.disk)?.map(StoreDone::Space));
        Ok(())
    }
}

/// Flushes, ingests, drops, verifies.
pub struct RowsLane {
    rows: Mortal<RowsWriter>,
    rest: Rest,
}

/// Called behind every chunk of rows that was written, to slow this lane down beside the others.
pub type Rest = Box<dyn FnMut(Chunk) + Send>;

impl RowsLane {
    pub(super) fn new(rows: RowsWriter) -> Self {
        Self { rows: Mortal(Some(rows)), rest: Box::new(|_| {}) }
    }

    /// Rests behind every chunk.
    #[must_use]
    pub fn resting(self, rest: Rest) -> Self {
        Self { rest, ..self }
    }
}

impl std::fmt::Debug for RowsLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowsLane").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Lane for RowsLane {
    type Effect = RowsEffect;

    fn perform(&mut self, effects: Vec<RowsEffect>) -> Vec<StoreDone> {
        let rest = &mut self.rest;
        self.rows.work(|rows, done| {
            for effect in effects {
                done.push(match effect {
                    RowsEffect::Flush(work) => {
                        let written = rows.flush(&work, rest)?;
                        StoreDone::Flushed { replay_from: work.replay_from, written }
                    }
                    RowsEffect::Ingest(work) => {
                        let rules = Rules { lww: &work.lww, digest_key: &work.digest_key };
                        let written = rows.ingest(&work.rows, rules, rest)?;
                        let keys = work.rows.iter().map(|row| row.key.clone()).collect();
                        StoreDone::Ingested { id: work.id, keys, written }
                    }
                    RowsEffect::Drop(work) => {
                        let written = rows.drop_rows(&work, rest)?;
                        StoreDone::Dropped { work, written }
                    }
                    RowsEffect::Verify { partition, digest_key } => {
                        let mut report = Box::<VerifyReport>::default();
                        rows.reader().snapshot().verify(partition, Some(&digest_key), &mut report)?;
                        if !report.digests_wrong.is_empty() || !report.counts_wrong.is_empty() {
                            // They say nothing that the rows do not.
                            rows.rebuild(partition)?;
                        }
                        StoreDone::Verified { partition, report }
                    }
                });
            }
            Ok(())
        })
    }
}

/// Reads rows. It does not wait for the other lanes.
#[derive(Debug)]
pub struct ReadLane(Mortal<RowsReader>);

impl ReadLane {
    pub(super) fn new(rows: RowsReader) -> Self {
        Self(Mortal(Some(rows)))
    }
}

impl Lane for ReadLane {
    type Effect = ReadEffect;

    fn perform(&mut self, effects: Vec<ReadEffect>) -> Vec<StoreDone> {
        self.0.work(|rows, done| {
            let rows = rows.snapshot();
            for effect in effects {
                done.push(match effect {
                    ReadEffect::Load { keys } => rows.load(keys)?,
                    ReadEffect::Scan(request) => StoreDone::Scanned(rows.scan(&request)?),
                    ReadEffect::Feed(FeedRequest { id, partition, after, rows_max, bytes_max }) => {
                        StoreDone::FeedRead { id, read: rows.feed(partition, after, rows_max, bytes_max)? }
                    }
                    ReadEffect::Digests { partition } => {
                        StoreDone::DigestsRead { partition, digests: rows.digests(partition)? }
                    }
                    ReadEffect::Partitions => StoreDone::PartitionsRead { partitions: rows.partitions()? },
                    ReadEffect::Keys(request) => {
                        StoreDone::KeysRead { id: request.id, keys: rows.bucket_keys(&request)? }
                    }
                });
            }
            Ok(())
        })
    }
}

/// The room is looked at whenever the log has grown by so much.
const LOOK_BYTES: u64 = 4 << 20;
