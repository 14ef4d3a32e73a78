//! A log's life without accidents: filling, releasing, recycling, oversize records, other options, a real directory.

use shoal_node::host::disk::DirectoryDisk;
use shoal_node::storage::engine::Disk;
use shoal_node::storage::engine::log::{Log, LogOptions, SegmentState, files, inspect};
use shoal_protocol::id::Lsn;
use shoal_tests::sim::disk::SimDisk;

use super::rig::{OPTIONS, STORE_ID, open_whole, record};

#[test]
fn segments_are_used_again_and_their_number_stays() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    let mut names = Vec::new();
    for lsn in 1..=200 {
        log.append(&disk, &[record(lsn, 3_000)]).unwrap();
        log.release(&disk, Lsn(lsn.saturating_sub(10))).unwrap();
        if lsn == 100 {
            names = files(&disk).unwrap();
        }
    }
    assert_eq!(files(&disk).unwrap(), names, "no file was made for the second half");
    assert!(names.len() <= 4, "{names:?}");
    let epochs: Vec<_> = log.segments().iter().map(|segment| segment.epoch).collect();
    assert!(epochs.is_sorted() && epochs.last() > Some(&20), "{epochs:?}");
    assert_eq!(log.position(), 200 * 4096);
    let (_, visited) = open_whole(&disk, 190, "again");
    assert_eq!(visited, (191..=200).map(|lsn| record(lsn, 3_000)).collect::<Vec<_>>());
}

#[test]
fn one_append_is_one_group_and_what_does_not_fit_is_split() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    log.append(&disk, &[record(1, 10)]).unwrap();
    let operations = disk.operations();
    log.append(&disk, &(2..=50).map(|lsn| record(lsn, 10)).collect::<Vec<_>>()).unwrap();
    assert_eq!(disk.operations(), operations + 2, "one write, one sync");
    let many: Vec<_> = (51..=250).map(|lsn| record(lsn, 500)).collect();
    log.append(&disk, &many).unwrap();
    assert!(log.segments().len() > 3);
    assert_eq!(open_whole(&disk, 50, "again").1, many);
}

#[test]
fn a_record_longer_than_a_segment_gets_one_of_its_own_which_goes_with_it() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    let written = [record(1, 10), record(2, 100_000), record(3, 5_000)];
    log.append(&disk, &written).unwrap();
    let lengths = |log: &Log<_>| log.segments().iter().map(|segment| segment.bytes).collect::<Vec<u64>>();
    assert_eq!(lengths(&log), [OPTIONS.segment_bytes, 26 * 4096, OPTIONS.segment_bytes]);
    assert_eq!(open_whole(&disk, 0, "again").1, written);
    log.release(&disk, Lsn(2)).unwrap();
    assert_eq!(lengths(&log), [OPTIONS.segment_bytes; 2]);
    assert_eq!(open_whole(&disk, 2, "again").1, written[2..]);
}

#[test]
fn openings_alone_take_no_segments_and_seals_take_the_same_again() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    assert_eq!(files(&disk).unwrap(), Vec::<String>::new());
    log.append(&disk, &[record(1, 10)]).unwrap();
    for _ in 0..5 {
        let (mut log, visited) = open_whole(&disk, 0, "again");
        assert_eq!(visited.len(), 1);
        assert!(files(&disk).unwrap().len() <= 2);
        log.seal(&disk).unwrap();
    }
}

#[test]
fn rows_that_know_more_than_the_log_are_no_damage() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    log.append(&disk, &[record(1, 10), record(2, 10)]).unwrap();
    let (mut log, visited) = open_whole(&disk, 500, "beyond the end");
    assert_eq!(visited, []);
    log.append(&disk, &[record(501, 10)]).unwrap();
    assert_eq!(open_whole(&disk, 500, "again").1, [record(501, 10)]);
}

#[test]
#[should_panic(expected = "lsns grow")]
fn lsns_that_do_not_grow_are_refused() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 7, "new");
    let _ = log.append(&disk, &[record(7, 10)]);
}

#[test]
fn another_length_of_segments_is_taken_on_as_the_old_ones_come_free() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    log.append(&disk, &[record(1, 30_000)]).unwrap();
    let options = LogOptions { segment_bytes: 16 * 4096 };
    let mut visited = Vec::new();
    let (mut log, _) = Log::open(&disk, STORE_ID, Lsn(0), options, &mut |record| visited.push(record)).unwrap();
    assert_eq!(visited, [record(1, 30_000)]);
    log.append(&disk, &[record(2, 10)]).unwrap();
    log.release(&disk, Lsn(1)).unwrap();
    assert_eq!(log.segments().iter().map(|segment| segment.bytes).collect::<Vec<_>>(), [16 * 4096]);
}

#[test]
fn a_prepared_segment_is_taken_without_being_made() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    log.prepare(&disk).unwrap();
    let operations = disk.operations();
    log.prepare(&disk).unwrap();
    assert_eq!(disk.operations(), operations, "one is enough");
    log.append(&disk, &[record(1, 10)]).unwrap();
    assert_eq!(disk.operations(), operations + 4, "header and group, written and synced");
}

#[test]
fn inspecting_changes_nothing_and_tells_what_opening_would() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    for lsn in 1..=9 {
        log.append(&disk, &[record(lsn, 5_000)]).unwrap();
    }
    let (operations, mut visited) = (disk.operations(), Vec::new());
    let (segments, replayed) = inspect(&disk, STORE_ID, Lsn(4), &mut |record| visited.push(record.lsn.0)).unwrap();
    assert_eq!(disk.operations(), operations);
    assert_eq!(visited, [5, 6, 7, 8, 9]);
    assert_eq!((replayed.last, replayed.records_count, replayed.damage.len()), (Lsn(9), 5, 0));
    let told: Vec<_> = segments.iter().map(|segment| (segment.state, segment.records)).collect();
    let full = SegmentState::Full;
    let expected = [(SegmentState::Free, None), (full, Some((Lsn(5), Lsn(6)))), (full, Some((Lsn(7), Lsn(9))))];
    assert_eq!(told, expected);
}

#[test]
fn a_real_directory_keeps_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let disk = DirectoryDisk::open(directory.path()).unwrap();
    let (mut log, _) = open_whole(&disk, 0, "new");
    let written: Vec<_> = (1..=40).map(|lsn| record(lsn, 7_000)).collect();
    for few in written.chunks(3) {
        log.append(&disk, few).unwrap();
    }
    log.seal(&disk).unwrap();
    log.release(&disk, Lsn(20)).unwrap();
    let names = files(&disk).unwrap();
    assert!(names.iter().all(|name| disk.exists(name).unwrap()) && disk.free_bytes().unwrap() > 0);
    drop(log);
    let (mut log, visited) = open_whole(&disk, 20, "again");
    assert_eq!(visited, written[20..]);
    log.append(&disk, &[record(50, 10)]).unwrap();
    assert_eq!(open_whole(&disk, 40, "again").1, [record(50, 10)]);
}
