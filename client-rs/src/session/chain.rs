//! The session's previous dot on each key.
//!
//! Invariant: `prev` is never below the true previous dot. A key that was forgotten takes `dot - 1`: a gap that a repair
//! looks into, never a claim to have seen what was not (DESIGN §4).

use std::collections::BTreeMap;

use shoal_protocol::address::Place;

/// Last dots by place; the oldest are forgotten beyond `PLACES_MAX`.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    by_place: BTreeMap<Place, u64>,
    by_dot: BTreeMap<u64, Place>,
    has_forgotten: bool,
}

impl Chain {
    /// The `prev` of a new operation `dot` on `place`.
    pub(super) fn prev(&self, place: &Place, dot: u64) -> u64 {
        let unknown = if self.has_forgotten { dot - 1 } else { 0 };
        self.last(place).unwrap_or(unknown)
    }

    pub(super) fn last(&self, place: &Place) -> Option<u64> {
        self.by_place.get(place).copied()
    }

    /// Notes the last dot on `place`; 0 = there is none.
    pub(super) fn set(&mut self, place: &Place, dot: u64) {
        if let Some(before) = self.by_place.remove(place) {
            self.by_dot.remove(&before);
        }
        if dot == 0 {
            return;
        }
        self.by_place.insert(place.clone(), dot);
        self.by_dot.insert(dot, place.clone());
        if self.by_dot.len() > PLACES_MAX {
            self.forget_oldest();
        }
    }

    /// Every place and its last dot, and whether there were others.
    pub(super) fn into_parts(self) -> (Vec<(Place, u64)>, bool) {
        (self.by_place.into_iter().collect(), self.has_forgotten)
    }

    pub(super) fn from_parts(places: Vec<(Place, u64)>, has_forgotten: bool) -> Self {
        let mut chain = Self { has_forgotten, ..Self::default() };
        for (place, dot) in places {
            chain.set(&place, dot);
        }
        chain
    }

    fn forget_oldest(&mut self) {
        if let Some((_, place)) = self.by_dot.pop_first() {
            self.by_place.remove(&place);
            self.has_forgotten = true;
        }
    }
}

/// Places remembered: about 10 MiB at usual key lengths.
const PLACES_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_protocol::id::KeyspaceId;

    use super::*;

    fn place(n: usize) -> Place {
        Place { keyspace: KeyspaceId(1), collection: Bytes::new(), key: Bytes::from(format!("k{n}")) }
    }

    #[test]
    fn a_key_never_written_starts_at_zero_until_one_is_forgotten() {
        let mut chain = Chain::default();
        assert_eq!(chain.prev(&place(0), 1), 0);
        for n in 0..=PLACES_MAX {
            chain.set(&place(n), 1 + n as u64);
        }
        let next = 2 + PLACES_MAX as u64;
        assert_eq!(chain.prev(&place(0), next), next - 1, "forgotten");
        assert_eq!(chain.prev(&place(1), next), 2);
        assert_eq!(chain.by_place.len(), PLACES_MAX);
    }
}
