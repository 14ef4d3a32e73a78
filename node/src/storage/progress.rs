//! How far a store has come: what it gave lsns, what is durable, what is in the rows.
//!
//! Invariants: `durable` never goes back while an engine lives; every record at or below it survives any crash, and so does
//! every ingested object once it is reported. A feed is read up to `feed_limit`: below it nothing new appears.

use std::collections::VecDeque;

use shoal_protocol::id::Lsn;

#[derive(Debug)]
pub(super) struct Progress {
    pub(super) serving: bool,
    /// The last record handed to the log.
    appended: Lsn,
    /// The last object ingested past the log.
    ingested: Lsn,
    /// First and last lsn of each ingestion under way, in order.
    ingesting: VecDeque<(Lsn, Lsn)>,
    durable: Lsn,
    /// Records through here are in the rows.
    pub(super) rows: RowsAt,
}

/// Which rows a reading saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowsAt {
    /// Records through here were in the rows.
    pub replay_from: Lsn,
    /// Objects ingested through here were.
    pub ingested: Lsn,
    /// How many pieces of memtables were ever flushed into them.
    pub pieces: u64,
    /// How often rows were dropped from them.
    pub drops: u64,
}

impl RowsAt {
    /// Whether something was done to the rows that was not done to these.
    pub(super) fn is_behind(&self, other: &Self) -> bool {
        let [a, b] = [self, other].map(|at| [at.replay_from.0, at.ingested.0, at.pieces, at.drops]);
        a.iter().zip(b).any(|(here, there)| *here < there)
    }
}

impl Progress {
    /// Of a store found on disk: everything through `last` is durable.
    pub(super) fn new(last: Lsn, rows: RowsAt) -> Self {
        Self { serving: true, appended: last, ingested: last, ingesting: VecDeque::new(), durable: last, rows }
    }

    pub(super) fn durable(&self) -> Lsn {
        self.durable
    }

    pub(super) fn append(&mut self, lsn: Lsn) {
        self.appended = lsn;
    }

    pub(super) fn synced(&mut self, through: Lsn) {
        self.durable = self.durable.max(through);
        self.idle();
    }

    /// Objects with lsns from `first` to `last` go into the rows past the log.
    pub(super) fn ingest(&mut self, first: Lsn, last: Lsn) {
        self.ingesting.push_back((first, last));
    }

    /// A piece of a memtable is in the rows; with the last of it everything through `replay_from`.
    pub(super) fn flushed(&mut self, replay_from: Option<Lsn>) {
        self.rows.pieces += 1;
        self.rows.replay_from = replay_from.unwrap_or(self.rows.replay_from);
    }

    /// Rows are gone.
    pub(super) fn dropped(&mut self) {
        self.rows.drops += 1;
    }

    /// The oldest ingestion is in the rows. What the log still works on may lie below.
    pub(super) fn ingested(&mut self) {
        if let Some((_, last)) = self.ingesting.pop_front() {
            self.ingested = last;
            self.rows.ingested = last;
            self.idle();
        }
    }

    /// Changes through here are all there: whatever comes later has a higher lsn.
    pub(super) fn feed_limit(&self) -> Lsn {
        self.ingesting.front().map_or(self.durable, |(first, _)| self.durable.min(Lsn(first.0 - 1)))
    }

    fn idle(&mut self) {
        if self.durable >= self.appended {
            self.durable = self.durable.max(self.ingested);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ingested_is_durable_only_when_no_record_below_it_is_not() {
        let mut progress = Progress::new(Lsn(10), RowsAt::default());
        progress.append(Lsn(11));
        progress.ingest(Lsn(12), Lsn(15));
        progress.ingested();
        assert_eq!(progress.durable(), Lsn(10));
        progress.append(Lsn(16));
        progress.synced(Lsn(11));
        assert_eq!(progress.durable(), Lsn(11));
        progress.synced(Lsn(16));
        assert_eq!(progress.durable(), Lsn(16));
        progress.ingest(Lsn(17), Lsn(18));
        progress.ingested();
        assert_eq!(progress.durable(), Lsn(18));
    }

    #[test]
    fn a_feed_stops_before_what_is_still_being_ingested() {
        let mut progress = Progress::new(Lsn(10), RowsAt::default());
        progress.ingest(Lsn(11), Lsn(15));
        progress.append(Lsn(16));
        progress.synced(Lsn(16));
        assert_eq!(progress.feed_limit(), Lsn(10));
        progress.ingested();
        assert_eq!(progress.feed_limit(), Lsn(16));
    }
}
