//! Flipped bits, and lost, short, doubled and foreign files.

use std::collections::BTreeSet;

use shoal_node::storage::engine::log::{Damaged, Log, LogOptions, SegmentState};
use shoal_node::storage::{Failure, Record};
use shoal_protocol::id::Lsn;
use shoal_tests::sim::disk::{SimDisk, Survival};

use super::rig::{OPTIONS, STORE_ID, open, open_whole, record};

/// Segments of four blocks, used and recycled until three of them have records above 40, with old groups behind the new
/// ones; sealed. Returns the records above 40.
fn sealed(disk: &SimDisk) -> Vec<Record> {
    let options = LogOptions { segment_bytes: 4 * 4096 };
    let (mut log, _) = Log::open(disk, STORE_ID, Lsn(0), options, &mut |_| {}).unwrap();
    let records: Vec<_> = (1..=50).map(|lsn| record(lsn, 20 + usize::try_from(lsn).unwrap())).collect();
    for few in records[..40].chunks(2) {
        log.append(disk, few).unwrap();
        log.release(disk, Lsn(few[0].lsn.0.saturating_sub(13))).unwrap();
    }
    log.release(disk, Lsn(40)).unwrap();
    let (mut log, _) = Log::open(disk, STORE_ID, Lsn(40), options, &mut |_| {}).unwrap();
    for lsns in [41..=43, 44..=44, 45..=46, 47..=49, 50..=50] {
        let few: Vec<_> = records.iter().filter(|record| lsns.contains(&record.lsn.0)).cloned().collect();
        log.append(disk, &few).unwrap();
    }
    log.seal(disk).unwrap();
    let live = log.segments().iter().filter(|segment| segment.state != SegmentState::Free).count();
    assert_eq!((live, log.segments().len()), (2, 4), "{:?}", log.segments());
    records[40..].to_vec()
}

/// What is visited is what was written, and what is missing is named. Returns whether damage was reported.
fn check_named(disk: &SimDisk, replay_from: u64, written: &[Record], what: &str) -> bool {
    let (_, visited, replayed) = open(disk, replay_from).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found: BTreeSet<_> = visited.iter().map(|record| record.lsn).collect();
    let lost = |lsn: Lsn| {
        replayed.damage.iter().any(|damage| match damage.what {
            Damaged::Records { after, through } => (after.0 + 1..=through.0).contains(&lsn.0),
            Damaged::Header | Damaged::Length | Damaged::Closing => false,
        })
    };
    let expected: Vec<_> = written.iter().filter(|record| found.contains(&record.lsn)).cloned().collect();
    assert!(visited == expected, "{what}: something was visited that was not written");
    for Record { lsn, .. } in written {
        assert!(found.contains(lsn) != lost(*lsn), "{what}: {lsn:?} is lost silently: {:?}", replayed.damage);
    }
    !replayed.damage.is_empty()
}

#[test]
fn no_flipped_bit_is_shown_or_passed_over() {
    let whole = SimDisk::default();
    let written = sealed(&whole);
    let mut reported = 0;
    for (name, _) in whole.files() {
        for (byte, content) in whole.bytes(&name).into_iter().enumerate() {
            let bits = if content == 0 { 0..1 } else { 0..8 };
            for bit in bits {
                whole.flip(&name, byte, bit);
                let what = format!("`{name}`, byte {byte}, bit {bit}");
                reported += usize::from(check_named(&whole, 40, &written, &what));
                whole.flip(&name, byte, bit);
            }
        }
    }
    assert!(reported > 6 * 4096, "{reported} reported");
    assert!(!check_named(&whole, 40, &written, "nothing flipped"));
}

#[test]
fn every_bit_of_the_newest_segment_is_watched() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    let written = [record(1, 100), record(2, 100), record(3, 5_000)];
    log.append(&disk, &written[..2]).unwrap();
    log.append(&disk, &written[2..]).unwrap();
    log.seal(&disk).unwrap();
    // The header, a group of one block and one of two; behind them the closing group, which has nothing to lose.
    for byte in 0..4 * 4096 {
        disk.flip("log-000001", byte, (byte % 8) as u8);
        assert!(check_named(&disk, 0, &written, &format!("byte {byte}")), "byte {byte} is not reported");
        disk.flip("log-000001", byte, (byte % 8) as u8);
    }
}

#[test]
fn without_a_seal_damage_in_the_last_group_alone_is_taken_for_a_tear() {
    for (seal, damage_count) in [(false, 0), (true, 1)] {
        let disk = SimDisk::default();
        let (mut log, _) = open_whole(&disk, 0, "new");
        log.append(&disk, &[record(1, 10)]).unwrap();
        log.append(&disk, &[record(2, 10)]).unwrap();
        if seal {
            log.seal(&disk).unwrap();
        }
        disk.flip("log-000001", 2 * 4096 + 70, 3);
        let (_, visited, replayed) = open(&disk, 0).unwrap();
        assert_eq!((visited.len(), replayed.damage.len()), (1, damage_count), "sealed: {seal}");
    }
}

#[test]
fn a_log_opened_again_seals_what_it_found() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    log.append(&disk, &[record(1, 10)]).unwrap();
    let (mut log, _) = open_whole(&disk, 0, "again");
    log.seal(&disk).unwrap();
    let operations = disk.operations();
    log.seal(&disk).unwrap();
    assert_eq!(disk.operations(), operations, "a sealed log is sealed");
    disk.flip("log-000001", 4096 + 70, 3);
    let (_, visited, replayed) = open(&disk, 0).unwrap();
    assert_eq!(visited, []);
    let damage = &replayed.damage[..];
    assert_eq!(damage.len(), 1);
    assert_eq!((&*damage[0].segment, damage[0].offset), ("log-000001", 4096));
    assert_eq!(damage[0].what, Damaged::Records { after: Lsn(0), through: Lsn(1) });
}

#[test]
fn damage_is_reported_until_its_records_are_in_the_rows() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    for lsn in 1..=3 {
        log.append(&disk, &[record(lsn, 10)]).unwrap();
    }
    disk.flip("log-000001", 2 * 4096 + 70, 3);
    for replay_from in [0, 1] {
        let (_, visited, replayed) = open(&disk, replay_from).unwrap();
        assert_eq!(visited.last().map(|record| record.lsn), Some(Lsn(3)), "what stands behind it is read");
        assert_eq!(replayed.damage.len(), 1);
        assert_eq!(replayed.damage[0].what, Damaged::Records { after: Lsn(1), through: Lsn(2) });
    }
    assert_eq!(open_whole(&disk, 2, "in the rows").1, [record(3, 10)]);
    assert_eq!(open_whole(&disk, 3, "all in the rows").1, []);
}

#[test]
fn lost_and_short_files_are_noticed() {
    let whole = SimDisk::default();
    let (mut log, _) = open_whole(&whole, 0, "new");
    let written: Vec<_> = (1..=6).map(|lsn| record(lsn, 15_000)).collect();
    for record in &written {
        log.append(&whole, std::slice::from_ref(record)).unwrap();
    }
    let names: Vec<_> = log.segments().into_iter().map(|segment| segment.name).collect();
    assert_eq!(names.len(), 6);
    for (index, name) in names.iter().enumerate() {
        let newest = index == names.len() - 1;
        if !newest {
            // (A newest segment that is gone leaves no trace.)
            let disk = without(&whole, name);
            assert!(check_named(&disk, 0, &written, &format!("without `{name}`")));
            let disk = whole.copy();
            disk.put(name, vec![0; 8 * 4096]);
            assert!(check_named(&disk, 0, &written, &format!("`{name}` all zeros")));
        }
        for length in [0, 100, 4096, 4 * 4096, 8 * 4096 - 1] {
            let disk = whole.copy();
            disk.put(name, whole.bytes(name)[..length].to_vec());
            let (_, visited, replayed) = open(&disk, 0).unwrap();
            assert!(!replayed.damage.is_empty(), "`{name}` of {length} bytes");
            assert!(visited.iter().all(|record| written.contains(record)));
        }
        let disk = whole.copy();
        disk.put("log-000099", whole.bytes(name));
        let (_, visited, _) = open(&disk, 0).unwrap();
        assert!(visited.iter().all(|record| written.contains(record)) && visited.len() >= 6, "`{name}` twice");
    }
}

#[test]
fn rows_that_went_back_are_noticed() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    let written: Vec<_> = (1..=8).map(|lsn| record(lsn, 15_000)).collect();
    for record in &written {
        log.append(&disk, std::slice::from_ref(record)).unwrap();
        log.release(&disk, Lsn(record.lsn.0.saturating_sub(2))).unwrap();
    }
    let (_, _, replayed) = open(&disk, 1).unwrap();
    assert!(replayed.damage.iter().any(|damage| matches!(damage.what, Damaged::Records { .. })));
}

#[test]
fn another_stores_log_is_refused_and_kept() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    log.append(&disk, &[record(1, 10)]).unwrap();
    let before = disk.bytes("log-000001");
    let refused = Log::open(&disk, STORE_ID + 1, Lsn(0), OPTIONS, &mut |_| {});
    assert!(matches!(refused, Err(Failure::Damaged { .. })));
    assert_eq!(disk.bytes("log-000001"), before);
}

#[test]
fn what_an_older_use_left_behind_is_never_read() {
    let disk = SimDisk::default();
    let (mut log, _) = open_whole(&disk, 0, "new");
    // The first segment is full of groups of one block, and free again.
    for lsn in 1..=7 {
        log.append(&disk, &[record(lsn, 10)]).unwrap();
    }
    for lsn in 8..=10 {
        log.append(&disk, &[record(lsn, 10)]).unwrap();
    }
    log.release(&disk, Lsn(10)).unwrap();
    let (mut log, _) = open_whole(&disk, 10, "again");
    log.append(&disk, &[record(11, 10)]).unwrap();
    let reused = log.segments().into_iter().find(|segment| segment.state == SegmentState::Active).unwrap();
    assert_eq!(reused.name, "log-000001");
    // Old groups stand right behind the new one, whole; even to rows that know of nothing they are not the log's.
    let image = disk.crash(Survival::Nothing, 0);
    assert_eq!(open_whole(&image, 10, "old groups").1, [record(11, 10)]);
    let (_, visited, replayed) = open(&image, 0).unwrap();
    assert_eq!(visited.iter().map(|record| record.lsn.0).collect::<Vec<_>>(), [8, 9, 10, 11]);
    assert_eq!(replayed.damage[0].what, Damaged::Records { after: Lsn(0), through: Lsn(7) });
}

fn without(disk: &SimDisk, name: &str) -> SimDisk {
    let kept = SimDisk::default();
    for (other, _) in disk.files().into_iter().filter(|(other, _)| other != name) {
        kept.put(&other, disk.bytes(&other));
    }
    kept
}
