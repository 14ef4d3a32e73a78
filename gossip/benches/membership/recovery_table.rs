//! Faults that end.

use std::time::Duration;

use shoal_gossip::GossipConfig;
use shoal_gossip::simulation::recovery::Fault;

use crate::{Options, cluster, table};

pub(crate) fn print(options: &Options) {
    let count = 50.min(options.members.iter().copied().max().unwrap_or(50));
    let mut rows = Vec::new();
    for (name, fault, time) in faults(count) {
        let config = GossipConfig::default();
        let repeats = options.repeats.div_ceil(20);
        let found: Vec<_> =
            (0..repeats).map(|seed| fault.play(&mut cluster(&config, count, seed), time, BOUND)).collect();
        let recovered: Vec<_> = found.iter().flatten().collect();
        let longest = recovered.iter().map(|r| r.recovered_after).max().unwrap_or_default();
        rows.push(vec![
            name,
            format!("{} of {repeats}", recovered.len()),
            format!("{:.1}", recovered.iter().map(|r| r.down_during).sum::<usize>() as f64 / recovered.len() as f64),
            format!("{:.1}", longest.as_secs_f64()),
            recovered.iter().map(|r| r.restless).sum::<usize>().to_string(),
        ]);
    }
    let head = ["fault", "recovered", "believed down meanwhile", "longest until all alive s", "changes in 2 min after"];
    table::print(&format!("Faults that end, {count} members, no hints from connections"), &head, &rows);
}

fn faults(count: usize) -> Vec<(String, Fault, Duration)> {
    let minute = Duration::from_secs(60);
    let mut faults = vec![
        ("halves apart for 60 s".to_owned(), Fault::Partition(count / 2), minute),
        ("halves apart for 10 min".to_owned(), Fault::Partition(count / 2), minute * 10),
        ("one apart for 60 s".to_owned(), Fault::Partition(1), minute),
        ("one hears nobody for 60 s".to_owned(), Fault::Deaf, minute),
        ("nobody hears one for 60 s".to_owned(), Fault::Mute, minute),
        ("one way between two cut for 60 s".to_owned(), Fault::OneWay, minute),
        ("one flaps, 3 s of 6 s, for 60 s".to_owned(), Fault::Flapping, minute),
        ("30 % loss for 10 min".to_owned(), Fault::Loss(0.3), minute * 10),
    ];
    faults.extend(
        [1, 3, 10, 30, 60].map(|s| (format!("one stands still for {s} s"), Fault::Freeze, Duration::from_secs(s))),
    );
    faults
}

const BOUND: Duration = Duration::from_secs(300);
