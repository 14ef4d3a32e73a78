//! The threads of one cell's storage: one that writes, one that reads.
//!
//! Shape: effects go into an inbox each; a thread takes everything pending at once, performs it, and answers in one batch.
//! What gathers while a sync is under way is the next group commit, without any lingering. Reads do not wait for syncs.
//! Bounds: what waits is bounded by the node's requests in flight and by the store's memory (`pressure`); answers are never
//! more than the effects behind them.
//! After a failure the store asks for `Reopen`: the writing thread tries until it succeeds, waiting 1 s at first, 30 s at
//! most.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::storage::engine::{Disk, Doubt, Engine, OpenError, OpenOptions, Reader};
use crate::storage::{Failure, Recovered, StoreDone, StoreEffect};

/// Runs one store's engine. When dropped it finishes what was submitted, then closes the files.
#[derive(Debug)]
pub struct StorageThread {
    writes: Arc<Inbox>,
    reads: Arc<Inbox>,
    threads: Vec<JoinHandle<()>>,
}

impl StorageThread {
    /// Opens the store (blocking) and starts its threads. Completions go to `done` in batches.
    ///
    /// # Errors
    /// See `OpenError`.
    pub fn start<D: Disk + Send + 'static>(
        disk: D,
        options: OpenOptions,
        done: UnboundedSender<Vec<StoreDone>>,
    ) -> Result<(Self, Recovered), OpenError> {
        let (engine, recovered) = Engine::open(&disk, &options)?;
        let (writes, reads) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
        let reader = Arc::new(Mutex::new(engine.reader()));
        let doubt = Arc::new(Mutex::new(options.doubt));
        let writer = Writer {
            disk,
            options,
            engine,
            reader: Arc::clone(&reader),
            doubt: Arc::clone(&doubt),
            inbox: Arc::clone(&writes),
            done: done.clone(),
        };
        let reading = Reading { inbox: Arc::clone(&reads), reader, doubt, done };
        let threads = vec![spawn("shoal-write", move || writer.run()), spawn("shoal-read", move || reading.run())];
        Ok((Self { writes, reads, threads }, recovered))
    }

    /// Hands effects over; never blocks.
    pub fn submit(&self, effects: Vec<StoreEffect>) {
        let (reads, writes): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|effect| matches!(effect, StoreEffect::Load { .. } | StoreEffect::Scan(_)));
        self.reads.push(reads);
        self.writes.push(writes);
    }

    /// Forgets what waits, as the death of the process would. What is under way may still be done.
    pub fn abandon(&self) {
        self.reads.forget();
        self.writes.forget();
    }
}

impl Drop for StorageThread {
    fn drop(&mut self) {
        self.reads.stop();
        self.writes.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a storage thread panicked");
            }
        }
    }
}

struct Writer<D> {
    disk: D,
    options: OpenOptions,
    engine: Engine,
    /// What the reading thread uses; taken away while there is no engine.
    reader: Arc<Mutex<Option<Reader>>>,
    /// What the failures since the last opening call for.
    doubt: Arc<Mutex<Doubt>>,
    inbox: Arc<Inbox>,
    done: UnboundedSender<Vec<StoreDone>>,
}

impl<D: Disk> Writer<D> {
    fn run(mut self) {
        while let Some(mut effects) = self.inbox.take() {
            if let Some(at) = effects.iter().rposition(|effect| matches!(effect, StoreEffect::Reopen)) {
                effects.drain(..=at);
                let Some(recovered) = self.reopen() else { return };
                if self.done.send(vec![StoreDone::Reopened(Box::new(recovered))]).is_err() {
                    return;
                }
            }
            let done = self.engine.perform(effects);
            note_failure(&done, &self.doubt);
            if !done.is_empty() && self.done.send(done).is_err() {
                return;
            }
        }
    }

    /// Opens the files again; `None` if stopped before that succeeded.
    fn reopen(&mut self) -> Option<Recovered> {
        *locked(&self.reader) = None;
        self.engine.close();
        let mut wait = REOPEN_WAIT_MIN;
        loop {
            let doubt = *locked(&self.doubt);
            match Engine::open(&self.disk, &OpenOptions { doubt, ..self.options }) {
                Ok((engine, recovered)) => {
                    tracing::info!("storage reopened");
                    *locked(&self.doubt) = self.options.doubt;
                    *locked(&self.reader) = engine.reader();
                    self.engine = engine;
                    return Some(recovered);
                }
                Err(error) => {
                    tracing::error!(%error, "storage does not reopen");
                    if let OpenError::Disk(failure) = &error {
                        add_doubt(&self.doubt, failure);
                    }
                }
            }
            if self.inbox.is_stopped_within(wait) {
                return None;
            }
            wait = (wait * 2).min(REOPEN_WAIT_MAX);
        }
    }
}

struct Reading {
    inbox: Arc<Inbox>,
    reader: Arc<Mutex<Option<Reader>>>,
    doubt: Arc<Mutex<Doubt>>,
    done: UnboundedSender<Vec<StoreDone>>,
}

impl Reading {
    fn run(self) {
        while let Some(effects) = self.inbox.take() {
            // Without a reader the store has failed, and forgets what it asked.
            let done = locked(&self.reader).as_ref().map(|reader| reader.perform(effects)).unwrap_or_default();
            note_failure(&done, &self.doubt);
            if !done.is_empty() && self.done.send(done).is_err() {
                return;
            }
        }
    }
}

fn note_failure(done: &[StoreDone], doubt: &Mutex<Doubt>) {
    if let Some(StoreDone::Failed(failure)) = done.last() {
        tracing::error!(%failure, "storage stopped");
        add_doubt(doubt, failure);
    }
}

fn add_doubt(doubt: &Mutex<Doubt>, failure: &Failure) {
    let mut doubt = locked(doubt);
    *doubt = failure.doubt().max(*doubt);
}

/// Effects that wait for a thread.
#[derive(Debug, Default)]
struct Inbox {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    effects: Vec<StoreEffect>,
    stopped: bool,
}

impl Inbox {
    fn push(&self, effects: Vec<StoreEffect>) {
        if !effects.is_empty() {
            locked(&self.queue).effects.extend(effects);
            self.changed.notify_one();
        }
    }

    fn stop(&self) {
        locked(&self.queue).stopped = true;
        self.changed.notify_one();
    }

    fn forget(&self) {
        let mut queue = locked(&self.queue);
        queue.effects.clear();
        queue.stopped = true;
        self.changed.notify_one();
    }

    /// Everything pending, once there is something; `None` when there is nothing and never will be.
    fn take(&self) -> Option<Vec<StoreEffect>> {
        let idle = |queue: &mut Queue| queue.effects.is_empty() && !queue.stopped;
        let mut queue = self.changed.wait_while(locked(&self.queue), idle).unwrap_or_else(PoisonError::into_inner);
        let effects = std::mem::take(&mut queue.effects);
        (!effects.is_empty()).then_some(effects)
    }

    /// Waits, but no longer than until stopped.
    fn is_stopped_within(&self, wait: Duration) -> bool {
        let going = |queue: &mut Queue| !queue.stopped;
        let waited = self.changed.wait_timeout_while(locked(&self.queue), wait, going);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }
}

/// Nothing under these locks can be left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().name(name.into()).spawn(run).expect("a process that just started can start two threads")
}

const REOPEN_WAIT_MIN: Duration = Duration::from_secs(1);
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(30);
