//! Whatever happens in whatever order: once it ends, all agree and stay so.
//!
//! A minute of faults drawn from the seed: members are cut off one way or both, blocked, frozen, killed (some with a goodbye), restarted
//! under a new boot nonce, lose packets, describe themselves anew. Then everything works, and what was killed stays so.

use std::time::Duration;

use shoal_gossip::simulation::{self, Network, feed, member};
use shoal_gossip::{Gossip, GossipConfig, Input, Member};
use shoal_protocol::id::NodeId;

use crate::{RECOVERY_BOUND, cluster};

const COUNT: usize = 9;

struct Chaos {
    network: Network<Gossip>,
    /// Which member each new life is of; the first is life 1.
    lives: Vec<usize>,
}

impl Chaos {
    fn step(&mut self) {
        let (one, other) = (self.network.chance(COUNT), self.network.chance(COUNT));
        match self.network.chance(11) {
            0 => self.network.cut(one, other),
            1 => self.network.partition(|index| index == one),
            2 => self.network.partition(|index| index < one),
            3 | 4 => self.network.mend(),
            5 => self.network.set_loss([0.0, 0.1, 0.5][one % 3]),
            6 if self.network.lives(one) => self.network.block(one),
            7 if self.network.lives(one) => self.network.freeze(one),
            8 if self.network.lives(one) => self.network.release(one),
            9 if one > 0 && self.network.lives(one) => {
                if other % 2 == 0 {
                    self.network.act(one, |list, now, out| feed(list, now, Input::Leave, out));
                }
                self.network.kill(one);
            }
            9 => {}
            10 if !self.network.lives(one) => self.restart(one),
            6..=8 | 10.. => self.describe(one),
        }
        let pause = self.network.chance(4000) as u64;
        self.network.run_for(Duration::from_millis(pause));
    }

    fn restart(&mut self, index: usize) {
        self.lives.push(index);
        let (node, boot_nonce, now) = (NodeId(index as u64), self.lives.len() as u64, self.network.now());
        let list = simulation::gossip(&GossipConfig::default(), node, boot_nonce, now, boot_nonce);
        self.network.restart(index, list);
        // What follows from meeting the seed may be lost, if it is cut off.
        self.network.act(index, |list, now, out| feed(list, now, Input::Met(member(NodeId(0), 0)), out));
        self.network.act(0, |list, now, out| feed(list, now, Input::Met(member(node, boot_nonce)), out));
    }

    fn describe(&mut self, index: usize) {
        if self.network.lives(index) {
            self.network.act(index, |list, now, out| {
                let described = Member { weight: list.own().weight + 1, ..list.own().clone() };
                feed(list, now, Input::Describe(described), out);
            });
        }
    }

    /// All agree on who lives, and know what each says of itself.
    fn agrees(network: &Network<Gossip>) -> bool {
        let living = || (0..COUNT).filter(|index| network.lives(*index)).map(|index| network.protocol(index));
        let knows = |list: &Gossip, other: &Gossip| {
            list.own() == other.own() || list.member(other.own().node).is_some_and(|known| known == other.own())
        };
        network.agrees() && living().all(|list| living().all(|other| knows(list, other)))
    }
}

fn play(seed: u64) {
    let mut chaos = Chaos { network: cluster(&GossipConfig::default(), COUNT, seed), lives: Vec::new() };
    let end = chaos.network.now() + Duration::from_secs(60);
    while chaos.network.now() < end {
        chaos.step();
    }
    let Chaos { mut network, lives } = chaos;
    network.mend();
    network.set_loss(0.0);
    for index in (0..COUNT).filter(|&index| network.lives(index)).collect::<Vec<_>>() {
        network.release(index);
        // Who was restarted while it was cut off meets its seed now, as its host would see to; the others get no help.
        if lives.contains(&index) {
            let (own, seed) = (network.protocol(index).own().clone(), network.protocol(0).own().clone());
            network.act(index, |list, now, out| feed(list, now, Input::Met(seed), out));
            network.act(0, |list, now, out| feed(list, now, Input::Met(own), out));
        }
    }
    let healed = network.now();
    assert!(network.run_while(healed + RECOVERY_BOUND, |network| !Chaos::agrees(network)), "seed {seed}: no agreement");
    network.run_for(Duration::from_secs(30));
    network.take_history();
    network.run_for(Duration::from_secs(60));
    assert_eq!(network.take_history(), [], "seed {seed}: no rest");
    assert!(Chaos::agrees(&network), "seed {seed}: fell apart again");
}

#[test]
fn after_any_faults_all_agree_and_rest() {
    (0..200).for_each(play);
}
