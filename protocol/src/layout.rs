//! Layouts: who is meant to hold data.
//!
//! Shape: an `Intent` says for every node its zone, weight and whether it is leaving; a `Layout` is a published intent plus
//! each node's store incarnation as known when it was published. Placement is a pure function of the intent alone.
//! Canonical bytes: version, then nodes in id order, then incarnations in node order, integers big-endian, texts with a
//! length in front; a layout's id is the first 64 bits of their blake3.
//! Source: DESIGN §5. Invariant: equal layouts have equal ids on every machine; an id is never taken from the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Actor, LayoutId, NodeId};

/// Whether a node is to hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// It holds its share.
    Active,
    /// It gives its share away.
    Leaving,
}

/// What an intent says of one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeRole {
    /// Replicas of one key are spread over zones; at most `ZONE_BYTES_MAX` bytes.
    pub zone: String,
    /// Its share relative to the other nodes; 0 holds nothing.
    pub weight: u32,
    /// Whether it is to hold data.
    pub state: NodeState,
}

impl NodeRole {
    /// An active node of ordinary weight.
    #[must_use]
    pub fn active(zone: impl Into<String>) -> Self {
        Self { zone: zone.into(), weight: WEIGHT_DEFAULT, state: NodeState::Active }
    }
}

/// Who is meant to hold data: node -> role.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Intent {
    /// What is meant for each node.
    pub nodes: BTreeMap<NodeId, NodeRole>,
}

impl Intent {
    /// The nodes that hold data, in id order: the active ones; when there is none, leaving marks are ignored.
    #[must_use]
    pub fn holders(&self) -> Vec<(NodeId, &NodeRole)> {
        let of = |state: Option<NodeState>| -> Vec<_> {
            let wanted = |role: &NodeRole| role.weight > 0 && state.is_none_or(|s| role.state == s);
            self.nodes.iter().filter(|(_, role)| wanted(role)).map(|(&node, role)| (node, role)).collect()
        };
        let active = of(Some(NodeState::Active));
        if active.is_empty() { of(None) } else { active }
    }
}

/// A published intent and the store incarnations it was published with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "LayoutParts", into = "LayoutParts")]
pub struct Layout {
    id: LayoutId,
    intent: Intent,
    incarnations: BTreeMap<NodeId, Actor>,
}

impl Layout {
    /// The layout of `intent`, naming these store incarnations.
    #[must_use]
    pub fn new(intent: Intent, incarnations: BTreeMap<NodeId, Actor>) -> Self {
        let hash = blake3::hash(&canonical_bytes(&intent, &incarnations));
        let id = LayoutId(u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")));
        Self { id, intent, incarnations }
    }

    /// The hash of the canonical bytes.
    #[must_use]
    pub const fn id(&self) -> LayoutId {
        self.id
    }

    /// Who is meant to hold data.
    #[must_use]
    pub const fn intent(&self) -> &Intent {
        &self.intent
    }

    /// Each node's store incarnation when the layout was published.
    #[must_use]
    pub const fn incarnations(&self) -> &BTreeMap<NodeId, Actor> {
        &self.incarnations
    }

    /// Whether the layout lists this node.
    #[must_use]
    pub fn lists(&self, node: NodeId) -> bool {
        self.intent.nodes.contains_key(&node)
    }

    /// How many members are more than half of them.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.intent.nodes.len() / 2 + 1
    }
}

/// A layout without its id: what travels, so that an id always fits its layout.
#[derive(Serialize, Deserialize)]
struct LayoutParts(Intent, BTreeMap<NodeId, Actor>);

impl From<LayoutParts> for Layout {
    fn from(LayoutParts(intent, incarnations): LayoutParts) -> Self {
        Self::new(intent, incarnations)
    }
}

impl From<Layout> for LayoutParts {
    fn from(layout: Layout) -> Self {
        Self(layout.intent, layout.incarnations)
    }
}

fn canonical_bytes(intent: &Intent, incarnations: &BTreeMap<NodeId, Actor>) -> Vec<u8> {
    let mut out = vec![CANONICAL_VERSION];
    out.extend((intent.nodes.len() as u64).to_be_bytes());
    for (node, role) in &intent.nodes {
        out.extend(node.0.to_be_bytes());
        out.extend((role.zone.len() as u64).to_be_bytes());
        out.extend(role.zone.as_bytes());
        out.extend(role.weight.to_be_bytes());
        out.push(match role.state {
            NodeState::Active => 0,
            NodeState::Leaving => 1,
        });
    }
    out.extend((incarnations.len() as u64).to_be_bytes());
    for (node, incarnation) in incarnations {
        out.extend(node.0.to_be_bytes());
        out.extend(incarnation.0.to_be_bytes());
    }
    out
}

/// Longest zone name, bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// The weight of a node nobody gave another: leaves room for finer steps below.
pub const WEIGHT_DEFAULT: u32 = 100;
const CANONICAL_VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(zones: [&str; 2], incarnation: u64) -> Layout {
        let nodes = zones.iter().zip(1..).map(|(&zone, id)| (NodeId(id), NodeRole::active(zone))).collect();
        Layout::new(Intent { nodes }, BTreeMap::from([(NodeId(1), Actor(incarnation))]))
    }

    #[test]
    fn the_id_covers_intent_and_incarnations_and_nothing_runs_together() {
        let ids = [layout(["a", "bc"], 1), layout(["ab", "c"], 1), layout(["a", "bc"], 2)].map(|l| l.id());
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ids[0], ids[2]);
        assert_eq!(ids[0], layout(["a", "bc"], 1).id());
    }

    #[test]
    fn the_id_is_the_same_on_every_machine() {
        assert_eq!(layout(["a", "b"], 7).id().to_string(), "81670d4b34a14b7c");
    }

    #[test]
    fn leaving_marks_count_only_while_somebody_stays() {
        let mut intent = layout(["a", "b"], 1).intent().clone();
        intent.nodes.get_mut(&NodeId(1)).unwrap().state = NodeState::Leaving;
        assert_eq!(intent.holders().iter().map(|h| h.0).collect::<Vec<_>>(), [NodeId(2)]);
        intent.nodes.get_mut(&NodeId(2)).unwrap().state = NodeState::Leaving;
        assert_eq!(intent.holders().len(), 2);
    }
}
