//! What one merge carries along: what the receiving side had seen, and the account of the work.

use std::ops::Range;

use crate::causality::{Context, Dot};

/// How much a merge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeWork {
    /// Context ranges, dots, cells and keys looked at.
    pub visited: u64,
}

/// One merge under way.
pub(crate) struct Join<'a> {
    /// What the receiving side had seen before.
    seen: &'a Context,
    visited: u64,
    gained: usize,
    lost: usize,
}

impl<'a> Join<'a> {
    pub(crate) fn new(seen: &'a Context) -> Self {
        Self { seen, visited: 0, gained: 0, lost: 0 }
    }

    pub(crate) fn has_seen(&self, dot: Dot) -> bool {
        self.seen.covers(dot)
    }

    pub(crate) fn visit(&mut self) {
        self.visited += 1;
    }

    pub(crate) fn gain(&mut self, weight: usize) {
        self.gained += weight;
    }

    pub(crate) fn lose(&mut self, weight: usize) {
        self.lost += weight;
    }

    /// The work done, and what `weight` has become.
    pub(crate) fn finish(self, weight: usize) -> (MergeWork, usize) {
        (MergeWork { visited: self.visited }, weight + self.gained - self.lost)
    }
}

/// A store whose content lives under dots.
///
/// `covered` always means: dots of the receiving store that the other side's context covers; it may name dots that are
/// not in this very store.
pub(crate) trait DotStore: Default {
    /// Whether nothing is in it, so that it vanishes.
    fn is_empty(&self) -> bool;
    /// Whether `dot` is live in it.
    fn contains(&self, dot: Dot) -> bool;
    /// Every live dot, in no particular order.
    fn dots(&self) -> impl Iterator<Item = Dot>;
    /// Joins `other` in.
    fn merge(&mut self, other: &Self, join: &mut Join<'_>, covered: &[Dot]);
    /// About how many bytes it takes.
    fn weight(&self) -> usize;
}

/// The dots of `context`'s ranges as half-open bounds for ordered look-ups: from `start`, while `<= end`.
pub(crate) fn dot_bounds(context: &Context) -> impl Iterator<Item = Range<Dot>> {
    context.ranges().map(|(actor, lo, hi)| Dot { actor, n: lo + 1 }..Dot { actor, n: hi })
}
