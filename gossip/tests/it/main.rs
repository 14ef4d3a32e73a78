//! The protocol judged from outside: whole clusters in the simulated network, every one from a seed.
//!
//! Counts and virtual time only. What is averaged here over few seeds, the benchmark `membership` averages over many.

mod anomalies;
mod chaos;
mod cost;
mod detection;
mod recovery;

use std::time::Duration;

use shoal_gossip::simulation::{self, Network};
use shoal_gossip::{Gossip, GossipConfig};
use shoal_protocol::time::Instant;

/// A calm cluster.
fn cluster(config: &GossipConfig, count: usize, seed: u64) -> Network<Gossip> {
    Network::joined(seed, count, |node| simulation::gossip(config, node, 0, Instant(0), seed))
}

/// Until everybody has found everybody again after whatever it was: the longest wait for a down member to be tried, and as
/// much again for comparisons of lists to find what rumours missed.
const RECOVERY_BOUND: Duration = Duration::from_secs(90);
