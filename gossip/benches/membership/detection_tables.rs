//! How soon a death is noticed, and how soon news is everywhere.

use shoal_gossip::GossipConfig;
use shoal_gossip::simulation::detection::{kill_one, mean, median, spread};

use crate::{Options, cluster, table};

pub(crate) fn print(options: &Options) {
    let config = GossipConfig::default();
    let mut rows = Vec::new();
    for &count in &options.members {
        let repeats = repeats(options, count);
        let deaths: Vec<_> =
            (0..repeats).filter_map(|seed| kill_one(&mut cluster(&config, count, seed), config.probe_period)).collect();
        let column = |part: fn(&shoal_gossip::simulation::detection::Detection) -> f64| {
            deaths.iter().map(part).collect::<Vec<_>>()
        };
        let expected = 1.0 / (1.0 - (1.0 - 1.0 / (count as f64 - 1.0)).powi(count as i32 - 1));
        rows.push(vec![
            count.to_string(),
            format!("{} of {repeats}", deaths.len()),
            format!("{:.2}", mean(&column(|d| d.first_probe_periods))),
            format!("{expected:.2}"),
            format!("{:.2}", mean(&column(|d| d.suspected.unwrap_or(f64::NAN)))),
            format!("{:.1}", median(&column(|d| d.down))),
            format!("{:.1}", median(&column(|d| d.known))),
        ]);
    }
    let head = [
        "members",
        "deaths",
        "first probe, whole periods",
        "SWIM expects",
        "suspected",
        "down, median",
        "known, median",
    ];
    table::print("From a death on, in periods of 1 s", &head, &rows);

    let mut rows = Vec::new();
    for &count in &options.members {
        let repeats = repeats(options, count).div_ceil(10);
        let mut row = vec![count.to_string()];
        for ticks in [GossipConfig::default().ticks, None] {
            let config = GossipConfig { ticks, ..GossipConfig::default() };
            let mut times = Vec::new();
            for seed in 0..repeats {
                let mut network = cluster(&config, count, seed);
                times.extend((0..10).filter_map(|_| spread(&mut network)));
            }
            let worst = times.iter().copied().fold(0.0, f64::max);
            row.extend([
                format!("{:.2}", median(&times)),
                format!("{:.2}", median(&times) / (count as f64).ln()),
                format!("{worst:.2}"),
            ]);
        }
        rows.push(row);
    }
    let head = ["members", "median s", "by ln n", "longest s", "without ticks: median s", "by ln n", "longest s"];
    table::print("Until a new description is known to all", &head, &rows);
}

/// Large clusters are averaged over fewer.
fn repeats(options: &Options, count: usize) -> u64 {
    if count > 100 { options.repeats.div_ceil(4) } else { options.repeats }
}
