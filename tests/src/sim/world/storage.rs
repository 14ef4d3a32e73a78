//! The storage threads of one process, in virtual time.
//!
//! Shape: writes queue up and are performed together by the real engine (group commit); reads have a thread of their own, or
//! queue with the writes. Completions of one kind arrive in order; between kinds they overtake each other, as the contract
//! of `StoreEffect` allows; `Failed` is the last of its engine.

use std::collections::BTreeMap;

use shoal_node::storage::engine::Engine;
use shoal_node::storage::{StoreDone, StoreEffect};
use shoal_protocol::time::Instant;

/// What the storage threads are about.
#[derive(Debug)]
pub(super) struct Storage {
    /// `None` from a failure until it is reopened.
    pub(super) engine: Option<Engine>,
    pub(super) writes: Vec<StoreEffect>,
    pub(super) reads: Vec<StoreEffect>,
    pub(super) is_writing: bool,
    pub(super) is_reading: bool,
    last_done: BTreeMap<u8, Instant>,
}

/// A step of the storage threads.
#[derive(Debug)]
pub(super) enum StorageStep {
    /// The writer takes what has queued up.
    Write,
    /// The reader does.
    Read,
    /// The node is told.
    Done(Box<StoreDone>),
    /// The engine is opened again.
    Reopen,
}

impl Storage {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine: Some(engine),
            writes: Vec::new(),
            reads: Vec::new(),
            is_writing: false,
            is_reading: false,
            last_done: BTreeMap::new(),
        }
    }

    /// When the node sees this completion, if it could at `earliest`.
    pub(super) fn done_at(&mut self, done: &StoreDone, earliest: Instant) -> Instant {
        let kind = kind(done);
        let before =
            if kind == FAILED { self.last_done.values().max().copied() } else { self.last_done.get(&kind).copied() };
        let at = earliest.max(before.unwrap_or_default());
        self.last_done.insert(kind, at);
        at
    }
}

fn kind(done: &StoreDone) -> u8 {
    match done {
        StoreDone::Synced { .. } => 0,
        StoreDone::Loaded { .. } => 1,
        StoreDone::Scanned(_) => 2,
        StoreDone::Flushed { .. } => 3,
        StoreDone::Leased(_) => 4,
        StoreDone::Persisted { .. } => 5,
        StoreDone::Failed(_) => FAILED,
        StoreDone::Reopened(_) => 7,
    }
}

/// What a completion is, for the trace.
pub(super) fn describe(done: &StoreDone) -> String {
    match done {
        StoreDone::Synced { through } => format!("synced {}", through.0),
        StoreDone::Loaded { rows, replay_from } => format!("loaded {} after {}", rows.len(), replay_from.0),
        StoreDone::Scanned(page) => format!("scanned {} {}", page.id.0, page.rows.len()),
        StoreDone::Flushed { replay_from } => format!("flushed {}", replay_from.0),
        StoreDone::Leased(leases) => format!("leased {leases:?}"),
        StoreDone::Persisted { ticket } => format!("persisted {}", ticket.0),
        StoreDone::Failed(failure) => format!("failed {failure}"),
        StoreDone::Reopened(recovered) => {
            format!("reopened {} {}", recovered.replay_from.0, recovered.memtable.last().0)
        }
    }
}

/// What an effect is, for the trace.
pub(super) fn describe_effect(effect: &StoreEffect) -> String {
    match effect {
        StoreEffect::Append { records } => {
            let lsns: Vec<u64> = records.iter().map(|record| record.lsn.0).collect();
            format!("append {lsns:?}")
        }
        StoreEffect::Load { keys } => format!("load {}", keys.len()),
        StoreEffect::Scan(request) => format!("scan {}", request.id.0),
        StoreEffect::Flush(flush) => format!("flush {}", flush.replay_from.0),
        StoreEffect::Lease(leases) => format!("lease {leases:?}"),
        StoreEffect::Reopen => "reopen".into(),
        StoreEffect::Persist { ticket, bytes, .. } => format!("persist {} {}", ticket.0, bytes.len()),
    }
}

const FAILED: u8 = 6;
