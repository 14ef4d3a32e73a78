//! Lifeguard's experiment on a small grid; the benchmark plays the whole one.

use std::time::Duration;

use shoal_gossip::GossipConfig;
use shoal_gossip::simulation::anomalies::{Anomaly, FalsePositives, Stop};

use crate::cluster;

fn play(config: &GossipConfig, stop: Stop) -> FalsePositives {
    let mut total = FalsePositives::default();
    for (seed, (stopped, released)) in [(8192, 64), (16_384, 1024), (32_768, 4096)].into_iter().enumerate() {
        let cell = Anomaly::of(stop, 8, stopped, released);
        let found = cell.play(&mut cluster(config, 40, seed as u64), Duration::from_secs(90));
        total.all += found.all;
        total.at_healthy += found.at_healthy;
    }
    total
}

#[test]
fn blocked_members_make_lifeguard_err_fifty_times_less_often_than_swim() {
    let plain = play(&GossipConfig::plain_swim(), Stop::Network);
    let lifeguard = play(&GossipConfig::default(), Stop::Network);
    assert!(plain.at_healthy > 500, "{plain:?}");
    assert!(lifeguard.at_healthy * 50 <= plain.at_healthy, "{lifeguard:?} against {plain:?}");
    assert!(lifeguard.all * 50 <= plain.all, "{lifeguard:?} against {plain:?}");
}

#[test]
fn processes_that_stop_and_go_on_accuse_nobody() {
    let found = play(&GossipConfig::default(), Stop::Process);
    assert_eq!(found, FalsePositives::default());
}
