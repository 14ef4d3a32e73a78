//! The two memtables of a store: one that takes deltas, one on its way into the rows.
//!
//! Shape: `active` is frozen when it holds half of what memtables may, in memory or in the log; its flush begins once
//! everything in it is synced, so rows never hold what the log does not.
//! Units: bytes of `Memtable::bytes`, and bytes of the log as `Synced` reports them.
//! Invariant: at most one memtable is frozen; while it is, `active` only grows, and `pressure` with it.

use std::sync::Arc;

use shoal_protocol::id::Lsn;
use shoal_protocol::object::Object;

use super::budget::Budget;
use super::key::RowKey;
use super::memtable::{Entry, Memtable};

#[derive(Debug)]
pub(super) struct Memtables {
    active: Memtable,
    frozen: Option<Frozen>,
    /// Where the log ends.
    log_end: u64,
    /// Where it ended when `active` began.
    active_from: u64,
    budget: Budget,
}

#[derive(Debug)]
struct Frozen {
    memtable: Arc<Memtable>,
    is_flushing: bool,
    log_from: u64,
}

impl Memtables {
    /// Goes on with what a log held, all of it synced.
    pub(super) fn new(budget: Budget, replayed: Memtable) -> Self {
        Self { active: replayed, frozen: None, log_end: 0, active_from: 0, budget }
    }

    pub(super) fn join(&mut self, key: &RowKey, delta: &Object, lsn: Lsn, bytes: usize) -> &mut Entry {
        self.active.join(key, delta, lsn, bytes)
    }

    /// Older first.
    pub(super) fn tables(&self) -> [Option<&Memtable>; 2] {
        [self.frozen.as_ref().map(|frozen| &*frozen.memtable), Some(&self.active)]
    }

    /// What is held of `key`, older first.
    pub(super) fn entries(&self, key: &RowKey) -> [Option<&Entry>; 2] {
        self.tables().map(|memtable| memtable?.get(key))
    }

    /// The highest lsn joined, if any is held.
    pub(super) fn last(&self) -> Option<Lsn> {
        let tables = self.tables();
        tables.iter().rev().flatten().find(|memtable| !memtable.is_empty()).map(|memtable| memtable.last())
    }

    pub(super) fn bytes(&self) -> usize {
        self.tables().iter().flatten().map(|memtable| memtable.bytes()).sum()
    }

    pub(super) fn log_end(&self) -> u64 {
        self.log_end
    }

    pub(super) fn log_ends(&mut self, log_end: u64) {
        self.log_end = log_end;
    }

    /// Whether the active memtable is due to be frozen.
    pub(super) fn is_big(&self) -> bool {
        self.active.bytes() >= self.budget.memtables_bytes_max() / 2
            || (self.log_end - self.active_from >= self.budget.log_bytes as u64 / 2 && !self.active.is_empty())
    }

    /// Freezes the active memtable, unless one is frozen or there is nothing to freeze.
    pub(super) fn freeze(&mut self) {
        if self.frozen.is_none() && !self.active.is_empty() {
            let memtable = Arc::new(std::mem::take(&mut self.active));
            self.frozen = Some(Frozen { memtable, is_flushing: false, log_from: self.active_from });
            self.active_from = self.log_end;
        }
    }

    /// The frozen memtable, once, when everything in it is synced.
    pub(super) fn begin_flush(&mut self, synced: Lsn) -> Option<Arc<Memtable>> {
        let frozen = self.frozen.as_mut().filter(|frozen| !frozen.is_flushing && frozen.memtable.last() <= synced)?;
        frozen.is_flushing = true;
        Some(Arc::clone(&frozen.memtable))
    }

    /// Forgets the frozen memtable that is in the rows now.
    pub(super) fn flushed(&mut self, replay_from: Lsn) -> Option<Arc<Memtable>> {
        self.frozen.take_if(|frozen| frozen.memtable.last() == replay_from).map(|frozen| frozen.memtable)
    }

    /// 0 until memtables or log are half full, 1 when one of them is full.
    pub(super) fn pressure(&self) -> f32 {
        let log_from = self.frozen.as_ref().map_or(self.active_from, |frozen| frozen.log_from);
        let log = (self.log_end - log_from) as f32 / self.budget.log_bytes as f32;
        let memory = self.bytes() as f32 / self.budget.memtables_bytes_max() as f32;
        (2.0 * log.max(memory) - 1.0).clamp(0.0, 1.0)
    }
}
