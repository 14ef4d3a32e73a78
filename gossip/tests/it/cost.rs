//! What membership costs, by the number of members.

use std::time::Duration;

use shoal_gossip::GossipConfig;
use shoal_gossip::simulation::load::{Load, measure};

use crate::cluster;

fn load(count: usize) -> Load {
    measure(&mut cluster(&GossipConfig::default(), count, 1), Duration::from_secs(60))
}

#[test]
fn a_member_sends_as_much_among_fifty_as_among_five() {
    let (five, fifty) = (load(5), load(50));
    assert!(five.bytes > 20.0, "{five:?}");
    assert!(fifty.bytes <= 1.3 * five.bytes && fifty.messages <= 1.3 * five.messages, "{five:?} {fifty:?}");
    assert!(fifty.wire_bytes() <= 4096.0, "{fifty:?}");
}

#[test]
fn a_quiet_member_sends_a_ping_an_ack_and_little_more_per_period() {
    let load = load(16);
    assert!((2.0..2.2).contains(&load.messages), "{load:?}");
}
