//! The other nodes: what gossip says of them, and which of them can be asked.
//!
//! A node can be asked while a connection to it is open and gossip does not call it down or gone. One that is suspected can
//! be asked, but is asked last. Source: DESIGN §8. Invariant: neither a lost connection nor a verdict of gossip ever changes who
//! owns what (DESIGN §5).

use shoal_gossip::{Input as GossipInput, Output};
use shoal_protocol::id::NodeId;
use shoal_protocol::member::{Liveness, Member};
use shoal_protocol::peer::PeerHello;
use shoal_protocol::time::Now;

use super::{Effect, Node, Parcel, role};
use crate::repair::RepairInput;
use crate::system::SystemInput;

impl Node {
    /// Calls can be sent to this peer from now on.
    pub(super) fn peer_up(&mut self, now: Now, hello: PeerHello, out: &mut Vec<Effect>) {
        let node = hello.member.node;
        self.linked.insert(node);
        self.gossip(now, GossipInput::Met(hello.member), out);
        self.judge(now, node, out);
    }

    /// Calls cannot be sent any more.
    pub(super) fn peer_down(&mut self, now: Now, node: NodeId, out: &mut Vec<Effect>) {
        self.linked.remove(&node);
        self.judge(now, node, out);
        self.gossip(now, GossipInput::Lost(node), out);
    }

    /// One input for the member list, and everything that follows from it.
    pub(super) fn gossip(&mut self, now: Now, input: GossipInput, out: &mut Vec<Effect>) {
        let mut outputs = Vec::new();
        self.gossip.handle(now.instant, input, &mut outputs);
        for output in outputs {
            match output {
                Output::Packet { to, bytes } => out.push(Effect::Gossip { to, parcel: Parcel::Packet(bytes) }),
                Output::Message { to, bytes } => out.push(Effect::Gossip { to, parcel: Parcel::Message(bytes) }),
                Output::Changed(node) => self.member_changed(now, node, out),
                Output::Up(node) | Output::Suspect(node) | Output::Down(node) | Output::Left(node) => {
                    let liveness = self.gossip.liveness(node);
                    tracing::info!(%node, ?liveness, "gossip");
                    self.judge(now, node, out);
                }
                Output::Forgotten(node) => self.judge(now, node, out),
                Output::Cloned { boot_nonce } => {
                    tracing::error!(
                        boot_nonce,
                        "another process runs under this node's id: is its data directory a copy?"
                    );
                    self.has_double = true;
                }
                Output::LeaveSpread => self.has_left = true,
            }
        }
    }

    /// Tells the others what this node says of itself, if that has changed.
    pub(super) fn describe(&mut self, now: Now, out: &mut Vec<Effect>) {
        let own = self.own_member();
        if *self.gossip.own() != own {
            self.gossip(now, GossipInput::Describe(own), out);
        }
    }

    /// What this node says of itself.
    pub(super) fn own_member(&self) -> Member {
        let layouts = self.system.layouts().iter().map(|layout| layout.id());
        self.config.member(self.cells.leases(), layouts.collect())
    }

    /// Whether gossip suspects that a node is down.
    pub(super) fn is_suspect(&self, node: NodeId) -> bool {
        self.gossip.liveness(node) == Liveness::Suspect
    }

    fn member_changed(&mut self, now: Now, node: NodeId, out: &mut Vec<Effect>) {
        let Some(member) = self.gossip.member(node) else { return };
        out.push(Effect::Learn { member: member.clone() });
        if self.alive.contains(&node) {
            self.tell_system_of(now, node, out);
        }
    }

    /// Whether the node can be asked has perhaps changed.
    fn judge(&mut self, now: Now, node: NodeId, out: &mut Vec<Effect>) {
        let is_alive = match self.gossip.liveness(node) {
            Liveness::Alive | Liveness::Suspect => self.linked.contains(&node),
            Liveness::Down | Liveness::Left => false,
        };
        if self.is_suspect(node) {
            self.suspects.insert(node);
        } else {
            self.suspects.remove(&node);
        }
        if is_alive && self.alive.insert(node) {
            self.tell_system_of(now, node, out);
            self.confirm_leases(now, out);
            self.advance_handoff(now, out);
            self.repair(now, RepairInput::PeerUp(node), out);
            self.advance_transition(now, out);
        } else if !is_alive && self.alive.remove(&node) {
            self.lose(now, node, out);
            self.advance_transition(now, out);
        }
    }

    fn tell_system_of(&mut self, now: Now, node: NodeId, out: &mut Vec<Effect>) {
        let Some(member) = self.gossip.member(node) else { return };
        let Some(incarnation) = member.incarnation() else { return };
        let role = role(member.zone.clone(), member.weight);
        self.tell_system(now, SystemInput::PeerUp { node, role, incarnation }, out);
    }

    /// The node will not answer what it was asked.
    fn lose(&mut self, now: Now, node: NodeId, out: &mut Vec<Effect>) {
        self.system_calls.lose(node);
        self.handoff_lose(node);
        self.leases.lose(node);
        self.lookups.lose(node);
        self.advance_lookups(now, out);
        self.views.lose(node);
        self.advance_views(now, out);
        self.tell_system(now, SystemInput::PeerDown(node), out);
        self.repair(now, RepairInput::PeerDown(node), out);
        self.coordinate(now, out, |coordinator, around, effects| coordinator.peer_down(around, node, effects));
        self.advance_handoff(now, out);
    }
}
