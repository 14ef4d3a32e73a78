//! Lifeguard's experiment, part by part.

use std::time::Duration;

use shoal_gossip::simulation::anomalies::{Anomaly, FalsePositives};
use shoal_gossip::simulation::detection::{kill_one, median};
use shoal_gossip::{GossipConfig, Lifeguard, SuspicionConfig};

use crate::{Options, cluster, table};

pub(crate) fn print(options: &Options) {
    let mut rows = Vec::new();
    let mut first = FalsePositives::default();
    for (name, config) in configs() {
        let mut total = FalsePositives::default();
        let cells: Vec<_> = Anomaly::grid().into_iter().step_by(options.every_cell).collect();
        for (seed, cell) in cells.iter().enumerate() {
            let cell = Anomaly { count: cell.count * options.anomaly_members / 128, ..*cell };
            let mut network = cluster(&config, options.anomaly_members, seed as u64);
            let found = cell.play(&mut network, TIME);
            total.all += found.all;
            total.at_healthy += found.at_healthy;
        }
        if rows.is_empty() {
            first = total;
        }
        let deaths: Vec<_> = (0..20)
            .filter_map(|seed| kill_one(&mut cluster(&config, options.anomaly_members, seed), config.probe_period))
            .collect();
        let percent = |part: usize, whole: usize| format!("{:.2}", part as f64 * 100.0 / whole as f64);
        rows.push(vec![
            name.to_owned(),
            total.all.to_string(),
            percent(total.all, first.all),
            total.at_healthy.to_string(),
            percent(total.at_healthy, first.at_healthy),
            format!("{:.1}", median(&deaths.iter().map(|d| d.down).collect::<Vec<_>>())),
            format!("{:.1}", median(&deaths.iter().map(|d| d.known).collect::<Vec<_>>())),
        ]);
    }
    let head = ["protocol", "false positives", "%", "at healthy members", "%", "death: first down s", "known s"];
    table::print("Members blocked and released: healthy members believed down", &head, &rows);
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
        ("LHA-Probe, alpha 5", with(probe, 5.0, 6.0)),
        ("LHA-Suspicion, alpha 5", with(Lifeguard { suspicion: true, ..Lifeguard::OFF }, 5.0, 6.0)),
        ("Buddy System, alpha 5", with(Lifeguard { buddy: true, ..Lifeguard::OFF }, 5.0, 6.0)),
        ("Lifeguard, alpha 5 beta 6", with(Lifeguard::ON, 5.0, 6.0)),
        ("Lifeguard, alpha 4 beta 6 (ours)", with(Lifeguard::ON, 4.0, 6.0)),
        ("SWIM, alpha 4", with(Lifeguard::OFF, 4.0, 6.0)),
        ("Lifeguard, alpha 2 beta 2", with(Lifeguard::ON, 2.0, 2.0)),
    ]
}

const TIME: Duration = Duration::from_secs(120);
