//! A counter: one cell per actor, joined by maximum.
//!
//! Shape: `p` and `n` are an actor's running totals of additions and subtractions; the floors `pr` and `nr` are how much of
//! them a reset has seen. Value = sum over cells of (max(p, pr) - pr) - (max(n, nr) - nr): a reset removes exactly the
//! observed part, a concurrent addition survives. Source: notes/model.md §2.7.
//! Invariant: no cell is all zero. Epoch and base (for folding, later) are 0 and empty: they exist in the encoding only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Actor;
use crate::object::join::Join;

/// One actor's running totals on one counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// All it ever added.
    pub p: u64,
    /// All it ever subtracted.
    pub n: u64,
}

impl Totals {
    /// The totals after adding `by`; `None` when a total would pass 2^64.
    #[must_use]
    pub fn plus(self, by: i64) -> Option<Self> {
        if by >= 0 {
            Some(Self { p: self.p.checked_add(by.unsigned_abs())?, ..self })
        } else {
            Some(Self { n: self.n.checked_add(by.unsigned_abs())?, ..self })
        }
    }
}

/// One actor's part of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) p: u64,
    pub(crate) n: u64,
    pub(crate) pr: u64,
    pub(crate) nr: u64,
}

impl Cell {
    /// The totals as far as anyone here knows: a floor proves a total that has not arrived.
    pub(crate) fn totals(&self) -> Totals {
        Totals { p: self.p.max(self.pr), n: self.n.max(self.nr) }
    }

    pub(crate) fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Whether part of it is not removed.
    pub(crate) fn is_live(&self) -> bool {
        self.p > self.pr || self.n > self.nr
    }

    pub(crate) fn join(&mut self, other: &Self) {
        self.p = self.p.max(other.p);
        self.n = self.n.max(other.n);
        self.pr = self.pr.max(other.pr);
        self.nr = self.nr.max(other.nr);
    }

    fn value(&self) -> i128 {
        i128::from(self.p.saturating_sub(self.pr)) - i128::from(self.n.saturating_sub(self.nr))
    }
}

/// Cells by actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counter(BTreeMap<Actor, Cell>);

impl Counter {
    /// From cells, leaving out those that are all zero.
    pub(crate) fn from_cells(cells: impl Iterator<Item = (Actor, Cell)>) -> Self {
        Self(cells.filter(|(_, cell)| !cell.is_zero()).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_live(&self) -> bool {
        self.0.values().any(Cell::is_live)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (Actor, &Cell)> {
        self.0.iter().map(|(actor, cell)| (*actor, cell))
    }

    pub(crate) fn cell(&self, actor: Actor) -> Cell {
        self.0.get(&actor).copied().unwrap_or_default()
    }

    /// The sum of the cells, held at the ends of `i64` if it lies beyond.
    pub(crate) fn value(&self) -> i64 {
        let sum: i128 = self.0.values().map(Cell::value).sum();
        sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// The cells that would change `old`.
    pub(crate) fn beyond(&self, old: &Self) -> Self {
        let changes = |(actor, cell): &(Actor, Cell)| {
            let before = old.cell(*actor);
            let mut after = before;
            after.join(cell);
            after != before
        };
        Self::from_cells(self.iter().map(|(actor, cell)| (actor, *cell)).filter(changes))
    }

    /// Each cell as the floor that removes it.
    pub(crate) fn floors(&self) -> Self {
        Self::from_cells(self.iter().map(|(actor, cell)| {
            let Totals { p, n } = cell.totals();
            (actor, Cell { pr: p, nr: n, ..Cell::default() })
        }))
    }

    pub(crate) fn merge(&mut self, other: &Self, join: &mut Join<'_>) {
        for (actor, cell) in &other.0 {
            join.visit();
            self.0
                .entry(*actor)
                .or_insert_with(|| {
                    join.gain(CELL_WEIGHT);
                    Cell::default()
                })
                .join(cell);
        }
    }

    pub(crate) fn weight(&self) -> usize {
        CELL_WEIGHT * self.0.len()
    }
}

/// Bytes of an actor and four totals.
const CELL_WEIGHT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_that_came_before_its_additions_still_removes_them() {
        let mut cell = Cell { pr: 5, ..Cell::default() };
        cell.join(&Cell { p: 5, ..Cell::default() });
        assert_eq!(cell.value(), 0);
        assert_eq!(Cell { pr: 9, ..cell }.totals(), Totals { p: 9, n: 0 });
        cell.join(&Cell { p: 7, ..Cell::default() });
        assert_eq!(cell.value(), 2);
    }

    #[test]
    fn totals_end_and_values_hold_at_the_ends() {
        assert_eq!(Totals { p: u64::MAX, n: 0 }.plus(1), None);
        assert_eq!(Totals::default().plus(i64::MIN), Some(Totals { p: 0, n: 1 << 63 }));
        let full = Cell { p: u64::MAX, ..Cell::default() };
        assert_eq!(Counter::from_cells([(Actor(1), full)].into_iter()).value(), i64::MAX);
    }
}
