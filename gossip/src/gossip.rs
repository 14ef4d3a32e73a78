//! The member list, fed by connections alone for now: a member is alive from meeting it until a connection to it is lost.
//!
//! Invariant: outputs tell every change of liveness or description exactly once, in order; repeating an input tells nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use crate::config::GossipConfig;
use shoal_protocol::member::{Liveness, Member};

/// What the host tells the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The time of `next_deadline` has come.
    Tick,
    /// A datagram came from this member.
    Packet {
        /// Who sent it, by its certificate.
        from: NodeId,
        /// All of it.
        bytes: Bytes,
    },
    /// A message came from this member on a stream of its own.
    Message {
        /// Who sent it, by its certificate.
        from: NodeId,
        /// All of it.
        bytes: Bytes,
    },
    /// This member was met on an authenticated connection and said this of itself: so one joins, through any seed.
    Met(Member),
    /// A connection to this member was lost: a hint to probe it at once, nothing more.
    Lost(NodeId),
    /// Datagrams to this member may be so long from now on; 1,100 bytes until told.
    PacketSize {
        /// To whom.
        to: NodeId,
        /// So long at most.
        bytes: usize,
    },
    /// What this node says of itself changed: lease ends, layouts, addresses. Its id never does.
    Describe(Member),
    /// Leave gracefully; `LeaveSpread` when enough members were told.
    Leave,
    /// The member was removed from every layout: forget it, when it is not alive.
    Forget(NodeId),
}

/// What the member list tells the host and the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram; it may be lost, and is never waited for.
    Packet {
        /// To whom.
        to: NodeId,
        /// All of it.
        bytes: Bytes,
    },
    /// Send this on a stream of its own; it may be lost too, and is never waited for.
    Message {
        /// To whom.
        to: NodeId,
        /// All of it.
        bytes: Bytes,
    },
    /// A new member, or it says something new of itself (read it with `member`). Before `Up`.
    Changed(NodeId),
    /// The member became alive.
    Up(NodeId),
    /// The member is suspected to be down, and may refute that.
    Suspect(NodeId),
    /// The member became down.
    Down(NodeId),
    /// The member left.
    Left(NodeId),
    /// The member is in the list no more.
    Forgotten(NodeId),
    /// Another living process speaks as this node: its id under another boot nonce, as from a cloned data directory.
    Cloned {
        /// The other process's nonce. Each is told once.
        boot_nonce: u64,
    },
    /// Enough members were told that this node leaves.
    LeaveSpread,
}

/// The member list of one node.
#[derive(Debug)]
pub struct Gossip {
    own: Member,
    members: BTreeMap<NodeId, (Member, Liveness)>,
}

impl Gossip {
    /// A list without other members. Nothing is sent before the first `handle`.
    #[must_use]
    pub fn new(_config: GossipConfig, own: Member, _seed: [u8; 32], _now: Instant) -> Self {
        Self { own, members: BTreeMap::new() }
    }

    /// Takes one input; appends what is to be sent and what changed to `out`.
    pub fn handle(&mut self, _now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Met(member) => self.met(member, out),
            Input::Lost(node) => {
                if let Some((_, liveness)) = self.members.get_mut(&node)
                    && *liveness != Liveness::Down
                {
                    *liveness = Liveness::Down;
                    out.push(Output::Down(node));
                }
            }
            Input::Describe(own) => self.own = own,
            Input::Leave => out.push(Output::LeaveSpread),
            Input::Forget(node) => {
                if self.liveness(node) != Liveness::Alive && self.members.remove(&node).is_some() {
                    out.push(Output::Forgotten(node));
                }
            }
            Input::Tick | Input::Packet { .. } | Input::Message { .. } | Input::PacketSize { .. } => {}
        }
    }

    /// When to call `handle` at the latest; `None`: only on news.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// What this node says of itself.
    #[must_use]
    pub const fn own(&self) -> &Member {
        &self.own
    }

    /// The others, in id order; those that left included.
    pub fn members(&self) -> impl Iterator<Item = (&Member, Liveness)> {
        self.members.values().map(|(member, liveness)| (member, *liveness))
    }

    /// What is known of one member.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node).map(|(member, _)| member)
    }

    /// What is believed of one member; one never seen is `Down`.
    #[must_use]
    pub fn liveness(&self, node: NodeId) -> Liveness {
        self.members.get(&node).map_or(Liveness::Down, |&(_, liveness)| liveness)
    }

    /// Lifeguard's local health multiplier: 0 when this node has no reason to doubt its own health.
    #[must_use]
    pub const fn health(&self) -> u32 {
        0
    }

    fn met(&mut self, member: Member, out: &mut Vec<Output>) {
        let node = member.node;
        let known = self.members.get(&node);
        let is_changed = known.is_none_or(|(old, _)| *old != member);
        let is_up = known.is_none_or(|(_, liveness)| *liveness != Liveness::Alive);
        if is_changed {
            out.push(Output::Changed(node));
        }
        if is_up {
            out.push(Output::Up(node));
        }
        self.members.insert(node, (member, Liveness::Alive));
    }
}
