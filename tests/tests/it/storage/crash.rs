//! Power loss at every write point, once and twice.

use shoal_tests::sim::disk::{SimDisk, Survival};

use super::rig::{Rig, check, workload};

const TURNS: usize = 20;

#[test]
fn a_crash_at_any_point_loses_nothing_synced() {
    let (mut images, wanted) = (0, images_wanted(5_000));
    for seed in 0.. {
        if images >= wanted {
            break;
        }
        let whole = SimDisk::default();
        let history = workload(&whole, seed, TURNS);
        // Some draw little work; they do not count.
        if history.synced_count <= 40 || history.blobs_persisted == 0 {
            continue;
        }
        for point in 1..=whole.operations() {
            for survival in Survival::ALL {
                let disk = SimDisk::default();
                disk.crash_at(point);
                let history = workload(&disk, seed, TURNS);
                let image = disk.crash(survival, seed * 1_000_003 + point);
                check(&image, &history, &format!("seed {seed}, crash at {point}, {survival:?}"));
                images += 1;
            }
        }
    }
}

#[test]
fn a_second_crash_during_recovery_loses_nothing_either() {
    let (mut images, wanted) = (0, images_wanted(2_500));
    for seed in 0.. {
        if images >= wanted {
            break;
        }
        let whole = SimDisk::default();
        workload(&whole, seed, TURNS);
        for point in (1..=whole.operations()).step_by(11) {
            let disk = SimDisk::default();
            disk.crash_at(point);
            let history = workload(&disk, seed, TURNS);
            let first = disk.crash(Survival::SomeSectors, seed + point);
            // Recovery here is: open, replay, flush what was replayed.
            let recover = |disk: &SimDisk| {
                if let Ok(mut rig) = Rig::open(disk) {
                    rig.store.flush(&mut rig.out);
                    rig.settle();
                }
            };
            let unhindered = first.copy();
            recover(&unhindered);
            for second_point in 1..=unhindered.operations() {
                let again = first.copy();
                again.crash_at(second_point);
                recover(&again);
                let survival = Survival::ALL[usize::try_from(second_point).unwrap() % 4];
                let image = again.crash(survival, seed + second_point);
                check(&image, &history, &format!("seed {seed}, crashes at {point} and {second_point}, {survival:?}"));
                images += 1;
            }
        }
    }
}

/// So many in every run; a long one asks for more with `SHOAL_CRASH_IMAGES`.
fn images_wanted(count: u64) -> u64 {
    let wanted = std::env::var("SHOAL_CRASH_IMAGES").ok();
    wanted.map_or(count, |wanted| wanted.parse().expect("SHOAL_CRASH_IMAGES is a number"))
}
