//! Scans and what a page must show.
//!
//! Rules: keys in order, each once, no more than asked for; every row covers what was acknowledged before the scan began; a
//! key to which something was added, and from which nobody ever tried to remove anything, is there.

use std::collections::BTreeMap;

use bytes::Bytes;
use shoal_protocol::causality::Context;
use shoal_protocol::client::{KeyspaceLayout, Page, Scan, ScanScope};
use shoal_protocol::object::{Object, Operation};

use crate::sim::history::{Fate, History};
use crate::sim::scenario::COLLECTION;
use crate::sim::world::World;

/// What was known of the keys when a scan began.
#[derive(Debug)]
pub(in crate::sim) struct Floors {
    r: Option<u8>,
    by_key: BTreeMap<usize, Floor>,
}

#[derive(Debug)]
struct Floor {
    context: Context,
    /// Something acknowledged is there, and was there before.
    is_live: bool,
}

/// A scan of a keyspace.
pub(super) fn draw(world: &mut World, history: &History, space: usize) -> (Scan, Floors) {
    let info = &history.spaces[space];
    let r = world.dice.percent(20).then_some(info.n);
    let keys: Vec<usize> = (0..history.keys.len()).filter(|key| history.keys[*key].space == space).collect();
    let scope = match info.spec.layout {
        KeyspaceLayout::Collection if world.dice.percent(70) => ScanScope::Collection(COLLECTION.into()),
        KeyspaceLayout::Collection | KeyspaceLayout::Key => {
            let key = world.dice.pick(&keys);
            ScanScope::Partition(history.keys[key].place.partition(info.spec.class).index)
        }
    };
    let limit = world.dice.pick(&[1, 3, 100]);
    let (reverse, values) = (world.dice.percent(30), world.dice.percent(80));
    let keyspace = info.id;
    let scan = Scan { keyspace, scope, prefix: Bytes::new(), cursor: None, reverse, limit, values, r };
    let floor = |key: &usize| (*key, Floor { context: history.floor(*key, r), is_live: is_live(history, *key, r) });
    (scan, Floors { r, by_key: keys.iter().map(floor).collect() })
}

impl Floors {
    /// Judges the page that answers `scan`.
    pub(super) fn check(&self, world: &mut World, history: &mut History, (scan, page): (&Scan, &Page)) {
        world.count("scans");
        let in_order = |pair: &[shoal_protocol::client::Row]| {
            let (a, b) = ((&pair[0].collection, &pair[0].key), (&pair[1].collection, &pair[1].key));
            if scan.reverse { a > b } else { a < b }
        };
        if !page.rows.windows(2).all(in_order) || page.rows.len() > scan.limit as usize {
            world.find("scan", "rows out of order, twice, or too many");
        }
        let mut seen = Vec::new();
        for row in &page.rows {
            let place = |key: &crate::sim::history::Key| {
                key.place.keyspace == scan.keyspace
                    && key.place.collection == row.collection
                    && key.place.key == row.key
            };
            let Some(key) = history.keys.iter().position(place) else {
                world.find("scan", format!("a key nobody wrote: {:?}", row.key));
                continue;
            };
            seen.push(key);
            if scan.values {
                let object = Object::decode(&row.object).expect("nodes send canonical objects");
                let none = Context::default();
                let floor = self.by_key.get(&key).filter(|_| page.complete).map_or(&none, |floor| &floor.context);
                history.shown(world, (key, "scan"), &object, floor);
            }
        }
        if page.cursor.is_none() && page.complete && page.rows.len() < scan.limit as usize {
            self.check_missing(world, history, (scan, &seen));
        }
    }

    fn check_missing(&self, world: &mut World, history: &History, (scan, seen): (&Scan, &[usize])) {
        for (key, floor) in self.by_key.iter().filter(|(_, floor)| floor.is_live) {
            let class = history.space_of(*key).spec.class;
            let wanted = match &scan.scope {
                ScanScope::Collection(_) => true,
                ScanScope::Partition(index) => history.keys[*key].place.partition(class).index == *index,
            };
            if wanted && !seen.contains(key) && is_live(history, *key, self.r) {
                world.find("scan", format!("{:?} is missing, {:?}", history.keys[*key].place, floor.context));
            }
        }
    }
}

/// Whether something acknowledged is there for every quorum of `r`, and nobody ever tried to remove anything.
fn is_live(history: &History, key: usize, r: Option<u8>) -> bool {
    let writes = &history.keys[key].writes;
    let adds = |operation: &Operation| {
        matches!(operation, Operation::AddSibling { .. } | Operation::Put { .. } | Operation::Replace { .. })
            || matches!(operation, Operation::SetAdd { .. } | Operation::Enable)
    };
    let floor = history.floor(key, r);
    let standing = |write: &crate::sim::history::Write| {
        write.fate == Fate::Applied
            && write.bound.as_ref().is_some_and(|(dot, _)| floor.covers(*dot))
            && adds(&write.operation)
    };
    writes.iter().all(|write| adds(&write.operation)) && writes.iter().any(standing)
}
