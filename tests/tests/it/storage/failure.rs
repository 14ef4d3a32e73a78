//! I/O errors and full disks: the store stops, says so, and comes back with everything it called synced.

use shoal_node::storage::engine::{OpenError, OpenOptions};
use shoal_node::storage::{Failure, StoreEvent};
use shoal_tests::sim::disk::{SimDisk, Space, Survival};

use super::rig::{History, KEYS_COUNT, Rig, check, key, options, random, workload};

const TURNS: usize = 20;

#[test]
fn an_io_error_at_any_point_loses_nothing_synced() {
    let whole = SimDisk::default();
    workload(&whole, 1, TURNS);
    for point in 1..=whole.operations() {
        let disk = SimDisk::default();
        disk.error_at(point);
        let history = workload(&disk, 1, TURNS);
        // The process lives on and opens the files again; or the machine goes down with it.
        for survival in Survival::ALL {
            check(&disk.crash_copy(survival, point), &history, &format!("error at {point}, {survival:?}"));
        }
        check(&disk, &history, &format!("error at {point}, reopened"));
    }
}

#[test]
fn after_an_io_error_nothing_is_built_on_writes_that_never_reach_the_disk() {
    let whole = SimDisk::default();
    workload(&whole, 1, TURNS);
    let mut failed = 0;
    for point in 1..=whole.operations() {
        let disk = SimDisk::default();
        let Ok(mut rig) = Rig::open(&disk) else { panic!("a healthy disk") };
        let mut history = History::default();
        disk.error_at(disk.operations() + point);
        history.go_on(&mut rig, &mut random(1), TURNS);
        let Some(failure) = rig.failure() else { continue };
        failed += 1;
        drop(rig);
        let what = format!("error at {point}");
        let mut rig = Rig::open_with(&disk, &OpenOptions { doubt: failure.doubt(), ..options() }).unwrap();
        history.forget_lost(&mut rig, &what);
        history.go_on(&mut rig, &mut random(2), 3);
        drop(rig);
        check(&disk.crash(Survival::Nothing, point), &history, &what);
    }
    assert!(failed > 100, "{failed} errors were met");
}

#[test]
fn a_failed_sync_is_never_acknowledged() {
    let mut failed = 0;
    let whole = SimDisk::default();
    workload(&whole, 2, TURNS);
    for point in 1..=whole.operations() {
        let disk = SimDisk::default();
        let Ok(mut rig) = Rig::open(&disk) else { panic!("a healthy disk") };
        rig.settle();
        let mut history = History::default();
        disk.error_at(disk.operations() + point % 12 + 1);
        let mut random = random(point);
        let (key, delta) = history.next_delta(&mut random);
        let lsn = history.apply(&mut rig, key, delta);
        rig.settle();
        if rig.has_failed() {
            failed += 1;
            assert!(rig.store.synced() < lsn && rig.engine.is_dead());
        } else {
            assert!(rig.store.synced() >= lsn);
        }
    }
    assert!(failed > 20, "{failed} errors hit a commit");
}

#[test]
fn a_read_error_stops_the_store_and_reopening_mends_it() {
    let disk = SimDisk::default();
    let history = workload(&disk, 3, TURNS);
    let mut failures = 0;
    for point in 1..40 {
        let copy = disk.copy();
        copy.read_error_at(point);
        match Rig::open(&copy) {
            Ok(mut rig) => {
                (0..KEYS_COUNT).for_each(|number| {
                    rig.read(&key(number));
                });
                failures += usize::from(rig.has_failed());
            }
            Err(OpenError::Disk(Failure::Io { .. })) => failures += 1,
            Err(other) => panic!("read error {point}: {other}"),
        }
        copy.calm();
        check(&copy, &history, &format!("read error {point}"));
    }
    assert!(failures > 5, "{failures} of the errors were met");
}

#[test]
fn a_full_disk_stops_writes_and_loses_nothing_synced() {
    let whole = SimDisk::default();
    let empty: u64 = {
        drop(Rig::open(&whole).unwrap());
        whole.files().iter().map(|(_, bytes)| *bytes as u64).sum()
    };
    let mut full = 0;
    for step in 0..40 {
        for space in [Space::Reserve(empty + step * 4_096), Space::Write(step * 4_096)] {
            let disk = SimDisk::default();
            drop(Rig::open(&disk).unwrap());
            disk.set_space(space);
            let history = workload(&disk, 4, 60);
            let acknowledged_all = history.synced_count == history.applied.len();
            full += usize::from(!acknowledged_all);
            if let Ok(mut rig) = Rig::open(&disk) {
                // Still full: what was synced can be read.
                assert!(rig.read(&key(0)).is_some() || rig.has_failed());
                assert!(rig.events.iter().all(|event| !matches!(event, StoreEvent::Damaged { .. })));
            }
            disk.set_space(Space::Enough);
            check(&disk, &history, &format!("{space:?}"));
        }
    }
    assert!(full > 10, "{full} runs met a full disk");
}
