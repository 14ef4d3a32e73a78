//! The member list, fed by connections alone: a member is alive while this node has a connection to it.
//!
//! Only `Alive` and `Down` arise here; there is no suspicion without probes, and no deadline.
//! Invariant: outputs tell every change of liveness or data exactly once, in order; repeating an input tells nothing.

use std::collections::BTreeMap;

use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use crate::member::{Liveness, Member};

/// What the host tells the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection to this member is open and this is what it says of itself.
    Connected(Member),
    /// The last connection to this member is gone.
    Disconnected(NodeId),
}

/// What the member list tells the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The member became alive. Its data is in `member`.
    Up(NodeId),
    /// The member became down.
    Down(NodeId),
    /// The member is new, or says something new of itself (an incarnation replaced, an address moved).
    Changed(NodeId),
}

/// The other members as this node knows them.
#[derive(Debug, Default)]
pub struct Membership {
    members: BTreeMap<NodeId, (Member, Liveness)>,
}

impl Membership {
    /// A list without members.
    #[must_use]
    pub const fn new() -> Self {
        Self { members: BTreeMap::new() }
    }

    /// Takes one input; appends what changed to `out`: `Changed` before `Up`.
    pub fn handle(&mut self, _now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Connected(member) => self.connected(member, out),
            Input::Disconnected(node) => {
                if let Some((_, liveness)) = self.members.get_mut(&node)
                    && *liveness != Liveness::Down
                {
                    *liveness = Liveness::Down;
                    out.push(Output::Down(node));
                }
            }
        }
    }

    /// When to call `handle` at the latest; `None`: only on news.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// All members ever seen, in id order.
    pub fn members(&self) -> impl Iterator<Item = (&Member, Liveness)> {
        self.members.values().map(|(member, liveness)| (member, *liveness))
    }

    /// What is known of one member.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node).map(|(member, _)| member)
    }

    /// Whether a member can be reached; one never seen is `Down`.
    #[must_use]
    pub fn liveness(&self, node: NodeId) -> Liveness {
        self.members.get(&node).map_or(Liveness::Down, |&(_, liveness)| liveness)
    }

    fn connected(&mut self, member: Member, out: &mut Vec<Output>) {
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

#[cfg(test)]
mod tests {
    use shoal_protocol::id::Actor;

    use super::*;

    fn member(node: u64, incarnation: u64) -> Member {
        Member {
            node: NodeId(node),
            name: format!("n{node}"),
            zone: "z".into(),
            weight: 100,
            advertise_peer: vec![format!("n{node}:7400")],
            advertise_client: vec![format!("n{node}:7400")],
            version: "0.1.0".into(),
            incarnation: Actor(incarnation),
            lease_end: 0,
            boot_nonce: 1,
        }
    }

    fn feed(list: &mut Membership, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        list.handle(Instant(0), input, &mut out);
        out
    }

    #[test]
    fn every_change_is_told_once() {
        let mut list = Membership::new();
        let n1 = NodeId(1);
        assert_eq!(feed(&mut list, Input::Connected(member(1, 7))), [Output::Changed(n1), Output::Up(n1)]);
        assert_eq!(feed(&mut list, Input::Connected(member(1, 7))), []);
        assert_eq!(feed(&mut list, Input::Disconnected(n1)), [Output::Down(n1)]);
        assert_eq!(feed(&mut list, Input::Disconnected(n1)), []);
        assert_eq!(feed(&mut list, Input::Disconnected(NodeId(2))), []);
        assert_eq!(feed(&mut list, Input::Connected(member(1, 7))), [Output::Up(n1)]);
    }

    #[test]
    fn a_replaced_incarnation_is_told_while_the_member_stays_alive() {
        let mut list = Membership::new();
        feed(&mut list, Input::Connected(member(1, 7)));
        assert_eq!(feed(&mut list, Input::Connected(member(1, 8))), [Output::Changed(NodeId(1))]);
        assert_eq!(list.member(NodeId(1)).unwrap().incarnation, Actor(8));
    }

    #[test]
    fn a_member_is_never_forgotten_and_a_stranger_is_down() {
        let mut list = Membership::new();
        feed(&mut list, Input::Connected(member(1, 7)));
        feed(&mut list, Input::Disconnected(NodeId(1)));
        assert_eq!(list.members().map(|(m, l)| (m.node, l)).collect::<Vec<_>>(), [(NodeId(1), Liveness::Down)]);
        assert_eq!(list.liveness(NodeId(9)), Liveness::Down);
    }
}
