//! A session: a client that binds its operations before it sends them.

use std::collections::BTreeMap;

use shoal_protocol::id::Actor;
use shoal_protocol::object::{Path, Totals};

use crate::oracle::ledger::{Ledger, State};
use crate::oracle::marks::Marks;

/// Where an operation stands, as its session knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    Acked { at: usize },
    Refused,
}

/// What becomes of one operation, beside the ledger.
pub(super) struct Course {
    /// `None`: minted by a replica.
    pub(super) session: Option<usize>,
    pub(super) binding: usize,
    pub(super) invoked_at: usize,
    pub(super) verdict: Verdict,
    pub(super) attempts: usize,
    /// A coordinator took it in: whatever is said later, it may have an effect.
    pub(super) admitted: bool,
}

pub(super) struct Session {
    pub(super) actor: Actor,
    pub(super) minted: u64,
    /// What its reads returned.
    pub(super) read: State,
    /// Operations without a verdict.
    pub(super) outbox: Vec<usize>,
    totals: BTreeMap<Path, Tally>,
}

/// Running totals of one counter, and the operations in them.
#[derive(Clone, Default)]
struct Tally {
    totals: Totals,
    ops: Marks,
}

impl Session {
    pub(super) fn number(number: usize) -> Self {
        let actor = Actor::session(20_000, number as u64);
        Self { actor, minted: 0, read: State::default(), outbox: Vec::new(), totals: BTreeMap::new() }
    }

    /// What it shows its user: what it read, and its own operations on top.
    pub(super) fn local(&self, ledger: &Ledger, courses: &[Course]) -> State {
        let mut local = self.read.clone();
        for op in &self.outbox {
            local.merge(&ledger.alone(courses[*op].binding));
        }
        local
    }

    /// Adds to the running totals; what they are now, and which operations are in them.
    pub(super) fn count(&mut self, path: Path, op: usize, by: i64) -> (Totals, Marks) {
        let tally = self.totals.entry(path).or_default();
        tally.totals = tally.totals.plus(by).expect("a history adds little");
        tally.ops |= Marks::one(op);
        (tally.totals, tally.ops)
    }

    /// Takes a refused operation out of the running totals.
    pub(super) fn uncount(&mut self, path: &Path, op: usize, by: i64) {
        let tally = self.totals.get_mut(path).expect("it was counted");
        let part = if by >= 0 { &mut tally.totals.p } else { &mut tally.totals.n };
        *part -= by.unsigned_abs();
        tally.ops = tally.ops - Marks::one(op);
    }
}
