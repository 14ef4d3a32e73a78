//! The two memtables of a store: one that takes deltas, one on its way into the rows, piece by piece.
//!
//! Shape: `active` is frozen when it holds what it may, in memory or in the log; its flush begins once everything in it is
//! synced, so rows never hold what the log does not. From its end one piece after the other is flushed and forgotten, so a
//! flush gives way to new deltas while it goes on. `replay_from` goes with the last.
//! Units: bytes of `Memtable::bytes`, and bytes of the log as `Synced` reports them.
//! Invariant: at most one memtable is frozen, and at most one piece of it on its way; no key is in both.

use std::sync::Arc;

use shoal_protocol::id::{Lsn, Partition};
use shoal_protocol::object::Object;

use super::budget::Budget;
use super::key::{Extent, RowKey, partition_bounds};
use super::memtable::{Delta, Entry, Memtable};

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
    /// What was not yet given to the flush.
    rest: Memtable,
    /// What is on its way.
    piece: Option<Arc<Memtable>>,
    pieces_count: u64,
    log_from: u64,
}

/// A part of a frozen memtable.
pub(super) struct Piece {
    pub(super) rows: Arc<Memtable>,
    /// With the last: the last delta of the memtable.
    pub(super) replay_from: Option<Lsn>,
    pub(super) is_first: bool,
}

/// What is held of something, in parts: of one key the older before the newer.
pub(super) type Parts<T> = [Option<T>; 3];

impl Memtables {
    /// Goes on with what a log held, all of it synced.
    pub(super) fn new(budget: Budget, replayed: Memtable) -> Self {
        Self { active: replayed, frozen: None, log_end: 0, active_from: 0, budget }
    }

    pub(super) fn join(&mut self, key: &RowKey, delta: Delta<'_>) -> &Entry {
        self.active.join(key, delta)
    }

    /// Joins `removal`, a part of the last delta of `key`.
    pub(super) fn remove_losers(&mut self, key: &RowKey, removal: &Object) {
        self.active.remove_losers(key, removal);
    }

    /// Forgets what is held of `extent` through an lsn, but for the piece that is on its way into the rows.
    pub(super) fn drop_range(&mut self, extent: &Extent, through: Lsn) {
        self.active.drop_range(extent.bounds(), through);
        if let Some(frozen) = &mut self.frozen {
            frozen.rest.drop_range(extent.bounds(), through);
        }
    }

    pub(super) fn tables(&self) -> Parts<&Memtable> {
        let frozen = self.frozen.as_ref();
        [frozen.map(|frozen| &frozen.rest), frozen.and_then(|frozen| frozen.piece.as_deref()), Some(&self.active)]
    }

    /// What is held of `key`.
    pub(super) fn entries(&self, key: &RowKey) -> Parts<&Entry> {
        self.tables().map(|memtable| memtable?.get(key))
    }

    /// Whether anything of `partition` is held.
    pub(super) fn holds(&self, partition: Partition) -> bool {
        let mut tables = self.tables().into_iter().flatten().filter(|memtable| !memtable.is_empty()).peekable();
        if tables.peek().is_none() {
            return false;
        }
        let bounds = partition_bounds(partition);
        tables.any(|memtable| memtable.range(bounds.clone()).next().is_some())
    }

    /// The highest lsn joined, if any is held.
    pub(super) fn last(&self) -> Option<Lsn> {
        if self.active.is_empty() {
            self.frozen.as_ref().map(|frozen| frozen.rest.last())
        } else {
            Some(self.active.last())
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.tables().iter().flatten().map(|memtable| memtable.bytes()).sum()
    }

    pub(super) fn log_end(&self) -> u64 {
        self.log_end
    }

    pub(super) fn log_ends(&mut self, log_end: u64) {
        self.log_end = self.log_end.max(log_end);
    }

    /// Whether the active memtable is due to be frozen.
    pub(super) fn is_big(&self) -> bool {
        self.active.bytes() >= self.budget.memtable_bytes_max()
            || (self.log_end - self.active_from >= self.budget.log_bytes as u64 / 2 && !self.active.is_empty())
    }

    /// Freezes the active memtable, unless one is frozen or there is nothing to freeze.
    pub(super) fn freeze(&mut self) {
        if self.frozen.is_none() && !self.active.is_empty() {
            let rest = std::mem::take(&mut self.active);
            self.frozen = Some(Frozen { rest, piece: None, pieces_count: 0, log_from: self.active_from });
            self.active_from = self.log_end;
        }
    }

    /// The next piece of the frozen memtable, when everything in that is synced and no piece is on its way.
    pub(super) fn next_piece(&mut self, synced: Lsn) -> Option<Piece> {
        let budget = self.budget;
        let frozen = self.frozen.as_mut().filter(|frozen| frozen.piece.is_none() && frozen.rest.last() <= synced)?;
        let piece = frozen.rest.split_end(PIECE_ROWS_MAX, budget.piece_bytes_max());
        let rows = Arc::clone(frozen.piece.insert(Arc::new(piece)));
        frozen.pieces_count += 1;
        let replay_from = frozen.rest.is_empty().then(|| frozen.rest.last());
        Some(Piece { rows, replay_from, is_first: frozen.pieces_count == 1 })
    }

    /// Forgets the piece that is in the rows now.
    pub(super) fn flushed(&mut self) -> Option<Arc<Memtable>> {
        let frozen = self.frozen.as_mut()?;
        let piece = frozen.piece.take()?;
        if frozen.rest.is_empty() {
            self.frozen = None;
        }
        Some(piece)
    }

    /// 0 while memtables hold no more than makes one of them be frozen, and the log no more than half of what it may; 1 when
    /// one of them is full.
    pub(super) fn pressure(&self) -> f32 {
        let log_from = self.frozen.as_ref().map_or(self.active_from, |frozen| frozen.log_from);
        let log = (self.log_end - log_from) as f32 / self.budget.log_bytes as f32;
        let (begin, full) = (self.budget.memtable_bytes_max(), self.budget.memtables_bytes_max());
        let memory = self.bytes().saturating_sub(begin) as f32 / (full - begin) as f32;
        (2.0 * log - 1.0).max(memory).clamp(0.0, 1.0)
    }
}

/// Rows of a piece: one chunk of the rows file. Source: notes/storage-and-network.md T10.
const PIECE_ROWS_MAX: usize = 8_000;

#[cfg(test)]
mod tests {
    use shoal_protocol::address::Place;
    use shoal_protocol::id::{Class, KeyspaceId};

    use super::*;

    const BUDGET: Budget = Budget { bytes: 64 << 10, log_bytes: 1 << 20 };

    /// Joins deltas under keys never used before until `memtables` are so full.
    fn fill(memtables: &mut Memtables, lsns: &mut std::ops::RangeFrom<u64>, bytes: usize) {
        while memtables.bytes() < bytes {
            let lsn = lsns.next().unwrap();
            let place = Place { keyspace: KeyspaceId(1), collection: "".into(), key: lsn.to_string().into() };
            let key = RowKey::new(Partition { class: Class { n: 3, r: 2, w: 2 }, index: 1 }, &place);
            let object = Object::default();
            memtables.join(&key, Delta { object: &object, bytes: &object.encode(), lsn: Lsn(lsn), heals: false });
        }
    }

    #[test]
    fn a_flush_gives_way_to_new_deltas_piece_by_piece_and_ends_with_replay_from() {
        let (mut memtables, mut lsns) = (Memtables::new(BUDGET, Memtable::default()), 1..);
        fill(&mut memtables, &mut lsns, BUDGET.memtable_bytes_max());
        assert!(memtables.is_big() && memtables.pressure() <= 0.01);
        memtables.freeze();
        let last = memtables.last().unwrap();
        assert!(memtables.next_piece(Lsn(last.0 - 1)).is_none(), "not all of it is synced");
        fill(&mut memtables, &mut lsns, BUDGET.memtables_bytes_max());
        assert!(memtables.pressure() >= 1.0);
        let (mut rows_count, mut pieces_count) = (0, 0);
        while let Some(piece) = memtables.next_piece(last) {
            let (before, rows) = (memtables.bytes(), piece.rows);
            assert!(memtables.next_piece(last).is_none(), "one at a time");
            assert_eq!(
                (piece.is_first, piece.replay_from.is_some()),
                (pieces_count == 0, rows_count + rows.iter().len() as u64 == last.0)
            );
            assert!(piece.replay_from.is_none_or(|replay_from| replay_from == last));
            (rows_count, pieces_count) = (rows_count + rows.iter().len() as u64, pieces_count + 1);
            memtables.flushed();
            assert_eq!(memtables.bytes(), before - rows.bytes());
        }
        assert!((pieces_count, rows_count) >= (5, last.0), "{pieces_count} pieces of {rows_count} rows");
        assert!(memtables.last() > Some(last) && memtables.pressure() < 0.01);
    }
}
