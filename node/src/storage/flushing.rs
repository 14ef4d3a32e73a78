//! Flushing: memtables on their way into the rows.
//!
//! Shape: a memtable is frozen when it is big, or when somebody wants what is in it to be in the rows (`flush_all`); it goes
//! piece by piece once it is synced. Invariants: nothing is flushed before the digest key is known, nor before it is synced;
//! whoever waits for `flushed_through` to reach what `flush_all` returned waits for no more than two memtables.

use std::sync::Arc;

use shoal_protocol::id::{Lsn, Partition};

use super::Store;
use super::effect::{Flush, LogEffect, RowsEffect, StoreEffect};
use super::memtables::Piece;

impl Store {
    /// Flushes what there is, however little: before a stop, or a read of the rows alone. What is not synced goes once it is.
    /// Nothing happens while a flush is under way or no digest key is known.
    pub fn flush(&mut self, out: &mut Vec<StoreEffect>) {
        if self.progress.serving && self.rules.digest_key.is_some() {
            self.memtables.freeze();
            self.flush_frozen(out);
        }
    }

    /// Like `flush`, of all that is held now, even if a flush is under way: it is in the rows once `flushed_through()` has
    /// reached the lsn returned (`StoreEvent::Flushed`).
    pub fn flush_all(&mut self, out: &mut Vec<StoreEffect>) -> Lsn {
        let last = self.memtables.last().unwrap_or(self.progress.rows.replay_from);
        self.flush_to = self.flush_to.max(last);
        self.flush(out);
        last
    }

    /// Everything that came through the log up to here is in the rows.
    #[must_use]
    pub fn flushed_through(&self) -> Lsn {
        self.progress.rows.replay_from
    }

    /// Whether something of a partition is not in the rows yet.
    #[must_use]
    pub fn holds_unflushed(&self, partition: Partition) -> bool {
        self.memtables.holds(partition)
    }

    pub(super) fn flushed(&mut self, replay_from: Option<Lsn>, out: &mut Vec<StoreEffect>) {
        let Some(piece) = self.memtables.flushed() else { return };
        let before = self.progress.rows.replay_from;
        self.progress.flushed(replay_from);
        // What lost among row and frozen deltas is gone from the row. Objects that were here before the first of those deltas
        // lost it then; the others are read anew.
        let keys = piece.iter().map(|(key, _)| key);
        let lww = keys.filter(|key| self.rules.lww.contains(&key.keyspace()));
        self.cache.forget_read_after(before, lww);
        out.extend(replay_from.map(|replay_from| StoreEffect::Log(LogEffect::Trim { replay_from })));
        self.flush_frozen(out);
        self.flush_when_big(out);
        if self.progress.rows.replay_from < self.flush_to {
            self.flush(out);
        }
    }

    pub(super) fn flush_when_big(&mut self, out: &mut Vec<StoreEffect>) {
        if self.memtables.is_big() {
            self.flush(out);
        }
    }

    pub(super) fn flush_frozen(&mut self, out: &mut Vec<StoreEffect>) {
        let Some(digest_key) = self.rules.digest_key.clone() else { return };
        if let Some(Piece { rows, replay_from, is_first }) = self.memtables.next_piece(self.synced()) {
            let lww = Arc::clone(&self.rules.lww);
            let flush = Flush { rows, replay_from, is_first, lww, digest_key };
            out.push(StoreEffect::Rows(RowsEffect::Flush(flush)));
        }
    }
}
