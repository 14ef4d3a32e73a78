//! The storage threads, over a real directory and over a disk that fails.

use std::collections::BTreeSet;

use shoal_node::host::disk::DirectoryDisk;
use shoal_node::host::storage_threads::StorageThreads;
use shoal_node::storage::engine::{Disk, OpenError};
use shoal_node::storage::{CellId, Store, StoreDone, StoreEffect, StoreEvent, Visible};
use shoal_tests::sim::disk::{SimDisk, Survival};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::rig::{BUDGET, DIGEST_KEY, History, LWW, check, options, random};

/// A store whose engine runs in threads.
struct Running {
    store: Store,
    threads: StorageThreads,
    done: UnboundedReceiver<(CellId, Vec<StoreDone>)>,
    out: Vec<StoreEffect>,
    events: Vec<StoreEvent>,
}

impl Running {
    fn start<D: Disk>(disk: D) -> Result<Self, OpenError> {
        let (sender, done) = unbounded_channel();
        let (threads, recovered) = StorageThreads::start(disk, options(), sender)?;
        let mut out = Vec::new();
        let mut store = Store::new(BUDGET, recovered, &mut out);
        store.set_lww(BTreeSet::from([LWW]));
        store.set_digest_key(DIGEST_KEY, &mut out);
        Ok(Self { store, threads, done, out, events: Vec::new() })
    }

    fn has_seen(&self, what: impl Fn(&StoreEvent) -> bool) -> bool {
        self.events.iter().any(what)
    }

    /// Hands over what is asked and takes in one batch of answers.
    fn turn(&mut self) {
        self.threads.submit(std::mem::take(&mut self.out), self.store.pressure());
        for done in self.done.blocking_recv().expect("the threads live").1 {
            self.store.handle(done, &mut self.out, &mut self.events);
        }
    }
}

#[test]
fn a_directory_keeps_what_was_synced_and_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::default();
    let mut running = Running::start(DirectoryDisk::open(directory.path()).unwrap()).unwrap();
    let mut random = random(1);
    for _ in 0..200 {
        let (key, delta) = history.next_delta(&mut random);
        let lsn = running.store.apply(&key, &delta, delta.encode(), &mut running.out);
        history.note_applied(key, delta, lsn);
        if history.applied.len().is_multiple_of(10) {
            while running.store.synced() < lsn {
                running.turn();
            }
        }
    }
    assert!(matches!(DirectoryDisk::open(directory.path()).err(), Some(OpenError::Locked)));
    drop(running);
    let mut running = Running::start(DirectoryDisk::open(directory.path()).unwrap()).unwrap();
    for (key, object) in history.objects(history.applied.len()) {
        loop {
            match running.store.visible(&key, &mut running.out) {
                Visible::Ready(visible) => {
                    assert_eq!(visible.object, object);
                    break;
                }
                Visible::Loading => running.turn(),
                other @ (Visible::Damaged | Visible::Failed) => panic!("{key:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_store_that_failed_reopens_by_itself_and_goes_on() {
    let disk = SimDisk::default();
    let mut running = Running::start(disk.clone()).unwrap();
    let mut history = History::default();
    let mut random = random(2);
    for round in 0..6 {
        while !running.has_seen(|event| matches!(event, StoreEvent::Failed(_))) {
            // Planned anew each time: the threads may have passed the last one, and redb may do without a failed write.
            disk.error_at(disk.operations() + 1 + round);
            let (key, delta) = history.next_delta(&mut random);
            let lsn = running.store.apply(&key, &delta, delta.encode(), &mut running.out);
            history.note_applied(key, delta, lsn);
            history.note_synced(running.store.synced());
            running.turn();
        }
        // Whatever the log holds is synced again once the first lease after the reopening is durable.
        while !(running.store.is_serving() && running.has_seen(|event| matches!(event, StoreEvent::Leased))) {
            if running.has_seen(|event| matches!(event, StoreEvent::Failed(_))) {
                running.events.clear();
            }
            running.turn();
        }
        let synced = running.store.synced();
        let kept = history.applied.iter().take_while(|applied| applied.lsn <= synced).count();
        assert!(kept >= history.synced_count, "an acknowledged delta is gone");
        history.applied.truncate(kept);
        running.events.clear();
    }
    history.note_synced(running.store.synced());
    drop(running);
    check(&disk.crash(Survival::Nothing, 1), &history, "after six failures");
}
