//! The threads of one cell's storage: one per lane of its engine.
//!
//! Shape: effects go into the inbox of their lane; a lane's thread takes everything pending at once, performs it, and answers
//! in one batch. What gathers while a sync is under way is the next group of the log, without any lingering; neither reads
//! nor syncs wait for a flush, and a flush rests between its chunks while there is time and something to give way to.
//! Bounds: what waits is bounded by the node's requests in flight and by the store's memory (`pressure`); answers are never
//! more than the effects behind them.
//! After a failure the store asks for `Reopen`: the log's thread takes the lanes from the others and tries until it succeeds,
//! waiting 1 s at first, 30 s at most.

mod inbox;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use self::inbox::{Inbox, Taken};
use crate::storage::engine::{Disk, Doubt, Engine, Lane, LogLane, OpenError, OpenOptions, ReadLane, Rest, RowsLane};
use crate::storage::{CellId, Failure, LogEffect, ReadEffect, Recovered, RowsEffect, StoreDone, StoreEffect};

/// Where completions go, in batches, each with the cell whose store it is of.
pub type Completions = UnboundedSender<(CellId, Vec<StoreDone>)>;

/// Runs one store's engine. When dropped it finishes what was submitted, then closes the files.
#[derive(Debug)]
pub struct StorageThreads {
    inboxes: Arc<Inboxes>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Inboxes {
    log: Inbox<LogEffect>,
    rows: Inbox<RowsEffect>,
    reads: Inbox<ReadEffect>,
    /// Bits of the store's pressure: an `f32`.
    pressure: AtomicU32,
    /// How often something was submitted for log or reads.
    foreground_count: AtomicU64,
}

/// What the threads share.
struct Shared<D: Disk> {
    disk: D,
    options: OpenOptions,
    inboxes: Arc<Inboxes>,
    /// Each is `None` while there is no engine. Completions are sent under the lock, so that none of a dead engine comes
    /// after those of the next.
    log: Mutex<Option<LogLane<D>>>,
    rows: Mutex<Option<RowsLane>>,
    reads: Mutex<Option<ReadLane>>,
    /// What the failures since the last opening call for.
    doubt: Mutex<Doubt>,
    done: Completions,
}

impl StorageThreads {
    /// Opens the store (blocking) and starts its threads. Completions go to `done` in batches.
    ///
    /// # Errors
    /// See `OpenError`.
    pub fn start<D: Disk>(disk: D, options: OpenOptions, done: Completions) -> Result<(Self, Recovered), OpenError> {
        let (engine, recovered) = Engine::open(&disk, &options)?;
        let inboxes = Arc::new(Inboxes::default());
        let (log, rows, reads) = lanes(engine, &inboxes);
        let shared = Arc::new(Shared {
            disk,
            options,
            inboxes: Arc::clone(&inboxes),
            log: Mutex::new(Some(log)),
            rows: Mutex::new(Some(rows)),
            reads: Mutex::new(Some(reads)),
            doubt: Mutex::new(options.doubt),
            done,
        });
        let (for_log, for_rows, for_reads) = (Arc::clone(&shared), Arc::clone(&shared), shared);
        let name = |lane: &str| format!("shoal-{lane}-{}", options.place.cell.0);
        let threads = vec![
            spawn(name("log"), move || for_log.run_log()),
            spawn(name("rows"), move || for_rows.run(&for_rows.inboxes.rows, &for_rows.rows)),
            spawn(name("reads"), move || for_reads.run(&for_reads.inboxes.reads, &for_reads.reads)),
        ];
        Ok((Self { inboxes, threads }, recovered))
    }

    /// Hands effects over; never blocks. `pressure` is the store's, for how long a flush may rest.
    pub fn submit(&self, effects: Vec<StoreEffect>, pressure: f32) {
        self.inboxes.pressure.store(pressure.to_bits(), Ordering::Relaxed);
        let (mut log, mut rows, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                StoreEffect::Log(effect) => log.push(effect),
                StoreEffect::Rows(effect) => rows.push(effect),
                StoreEffect::Reads(effect) => reads.push(effect),
                StoreEffect::Reopen => {
                    (log, rows, reads) = Default::default();
                    self.inboxes.rows.clear();
                    self.inboxes.reads.clear();
                    self.inboxes.log.reopen();
                }
            }
        }
        if !log.is_empty() || !reads.is_empty() {
            self.inboxes.foreground_count.fetch_add(1, Ordering::Relaxed);
        }
        self.inboxes.log.push(log);
        self.inboxes.rows.push(rows);
        self.inboxes.reads.push(reads);
    }

    /// Forgets what waits, as the death of the process would. What is under way may still be done.
    pub fn abandon(&self) {
        self.inboxes.log.forget();
        self.inboxes.rows.forget();
        self.inboxes.reads.forget();
    }
}

impl Drop for StorageThreads {
    fn drop(&mut self) {
        self.inboxes.reads.stop();
        self.inboxes.rows.stop();
        self.inboxes.log.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a storage thread panicked");
            }
        }
    }
}

impl<D: Disk> Shared<D> {
    fn run_log(&self) {
        loop {
            let idle_after = Some(IDLE_AFTER);
            match self.inboxes.log.take(idle_after) {
                Taken::Work(effects) => {
                    if !self.work(&self.log, |lane| lane.perform(effects)) {
                        return;
                    }
                }
                Taken::Idle => {
                    if !self.work(&self.log, Lane::idle) {
                        return;
                    }
                }
                Taken::Reopen => {
                    if !self.reopen() {
                        return;
                    }
                }
                Taken::Stopped => {
                    self.work(&self.log, Lane::idle);
                    return;
                }
            }
        }
    }

    fn run<L: Lane>(&self, inbox: &Inbox<L::Effect>, lane: &Mutex<Option<L>>) {
        while let Taken::Work(effects) = inbox.take(None) {
            if !self.work(lane, |lane| lane.perform(effects)) {
                return;
            }
        }
    }

    /// Lets a lane work and sends what it did; false once nobody listens. Without an engine the store has failed, and
    /// forgets what it asked.
    fn work<L>(&self, lane: &Mutex<Option<L>>, work: impl FnOnce(&mut L) -> Vec<StoreDone>) -> bool {
        let mut lane = locked(lane);
        let done = lane.as_mut().map(work).unwrap_or_default();
        if let Some(StoreDone::Failed(failure)) = done.last() {
            tracing::error!(store = %self.options.place, %failure, "storage stopped");
            self.doubt(failure);
        }
        done.is_empty() || self.tell(done)
    }

    /// Opens the files again; false if stopped before that succeeded.
    fn reopen(&self) -> bool {
        let (mut log, mut rows, mut reads) = (locked(&self.log), locked(&self.rows), locked(&self.reads));
        (*log, *rows, *reads) = (None, None, None);
        let mut wait = REOPEN_WAIT_MIN;
        loop {
            let doubt = *locked(&self.doubt);
            match Engine::open(&self.disk, &OpenOptions { doubt, ..self.options }) {
                Ok((engine, recovered)) => {
                    tracing::info!(store = %self.options.place, "storage reopened");
                    *locked(&self.doubt) = self.options.doubt;
                    let (log_lane, rows_lane, read_lane) = lanes(engine, &self.inboxes);
                    (*log, *rows, *reads) = (Some(log_lane), Some(rows_lane), Some(read_lane));
                    return self.tell(vec![StoreDone::Reopened(Box::new(recovered))]);
                }
                Err(error) => {
                    tracing::error!(store = %self.options.place, %error, "storage does not reopen");
                    if let OpenError::Disk(failure) = &error {
                        self.doubt(failure);
                    }
                }
            }
            if self.inboxes.log.is_stopped_within(wait) {
                return false;
            }
            wait = (wait * 2).min(REOPEN_WAIT_MAX);
        }
    }

    /// Whether anybody listens.
    fn tell(&self, done: Vec<StoreDone>) -> bool {
        self.done.send((self.options.place.cell, done)).is_ok()
    }

    fn doubt(&self, failure: &Failure) {
        let mut doubt = locked(&self.doubt);
        *doubt = failure.doubt().max(*doubt);
    }
}

fn lanes<D: Disk>(engine: Engine<D>, inboxes: &Arc<Inboxes>) -> (LogLane<D>, RowsLane, ReadLane) {
    let (log, rows, reads) = engine.into_lanes();
    (log, rows.resting(rest(Arc::clone(inboxes))), reads)
}

/// Rests as long as the chunk took, less the fuller the memtables are, so that what is in the foreground has half the disk; not
/// at all when there was nothing in the foreground.
fn rest(inboxes: Arc<Inboxes>) -> Rest {
    let (mut since, mut foreground_count) = (Instant::now(), 0);
    Box::new(move |chunk| {
        let before = std::mem::replace(&mut foreground_count, inboxes.foreground_count.load(Ordering::Relaxed));
        if before == foreground_count {
            since = Instant::now();
            return;
        }
        // Of a new flush the first chunk's time is not known: its rest is as short as it gets.
        let took = if chunk.is_first { Duration::ZERO } else { since.elapsed() };
        let pressure = f32::from_bits(inboxes.pressure.load(Ordering::Relaxed));
        inboxes.rows.is_stopped_within(took.mul_f32((1.0 - pressure).clamp(0.0, 1.0)));
        since = Instant::now();
    })
}

/// Nothing under these locks can be left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().name(name).spawn(run).expect("a process that just started can start a few threads")
}

const REOPEN_WAIT_MIN: Duration = Duration::from_secs(1);
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(30);
/// Without work for so long, the log closes its last group off and the room is looked at.
const IDLE_AFTER: Duration = Duration::from_secs(1);
