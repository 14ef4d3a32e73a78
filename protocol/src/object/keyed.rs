//! Dot stores under keys, with an index from dot to key: sets (element -> dots) and maps (field -> body).
//!
//! Shape: a delta that removes names only dots; the index leads from them to the keys they live under, so a merge visits
//! only what changes. Price: each live dot's key is held twice.
//! Invariant: the index leads every live dot to its key, and holds no other; no key has an empty store.

use std::collections::BTreeMap;

use crate::causality::Dot;
use crate::object::join::{DotStore, Join};

/// What can be a key.
pub(crate) trait Key: Clone + Ord {
    /// About how many bytes it takes.
    fn weight(&self) -> usize;
}

impl Key for String {
    fn weight(&self) -> usize {
        KEY_WEIGHT + self.len()
    }
}

/// Stores under keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keyed<K, V> {
    stores: BTreeMap<K, V>,
    index: BTreeMap<Dot, K>,
}

impl<K: Key, V: DotStore> Keyed<K, V> {
    /// One store under one key; empty if the store is.
    pub(crate) fn one(key: K, store: V) -> Self {
        Self::from_stores(BTreeMap::from([(key, store)]))
    }

    /// From stores, leaving out empty ones.
    pub(crate) fn from_stores(mut stores: BTreeMap<K, V>) -> Self {
        stores.retain(|_, store| !store.is_empty());
        let index = stores.iter().flat_map(|(key, store)| store.dots().map(|dot| (dot, key.clone()))).collect();
        Self { stores, index }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.stores.get(key)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> {
        self.stores.iter()
    }

    pub(crate) fn dots_count(&self) -> usize {
        self.index.len()
    }

    /// The live dots from `first` to `last`.
    pub(crate) fn between(&self, first: Dot, last: Dot) -> impl Iterator<Item = Dot> {
        self.index.range(first..=last).map(|(dot, _)| *dot)
    }

    /// What `part` takes from every store, given the store under the same key of `old`.
    pub(crate) fn parts(&self, old: &Self, part: impl Fn(&V, &V) -> V) -> Self {
        let absent = V::default();
        let parts = self.stores.iter().map(|(key, store)| (key, part(store, old.stores.get(key).unwrap_or(&absent))));
        Self::from_stores(parts.filter(|(_, part)| !part.is_empty()).map(|(key, part)| (key.clone(), part)).collect())
    }

    /// Applies `change` to every store, then drops the empty ones. `change` may only remove.
    pub(crate) fn shrink(&mut self, join: &mut Join<'_>, mut change: impl FnMut(&mut V, &mut Join<'_>)) {
        for store in self.stores.values_mut() {
            change(store, join);
        }
        self.stores.retain(|key, store| {
            let kept = !store.is_empty();
            if !kept {
                join.lose(key.weight());
            }
            kept
        });
        self.index.retain(|dot, key| self.stores.get(key).is_some_and(|store| store.contains(*dot)));
    }
}

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self { stores: BTreeMap::new(), index: BTreeMap::new() }
    }
}

impl<K: Key, V: DotStore> DotStore for Keyed<K, V> {
    fn is_empty(&self) -> bool {
        self.stores.is_empty()
    }

    fn contains(&self, dot: Dot) -> bool {
        self.index.contains_key(&dot)
    }

    fn dots(&self) -> impl Iterator<Item = Dot> {
        self.index.keys().copied()
    }

    fn merge(&mut self, other: &Self, join: &mut Join<'_>, covered: &[Dot]) {
        if self.is_empty() && other.is_empty() {
            return;
        }
        // The keys that can change, each with those of its dots that the other side covers.
        let mut touched: BTreeMap<&K, Vec<Dot>> = other.stores.keys().map(|key| (key, Vec::new())).collect();
        for dot in covered {
            if let Some(key) = self.index.get(dot) {
                touched.entry(key).or_default().push(*dot);
            }
        }
        let absent = V::default();
        let (mut appeared, mut vanished) = (Vec::new(), Vec::new());
        for (key, covered) in touched {
            join.visit();
            let theirs = other.stores.get(key).unwrap_or(&absent);
            let mine = match self.stores.get_mut(key) {
                Some(mine) => mine,
                None => self.stores.entry(key.clone()).or_default(),
            };
            let was_empty = mine.is_empty();
            mine.merge(theirs, join, &covered);
            for dot in covered.into_iter().chain(theirs.dots()) {
                join.visit();
                match (self.index.contains_key(&dot), mine.contains(dot)) {
                    (false, true) => appeared.push((dot, key.clone())),
                    (true, false) => vanished.push(dot),
                    (true, true) | (false, false) => {}
                }
            }
            match (was_empty, mine.is_empty()) {
                (true, false) => join.gain(key.weight()),
                (false, true) => join.lose(key.weight()),
                (true, true) | (false, false) => {}
            }
            if mine.is_empty() {
                self.stores.remove(key);
            }
        }
        for dot in vanished {
            self.index.remove(&dot);
        }
        self.index.extend(appeared);
    }

    fn weight(&self) -> usize {
        self.stores.iter().map(|(key, store)| key.weight() + store.weight()).sum()
    }
}

/// Bytes around a key: its own header and its place in the tree and the index.
pub(crate) const KEY_WEIGHT: usize = 16;
