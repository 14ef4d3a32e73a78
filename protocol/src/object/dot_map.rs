//! Values under dots, ordered: a register's siblings, a flag's or a set element's dots.
//!
//! Shape: a sorted vector, as there is nearly always one entry. Invariant: two values under one dot happen only when a
//! session reused the dot; the greater one stays, so that replicas still agree.

use crate::causality::{Context, Dot};
use crate::object::join::{DotStore, Join};

/// Dots alone.
pub(crate) type DotSet = DotMap<()>;

/// What can be kept under a dot. Ordered only to settle a reused dot.
pub(crate) trait Payload: Clone + Ord {
    /// About how many bytes it takes, besides its dot.
    fn weight(&self) -> usize;
}

impl Payload for () {
    fn weight(&self) -> usize {
        0
    }
}

/// Values under dots, in the order of their dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DotMap<V>(Vec<(Dot, V)>);

impl<V: Payload> DotMap<V> {
    pub(crate) fn one(dot: Dot, value: V) -> Self {
        Self(vec![(dot, value)])
    }

    /// From entries in ascending order of their dots; `None` if they are not.
    pub(crate) fn from_sorted(entries: Vec<(Dot, V)>) -> Option<Self> {
        entries.is_sorted_by(|a, b| a.0 < b.0).then_some(Self(entries))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (Dot, &V)> {
        self.0.iter().map(|(dot, value)| (*dot, value))
    }

    /// The live dots from `first` to `last`.
    pub(crate) fn between(&self, first: Dot, last: Dot) -> impl Iterator<Item = Dot> {
        let start = self.0.partition_point(|(dot, _)| *dot < first);
        self.0[start..].iter().map(|(dot, _)| *dot).take_while(move |dot| *dot <= last)
    }

    /// Keeps what `keep` says.
    pub(crate) fn retain(&mut self, join: &mut Join<'_>, mut keep: impl FnMut(Dot, &V) -> bool) {
        self.0.retain(|(dot, value)| {
            let kept = keep(*dot, value);
            if !kept {
                join.lose(DOT_WEIGHT + value.weight());
            }
            kept
        });
    }

    /// What `old`, whose context is `seen`, lacks of this: entries it has not seen, and greater ones under a reused dot.
    pub(crate) fn unseen_by(&self, old: &Self, seen: &Context) -> Self {
        let is_missing = |(dot, value): &&(Dot, V)| match old.find(*dot) {
            Ok(at) => old.0[at].1 < *value,
            Err(_) => !seen.covers(*dot),
        };
        Self(self.0.iter().filter(is_missing).cloned().collect())
    }

    /// Calls `visit` with every dot that is live here and not in `new`.
    pub(crate) fn each_gone(&self, new: &Self, visit: &mut dyn FnMut(Dot)) {
        self.0.iter().map(|(dot, _)| *dot).filter(|dot| new.find(*dot).is_err()).for_each(visit);
    }

    fn find(&self, dot: Dot) -> Result<usize, usize> {
        self.0.binary_search_by_key(&dot, |(dot, _)| *dot)
    }
}

impl<V> Default for DotMap<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V: Payload> DotStore for DotMap<V> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, dot: Dot) -> bool {
        self.find(dot).is_ok()
    }

    fn dots(&self) -> impl Iterator<Item = Dot> {
        self.0.iter().map(|(dot, _)| *dot)
    }

    fn merge(&mut self, other: &Self, join: &mut Join<'_>, covered: &[Dot]) {
        if !self.is_empty() {
            for dot in covered {
                join.visit();
                if let (Ok(at), false) = (self.find(*dot), other.contains(*dot)) {
                    join.lose(DOT_WEIGHT + self.0.remove(at).1.weight());
                }
            }
        }
        for (dot, value) in &other.0 {
            join.visit();
            match self.find(*dot) {
                Ok(at) if self.0[at].1 < *value => {
                    join.lose(self.0[at].1.weight());
                    join.gain(value.weight());
                    self.0[at].1 = value.clone();
                }
                Ok(_) => {}
                Err(at) if !join.has_seen(*dot) => {
                    join.gain(DOT_WEIGHT + value.weight());
                    self.0.insert(at, (*dot, value.clone()));
                }
                Err(_) => {}
            }
        }
    }

    fn weight(&self) -> usize {
        self.0.iter().map(|(_, value)| DOT_WEIGHT + value.weight()).sum()
    }
}

/// Bytes of a dot.
const DOT_WEIGHT: usize = 16;
