//! Power loss at every write point: while appending, making, recycling and releasing segments, and during recovery.

use shoal_protocol::id::Lsn;
use shoal_tests::sim::disk::{SimDisk, Survival};

use super::super::rig::random;
use super::rig::{History, open_whole, record, seeds};

const STEPS: usize = 40;

/// Works until the power is lost at operation `point`, or to the end.
fn work(disk: &SimDisk, point: u64, seed: u64, steps: usize) -> History {
    let mut history = History::default();
    if point > 0 {
        disk.crash_at(point);
    }
    let worked = history.work(disk, &mut random(seed), steps);
    assert!(worked.is_ok() || disk.is_dead());
    history
}

/// Opens what a crash has left, checks it, goes on, and finds all of it again.
fn check(image: &SimDisk, history: &History, what: &str) {
    let (mut log, visited) = open_whole(image, history.replay_from, what);
    history.check(&visited, what);
    let next = record(history.last + 100, 50);
    log.append(image, std::slice::from_ref(&next)).unwrap();
    // Nothing of what was shown is taken back by losing power now.
    let (_, again) = open_whole(&image.crash_copy(Survival::Nothing, 0), history.replay_from, what);
    assert_eq!(again[..visited.len()], visited, "{what}");
    assert_eq!(again[visited.len()..], *std::slice::from_ref(&next), "{what}");
    log.release(image, next.lsn).unwrap();
    log.append(image, &[record(history.last + 101, 50)]).unwrap();
    let (_, rest) = open_whole(image, next.lsn.0, what);
    assert_eq!(rest.iter().map(|record| record.lsn).collect::<Vec<_>>(), [Lsn(history.last + 101)], "{what}");
}

#[test]
fn a_crash_at_any_point_loses_nothing_synced_and_is_no_damage() {
    let (mut images, mut eventful) = (0, 0);
    let seeds = seeds(12);
    for seed in seeds.clone() {
        let whole = SimDisk::default();
        let history = work(&whole, 0, seed, STEPS);
        eventful += u64::from(history.replay_from > 0 && history.openings_count > 1);
        for point in 1..=whole.operations() {
            let disk = SimDisk::default();
            let history = work(&disk, point, seed, STEPS);
            for survival in Survival::ALL {
                let image = disk.crash(survival, seed * 1_000_003 + point);
                check(&image, &history, &format!("seed {seed}, crash at {point}, {survival:?}"));
                images += 1;
            }
        }
    }
    assert!(images > 5_000, "{images} images");
    assert!(2 * eventful > seeds.end, "{eventful} seeds release segments and open again");
}

#[test]
fn a_second_crash_while_recovering_or_going_on_loses_nothing_either() {
    let mut images = 0;
    for seed in seeds(6) {
        let whole = SimDisk::default();
        work(&whole, 0, seed, STEPS);
        for point in (1..=whole.operations()).step_by(3) {
            let disk = SimDisk::default();
            let history = work(&disk, point, seed, STEPS);
            let first = disk.crash(Survival::SomeSectors, seed + point);
            let unhindered = first.copy();
            history.clone().work(&unhindered, &mut random(point), 6).unwrap();
            for second in 1..=unhindered.operations() {
                let again = first.copy();
                again.crash_at(second);
                let mut history = history.clone();
                let worked = history.work(&again, &mut random(point), 6);
                assert!(worked.is_err() && again.is_dead());
                let survival = Survival::ALL[usize::try_from(second).unwrap() % 4];
                let image = again.crash(survival, seed + second);
                check(&image, &history, &format!("seed {seed}, crashes at {point} and {second}, {survival:?}"));
                images += 1;
            }
        }
    }
    assert!(images > 3_000, "{images} images");
}
