//! Shoal's store, driven as a replica drives it.
//!
//! Shape: the core in this thread, its engine in `StorageThreads` over the real directory. A put is decoded, joined, and
//! answered when it is synced and the slowdown of that moment has passed; a read is answered with digest and encoded object.
//! Invariant: nothing is used that a node does not use, except that the disk counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_node::host::storage_threads::StorageThreads;
use shoal_node::storage::engine::log::LogOptions;
use shoal_node::storage::engine::{Doubt, OpenOptions};
use shoal_node::storage::{
    Budget, CellId, CellPlace, IngestId, RowKey, RowsEffect, Store, StoreDone, StoreEffect, StoreEvent, Visible,
    Written, slowdown,
};
use shoal_protocol::id::{Actor, NodeId};
use shoal_protocol::object::{DigestKey, Object};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout_at;

use crate::Outcome;
use crate::closed_loop::{System, Taken};
use crate::counted_disk::{CountedDisk, Counters, WrittenBytes};
use crate::keys::{Keys, Put};
use crate::meter::Usage;

/// What a store may keep in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) budget: Budget,
    /// Pages of redb.
    pub(crate) cache_bytes: usize,
}

/// A store and its threads.
pub(crate) struct ShoalStore {
    store: Store,
    threads: StorageThreads,
    done: UnboundedReceiver<(CellId, Vec<StoreDone>)>,
    runtime: tokio::runtime::Runtime,
    counters: Arc<Counters>,
    out: Vec<StoreEffect>,
    events: Vec<StoreEvent>,
    flushes_under_way: u32,
    /// Keys and values that flushes wrote.
    pub(crate) flushed: Written,
}

/// What a loop of reads measured.
pub(crate) struct Reads {
    pub(crate) count: u64,
    /// Answered from memory.
    pub(crate) hits: u64,
    pub(crate) time: Duration,
    pub(crate) usage: Usage,
}

impl Memory {
    /// As a node has it by default.
    pub(crate) fn of_a_node() -> Self {
        Self { budget: Budget::default(), cache_bytes: 64 << 20 }
    }

    /// So many bytes in all, divided as a node's are.
    pub(crate) fn of_bytes(bytes: usize) -> Self {
        let node = Self::of_a_node();
        let pages = bytes / (node.bytes() / node.cache_bytes);
        Self { budget: Budget { bytes: bytes - pages, ..Budget::default() }, cache_bytes: pages }
    }

    pub(crate) fn bytes(self) -> usize {
        self.budget.bytes + self.cache_bytes
    }
}

impl ShoalStore {
    pub(crate) fn open(disk: &CountedDisk, memory: Memory) -> Outcome<Self> {
        let options = OpenOptions {
            node: NodeId(1),
            cluster: None,
            place: CellPlace::ALONE,
            incarnation: Actor::incarnation(1),
            cache_bytes: memory.cache_bytes,
            log: LogOptions::default(),
            reserve_bytes: 0,
            doubt: Doubt::Nothing,
        };
        let (sender, done) = unbounded_channel();
        let (threads, recovered) = StorageThreads::start(disk.clone(), options, sender)?;
        let mut out = Vec::new();
        let mut store = Store::new(memory.budget, recovered, &mut out);
        store.set_digest_key(DigestKey([7; 32]), &mut out);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let counters = disk.counters();
        let (events, flushed) = (Vec::new(), Written::default());
        Ok(Self { store, threads, done, runtime, counters, out, events, flushes_under_way: 0, flushed })
    }

    /// Puts these keys in past the log, which has to be their row order.
    pub(crate) fn load(&mut self, keys: &mut Keys, order: &[usize]) -> Outcome<()> {
        let mut under_way: Vec<IngestId> = Vec::new();
        for chunk in order.chunks(INGEST_ROWS) {
            let rows = chunk.iter().map(|index| keys.put(*index).map(|put| (put.key, put.delta)));
            let rows = rows.collect::<Outcome<Vec<_>>>()?;
            under_way.push(self.store.ingest(rows, &mut self.out).ok_or("the store does not serve")?);
            self.submit();
            self.wait_for(&mut under_way, 1)?;
        }
        self.wait_for(&mut under_way, 0)
    }

    fn wait_for(&mut self, under_way: &mut Vec<IngestId>, left: usize) -> Outcome<()> {
        while under_way.len() > left {
            self.turn(None)?;
            let events = std::mem::take(&mut self.events);
            under_way.retain(|id| {
                !events.iter().any(|event| matches!(event, StoreEvent::Ingested { id: done } if done == id))
            });
            self.submit();
        }
        Ok(())
    }

    /// Brings everything into the rows.
    pub(crate) fn flush(&mut self) -> Outcome<()> {
        self.settle()?;
        self.store.flush(&mut self.out);
        self.settle()
    }

    /// Random reads by so many readers.
    pub(crate) fn reads(&mut self, keys: &mut Keys, readers: usize, time: Duration) -> Outcome<Reads> {
        self.settle()?;
        let (before, start) = (Usage::now(), Instant::now());
        let (mut count, mut hits, mut asked, mut idle) = (0, 0, 0_u64, readers);
        let mut waiting: BTreeMap<RowKey, usize> = BTreeMap::new();
        let mut is_over = false;
        while !is_over || !waiting.is_empty() {
            while idle > 0 && !is_over {
                asked += 1;
                is_over = asked.is_multiple_of(64) && start.elapsed() >= time;
                let key = keys.random_key();
                if self.answer(&key)? {
                    (count, hits) = (count + 1, hits + 1);
                } else {
                    *waiting.entry(key).or_default() += 1;
                    idle -= 1;
                }
            }
            if waiting.is_empty() {
                continue;
            }
            self.submit();
            self.turn(None)?;
            for event in std::mem::take(&mut self.events) {
                let StoreEvent::Ready { keys } = event else { continue };
                for key in keys {
                    let readers = waiting.remove(&key).unwrap_or(0);
                    for _ in 0..readers {
                        count += u64::from(self.answer(&key)?);
                    }
                    idle += readers;
                }
            }
        }
        Ok(Reads { count, hits, time: start.elapsed(), usage: Usage::now().since(before) })
    }

    /// Makes the answer to a read; false while the row is being read.
    fn answer(&mut self, key: &RowKey) -> Outcome<bool> {
        match self.store.visible(key, &mut self.out) {
            Visible::Ready(visible) => std::hint::black_box(visible.object.encode()),
            Visible::Loading => return Ok(false),
            Visible::Damaged | Visible::Failed => return Err("a row cannot be read".into()),
        };
        std::hint::black_box(self.store.digest(key));
        Ok(true)
    }

    /// Takes in what was done, after waiting for something, but no longer than until then.
    fn turn(&mut self, until: Option<Instant>) -> Outcome<()> {
        let done = &mut self.done;
        let mut batch = match until {
            None => done.blocking_recv(),
            Some(until) => match self.runtime.block_on(async { timeout_at(until.into(), done.recv()).await }) {
                Ok(batch) => batch,
                Err(_) => return Ok(()),
            },
        };
        if batch.is_none() {
            return Err("the storage threads have ended".into());
        }
        while let Some((_, dones)) = batch {
            for done in dones {
                if let StoreDone::Flushed { written, .. } = &done {
                    self.flushes_under_way -= 1;
                    self.flushed.add(written);
                }
                self.store.handle(done, &mut self.out, &mut self.events);
            }
            batch = self.done.try_recv().ok();
        }
        match self
            .events
            .iter()
            .find_map(|event| if let StoreEvent::Failed(failure) = event { Some(failure) } else { None })
        {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(()),
        }
    }
}

impl System for ShoalStore {
    fn put(&mut self, put: Put) -> Outcome<Taken> {
        let delta = Object::decode_shared(&put.delta)?;
        let lsn = self.store.apply(&put.key, &delta, put.delta, &mut self.out);
        Ok(Taken { ticket: lsn.0, hold: slowdown(self.store.pressure()) })
    }

    fn submit(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let is_flush = |effect: &&StoreEffect| matches!(effect, StoreEffect::Rows(RowsEffect::Flush(_)));
        self.flushes_under_way += u32::try_from(self.out.iter().filter(is_flush).count()).unwrap_or(u32::MAX);
        self.threads.submit(std::mem::take(&mut self.out), self.store.pressure());
    }

    fn durable(&mut self, until: Option<Instant>) -> Outcome<u64> {
        self.turn(until)?;
        self.events.clear();
        Ok(self.store.synced().0)
    }

    fn settle(&mut self) -> Outcome<()> {
        self.submit();
        while self.flushes_under_way > 0 {
            self.turn(None)?;
            self.events.clear();
            self.submit();
        }
        Ok(())
    }

    fn written(&self) -> WrittenBytes {
        self.counters.now()
    }
}

/// Rows of one `Store::ingest`: some chunks of the rows file.
const INGEST_ROWS: usize = 50_000;
