//! Rows that were dropped stay away, through any crash; what was written after them, or beside them, stays.

use shoal_node::storage::{DropId, Extent, StoreEvent};
use shoal_protocol::id::Lsn;
use shoal_protocol::object::{Element, Object, Operation};
use shoal_tests::sim::disk::{SimDisk, Survival};

use super::rig::{History, KEYS_COUNT, LWW, Rig, SIBLINGS, key, partition, random, verify};

/// The extent that is dropped.
const EXTENT: Extent = Extent { partition: partition(), keyspace: Some(SIBLINGS) };
/// Written again after the drop was asked for.
const KEPT: u64 = 0;

/// What was done before the disk stopped.
#[derive(Default)]
struct Done {
    history: History,
    /// Everything up to the drop was synced before it.
    is_complete: bool,
    dropped: bool,
    /// What was written after the drop was asked for, once it is synced.
    later: Option<Object>,
}

/// Deltas in rows and log, then the drop with a write on its heels.
fn workload(disk: &SimDisk, seed: u64) -> Done {
    let mut done = Done::default();
    let Ok(mut rig) = Rig::open(disk) else { return done };
    rig.turn();
    done.history.go_on(&mut rig, &mut random(seed), 6);
    rig.settle();
    done.history.note(&rig);
    done.is_complete = !rig.has_failed() && done.history.synced_count == done.history.applied.len();
    let through = rig.store.synced();
    let Some(drop) = rig.store.drop_rows(EXTENT, through, &mut rig.out) else { return done };
    let later = done.history.delta(&key(KEPT), Operation::SetAdd { element: Element::Int(99) });
    let lsn = rig.store.apply(&key(KEPT), &later, later.encode(), &mut rig.out);
    rig.settle();
    done.dropped = is_dropped(&rig, drop);
    done.later = (rig.store.synced() >= lsn).then_some(later);
    if seed.is_multiple_of(2) {
        rig.store.flush(&mut rig.out);
        rig.settle();
    }
    done
}

fn is_dropped(rig: &Rig, drop: DropId) -> bool {
    rig.events.iter().any(|event| matches!(event, StoreEvent::Dropped { id } if *id == drop))
}

fn check(image: &SimDisk, done: &Done, what: &str) {
    verify(image, what);
    for round in 0..2 {
        let what = format!("{what}, opened {round} times before");
        let mut rig = Rig::open(image).unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
        rig.settle();
        let objects = done.history.objects(done.history.applied.len());
        for key in (0..KEYS_COUNT).map(key) {
            let found = rig.read(&key).unwrap_or_else(|| panic!("{what}: {key:?} cannot be read"));
            let whole = objects.get(&key).cloned().unwrap_or_default();
            if key.keyspace() == LWW {
                assert!(!done.is_complete || found == whole, "{what}: {key:?}, which nobody dropped");
            } else if done.dropped && key == self::key(KEPT) {
                assert!(done.later.as_ref().is_none_or(|later| found == *later), "{what}: {found:?}");
            } else if done.dropped {
                assert!(found == Object::default(), "{what}: {key:?} is back: {found:?}");
            }
        }
        rig.store.flush(&mut rig.out);
        rig.settle();
        drop(rig);
        verify(image, &what);
    }
}

#[test]
fn a_crash_at_any_point_brings_nothing_back_that_was_dropped() {
    let mut dropped = 0;
    for seed in 0..4 {
        let whole = SimDisk::default();
        let done = workload(&whole, seed);
        assert!(done.dropped && done.is_complete && done.later.is_some(), "seed {seed}");
        check(&whole.crash(Survival::ALL[0], seed), &done, &format!("seed {seed}"));
        for point in (1..=whole.operations()).rev().take(60) {
            let disk = SimDisk::default();
            disk.crash_at(point);
            let done = workload(&disk, seed);
            let survival = Survival::ALL[usize::try_from(point).unwrap() % 4];
            dropped += u32::from(done.dropped);
            let image = disk.crash(survival, seed * 1_000_003 + point);
            check(&image, &done, &format!("seed {seed}, crash at {point}, {survival:?}"));
        }
    }
    assert!(dropped > 10, "{dropped} crashes behind a drop");
}

#[test]
fn what_is_only_in_memory_is_dropped_too_and_a_reader_of_the_feed_is_told() {
    let mut rig = Rig::open(&SimDisk::default()).unwrap();
    rig.settle();
    let mut history = History::default();
    for number in [0, 1, 3] {
        let delta = history.delta(&key(number), Operation::SetAdd { element: Element::Int(1) });
        history.apply(&mut rig, key(number), delta);
    }
    rig.settle();
    assert!(!rig.read(&key(0)).unwrap().is_vacant());
    let through = rig.store.synced();
    let drop = rig.store.drop_rows(Extent { keyspace: None, ..EXTENT }, through, &mut rig.out).unwrap();
    rig.settle();
    assert!(is_dropped(&rig, drop));
    assert_eq!(rig.read(&key(0)), Some(Object::default()));
    assert!(rig.scan_all(SIBLINGS).rows.is_empty());
    let request = shoal_node::storage::FeedRequest {
        id: shoal_node::storage::FeedId(0),
        partition: partition(),
        after: Lsn(0),
        rows_max: 10,
        bytes_max: 1_000,
    };
    rig.store.feed(request, &mut rig.out);
    rig.settle();
    let floor = rig.events.iter().find_map(|event| match event {
        StoreEvent::Feed { page, .. } => Some(page.floor),
        _ => None,
    });
    assert_eq!(floor, Some(through));
}
