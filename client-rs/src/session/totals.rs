//! The session's running totals, by key and path of the counter.
//!
//! Invariant: a total is never forgotten while the session lives; without room for another one the session is over. So a
//! path that is not here was never added to.

use std::collections::BTreeMap;

use shoal_protocol::address::Place;
use shoal_protocol::object::{Path, Totals};

/// Totals by counter.
#[derive(Clone, Debug, Default)]
pub(super) struct TotalsTable(BTreeMap<(Place, Path), Totals>);

impl TotalsTable {
    pub(super) fn of(&self, place: &Place, path: &Path) -> Totals {
        self.0.get(&(place.clone(), path.clone())).copied().unwrap_or_default()
    }

    /// Whether this counter's total can be kept.
    pub(super) fn has_room(&self, place: &Place, path: &Path) -> bool {
        self.0.len() < COUNTERS_MAX || self.0.contains_key(&(place.clone(), path.clone()))
    }

    pub(super) fn set(&mut self, place: &Place, path: &Path, total: Totals) {
        self.0.insert((place.clone(), path.clone()), total);
    }

    /// Takes `by` out again, which the latest operation on this counter had added.
    pub(super) fn take_back(&mut self, place: &Place, path: &Path, by: i64) {
        if let Some(total) = self.0.get_mut(&(place.clone(), path.clone())) {
            let part = if by >= 0 { &mut total.p } else { &mut total.n };
            *part -= by.unsigned_abs();
        }
    }

    pub(super) fn into_parts(self) -> Vec<((Place, Path), Totals)> {
        self.0.into_iter().collect()
    }

    pub(super) fn from_parts(totals: Vec<((Place, Path), Totals)>) -> Self {
        Self(totals.into_iter().collect())
    }
}

/// Counters of one session: about 10 MiB at usual key lengths.
const COUNTERS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_protocol::id::KeyspaceId;

    use super::*;

    #[test]
    fn a_full_table_has_room_only_for_what_it_holds() {
        let place =
            |n: usize| Place { keyspace: KeyspaceId(1), collection: Bytes::new(), key: Bytes::from(format!("k{n}")) };
        let mut table = TotalsTable::default();
        for n in 0..COUNTERS_MAX {
            assert!(table.has_room(&place(n), &vec![]));
            table.set(&place(n), &vec![], Totals { p: 1, n: 0 });
        }
        assert!(!table.has_room(&place(COUNTERS_MAX), &vec![]));
        assert!(table.has_room(&place(0), &vec![]));
        assert!(!table.has_room(&place(0), &vec!["field".into()]));
    }
}
