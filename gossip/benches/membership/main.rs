//! The membership bench: what the protocol costs and how well it judges, in a simulated network.
//!
//! Shape: one module per question, each of which prints a table. Virtual time: the figures are the same on every machine, and
//! only the seeds change them. `foca` stands beside in the same network.
//!
//!     cargo bench -p shoal-gossip --bench membership                 a few minutes
//!     cargo bench -p shoal-gossip --bench membership -- --quick      seconds, to see that it runs

mod anomaly_tables;
mod cost_tables;
mod detection_tables;
mod foca_member;
mod foca_table;
mod recovery_table;
mod table;

use std::time::Duration;

use clap::{Parser, ValueEnum};
use shoal_gossip::simulation::{self, Network};
use shoal_gossip::{Gossip, GossipConfig};
use shoal_protocol::time::Instant;

/// Measures membership.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Sizes of clusters.
    #[arg(long, value_delimiter = ',', default_values_t = [5, 16, 50, 128, 256])]
    members: Vec<usize>,
    /// Repetitions of what is averaged.
    #[arg(long, default_value_t = 200)]
    repeats: u64,
    /// Members in the experiment with blocked members.
    #[arg(long, default_value_t = 128)]
    anomaly_members: usize,
    /// Only each so many-th cell of the 48 in that experiment; 1 takes half an hour.
    #[arg(long, default_value_t = 7)]
    every_cell: usize,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Small and few: the figures mean little.
    #[arg(long)]
    quick: bool,
    /// Added by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Messages and bytes.
    Cost,
    /// Time until a death is noticed, and until news is everywhere.
    Detection,
    /// Lifeguard's experiment.
    Anomalies,
    /// Faults that end.
    Recovery,
    /// The same questions to another implementation.
    Foca,
}

fn main() {
    let mut options = Options::parse();
    if options.quick {
        options.members.retain(|count| *count <= 50);
        (options.repeats, options.every_cell, options.anomaly_members) = (10, 23, 48);
    }
    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    if wants(Part::Cost) {
        cost_tables::print(&options);
    }
    if wants(Part::Detection) {
        detection_tables::print(&options);
    }
    if wants(Part::Anomalies) {
        anomaly_tables::print(&options);
    }
    if wants(Part::Recovery) {
        recovery_table::print(&options);
    }
    if wants(Part::Foca) {
        foca_table::print(&options);
    }
}

/// A calm cluster of ours.
fn cluster(config: &GossipConfig, count: usize, seed: u64) -> Network<Gossip> {
    Network::joined(seed, count, |node| simulation::gossip(config, node, 0, Instant(0), seed))
}

fn seconds(time: f64) -> Duration {
    Duration::from_secs_f64(time)
}
