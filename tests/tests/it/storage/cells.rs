//! The stores of one node: their making, cut short at any point, and what is refused.

use shoal_node::storage::engine::cells::{directory, directory_name, prepare};
use shoal_node::storage::engine::{Disk, Engine, OpenError, OpenOptions};
use shoal_node::storage::{CellId, CellPlace};
use shoal_protocol::id::Actor;
use shoal_tests::sim::disk::{SimDisk, Survival};

use super::rig::{History, Rig, check, options, random, workload};

/// Opens every store of a node, in order; says under which incarnations they mint.
fn open_all(disk: &SimDisk, count: Option<u8>, first: u64) -> Result<Vec<Actor>, OpenError> {
    let mut next = first;
    let stores = prepare(disk, &options(), count, || {
        next += 1;
        Actor::incarnation(next)
    })?;
    let open = |(disk, options): (SimDisk, OpenOptions)| {
        let (_, recovered) = Engine::open(&disk, &options)?;
        Ok(recovered.leases.incarnation)
    };
    stores.into_iter().map(open).collect()
}

#[test]
fn a_making_cut_short_anywhere_is_begun_again_and_one_that_ended_is_kept() {
    let whole = SimDisk::default();
    let made = open_all(&whole, Some(3), 0).unwrap();
    assert!(made[0] != made[1] && made[1] != made[2] && made[0] != made[2]);
    for point in 1..=whole.operations() {
        for survival in Survival::ALL {
            let disk = SimDisk::default();
            disk.crash_at(point);
            let cut_short = open_all(&disk, Some(3), 0);
            assert!(cut_short.is_err() || disk.is_dead(), "{point}");
            let disk = disk.crash(survival, point);
            let was_made = disk.files().iter().any(|(name, _)| name == "meta.redb");
            // What was begun with three may be made with two, as long as the home store does not exist.
            let again = open_all(&disk, if was_made { None } else { Some(2) }, 10).unwrap();
            assert_eq!(again.len(), if was_made { 3 } else { 2 }, "power lost at {point}, {survival:?}");
            assert_eq!(open_all(&disk, None, 20).unwrap(), again);
        }
    }
}

#[test]
fn another_number_of_stores_is_refused_and_left_out_it_is_what_it_was() {
    let disk = SimDisk::default();
    let made = open_all(&disk, Some(3), 0).unwrap();
    for count in [1, 2, 4] {
        let refused = open_all(&disk, Some(count), 10).unwrap_err();
        assert!(matches!(refused, OpenError::OtherCells { found: CellPlace { count: 3, .. }, .. }), "{refused}");
    }
    assert_eq!(open_all(&disk, None, 10).unwrap(), made);
    assert_eq!(open_all(&disk, Some(3), 10).unwrap(), made);
    assert_eq!(open_all(&SimDisk::default(), None, 0).unwrap().len(), 1);
}

#[test]
fn a_store_that_is_missing_or_another_is_refused() {
    let disk = SimDisk::default();
    open_all(&disk, Some(3), 0).unwrap();
    let file = |cell: u8, name: &str| format!("{}/{name}", directory_name(CellId(cell)));
    let (missing, swapped) = (disk.copy(), disk.copy());
    for name in ["meta.redb", "rows.redb"] {
        missing.remove(&file(2, name)).unwrap();
        swapped.put(&file(1, name), disk.bytes(&file(2, name)));
    }
    let refused = open_all(&missing, None, 10).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { file: "meta.redb", .. }), "{refused}");
    let refused = open_all(&swapped, None, 10).unwrap_err();
    let found = CellPlace { cell: CellId(2), count: 3 };
    assert!(matches!(refused, OpenError::OtherCells { found: is, .. } if is == found), "{refused}");
}

#[test]
fn without_the_home_store_no_other_one_in_use_is_made_anew() {
    let disk = SimDisk::default();
    open_all(&disk, Some(2), 0).unwrap();
    let beside = OpenOptions { place: CellPlace { cell: CellId(1), count: 2 }, ..options() };
    let mut rig = Rig::open_with(&directory(&disk, CellId(1)).unwrap(), &beside).unwrap();
    rig.settle();
    let mut history = History::default();
    let (key, delta) = history.next_delta(&mut random(1));
    let lsn = history.apply(&mut rig, key, delta);
    rig.settle();
    assert!(rig.store.synced() >= lsn);
    drop(rig);
    for name in ["meta.redb", "rows.redb"] {
        disk.remove(name).unwrap();
    }
    for count in [None, Some(1), Some(2), Some(3)] {
        let refused = open_all(&disk, count, 10).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { file: "meta.redb", .. }), "{refused}");
    }
}

/// The stores share a machine's disk and nothing else.
#[test]
fn the_home_store_keeps_its_own_with_others_beside_it() {
    let disk = SimDisk::default();
    open_all(&disk, Some(1), 0).unwrap();
    let beside = directory(&disk, CellId(1)).unwrap();
    let history = workload(&disk, 5, 20);
    let other = workload(&beside, 6, 20);
    check(&disk, &history, "the home store");
    check(&directory(&disk, CellId(1)).unwrap(), &other, "the one beside it");
}
