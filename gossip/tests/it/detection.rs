//! How soon a death is noticed, and news everywhere.

use std::time::Duration;

use shoal_gossip::GossipConfig;
use shoal_gossip::simulation::detection::{Detection, kill_one, mean, median, spread};

use crate::cluster;

const PERIOD: Duration = Duration::from_secs(1);

fn deaths(config: &GossipConfig, count: usize, repeats: u64) -> Vec<Detection> {
    (0..repeats).map(|seed| kill_one(&mut cluster(config, count, seed), PERIOD).expect("all find out")).collect()
}

#[test]
fn the_first_probe_of_a_dead_member_comes_in_the_period_that_swim_expects() {
    let deaths = deaths(&GossipConfig::default(), 16, 150);
    let first: Vec<_> = deaths.iter().map(|death| death.first_probe_periods).collect();
    let (mean, expected) = (mean(&first), 1.0 / (1.0 - (1.0 - 1.0 / 15f64).powi(15)));
    assert!((mean - expected).abs() < 0.2, "{mean} instead of {expected}");
}

#[test]
fn every_member_is_probed_within_two_rounds_whatever_chance_does() {
    // SWIM §4.3: a round robin probes a member at the latest 2n - 1 periods after the last time, so whoever is alone with one
    // other finds out within that and the suspicion.
    for death in deaths(&GossipConfig::default(), 2, 20) {
        assert!(death.first_probe_periods <= 3.0 && death.down <= 3.0 + 1.0 + 4.0, "{death:?}");
    }
}

#[test]
fn lifeguard_notices_a_death_as_soon_as_plain_swim() {
    let plain = GossipConfig::plain_swim();
    let down = |config| median(&deaths(config, 32, 15).iter().map(|death| death.down).collect::<Vec<_>>());
    let (lifeguard, plain) = (down(&GossipConfig::default()), down(&plain));
    assert!(lifeguard <= plain * 1.1, "{lifeguard} against {plain} periods");
}

#[test]
fn news_takes_twice_as_long_to_eight_times_as_many() {
    let time = |count| {
        let mut network = cluster(&GossipConfig::default(), count, 1);
        median(&(0..9).map(|_| spread(&mut network).expect("all learn of it")).collect::<Vec<_>>())
    };
    let (few, many) = (time(8), time(64));
    assert!(many <= 2.5 * few, "{few} s, {many} s");
}
