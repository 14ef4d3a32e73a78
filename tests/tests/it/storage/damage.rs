//! Bits that flip at rest, and directories that are not ours.

use std::collections::BTreeMap;

use shoal_node::storage::engine::log::BLOCK_BYTES;
use shoal_node::storage::engine::{Disk, Doubt, Lane, OpenError, OpenOptions};
use shoal_node::storage::{RowKey, StoreEvent};
use shoal_protocol::id::{Actor, ClusterId, NodeId};
use shoal_protocol::object::{Element, Object, Operation, Value};
use shoal_tests::sim::disk::SimDisk;

use super::rig::{History, KEYS_COUNT, LWW, Rig, SIBLINGS, below, key, options, random, workload};

/// What a store with a flipped bit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It did not open, or opened and reported lost log records.
    Refused,
    /// It stopped while reading.
    Failed,
    /// It named damaged rows and showed the others.
    Named,
    /// The bit was in nothing that matters.
    Harmless,
    /// A key was not found, or an older state of it: the bit was in the tree itself, which row checksums do not cover.
    Missing,
}

#[test]
fn a_flipped_bit_is_never_shown_as_data() {
    let outcomes = flip_bits(Doubt::Nothing);
    assert!(outcomes.get(&Outcome::Named).is_some_and(|count| *count > 20), "{outcomes:?}");
    // redb looks up keys in pages that it does not verify. The share is watched so that a change of redb shows.
    let missing = outcomes.get(&Outcome::Missing).copied().unwrap_or(0);
    let all: usize = outcomes.values().sum();

    assert!(missing * 50 < all, "{outcomes:?}");
}

#[test]
fn with_pages_verified_no_flipped_bit_hides_anything() {
    let outcomes = flip_bits(Doubt::Pages);
    assert!(outcomes.get(&Outcome::Refused).is_some_and(|count| *count > 100), "{outcomes:?}");
    assert_eq!(outcomes.get(&Outcome::Missing), None, "{outcomes:?}");
}

fn flip_bits(doubt: Doubt) -> BTreeMap<Outcome, usize> {
    let disk = SimDisk::default();
    let history = workload(&disk, 6, 60);
    assert_eq!(history.synced_count, history.applied.len());
    let objects = history.objects(history.applied.len());
    let mut outcomes = BTreeMap::new();
    let mut random = random(1);
    for (file, flips) in [("rows.redb", 3_000), ("meta.redb", 300)] {
        let used: Vec<usize> = used_bytes(&disk.bytes(file));
        for _ in 0..flips {
            let byte = used[below(&mut random, used.len() as u64) as usize];
            let copy = disk.copy();
            copy.flip(file, byte, below(&mut random, 8) as u8);
            let outcome = look(&copy, &objects, doubt);
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    outcomes
}

/// Every byte of the pages that hold anything.
fn used_bytes(bytes: &[u8]) -> Vec<usize> {
    let pages = bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0));
    pages.flat_map(|(page, content)| page * 4096..page * 4096 + content.len()).collect()
}

/// Opens the copy and reads everything by key and by scan.
///
/// # Panics
/// Something was shown that was never there.
fn look(disk: &SimDisk, objects: &BTreeMap<RowKey, Object>, doubt: Doubt) -> Outcome {
    let Ok(mut rig) = Rig::open_with(disk, &OpenOptions { doubt, ..options() }) else { return Outcome::Refused };
    if rig.recovered.damaged_records > 0 {
        return Outcome::Refused;
    }
    let mut outcome = Outcome::Harmless;
    for number in 0..KEYS_COUNT {
        let key = key(number);
        match rig.read(&key) {
            Some(object)
                if Some(&object) == objects.get(&key)
                    || (object == Object::default() && !objects.contains_key(&key)) => {}
            Some(object) => {
                // Not the whole object: then it is the memtables alone, beneath which the row was not found.
                let whole = objects.get(&key).expect("what was never written is not there");
                let mut joined = whole.clone();
                joined.merge_into(&object);
                assert_eq!(joined, *whole, "{key:?} shows what was never written");
                outcome = Outcome::Missing;
            }
            None if rig.has_failed() => return Outcome::Failed,
            None => outcome = outcome.min(Outcome::Named),
        }
    }
    for keyspace in [SIBLINGS, LWW] {
        for row in &rig.scan_all(keyspace).rows {
            let whole = objects.get(&row.key).expect("what was never written is not there");
            let mut joined = whole.clone();
            joined.merge_into(&Object::decode(&row.object).unwrap());
            assert_eq!(joined, *whole, "{:?} shows what was never written", row.key);
        }
    }
    outcome
}

/// A settled store whose row of `key(0)` has a flipped bit, and the object that was there.
fn store_with_a_damaged_row() -> (SimDisk, History, Object) {
    let disk = SimDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    let mut history = History::default();
    let delta = history.delta(&key(0), Operation::AddSibling { value: Value::json("\"needle\"") });
    history.apply(&mut rig, key(0), delta.clone());
    rig.store.flush(&mut rig.out);
    rig.settle();
    drop(rig);
    // The log has it too, in pages now free.
    let bytes = disk.bytes("rows.redb");
    let needles: Vec<usize> = (0..bytes.len() - 6).filter(|at| &bytes[*at..at + 6] == b"needle").collect();
    assert!(!needles.is_empty());
    needles.into_iter().for_each(|at| disk.flip("rows.redb", at, 3));
    (disk, history, delta)
}

#[test]
fn a_damaged_row_is_neither_data_nor_absent_until_it_is_healed() {
    let (disk, mut history, object) = store_with_a_damaged_row();
    let write = history.delta(&key(0), Operation::SetAdd { element: Element::Int(1) });

    let mut rig = Rig::open(&disk).unwrap();
    rig.settle();
    assert_eq!(rig.read(&key(0)), None);
    assert!(rig.events.iter().any(|event| matches!(event, StoreEvent::Damaged { keys } if keys == &[key(0)])));
    let page = rig.scan_all(SIBLINGS);
    assert_eq!((page.rows.len(), page.damaged), (0, vec![key(0)]));

    // A write is stored over it, and kept, but does not make it whole: not now, not flushed, not after a restart.
    rig.store.apply(&key(0), &write, write.encode(), &mut rig.out);
    rig.settle();
    assert_eq!(rig.read(&key(0)), None);
    rig.store.flush(&mut rig.out);
    rig.settle();
    drop(rig);
    let mut rig = Rig::open(&disk).unwrap();
    rig.settle();
    assert_eq!(rig.read(&key(0)), None);
    assert_eq!(rig.scan_all(SIBLINGS).damaged, [key(0)]);

    // What other replicas hold makes it whole, together with what was written here since.
    rig.store.heal(&key(0), &object, object.encode(), &mut rig.out);
    rig.settle();
    let mut whole = object;
    whole.merge_into(&write);
    assert_eq!(rig.read(&key(0)).as_ref(), Some(&whole));
    drop(rig);
    let mut rig = Rig::open(&disk).unwrap();
    rig.settle();
    assert_eq!(rig.read(&key(0)).as_ref(), Some(&whole), "after a replay");
    rig.store.flush(&mut rig.out);
    rig.settle();
    drop(rig);
    let mut rig = Rig::open(&disk).unwrap();
    assert_eq!(rig.read(&key(0)).as_ref(), Some(&whole), "from the row");
    assert_eq!(rig.scan_all(SIBLINGS).rows[0].object, whole.encode());
}

#[test]
fn a_directory_that_is_not_ours_is_refused_and_kept() {
    let disk = SimDisk::default();
    let cluster = |id| OpenOptions { cluster: Some(ClusterId(id)), ..options() };
    drop(Rig::open(&disk).unwrap());
    let other_node = Rig::open_with(&disk, &OpenOptions { node: NodeId(6), ..options() }).err();
    assert!(matches!(other_node, Some(OpenError::OtherNode { found: NodeId(5), expected: NodeId(6) })));
    // A store that knew no cluster takes one on, once.
    assert_eq!(Rig::open_with(&disk, &cluster(1)).unwrap().recovered.cluster, Some(ClusterId(1)));
    assert_eq!(Rig::open(&disk).unwrap().recovered.cluster, Some(ClusterId(1)));
    let other_cluster = Rig::open_with(&disk, &cluster(2)).err();
    assert!(matches!(other_cluster, Some(OpenError::OtherCluster { found: ClusterId(1), expected: ClusterId(2) })));
    let rig = Rig::open(&disk).unwrap();
    assert!(matches!(Rig::open(&disk).err(), Some(OpenError::Locked)));
    drop(rig);
    drop(Rig::open(&disk).unwrap());
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let disk = SimDisk::default();
    workload(&disk, 7, 20);
    let (no_rows, no_meta, mixed) = (disk.copy(), disk.copy(), disk.copy());
    no_rows.remove("rows.redb").unwrap();
    assert!(matches!(Rig::open(&no_rows).err(), Some(OpenError::Damaged { file: "rows.redb", .. })));
    no_meta.remove("meta.redb").unwrap();
    assert!(matches!(Rig::open(&no_meta).err(), Some(OpenError::Damaged { file: "meta.redb", .. })));
    let other = SimDisk::default();
    drop(Rig::open_with(&other, &OpenOptions { incarnation: Actor::incarnation(78), ..options() }).unwrap());
    mixed.put("rows.redb", other.bytes("rows.redb"));
    assert!(matches!(Rig::open(&mixed).err(), Some(OpenError::Damaged { file: "rows.redb", .. })));
    // Refused, and still good where it belongs.
    other.put("rows.redb", mixed.bytes("rows.redb"));
    drop(Rig::open_with(&other, &OpenOptions { incarnation: Actor::incarnation(79), ..options() }).unwrap());
}

/// A store with three records in its log and nothing in its rows.
fn store_with_three_records() -> (SimDisk, [&'static str; 3]) {
    let disk = SimDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    let mut history = History::default();
    let texts = ["first", "second", "third"];
    for text in texts {
        let delta = history.delta(&key(0), Operation::AddSibling { value: Value::json(format!("\"{text}\"")) });
        history.apply(&mut rig, key(0), delta);
        rig.settle();
    }
    // As before a clean stop: now damage in the last record can be told from a tear.
    rig.engine.log.idle();
    drop(rig);
    (disk, texts)
}

#[test]
fn a_damaged_log_record_is_noticed_and_never_returned() {
    let (disk, texts) = store_with_three_records();
    for text in texts {
        let copy = disk.copy();
        let bytes = copy.bytes(LOG_FILE);
        let places = (0..bytes.len() - text.len()).filter(|at| &bytes[*at..at + text.len()] == text.as_bytes());
        places.for_each(|at| copy.flip(LOG_FILE, at, 0));
        let rig = Rig::open(&copy).unwrap();
        assert_eq!(rig.recovered.damaged_records, 1, "{text}");
        let entry = rig.recovered.memtable.get(&key(0)).expect("two records are sound");
        let found = format!("{:?}", entry.object());
        assert_eq!(texts.map(|other| found.contains(other)), texts.map(|other| other != text));
    }
}

#[test]
fn a_vanished_log_record_is_noticed_at_what_stands_behind_it() {
    let (disk, texts) = store_with_three_records();
    assert_eq!(Rig::open(&disk).unwrap().recovered.damaged_records, 0);
    for text in texts {
        let copy = disk.copy();
        let mut bytes = copy.bytes(LOG_FILE);
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        bytes[at / BLOCK_BYTES * BLOCK_BYTES..][..BLOCK_BYTES].fill(0);
        copy.put(LOG_FILE, bytes);
        assert_eq!(Rig::open(&copy).unwrap().recovered.damaged_records, 1, "{text}");
    }
}

const LOG_FILE: &str = "log-000001";
