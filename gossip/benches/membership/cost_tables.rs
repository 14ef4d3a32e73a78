//! What membership costs per member and second.

use std::time::Duration;

use shoal_gossip::simulation::load::{Load, measure};
use shoal_gossip::simulation::{Network, feed};
use shoal_gossip::{Gossip, GossipConfig, Input, Member};
use shoal_protocol::id::NodeId;

use crate::{Options, cluster, seconds, table};

pub(crate) fn print(options: &Options) {
    let config = GossipConfig::default();
    let time = seconds(120.0);
    let rows = options.members.iter().map(|&count| {
        let mut network = cluster(&config, count, 1);
        network.run_for(REST);
        let quiet = measure(&mut network, time);
        let busy = describing(&mut cluster(&config, count, 2), time);
        let mut row = vec![count.to_string()];
        row.extend(cells(quiet));
        row.extend(cells(busy));
        row
    });
    let head =
        ["members", "messages/s", "bytes/s", "on the wire", "messages/s, busy", "bytes/s, busy", "on the wire, busy"];
    let title = "Sent per member and second; busy: every member describes itself anew once a minute";
    table::print(title, &head, &rows.collect::<Vec<_>>());
}

fn cells(load: Load) -> [String; 3] {
    [format!("{:.2}", load.messages), format!("{:.0}", load.bytes), format!("{:.0}", load.wire_bytes())]
}

/// Every member says something new once a minute, one after the other.
fn describing(network: &mut Network<Gossip>, time: Duration) -> Load {
    let count = network.count();
    let pause = Duration::from_secs(60) / count as u32;
    network.take_traffic();
    let mut total = Load { messages: 0.0, bytes: 0.0 };
    let turns = (time.as_secs_f64() / pause.as_secs_f64()) as usize;
    for turn in 0..turns {
        network.act(turn % count, |gossip, now, out| {
            let member = Member { weight: turn as u32, ..gossip.own().clone() };
            debug_assert_eq!(member.node, NodeId((turn % count) as u64));
            feed(gossip, now, Input::Describe(member), out);
        });
        let part = measure(network, pause);
        total.messages += part.messages / turns as f64;
        total.bytes += part.bytes / turns as f64;
    }
    total
}

/// After this the news of how the cluster came together has been told often enough, in the largest cluster too.
const REST: Duration = Duration::from_secs(120);
