//! The storage thread: performs a store's effects, off the network thread.
//!
//! Shape: batches of effects go in by one channel, completions come back by another. All batches that wait when the thread
//! looks are one group commit. After `Failed` the engine is dead and whatever else was sent is passed over, until the
//! event loop, which has told the node by then, asks for a `reopen`: so no effect of before reaches the engine of after.
//! Invariants: performing never blocks the event loop; when `finish` or a drop returns, the files are closed and unlocked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::disk::DirectoryDisk;
use crate::storage::engine::{Engine, OpenError, OpenOptions};
use crate::storage::{Recovered, StoreDone, StoreEffect};

/// The thread, as the event loop sees it.
#[derive(Debug)]
pub(super) struct StorageThread {
    /// `None` once no more will be sent. Unbounded by itself: the store's memory budget and the node's limits on requests
    /// bound what can be under way, and the event loop must not wait.
    work: Option<blocking::Sender<Work>>,
    /// What was done.
    pub(super) done: mpsc::Receiver<StoreDone>,
    is_abandoned: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Work {
    Perform(Vec<StoreEffect>),
    Reopen,
}

struct Worker {
    disk: DirectoryDisk,
    options: OpenOptions,
    engine: Engine,
    done: mpsc::Sender<StoreDone>,
    is_abandoned: Arc<AtomicBool>,
}

impl StorageThread {
    /// Opens the store, then starts the thread.
    pub(super) fn start(disk: DirectoryDisk, options: OpenOptions) -> Result<(Self, Recovered), StorageStartError> {
        let (engine, recovered) = Engine::open(&disk, &options)?;
        let (work, works) = blocking::channel();
        let (send, done) = mpsc::channel(DONE_COUNT_MAX);
        let is_abandoned = Arc::new(AtomicBool::new(false));
        // Damage found while running is looked for everywhere before the store serves again.
        let options = OpenOptions { verify_pages: true, ..options };
        let worker = Worker { disk, options, engine, done: send, is_abandoned: Arc::clone(&is_abandoned) };
        let thread = thread::Builder::new().name("shoal storage".to_owned()).spawn(move || worker.run(&works))?;
        Ok((Self { work: Some(work), done, is_abandoned, thread: Some(thread) }, recovered))
    }

    /// Hands effects over.
    pub(super) fn perform(&self, effects: Vec<StoreEffect>) {
        self.send(Work::Perform(effects));
    }

    /// Opens the store anew, as often as it takes: `Reopened` will come. To be called after `Failed` was handled.
    pub(super) fn reopen(&self) {
        self.send(Work::Reopen);
    }

    /// Performs what was handed over, then ends.
    pub(super) fn finish(mut self) {
        self.end();
    }

    fn send(&self, work: Work) {
        if let Some(sender) = &self.work {
            // A thread that has ended is noticed by its completions' channel.
            let _ = sender.send(work);
        }
    }

    fn end(&mut self) {
        self.work = None;
        // Nobody will read completions: the thread must not wait for room.
        self.done.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the storage thread has panicked");
        }
    }
}

impl Drop for StorageThread {
    /// Ends the thread without performing what waits, as a killed process would.
    fn drop(&mut self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
        self.end();
    }
}

/// Why there is no storage thread.
#[derive(Debug, thiserror::Error)]
pub(super) enum StorageStartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Thread(#[from] io::Error),
}

impl Worker {
    fn run(mut self, works: &blocking::Receiver<Work>) {
        while let Ok(work) = works.recv() {
            let mut effects = Vec::new();
            for work in std::iter::once(work).chain(works.try_iter()) {
                match work {
                    Work::Perform(more) => effects.extend(more),
                    Work::Reopen => {
                        // What came before it was meant for the dead engine.
                        effects.clear();
                        self.reopen();
                    }
                }
            }
            if self.is_abandoned() {
                return;
            }
            if !effects.is_empty() {
                self.perform(effects);
            }
        }
    }

    fn perform(&mut self, effects: Vec<StoreEffect>) {
        for done in self.engine.perform(effects) {
            if let StoreDone::Failed(failure) = &done {
                error!(%failure, "storage failed");
            }
            self.tell(done);
        }
    }

    fn reopen(&mut self) {
        let mut wait = REOPEN_AFTER_MIN;
        while !self.is_abandoned() && !self.done.is_closed() {
            match Engine::open(&self.disk, &self.options) {
                Ok((engine, recovered)) => {
                    info!(damaged_records = recovered.damaged_records, "storage reopened");
                    self.engine = engine;
                    return self.tell(StoreDone::Reopened(Box::new(recovered)));
                }
                Err(error) => warn!(%error, "storage cannot be reopened yet"),
            }
            thread::sleep(wait);
            wait = (wait * 2).min(REOPEN_AFTER_MAX);
        }
    }

    fn tell(&self, done: StoreDone) {
        // Nobody listens while the node ends; the work is done all the same.
        let _ = self.done.blocking_send(done);
    }

    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

/// Completions waiting for the event loop; one per effect or group, so a few batches.
const DONE_COUNT_MAX: usize = 4_096;
/// Waits between attempts to reopen: a full or sick disk is mended by somebody, not by trying.
const REOPEN_AFTER_MIN: Duration = Duration::from_millis(100);
const REOPEN_AFTER_MAX: Duration = Duration::from_secs(1);
