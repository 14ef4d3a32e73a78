//! Leased counters: numbers that are never given out twice, however often the process is killed.
//!
//! What: dots and lsns each come from a counter whose lease end is on disk; a start begins at the end, so a crash skips
//! numbers and repeats none. Units: blocks of 65,536 dots (DESIGN §4) and 1,048,576 lsns (guess: one write per million).
//! Invariants: a dot at or above the durable end, or above what was confirmed, is never minted; an lsn at or above it may be assigned, but is never
//! called synced (so nothing with that lsn is revealed) before the lease that covers it is.

use shoal_protocol::causality::Dot;
use shoal_protocol::id::{Actor, Lsn};
use shoal_protocol::member::StoreLease;

use super::Store;

/// Who mints here and how far it may go: one durable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leases {
    /// The store incarnation whose dots are minted.
    pub incarnation: Actor,
    /// Dots below this may have been minted, others not.
    pub dots_end: u64,
    /// Lsns below this may have been synced, others not.
    pub lsns_end: u64,
}

/// The counters behind the leases.
#[derive(Clone, Debug)]
pub(super) struct LeaseBook {
    durable: Leases,
    asked: Leases,
    /// What others confirmed: a store, and the end up to which nobody else mints as it.
    confirmed: Option<StoreLease>,
    dot_next: u64,
    lsn_next: u64,
}

impl LeaseBook {
    /// Begins behind what may have been used: the leases' ends, and `last` as the log has it.
    pub(super) fn new(durable: Leases, last: Lsn) -> Self {
        let dot_next = durable.dots_end.max(1);
        let lsn_next = durable.lsns_end.max(last.0 + 1);
        Self { durable, asked: durable, confirmed: None, dot_next, lsn_next }
    }

    pub(super) fn durable(&self) -> Leases {
        self.durable
    }

    /// The next dot, unless its lease is not durable or not confirmed yet, or the incarnation is changing.
    pub(super) fn dot(&mut self) -> Option<u64> {
        let confirmed = self.confirmed.filter(|store| store.incarnation == self.durable.incarnation)?;
        let end = self.durable.dots_end.min(confirmed.lease_end);
        if self.asked.incarnation != self.durable.incarnation || self.dot_next >= end {
            return None;
        }
        self.dot_next += 1;
        Some(self.dot_next - 1)
    }

    pub(super) fn lsn(&mut self) -> Lsn {
        self.lsn_next += 1;
        Lsn(self.lsn_next - 1)
    }

    /// The last lsn that was given out; in a store just opened, the last that may have been.
    pub(super) fn last_lsn(&self) -> Lsn {
        Lsn(self.lsn_next.saturating_sub(1))
    }

    /// The highest lsn that may be called synced.
    pub(super) fn lsn_limit(&self) -> Lsn {
        Lsn(self.durable.lsns_end.saturating_sub(1))
    }

    pub(super) fn change_incarnation(&mut self, incarnation: Actor) -> Leases {
        self.asked.incarnation = incarnation;
        self.asked
    }

    /// The lease to write next, once less than half a block is left.
    pub(super) fn wanted(&mut self) -> Option<Leases> {
        let dots = wanted(self.dot_next, self.asked.dots_end, DOTS_BLOCK);
        let lsns = wanted(self.lsn_next, self.asked.lsns_end, LSNS_BLOCK);
        if dots.is_none() && lsns.is_none() {
            return None;
        }
        self.asked.dots_end = dots.unwrap_or(self.asked.dots_end);
        self.asked.lsns_end = lsns.unwrap_or(self.asked.lsns_end);
        Some(self.asked)
    }

    pub(super) fn leased(&mut self, leases: Leases) {
        self.durable = leases;
    }

    /// Whether the durable lease is one that this book asked for: no earlier process had it.
    pub(super) fn is_own(&self) -> bool {
        self.durable.dots_end > self.dot_next
    }

    pub(super) fn confirmed(&mut self, store: StoreLease) {
        self.confirmed = Some(store);
    }
}

impl Store {
    /// The first dot that this store has not used.
    #[must_use]
    pub fn next_dot(&self) -> Dot {
        Dot { actor: self.leases.durable().incarnation, n: self.leases.dot_next }
    }

    /// The lease that others are asked to confirm before anything is minted under it: durable, and this process's own.
    #[must_use]
    pub fn lease_to_confirm(&self) -> Option<StoreLease> {
        let Leases { incarnation, dots_end, .. } = self.leases.durable();
        self.leases.is_own().then_some(StoreLease { incarnation, lease_end: dots_end })
    }

    /// No other process mints as this store below this end: a majority of the layout's members said so (DESIGN §4, Actors).
    pub fn confirm_lease(&mut self, store: StoreLease) {
        self.leases.confirmed(store);
    }
}

fn wanted(next: u64, end: u64, block: u64) -> Option<u64> {
    (end < next + block / 2).then(|| next.max(end) + block)
}

/// Dots per lease.
pub const DOTS_BLOCK: u64 = 65_536;
/// Lsns per lease.
const LSNS_BLOCK: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Durable and confirmed.
    fn grant(book: &mut LeaseBook, asked: Leases) {
        book.leased(asked);
        book.confirmed(StoreLease { incarnation: asked.incarnation, lease_end: asked.dots_end });
    }

    #[test]
    fn nothing_is_minted_beyond_what_was_confirmed_for_this_incarnation() {
        let mut book = fresh();
        assert!(!book.is_own());
        let asked = book.wanted().expect("a first lease");
        book.leased(asked);
        assert!(book.is_own());
        assert_eq!(book.dot(), None);
        book.confirmed(StoreLease { incarnation: Actor(2), lease_end: asked.dots_end });
        assert_eq!(book.dot(), None);
        book.confirmed(StoreLease { incarnation: Actor(1), lease_end: 3 });
        assert_eq!((book.dot(), book.dot(), book.dot()), (Some(1), Some(2), None));
        let again = LeaseBook::new(book.durable(), Lsn(7));
        assert!(!again.is_own(), "the lease on disk is the earlier process's");
    }

    fn fresh() -> LeaseBook {
        LeaseBook::new(Leases { incarnation: Actor(1), dots_end: 0, lsns_end: 0 }, Lsn(0))
    }

    #[test]
    fn no_dot_is_minted_before_its_lease_is_durable_and_none_twice_after_a_restart() {
        let mut book = fresh();
        assert_eq!(book.dot(), None);
        let asked = book.wanted().expect("a first lease");
        assert_eq!((book.dot(), book.wanted()), (None, None));
        grant(&mut book, asked);
        assert_eq!((book.dot(), book.dot()), (Some(1), Some(2)));
        let mut again = LeaseBook::new(book.durable(), Lsn(7));
        let asked = again.wanted().expect("the next lease");
        grant(&mut again, asked);
        assert_eq!(again.dot(), Some(asked.dots_end - DOTS_BLOCK));
    }

    #[test]
    fn minting_stops_at_the_end_of_a_lease_that_was_not_renewed() {
        let mut book = fresh();
        let asked = book.wanted().expect("a first lease");
        grant(&mut book, asked);
        assert_eq!(std::iter::from_fn(|| book.dot()).last(), Some(asked.dots_end - 1));
        assert!(book.wanted().is_some());
    }

    #[test]
    fn a_new_incarnation_mints_only_once_it_is_durable() {
        let mut book = fresh();
        let asked = book.wanted().expect("a first lease");
        grant(&mut book, asked);
        let asked = book.change_incarnation(Actor(2));
        assert_eq!(book.dot(), None);
        grant(&mut book, asked);
        assert_eq!((book.durable().incarnation, book.dot()), (Actor(2), Some(1)));
    }
}
