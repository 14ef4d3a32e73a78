//! The engine: performs a store's effects on a log and on redb, blocking.
//!
//! Shape: `log-*` (what is durable first), `rows.redb` (rows, digests, change feed) and `meta.redb` (identity, leases, blobs).
//! All `Append`s of one call become one group of the log: group commit. A `Flush` joins frozen objects into their rows in
//! sorted chunks. The work is split into three lanes, which the host runs in threads of their own.
//! Sources: DESIGN §7; notes/reliability.md §3 (redb under faults).
//! Invariants: every value is sealed by `row` and checked when read; redb runs under `catch_unwind`; after the first error or
//! panic in a lane the engine is to be opened anew; what was reported done before stays done.

pub mod cells;
mod disk;
pub mod inspect;
mod lanes;
pub mod log;
mod meta;
mod open;
mod room;
mod rows;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::effect::{Failure, StoreDone, StoreEffect};

pub use disk::{Disk, LogMode};
pub use lanes::{Lane, LogLane, ReadLane, Rest, RowsLane};
pub use open::{Doubt, OpenError, OpenOptions};

/// An open store: its lanes.
#[derive(Debug)]
pub struct Engine<D: Disk> {
    /// Log and meta file.
    pub log: LogLane<D>,
    /// Writes rows.
    pub rows: RowsLane,
    /// Reads rows.
    pub reads: ReadLane,
    is_dead: bool,
}

impl<D: Disk> Engine<D> {
    /// Performs `effects` lane by lane and says what was done. After `Failed`, which comes last, the engine is dead; the
    /// store asks for `Reopen`, which whoever owns this does: drop it, then open another.
    pub fn perform(&mut self, effects: Vec<StoreEffect>) -> Vec<StoreDone> {
        let (mut log, mut rows, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                StoreEffect::Log(effect) => log.push(effect),
                StoreEffect::Rows(effect) => rows.push(effect),
                StoreEffect::Reads(effect) => reads.push(effect),
                StoreEffect::Reopen => {}
            }
        }
        let mut done = Vec::new();
        if !self.is_dead {
            done = self.log.perform(log);
        }
        if !failed_in(&done) && !self.is_dead {
            done.extend(self.rows.perform(rows));
        }
        if !failed_in(&done) && !self.is_dead {
            done.extend(self.reads.perform(reads));
        }
        self.is_dead |= failed_in(&done);
        done
    }

    /// The lanes, to be run beside each other.
    #[must_use]
    pub fn into_lanes(self) -> (LogLane<D>, RowsLane, ReadLane) {
        (self.log, self.rows, self.reads)
    }

    /// Whether a failure was reported.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.is_dead
    }
}

fn failed_in(done: &[StoreDone]) -> bool {
    matches!(done.last(), Some(StoreDone::Failed(_)))
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
