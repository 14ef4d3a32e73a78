//! A causal history: a version vector plus ranges of dots that arrived early.
//!
//! Shape: per actor the vector entry `n` stands for the dots `1..=n`; a range `(lo, hi]` above it for `lo + 1..=hi`.
//! Canonical: ranges of an actor are disjoint and touch neither each other nor the vector entry (what touches is
//! absorbed), so equal sets of dots are equal values with equal bytes. Costs: every operation is logarithmic in the context
//! it changes and linear in the one it is given.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::causality::{ActorTable, Dot};
use crate::id::Actor;
use crate::msgpack::{DecodeError, Kind, Reader, write_array, write_uint};

/// A set of dots in canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    vector: BTreeMap<Actor, u64>,
    /// `{actor, hi} -> lo`.
    early: BTreeMap<Dot, u64>,
}

impl Context {
    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vector.is_empty() && self.early.is_empty()
    }

    /// Whether `dot` was seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.covers_range(dot.actor, dot.n.saturating_sub(1), dot.n)
    }

    /// Whether every dot of `other` was seen.
    #[must_use]
    pub fn covers_all(&self, other: &Self) -> bool {
        other.ranges().all(|(actor, lo, hi)| self.covers_range(actor, lo, hi))
    }

    /// Adds one dot.
    pub fn insert(&mut self, dot: Dot) {
        self.insert_range(dot.actor, dot.n.saturating_sub(1), dot.n);
    }

    /// Adds the dots `lo + 1..=hi` of `actor`; nothing when `lo >= hi`.
    pub fn insert_range(&mut self, actor: Actor, lo: u64, hi: u64) {
        let known = self.vector.get(&actor).copied().unwrap_or(0);
        if hi <= lo || hi <= known {
            return;
        }
        let (mut lo, mut hi) = (lo, hi);
        while let Some((&end, &start)) = self
            .early
            .range(Dot { actor, n: lo }..=Dot { actor, n: u64::MAX })
            .next()
            .filter(|(_, start)| **start <= hi)
        {
            self.early.remove(&end);
            lo = lo.min(start);
            hi = hi.max(end.n);
        }
        if lo <= known {
            self.vector.insert(actor, hi);
        } else {
            self.early.insert(Dot { actor, n: hi }, lo);
        }
    }

    /// Adds every dot of `other`.
    pub fn join(&mut self, other: &Self) {
        for (actor, lo, hi) in other.ranges() {
            self.insert_range(actor, lo, hi);
        }
    }

    /// The dots seen here and not by `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (actor, lo, hi) in self.ranges() {
            let known = other.vector.get(&actor).copied().unwrap_or(0);
            let mut from = lo.max(known);
            let later = other.early.range(Dot { actor, n: from }..=Dot { actor, n: u64::MAX });
            for (end, start) in later.take_while(|(_, start)| **start < hi) {
                rest.insert_range(actor, from, *start);
                from = from.max(end.n);
            }
            rest.insert_range(actor, from, hi);
        }
        rest
    }

    /// The highest number seen of `actor`; 0 when none was.
    #[must_use]
    pub fn max(&self, actor: Actor) -> u64 {
        let early = self.early.range(Dot { actor, n: 0 }..=Dot { actor, n: u64::MAX }).next_back();
        early.map_or_else(|| self.vector.get(&actor).copied().unwrap_or(0), |(end, _)| end.n)
    }

    /// Every range `(actor, lo, hi]`: first the vector entries (`lo` = 0), then the gapped ranges, each by actor.
    pub fn ranges(&self) -> impl Iterator<Item = (Actor, u64, u64)> {
        self.vector.iter().map(|(actor, n)| (*actor, 0, *n)).chain(self.gaps())
    }

    /// The ranges whose predecessors are missing: a repair should bring them.
    pub fn gaps(&self) -> impl Iterator<Item = (Actor, u64, u64)> {
        self.early.iter().map(|(end, lo)| (end.actor, *lo, end.n))
    }

    /// How many gapped ranges `actor` has.
    #[must_use]
    pub fn gaps_count(&self, actor: Actor) -> usize {
        self.early.range(Dot { actor, n: 0 }..=Dot { actor, n: u64::MAX }).count()
    }

    /// How many ranges there are, vector entries included.
    #[must_use]
    pub fn ranges_count(&self) -> usize {
        self.vector.len() + self.early.len()
    }

    /// Every actor seen, in order, each once.
    pub fn actors(&self) -> impl Iterator<Item = Actor> {
        let mut gapped = self.early.keys().map(|end| end.actor).peekable();
        let mut dense = self.vector.keys().copied().peekable();
        std::iter::from_fn(move || {
            let next = match (dense.peek(), gapped.peek()) {
                (Some(a), Some(b)) => *a.min(b),
                (Some(a), None) | (None, Some(a)) => *a,
                (None, None) => return None,
            };
            dense.next_if_eq(&next);
            while gapped.next_if_eq(&next).is_some() {}
            Some(next)
        })
    }

    /// The canonical bytes: `[actors, ranges]` as in `docs/formats/object.md`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_with_actors(&mut out);
        out
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// The input is not exactly one canonical context.
    pub fn decode(input: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(input);
        let context = Self::read_with_actors(&mut reader)?;
        reader.finish()?;
        Ok(context)
    }

    pub(crate) fn write_with_actors(&self, out: &mut Vec<u8>) {
        let actors = ActorTable::new(self.actors());
        write_array(out, 2);
        actors.write(out);
        self.write(out, &actors);
    }

    pub(crate) fn read_with_actors(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.array()? != 2 {
            return Err(DecodeError::Kind { expected: "[actors, ranges]" });
        }
        let actors = ActorTable::read(reader)?;
        let context = Self::read(reader, &actors)?;
        if !actors.iter().eq(context.actors()) {
            return Err(DecodeError::NotCanonical { rule: "the actor table holds the actors used, no others" });
        }
        Ok(context)
    }

    /// Per actor of the table: `n` for a plain vector entry (0 = not seen), else the bounds `[lo, hi, lo, hi, ...]`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, actors: &ActorTable) {
        write_array(out, actors.len());
        for actor in actors.iter() {
            let dense = self.vector.get(&actor).copied().unwrap_or(0);
            let gapped = self.early.range(Dot { actor, n: 0 }..=Dot { actor, n: u64::MAX });
            let count = gapped.clone().count();
            if count == 0 {
                write_uint(out, dense);
                continue;
            }
            write_array(out, 2 * (count + usize::from(dense > 0)));
            if dense > 0 {
                write_uint(out, 0);
                write_uint(out, dense);
            }
            for (end, lo) in gapped {
                write_uint(out, *lo);
                write_uint(out, end.n);
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>, actors: &ActorTable) -> Result<Self, DecodeError> {
        let mut context = Self::default();
        if reader.array()? != actors.len() {
            return Err(DecodeError::NotCanonical { rule: "one context entry per actor" });
        }
        for actor in actors.iter() {
            if reader.kind()? == Kind::Unsigned {
                let n = reader.uint()?;
                if n > 0 {
                    context.vector.insert(actor, n);
                }
            } else {
                context.read_bounds(reader, actor)?;
            }
        }
        Ok(context)
    }

    fn read_bounds(&mut self, reader: &mut Reader<'_>, actor: Actor) -> Result<(), DecodeError> {
        let count = reader.array()?;
        let mut below = None;
        for _ in 0..count / 2 {
            let (lo, hi) = (reader.uint()?, reader.uint()?);
            if hi <= lo || below.is_some_and(|below| lo <= below) {
                return Err(DecodeError::NotCanonical { rule: "ranges grow and do not touch" });
            }
            below = Some(hi);
            if lo == 0 {
                self.vector.insert(actor, hi);
            } else {
                self.early.insert(Dot { actor, n: hi }, lo);
            }
        }
        if count % 2 == 1 || self.gaps_count(actor) == 0 {
            return Err(DecodeError::NotCanonical { rule: "bounds in pairs, and only where there is a gap" });
        }
        Ok(())
    }

    fn covers_range(&self, actor: Actor, lo: u64, hi: u64) -> bool {
        self.vector.get(&actor).is_some_and(|n| hi <= *n)
            || self
                .early
                .range(Dot { actor, n: hi }..=Dot { actor, n: u64::MAX })
                .next()
                .is_some_and(|(_, start)| *start <= lo)
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut context = Self::default();
        for dot in dots {
            context.insert(dot);
        }
        context
    }
}

impl Serialize for Context {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Self::decode(&bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Actor = Actor(1);
    const B: Actor = Actor(2);

    fn ranges(context: &Context) -> Vec<(Actor, u64, u64)> {
        context.ranges().collect()
    }

    #[test]
    fn a_range_that_touches_is_absorbed() {
        let mut context = Context::default();
        context.insert_range(A, 4, 5);
        context.insert_range(A, 7, 9);
        assert_eq!(ranges(&context), [(A, 4, 5), (A, 7, 9)]);
        context.insert_range(A, 5, 7);
        assert_eq!(ranges(&context), [(A, 4, 9)]);
        context.insert_range(A, 0, 4);
        assert_eq!(ranges(&context), [(A, 0, 9)]);
        context.insert_range(B, 3, 3);
        assert_eq!(context.max(A), 9);
        assert_eq!(context.max(B), 0);
    }

    #[test]
    fn a_gap_is_not_covered() {
        let context: Context = [1, 2, 4].map(|n| Dot { actor: A, n }).into_iter().collect();
        let seen: Vec<u64> = (1..6).filter(|n| context.covers(Dot { actor: A, n: *n })).collect();
        assert_eq!(seen, [1, 2, 4]);
        assert_eq!(context.gaps().collect::<Vec<_>>(), [(A, 3, 4)]);
        assert!(!context.covers_all(&[3].map(|n| Dot { actor: A, n }).into_iter().collect()));
    }

    #[test]
    fn what_the_other_has_not_seen_is_left() {
        let mut context = Context::default();
        context.insert_range(A, 0, 9);
        context.insert_range(A, 12, 20);
        context.insert_range(B, 3, 4);
        let mut other = Context::default();
        other.insert_range(A, 0, 2);
        other.insert_range(A, 4, 5);
        other.insert_range(A, 7, 14);
        other.insert_range(A, 18, 30);
        assert_eq!(ranges(&context.minus(&other)), [(A, 2, 4), (A, 5, 7), (A, 14, 18), (B, 3, 4)]);
        assert_eq!(context.minus(&Context::default()), context);
        assert!(context.minus(&context).is_empty());
    }

    #[test]
    fn bounds_that_another_form_would_say_are_refused() {
        let mut context = Context::default();
        context.insert_range(A, 0, 3);
        context.insert_range(A, 4, 6);
        context.insert_range(B, 0, 1);
        let bytes = context.encode();
        assert_eq!(bytes, [0x92, 0x92, 1, 2, 0x92, 0x94, 0, 3, 4, 6, 1]);
        assert_eq!(Context::decode(&bytes), Ok(context));
        for wrong in [
            &[0x92, 0x91, 1, 0x91, 0x92, 0, 3][..],   // a plain entry as bounds
            &[0x92, 0x91, 1, 0x91, 0x94, 0, 3, 3, 6], // touching
            &[0x92, 0x91, 1, 0x91, 0x94, 4, 6, 1, 2], // falling
            &[0x92, 0x91, 1, 0x91, 0x93, 4, 6, 8],    // half a pair
            &[0x92, 0x91, 1, 0x91, 0x90],             // no pair
            &[0x92, 0x92, 2, 1, 0x92, 1, 1],          // actors falling
            &[0x92, 0x92, 1, 2, 0x92, 1, 0],          // an actor not used
            &[0x92, 0x91, 1, 0x92, 1, 1],             // more entries than actors
        ] {
            assert!(matches!(Context::decode(wrong), Err(DecodeError::NotCanonical { .. })), "{wrong:?}");
        }
    }
}
