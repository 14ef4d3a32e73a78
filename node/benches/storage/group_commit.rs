//! What Shoal's store is compared with: redb alone, and the log alone, each with group commit.
//!
//! Shape: one thread commits everything that is pending at once, while the next group gathers: as Shoal's log does. redb gets
//! one transaction per group with `Durability::Immediate` (its default), key = row key, value = the delta: a blind write of
//! the same bytes. The log gets the records Shoal's log gets, and its segments back at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase, TableDefinition};
use shoal_node::storage::Record;
use shoal_node::storage::engine::Disk;
use shoal_node::storage::engine::log::{Log, LogOptions};
use shoal_protocol::id::Lsn;

use crate::Outcome;
use crate::closed_loop::{System, Taken};
use crate::counted_disk::{CountedDisk, Counters, WrittenBytes};
use crate::keys::{Keys, Put};
use crate::meter::Usage;
use crate::shoal::Reads;

/// A thread that commits groups.
pub(crate) struct GroupCommit {
    /// `None` when it is to end.
    groups: Option<Sender<Vec<Record>>>,
    durable: Receiver<Outcome<u64>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    pending: Vec<Record>,
    last: u64,
}

type Commit = Box<dyn FnMut(&[Record]) -> Outcome<()> + Send>;

/// redb alone.
pub(crate) struct RedbAlone {
    pub(crate) commits: GroupCommit,
    database: Arc<Database>,
}

impl RedbAlone {
    /// With every key in it, loaded in row order.
    pub(crate) fn load(disk: &CountedDisk, keys: &mut Keys, cache_bytes: usize) -> Outcome<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        let database = Arc::new(builder.create_with_backend(disk.open("alone.redb")?)?);
        for chunk in keys.in_row_order(0).chunks(LOAD_CHUNK) {
            let puts = chunk.iter().map(|index| keys.put(*index)).collect::<Outcome<Vec<_>>>()?;
            insert(&database, puts.iter().map(|put| (put.key.as_bytes(), &put.delta[..])))?;
        }
        let written = Arc::clone(&database);
        let commit = move |group: &[Record]| {
            insert(&written, group.iter().map(|record| (record.key.as_bytes(), &record.delta[..])))
        };
        Ok(Self { commits: GroupCommit::start(disk.counters(), Box::new(commit)), database })
    }

    /// Random reads: the best case, in which so many readers share each transaction and get bytes as they stand.
    pub(crate) fn reads(&self, keys: &mut Keys, readers: usize, time: Duration) -> Outcome<Reads> {
        let (before, start) = (Usage::now(), Instant::now());
        let mut count = 0;
        while start.elapsed() < time {
            let table = self.database.begin_read()?.open_table(TABLE)?;
            for _ in 0..readers {
                let found = table.get(keys.random_key().as_bytes())?.ok_or("a loaded key is missing")?;
                std::hint::black_box(found.value().to_vec());
                count += 1;
            }
        }
        Ok(Reads { count, hits: 0, time: start.elapsed(), usage: Usage::now().since(before) })
    }
}

fn insert<'a>(database: &Database, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Outcome<()> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for (key, value) in pairs {
            table.insert(key, value)?;
        }
    }
    Ok(transaction.commit()?)
}

/// The log alone: the limit of this machine.
pub(crate) fn raw_log(disk: &CountedDisk) -> Outcome<GroupCommit> {
    let options = LogOptions::default();
    let (mut log, _) = Log::open(disk, 1, Lsn(0), options, &mut |_| {})?;
    let (own, mut released) = (disk.clone(), 0);
    let commit = move |group: &[Record]| {
        log.append(&own, group)?;
        if log.position() - released >= options.segment_bytes {
            released = log.position();
            log.release(&own, group.last().map_or(Lsn(0), |record| record.lsn))?;
        }
        Ok(())
    };
    Ok(GroupCommit::start(disk.counters(), Box::new(commit)))
}

impl GroupCommit {
    fn start(counters: Arc<Counters>, mut commit: Commit) -> Self {
        let (groups, pending) = channel::<Vec<Record>>();
        let (done, durable) = channel();
        let thread = thread::spawn(move || {
            while let Ok(mut group) = pending.recv() {
                group.extend(pending.try_iter().flatten());
                let through = group.last().map_or(0, |record| record.lsn.0);
                if done.send(commit(&group).map(|()| through)).is_err() {
                    return;
                }
            }
        });
        Self { groups: Some(groups), durable, thread: Some(thread), counters, pending: Vec::new(), last: 0 }
    }
}

impl System for GroupCommit {
    fn put(&mut self, put: Put) -> Outcome<Taken> {
        self.last += 1;
        let Put { key, delta } = put;
        self.pending.push(Record { lsn: Lsn(self.last), key, delta, heals: false });
        Ok(Taken { ticket: self.last, hold: Duration::ZERO })
    }

    fn submit(&mut self) {
        if let Some(groups) = self.groups.as_ref().filter(|_| !self.pending.is_empty()) {
            // A thread that has ended says so through `durable`.
            let _ = groups.send(std::mem::take(&mut self.pending));
        }
    }

    fn durable(&mut self, _until: Option<Instant>) -> Outcome<u64> {
        // Nothing is ever held back here, so there is nothing to be in time for.
        self.durable.recv()?
    }

    fn settle(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn written(&self) -> WrittenBytes {
        self.counters.now()
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.groups = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("alone");
const LOAD_CHUNK: usize = 50_000;
