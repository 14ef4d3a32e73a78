//! A simulated network of members, in virtual time and from one seed.
//!
//! Shape: `Network` carries what the members of a `Protocol` send, with latency, loss, cuts and members that are blocked,
//! frozen or dead, and keeps a history of what each believed when. `load`, `detection`, `anomalies` and `recovery` are the
//! experiments that the benchmark prints and the tests judge. Another protocol can be put into the same network.
//! Invariants: one seed gives one history; members share nothing but packets.

pub mod anomalies;
pub mod detection;
pub mod load;
mod network;
pub mod recovery;

use bytes::Bytes;
use shoal_protocol::id::{Actor, LayoutId, NodeId};
use shoal_protocol::time::Instant;

use crate::config::GossipConfig;
use crate::gossip::Gossip;
use crate::input::Input;
use crate::member::{Liveness, Member, StoreLease};
use crate::output::Output;

pub use network::{Network, Seen, Traffic};

/// One member's part of a membership protocol.
pub trait Protocol {
    /// Another member was met: this one joins through it.
    fn meet(&mut self, now: Instant, other: NodeId, out: &mut Vec<Effect>);
    /// Something came from `from`.
    fn receive(&mut self, now: Instant, from: NodeId, bytes: Bytes, out: &mut Vec<Effect>);
    /// The time of `next_deadline` has come.
    fn tick(&mut self, now: Instant, out: &mut Vec<Effect>);
    /// When to call `tick`.
    fn next_deadline(&self) -> Option<Instant>;
    /// What is believed of another; one never heard of is down.
    fn believes(&self, other: NodeId) -> Liveness;
}

/// What a member does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sends bytes.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        bytes: Bytes,
        /// On a stream: what is lost is sent again.
        is_stream: bool,
        /// It is a probe of the receiver, or a request to probe it.
        is_probe: bool,
    },
    /// Believes something new of another.
    Believe(NodeId, Liveness),
}

impl Protocol for Gossip {
    fn meet(&mut self, now: Instant, other: NodeId, out: &mut Vec<Effect>) {
        feed(self, now, Input::Met(member(other, 0)), out);
    }

    fn receive(&mut self, now: Instant, from: NodeId, bytes: Bytes, out: &mut Vec<Effect>) {
        feed(self, now, Input::Packet { from, bytes }, out);
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        feed(self, now, Input::Tick, out);
    }

    fn next_deadline(&self) -> Option<Instant> {
        Self::next_deadline(self)
    }

    fn believes(&self, other: NodeId) -> Liveness {
        self.liveness(other)
    }
}

/// Hands one input to a list and takes what it does.
pub fn feed(gossip: &mut Gossip, now: Instant, input: Input, out: &mut Vec<Effect>) {
    let mut outputs = Vec::new();
    gossip.handle(now, input, &mut outputs);
    for output in outputs {
        out.extend(match output {
            Output::Packet { to, bytes } => {
                Some(Effect::Send { to, is_probe: bytes[KIND_AT] == KIND_PING, bytes, is_stream: false })
            }
            Output::Message { to, bytes } => Some(Effect::Send { to, bytes, is_stream: true, is_probe: false }),
            Output::Up(node) => Some(Effect::Believe(node, Liveness::Alive)),
            Output::Suspect(node) => Some(Effect::Believe(node, Liveness::Suspect)),
            Output::Down(node) => Some(Effect::Believe(node, Liveness::Down)),
            Output::Left(node) => Some(Effect::Believe(node, Liveness::Left)),
            Output::Changed(_) | Output::Forgotten(_) | Output::Cloned { .. } | Output::LeaveSpread => None,
        });
    }
}

/// A list for the simulation.
#[must_use]
pub fn gossip(config: &GossipConfig, node: NodeId, boot_nonce: u64, now: Instant, seed: u64) -> Gossip {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..16].copy_from_slice(&node.0.to_be_bytes());
    bytes[16..24].copy_from_slice(&boot_nonce.to_be_bytes());
    Gossip::new(config.clone(), member(node, boot_nonce), bytes, now)
}

/// A member as they are in practice: two addresses, four stores, one layout; its description takes 190 bytes.
#[must_use]
pub fn member(node: NodeId, boot_nonce: u64) -> Member {
    let address = |port: u16| format!("node-{}.shoal.internal:{port}", node.0);
    Member {
        node,
        name: format!("node-{}", node.0),
        zone: format!("zone-{}", node.0 % 3),
        weight: 100,
        advertise_peer: vec![address(7400)],
        advertise_client: vec![address(7401)],
        version: "0.1.0".into(),
        stores: (0..4).map(|store| StoreLease { incarnation: Actor(node.0 << 8 | store), lease_end: 65_536 }).collect(),
        boot_nonce,
        layouts: vec![LayoutId(7)],
    }
}

/// Where a message of ours says its kind, and what a ping says there.
const KIND_AT: usize = 1;
const KIND_PING: u8 = 1;
