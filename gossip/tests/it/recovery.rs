//! Faults that end: everybody finds everybody again without help, and then it is quiet.

use std::time::Duration;

use shoal_gossip::GossipConfig;
use shoal_gossip::simulation::recovery::{Fault, Recovery};

use crate::{RECOVERY_BOUND, cluster};

fn play(fault: Fault, seconds: u64, count: usize, seed: u64) -> Recovery {
    let mut network = cluster(&GossipConfig::default(), count, seed);
    let recovery = fault.play(&mut network, Duration::from_secs(seconds), RECOVERY_BOUND);
    let recovery = recovery.unwrap_or_else(|| panic!("{fault:?}, seed {seed}: not all were found again"));
    assert_eq!(recovery.restless, 0, "{fault:?}, seed {seed}: {recovery:?}");
    recovery
}

#[test]
fn halves_that_were_apart_find_each_other() {
    for seed in 0..3 {
        assert_eq!(play(Fault::Partition(8), 60, 16, seed).down_during, 2 * 8 * 8);
    }
}

#[test]
fn halves_that_were_apart_for_ten_minutes_find_each_other() {
    assert_eq!(play(Fault::Partition(5), 600, 10, 1).down_during, 2 * 5 * 5);
}

#[test]
fn one_that_hears_nobody_or_that_nobody_hears_is_found_again() {
    for fault in [Fault::Deaf, Fault::Mute] {
        assert!(play(fault, 60, 16, 1).down_during >= 15);
    }
}

#[test]
fn one_way_that_is_cut_between_two_is_no_reason_to_believe_anybody_down() {
    assert_eq!(play(Fault::OneWay, 60, 16, 1).down_during, 0);
}

#[test]
fn a_flapping_member_settles() {
    for seed in 0..3 {
        play(Fault::Flapping, 60, 16, seed);
    }
}

#[test]
fn at_thirty_percent_loss_nobody_is_believed_down_for_long() {
    for seed in 0..3 {
        let recovery = play(Fault::Loss(0.3), 300, 16, seed);
        assert!(recovery.down_during <= 16, "{recovery:?}");
    }
}

#[test]
fn a_clock_that_stood_still_is_forgiven() {
    for seconds in [1, 3, 10, 30, 60] {
        let recovery = play(Fault::Freeze, seconds, 16, seconds);
        assert_eq!(recovery.down_during > 0, seconds > 9, "{seconds} s: {recovery:?}");
    }
}

/// It found only the member that called it: it was told of the others in the version in which it believed them down, and
/// that version did not count as something new.
#[test]
fn seed_0_of_50_an_isolated_member_finds_all_and_not_only_who_called_it() {
    let recovery = play(Fault::Partition(1), 60, 50, 0);
    assert!(recovery.recovered_after < Duration::from_secs(10), "{recovery:?}");
}
