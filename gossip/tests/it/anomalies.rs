//! Lifeguard's experiment on a small grid; the benchmark plays the whole one.

use std::time::Duration;

use shoal_gossip::simulation::anomalies::{Anomaly, FalsePositives, Stop};
use shoal_gossip::{GossipConfig, Lifeguard};

use crate::cluster;

fn play(lifeguard: Lifeguard, stop: Stop) -> FalsePositives {
    let config = GossipConfig { lifeguard, ..GossipConfig::default() };
    let mut total = FalsePositives::default();
    for (seed, (stopped, released)) in [(8192, 64), (16_384, 1024), (32_768, 4096)].into_iter().enumerate() {
        let found = Anomaly::of(stop, 8, stopped, released)
            .play(&mut cluster(&config, 40, seed as u64), Duration::from_secs(90));
        total.all += found.all;
        total.at_healthy += found.at_healthy;
    }
    total
}

#[test]
fn blocked_members_make_lifeguard_err_fifty_times_less_often_than_swim() {
    let (plain, lifeguard) = (play(Lifeguard::OFF, Stop::Network), play(Lifeguard::ON, Stop::Network));
    assert!(plain.at_healthy > 500, "{plain:?}");
    assert!(lifeguard.at_healthy * 50 <= plain.at_healthy, "{lifeguard:?} against {plain:?}");
    assert!(lifeguard.all * 50 <= plain.all, "{lifeguard:?} against {plain:?}");
}
