//! Layouts: who is meant to hold data.
//!
//! Shape: an `Intent` says for every node its zone, weight and whether it is leaving; a `Layout` is a published intent plus
//! each node's store as known when it was published. Placement is a pure function of the intent alone.
//! Intents and layouts are joined: of what two say of a node, the higher revision counts, of two stores the later one. So
//! whoever knows two layouts knows the one that is above both, and nothing is elected.
//! Canonical bytes: version, then nodes in id order, then stores in node order, integers big-endian, texts with a
//! length in front; a layout's id is the first 64 bits of their blake3.
//! Source: DESIGN §5. Invariants: equal layouts have equal ids on every machine; an id is never taken from the wire; `join` is
//! commutative, associative and idempotent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Actor, LayoutId, NodeId};

/// Whether a node is to hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// It holds its share.
    Active,
    /// It gives its share away, or has given it away.
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
    /// How often this was changed. Placement ignores it.
    pub revision: u32,
}

impl NodeRole {
    /// An active node of ordinary weight.
    #[must_use]
    pub fn active(zone: impl Into<String>) -> Self {
        Self { zone: zone.into(), weight: WEIGHT_DEFAULT, state: NodeState::Active, revision: 0 }
    }

    /// Whether both mean the same, whatever it was before.
    #[must_use]
    pub fn means(&self, other: &Self) -> bool {
        (&self.zone, self.weight, self.state) == (&other.zone, other.weight, other.state)
    }

    /// What counts of two roles is the greater: by revision, then whoever leaves, then by weight and zone.
    fn rank(&self) -> (u32, NodeState, u32, &str) {
        (self.revision, self.state, self.weight, &self.zone)
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

    /// What both mean.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        for (node, role) in &other.nodes {
            let known = joined.nodes.entry(*node).or_insert_with(|| role.clone());
            if known.rank() < role.rank() {
                *known = role.clone();
            }
        }
        joined
    }
}

/// Which store of a node: the later one replaced the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreMark {
    /// How many stores the node announced before it.
    pub generation: u64,
    /// The store. Orders two that were announced without knowing of each other.
    pub incarnation: Actor,
}

impl StoreMark {
    /// The store that a first layout names.
    #[must_use]
    pub const fn first(incarnation: Actor) -> Self {
        Self { generation: 0, incarnation }
    }
}

/// A published intent and the stores it was published with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "LayoutParts", into = "LayoutParts")]
pub struct Layout {
    id: LayoutId,
    intent: Intent,
    stores: BTreeMap<NodeId, StoreMark>,
    members: Vec<NodeId>,
}

impl Layout {
    /// The layout of `intent`, naming these stores.
    #[must_use]
    pub fn new(intent: Intent, stores: BTreeMap<NodeId, StoreMark>) -> Self {
        let hash = blake3::hash(&canonical_bytes(&intent, &stores));
        let id = LayoutId(u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")));
        let members = intent.holders().into_iter().map(|(node, _)| node).collect();
        Self { id, intent, stores, members }
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

    /// Each node's store when the layout was published.
    #[must_use]
    pub const fn stores(&self) -> &BTreeMap<NodeId, StoreMark> {
        &self.stores
    }

    /// Whether the layout names this store of a node.
    #[must_use]
    pub fn names(&self, node: NodeId, store: StoreMark) -> bool {
        self.stores.get(&node) == Some(&store)
    }

    /// Its members: the nodes that hold data under it, in id order.
    #[must_use]
    pub fn members(&self) -> &[NodeId] {
        &self.members
    }

    /// Whether this node is a member.
    #[must_use]
    pub fn lists(&self, node: NodeId) -> bool {
        self.members.binary_search(&node).is_ok()
    }

    /// How many members are more than half of them.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The layout above both.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let mut stores = self.stores.clone();
        for (&node, &store) in &other.stores {
            let known = stores.entry(node).or_insert(store);
            *known = store.max(*known);
        }
        Self::new(self.intent.join(&other.intent), stores)
    }

    /// Whether `other` is this one, or comes after it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.id == other.id || self.join(other).id == other.id
    }
}

/// What travels of a layout: id and members follow from it.
#[derive(Serialize, Deserialize)]
struct LayoutParts(Intent, BTreeMap<NodeId, StoreMark>);

impl From<LayoutParts> for Layout {
    fn from(LayoutParts(intent, stores): LayoutParts) -> Self {
        Self::new(intent, stores)
    }
}

impl From<Layout> for LayoutParts {
    fn from(layout: Layout) -> Self {
        Self(layout.intent, layout.stores)
    }
}

fn canonical_bytes(intent: &Intent, stores: &BTreeMap<NodeId, StoreMark>) -> Vec<u8> {
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
        out.extend(role.revision.to_be_bytes());
    }
    out.extend((stores.len() as u64).to_be_bytes());
    for (node, store) in stores {
        out.extend(node.0.to_be_bytes());
        out.extend(store.generation.to_be_bytes());
        out.extend(store.incarnation.0.to_be_bytes());
    }
    out
}

/// Longest zone name, bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// The weight of a node nobody gave another: leaves room for finer steps below.
pub const WEIGHT_DEFAULT: u32 = 100;
const CANONICAL_VERSION: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(zones: [&str; 2], incarnation: u64) -> Layout {
        let nodes = zones.iter().zip(1..).map(|(&zone, id)| (NodeId(id), NodeRole::active(zone))).collect();
        Layout::new(Intent { nodes }, BTreeMap::from([(NodeId(1), StoreMark::first(Actor(incarnation)))]))
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
        assert_eq!(layout(["a", "b"], 7).id().to_string(), "d35a2697a346fc44");
    }

    #[test]
    fn leaving_marks_count_only_while_somebody_stays() {
        let mut intent = layout(["a", "b"], 1).intent().clone();
        intent.nodes.get_mut(&NodeId(1)).unwrap().state = NodeState::Leaving;
        assert_eq!(intent.holders().iter().map(|h| h.0).collect::<Vec<_>>(), [NodeId(2)]);
        intent.nodes.get_mut(&NodeId(2)).unwrap().state = NodeState::Leaving;
        assert_eq!(intent.holders().len(), 2);
    }

    #[test]
    fn a_join_keeps_what_was_said_last_of_every_node_and_the_later_store() {
        let first = layout(["a", "b"], 1);
        let mut leaving = first.intent().clone();
        let role = leaving.nodes.get_mut(&NodeId(2)).unwrap();
        (role.state, role.revision) = (NodeState::Leaving, 1);
        let second = Layout::new(leaving, first.stores().clone());
        let mut grown = first.intent().clone();
        grown.nodes.insert(NodeId(3), NodeRole::active("c"));
        let stores = BTreeMap::from([(NodeId(1), StoreMark { generation: 1, incarnation: Actor(9) })]);
        let third = Layout::new(grown, stores);
        let both = second.join(&third);
        assert_eq!(both, third.join(&second));
        assert_eq!(
            (both.members(), both.names(NodeId(1), StoreMark { generation: 1, incarnation: Actor(9) })),
            (&[NodeId(1), NodeId(3)][..], true)
        );
        assert!(
            first.is_within(&second) && first.is_within(&third) && second.is_within(&both) && third.is_within(&both)
        );
        assert!(!second.is_within(&third) && !both.is_within(&third) && first.is_within(&first));
    }
}
