//! Errors: of any operation, failed syncs whose writes are still seen, and a full disk.

use shoal_node::storage::Failure;
use shoal_protocol::id::Lsn;
use shoal_tests::sim::disk::{SimDisk, Space, Survival};

use super::super::rig::random;
use super::rig::{History, OPTIONS, open_whole, record, seeds};

#[test]
fn what_is_shown_after_an_error_survives_a_loss_of_power() {
    for seed in seeds(6) {
        let whole = SimDisk::default();
        History::default().work(&whole, &mut random(seed), 40).unwrap();
        for point in 1..=whole.operations() {
            let what = format!("seed {seed}, error at {point}");
            let disk = SimDisk::default();
            disk.error_at(point);
            let mut history = History::default();
            let failure = history.work(&disk, &mut random(seed), 40).unwrap_err();
            assert!(matches!(failure, Failure::Io { .. }), "{what}: {failure}");
            // The failed write or sync may be seen without being on disk.
            let (_, visited) = open_whole(&disk, history.replay_from, &what);
            history.check(&visited, &what);
            let (_, again) = open_whole(&disk.crash(Survival::Nothing, 0), history.replay_from, &what);
            assert_eq!(again, visited, "{what}");
        }
    }
}

#[test]
fn nothing_is_written_after_a_failure() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    log.append(&disk, &[record(1, 10)]).unwrap();
    disk.error_at(disk.operations() + 1);
    assert!(log.append(&disk, &[record(2, 10)]).is_err());
    let operations = disk.operations();
    assert!(log.append(&disk, &[record(3, 10)]).is_err());
    assert!(log.seal(&disk).is_err() && log.prepare(&disk).is_err() && log.release(&disk, Lsn(1)).is_err());
    assert_eq!(disk.operations(), operations);
}

#[test]
fn an_error_while_reading_is_an_error_and_not_a_short_log() {
    let disk = SimDisk::default();
    let mut history = History::default();
    history.work(&disk, &mut random(3), 40).unwrap();
    for read in 1..=4 {
        disk.read_error_at(read);
        assert!(history.open(&disk).is_err(), "read {read}");
    }
}

#[test]
fn a_full_disk_keeps_the_log_readable_and_gives_back_what_it_took() {
    for space in [Space::Reserve(OPTIONS.segment_bytes + 5_000), Space::Write(6 * 4096)] {
        let disk = SimDisk::default();
        let (mut log, _) = open_whole(&disk, 0, "new");
        log.append(&disk, &[record(1, 10)]).unwrap();
        disk.set_space(space);
        log.prepare(&disk).unwrap();
        let refused = (2..20).map(|lsn| log.append(&disk, &[record(lsn, 5_000)])).find_map(Result::err);
        assert_eq!(refused, Some(Failure::Full), "{space:?}");
        assert_eq!(disk.files().len(), 1, "{space:?}: {:?}", disk.files());
        let (mut log, visited) = open_whole(&disk, 0, "full");
        assert_eq!(log.append(&disk, &[record(50, 10)]), Err(Failure::Full), "{space:?}");
        disk.set_space(Space::Enough);
        let (mut log, again) = open_whole(&disk, 0, "space again");
        assert!(!visited.is_empty() && again == visited, "{space:?}");
        log.append(&disk, &[record(60, 10)]).unwrap();
        assert_eq!(open_whole(&disk, 0, "later").1.len(), visited.len() + 1, "{space:?}");
    }
}
