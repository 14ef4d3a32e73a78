//! The storage threads of one cell, in virtual time.
//!
//! Shape: each lane of the real engine has a queue of its own and takes all or some of it at once (group commit). Completions of one kind arrive in order; between kinds they overtake each other, as the contract
//! of `StoreEffect` allows; `Failed` is the last of its engine.

use std::collections::BTreeMap;

use shoal_node::storage::engine::Engine;
use shoal_node::storage::{LogEffect, ReadEffect, RowsEffect, StoreDone, StoreEffect};
use shoal_protocol::time::Instant;

use crate::sim::disk::SimDisk;

/// What the storage threads are about.
#[derive(Debug)]
pub(super) struct Storage {
    /// `None` from a failure until it is reopened.
    pub(super) engine: Option<Engine<SimDisk>>,
    lanes: [LaneQueue; 3],
    last_done: BTreeMap<u8, Instant>,
}

/// A lane of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Log,
    Rows,
    Reads,
}

impl Lane {
    /// Whose work this is; `None` for reopening.
    pub(super) fn of(effect: &StoreEffect) -> Option<Self> {
        match effect {
            StoreEffect::Log(_) => Some(Self::Log),
            StoreEffect::Rows(_) => Some(Self::Rows),
            StoreEffect::Reads(_) => Some(Self::Reads),
            StoreEffect::Reopen => None,
        }
    }
}

/// What waits for one lane.
#[derive(Debug, Default)]
pub(super) struct LaneQueue {
    pub(super) effects: Vec<StoreEffect>,
    pub(super) is_working: bool,
}

/// A step of the storage threads.
#[derive(Debug)]
pub(super) enum StorageStep {
    /// A lane takes what has queued up.
    Work(Lane),
    /// The node is told.
    Done(Box<StoreDone>),
    /// The engine is opened again.
    Reopen,
}

impl Storage {
    pub(super) fn new(engine: Engine<SimDisk>) -> Self {
        Self { engine: Some(engine), lanes: Default::default(), last_done: BTreeMap::new() }
    }

    /// What waits for a lane.
    pub(super) fn lane(&mut self, lane: Lane) -> &mut LaneQueue {
        &mut self.lanes[lane as usize]
    }

    /// The engine is dead.
    pub(super) fn bury(&mut self) {
        self.engine = None;
        self.lanes = Default::default();
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
        StoreDone::FeedRead { .. } => 8,
        StoreDone::DigestsRead { .. } => 9,
        StoreDone::Ingested { .. } => 10,
        StoreDone::Verified { .. } => 11,
        StoreDone::Space(_) => 12,
        StoreDone::PartitionsRead { .. } => 13,
        StoreDone::KeysRead { .. } => 14,
        StoreDone::Dropped { .. } => 15,
    }
}

/// What a completion is, for the trace.
pub(super) fn describe(done: &StoreDone) -> String {
    match done {
        StoreDone::Synced { through, log_end } => format!("synced {} {log_end}", through.0),
        StoreDone::Loaded { rows, at } => format!("loaded {} at {at:?}", rows.len()),
        StoreDone::Scanned(page) => format!("scanned {} {}", page.id.0, page.rows.len()),
        StoreDone::Flushed { replay_from, .. } => format!("flushed {replay_from:?}"),
        StoreDone::Leased(leases) => format!("leased {leases:?}"),
        StoreDone::Persisted { ticket } => format!("persisted {}", ticket.0),
        StoreDone::Failed(failure) => format!("failed {failure}"),
        StoreDone::Reopened(recovered) => {
            format!("reopened {:?} {}", recovered.rows, recovered.memtable.last().0)
        }
        StoreDone::FeedRead { id, read } => format!("feed {} {}", id.0, read.rows.len()),
        StoreDone::DigestsRead { partition, digests } => format!("digests {partition:?} {}", digests.rows_count),
        StoreDone::Ingested { id, .. } => format!("ingested {}", id.0),
        StoreDone::Verified { partition, report } => format!("verified {partition:?} {report:?}"),
        StoreDone::Dropped { work, .. } => format!("dropped {}", work.id.0),
        StoreDone::Space(room) => format!("space {room:?}"),
        StoreDone::PartitionsRead { partitions } => format!("partitions {}", partitions.len()),
        StoreDone::KeysRead { id, keys } => format!("keys {} {}", id.0, keys.keys.len()),
    }
}

/// What an effect is, for the trace.
pub(super) fn describe_effect(effect: &StoreEffect) -> String {
    match effect {
        StoreEffect::Log(LogEffect::Append { records }) => {
            let lsns: Vec<u64> = records.iter().map(|record| record.lsn.0).collect();
            format!("append {lsns:?}")
        }
        StoreEffect::Log(LogEffect::Trim { replay_from }) => format!("trim {}", replay_from.0),
        StoreEffect::Log(LogEffect::Lease(leases)) => format!("lease {leases:?}"),
        StoreEffect::Log(LogEffect::Persist { ticket, bytes, .. }) => format!("persist {} {}", ticket.0, bytes.len()),
        StoreEffect::Rows(RowsEffect::Flush(flush)) => format!("flush {:?}", flush.replay_from),
        StoreEffect::Rows(RowsEffect::Ingest(ingest)) => format!("ingest {} {}", ingest.id.0, ingest.rows.len()),
        StoreEffect::Rows(RowsEffect::Drop(work)) => format!("drop {} {:?} {}", work.id.0, work.extent, work.through.0),
        StoreEffect::Rows(RowsEffect::Verify { partition, .. }) => format!("verify {partition:?}"),
        StoreEffect::Reads(ReadEffect::Load { keys }) => format!("load {}", keys.len()),
        StoreEffect::Reads(ReadEffect::Scan(request)) => format!("scan {}", request.id.0),
        StoreEffect::Reads(ReadEffect::Feed(request)) => format!("feed {}", request.id.0),
        StoreEffect::Reads(ReadEffect::Digests { partition }) => format!("digests {partition:?}"),
        StoreEffect::Reads(ReadEffect::Partitions) => "partitions".into(),
        StoreEffect::Reads(ReadEffect::Keys(request)) => format!("keys {}", request.id.0),
        StoreEffect::Reopen => "reopen".into(),
    }
}

const FAILED: u8 = 6;
