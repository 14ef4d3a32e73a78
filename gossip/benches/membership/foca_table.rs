//! `foca` and this crate in the same network.

use std::time::Duration;

use shoal_gossip::GossipConfig;
use shoal_gossip::simulation::anomalies::{Anomaly, FalsePositives, Stop};
use shoal_gossip::simulation::detection::{Detection, kill_one, median};
use shoal_gossip::simulation::load::measure;
use shoal_gossip::simulation::{Network, Protocol};

use crate::anomaly_tables::sum;
use crate::foca_member::FocaMember;
use crate::{Options, cluster, table};

pub(crate) fn print(options: &Options) {
    let plain = GossipConfig::plain_swim();
    let foca = |count: usize, seed| Network::joined(seed, count, |node| FocaMember::new(node, count, seed));
    let rows = vec![
        row("foca 2.0, LAN settings", options, foca),
        row("ours, plain SWIM", options, |count, seed| cluster(&plain, count, seed)),
        row("ours", options, |count, seed| cluster(&GossipConfig::default(), count, seed)),
    ];
    let head = [
        "implementation",
        "bytes/s at 5",
        "at 50",
        "on the wire at 50",
        "death: first down s, median",
        "known to all s, median",
        "false positives, network stops",
        "at healthy",
        "process stops",
        "at healthy",
    ];
    let cells = Anomaly::grid(Stop::Network).len().div_ceil(options.every_cell);
    let count = options.anomaly_members;
    table::print(&format!("Beside foca; deaths and {cells} cells of blocked members among {count}"), &head, &rows);
}

fn row<P: Protocol>(name: &str, options: &Options, make: impl Fn(usize, u64) -> Network<P>) -> Vec<String> {
    let quiet = |count| measure(&mut make(count, 1), Duration::from_secs(120));
    let (five, fifty) = (quiet(5), quiet(50));
    let deaths: Vec<_> =
        (0..20).filter_map(|seed| kill_one(&mut make(options.anomaly_members, seed), Duration::from_secs(1))).collect();
    let middle = |part: fn(&Detection) -> f64| format!("{:.1}", median(&deaths.iter().map(part).collect::<Vec<_>>()));
    let mut row = vec![
        name.to_owned(),
        format!("{:.0}", five.bytes),
        format!("{:.0}", fifty.bytes),
        format!("{:.0}", fifty.wire_bytes()),
        middle(|death| death.down),
        middle(|death| death.known),
    ];
    for stop in [Stop::Network, Stop::Process] {
        let FalsePositives { all, at_healthy } = sum(options, stop, &make);
        row.extend([all.to_string(), at_healthy.to_string()]);
    }
    row
}
