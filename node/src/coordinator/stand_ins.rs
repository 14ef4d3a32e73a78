//! Stand-ins: fallbacks that hold a sloppy write for primaries that cannot take it.
//!
//! Shape: fallbacks in the order of the preference list, each asked once, one per missing primary. A stand-in's ack counts in
//! the place of its primary, and is taken back when the primary's own comes. A strict write has none.
//! Source: Dynamo §4.6; DESIGN §6 (Write). Invariant: no node stands in for two primaries of one write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shoal_protocol::id::NodeId;

/// Who stands in for whom in one write.
#[derive(Debug, Default)]
pub(crate) struct StandIns {
    /// Not asked yet.
    fallbacks: VecDeque<NodeId>,
    /// Whom each one that was asked stands in for.
    asked: BTreeMap<NodeId, NodeId>,
    /// Those of them that hold it.
    holding: BTreeSet<NodeId>,
    /// Some fallback keeps as many hints as it may.
    is_full: bool,
}

impl StandIns {
    /// Of a sloppy write; these can be asked, in this order.
    pub(crate) fn new(fallbacks: impl IntoIterator<Item = NodeId>) -> Self {
        Self { fallbacks: fallbacks.into_iter().collect(), ..Self::default() }
    }

    /// How many were not asked yet.
    pub(crate) fn left(&self) -> usize {
        self.fallbacks.len()
    }

    /// Somebody to be asked to stand in for `primary`, unless somebody does or nobody is left.
    pub(crate) fn ask(&mut self, primary: NodeId, can_be_asked: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        if self.stands_in(primary) {
            return None;
        }
        while let Some(fallback) = self.fallbacks.pop_front() {
            if can_be_asked(fallback) {
                self.asked.insert(fallback, primary);
                return Some(fallback);
            }
        }
        None
    }

    /// Whom `node` was asked to stand in for, if it was.
    pub(crate) fn primary_of(&self, node: NodeId) -> Option<NodeId> {
        self.asked.get(&node).copied()
    }

    /// Whether somebody was asked for `primary` and did not refuse.
    pub(crate) fn stands_in(&self, primary: NodeId) -> bool {
        self.asked.values().any(|of| *of == primary)
    }

    /// Stand-ins that were asked and have neither held nor refused it.
    pub(crate) fn open_count(&self) -> usize {
        self.asked.len() - self.holding.len()
    }

    /// `node` holds it: for whom.
    pub(crate) fn hold(&mut self, node: NodeId) -> Option<NodeId> {
        let primary = self.primary_of(node)?;
        self.holding.insert(node);
        Some(primary)
    }

    /// `node` does not hold it: for whom it was asked.
    pub(crate) fn lose(&mut self, node: NodeId) -> Option<NodeId> {
        self.holding.remove(&node);
        self.asked.remove(&node)
    }

    /// Whether somebody holds it for `primary`.
    pub(crate) fn holds_for(&self, primary: NodeId) -> bool {
        self.holding.iter().any(|node| self.asked.get(node) == Some(&primary))
    }

    /// A fallback keeps as many hints as it may.
    pub(crate) fn note_full(&mut self) {
        self.is_full = true;
    }

    /// Whether that was so of any.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_primary_gets_one_stand_in_and_each_fallback_stands_in_once() {
        let mut stand_ins = StandIns::new([7, 8, 9].map(NodeId));
        let can = |node: NodeId| node != NodeId(7);
        assert_eq!(stand_ins.ask(NodeId(1), can), Some(NodeId(8)));
        assert_eq!(stand_ins.ask(NodeId(1), can), None, "somebody stands in for it");
        assert_eq!(stand_ins.ask(NodeId(2), can), Some(NodeId(9)));
        assert_eq!((stand_ins.hold(NodeId(9)), stand_ins.hold(NodeId(7))), (Some(NodeId(2)), None));
        assert!(stand_ins.holds_for(NodeId(2)) && !stand_ins.holds_for(NodeId(1)));
        assert_eq!(stand_ins.lose(NodeId(8)), Some(NodeId(1)));
        assert_eq!((stand_ins.ask(NodeId(1), can), stand_ins.open_count()), (None, 0), "nobody is left");
    }
}
