//! Lifeguard's experiment, part by part.

use std::time::Duration;

use shoal_gossip::simulation::anomalies::{Anomaly, FalsePositives, Stop};
use shoal_gossip::simulation::detection::{Detection, kill_one, median};
use shoal_gossip::simulation::{Network, Protocol};
use shoal_gossip::{GossipConfig, Lifeguard, SuspicionConfig};

use crate::{Options, cluster, table};

pub(crate) fn print(options: &Options) {
    let mut rows = Vec::new();
    let mut plain = [FalsePositives::default(); 2];
    for (name, config) in configs() {
        let count = options.anomaly_members;
        let found =
            [Stop::Network, Stop::Process].map(|stop| sum(options, stop, |count, seed| cluster(&config, count, seed)));
        if rows.is_empty() {
            plain = found;
        }
        let deaths: Vec<_> =
            (0..20).filter_map(|seed| kill_one(&mut cluster(&config, count, seed), config.probe_period)).collect();
        let middle =
            |part: fn(&Detection) -> f64| format!("{:.1}", median(&deaths.iter().map(part).collect::<Vec<_>>()));
        let mut row = vec![name.to_owned()];
        for (found, plain) in found.into_iter().zip(plain) {
            row.push(share(found.all, plain.all));
            row.push(share(found.at_healthy, plain.at_healthy));
        }
        row.extend([middle(|death| death.down), middle(|death| death.known)]);
        rows.push(row);
    }
    let head = [
        "protocol",
        "network stops: false positives",
        "at healthy members",
        "process stops: false positives",
        "at healthy members",
        "death: first down s",
        "known s",
    ];
    let cells = Anomaly::grid(Stop::Network).len().div_ceil(options.every_cell);
    let count = options.anomaly_members;
    let title = format!("Healthy members believed down while others stop and go on, {cells} cells, {count} members");
    table::print(&title, &head, &rows);
}

/// The wrong verdicts in all cells of the grid that were asked for.
pub(crate) fn sum<P: Protocol>(
    options: &Options,
    stop: Stop,
    make: impl Fn(usize, u64) -> Network<P>,
) -> FalsePositives {
    let mut total = FalsePositives::default();
    for (seed, cell) in Anomaly::grid(stop).into_iter().step_by(options.every_cell).enumerate() {
        let count = (cell.count * options.anomaly_members).div_ceil(128);
        let found = Anomaly { count, ..cell }.play(&mut make(options.anomaly_members, seed as u64), TIME);
        total.all += found.all;
        total.at_healthy += found.at_healthy;
    }
    total
}

fn share(part: usize, whole: usize) -> String {
    if whole == 0 { part.to_string() } else { format!("{part} ({:.2} %)", part as f64 * 100.0 / whole as f64) }
}

fn configs() -> Vec<(&'static str, GossipConfig)> {
    let with = |lifeguard, alpha, beta| GossipConfig {
        lifeguard,
        suspicion: SuspicionConfig { alpha, beta, confirmations: 3 },
        ..GossipConfig::default()
    };
    let probe = Lifeguard { health: true, nack: true, ..Lifeguard::OFF };
    vec![
        ("SWIM, alpha 5", with(Lifeguard::OFF, 5.0, 6.0)),
        ("SWIM, alpha 4", with(Lifeguard::OFF, 4.0, 6.0)),
        ("LHA-Probe, alpha 5", with(probe, 5.0, 6.0)),
        ("LHA-Suspicion, alpha 5", with(Lifeguard { suspicion: true, ..Lifeguard::OFF }, 5.0, 6.0)),
        ("Buddy System, alpha 5", with(Lifeguard { buddy: true, ..Lifeguard::OFF }, 5.0, 6.0)),
        ("Lifeguard, alpha 5, beta 6", with(Lifeguard::ON, 5.0, 6.0)),
        ("**Lifeguard, alpha 4, beta 6**", GossipConfig::default()),
        ("Lifeguard, alpha 2, beta 2", with(Lifeguard::ON, 2.0, 2.0)),
    ]
}

const TIME: Duration = Duration::from_secs(120);
