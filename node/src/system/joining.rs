//! Who is to become a member: nodes of the cluster that the target layout does not list.
//!
//! Shape: with `JoinMode::Auto` the smallest member that can be reached publishes what was gathered for `GATHER`; with
//! `Manual` it stages that, for an operator to commit. A node that leaves, or left, is no newcomer. Rivals that publish at the
//! same time do no harm: layouts join. Source: DESIGN §5 (layouts). Invariant: whether a node can be reached decides who
//! publishes and who is new, never who stays.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_protocol::id::NodeId;
use shoal_protocol::layout::NodeRole;
use shoal_protocol::time::Instant;

use super::peers::Peers;
use super::state::SystemState;

/// What happens when a node comes that no layout lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinMode {
    /// It becomes a member.
    #[default]
    Auto,
    /// It waits for an operator.
    Manual,
}

impl FromStr for JoinMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "manual" => Ok(Self::Manual),
            _ => Err(format!("`{text}` is neither auto nor manual")),
        }
    }
}

/// This node's part in letting others in.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    node: NodeId,
    role: NodeRole,
    mode: JoinMode,
    /// Since when there are newcomers.
    since: Option<Instant>,
}

impl Joining {
    pub(super) const fn new(node: NodeId, role: NodeRole, mode: JoinMode) -> Self {
        Self { node, role, mode, since: None }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + GATHER)
    }

    /// Publishes or stages what was gathered long enough; whether `state` changed.
    pub(super) fn advance(&mut self, now: Instant, state: &mut SystemState, peers: &Peers) -> bool {
        let changes = self.newcomers(state, peers);
        if changes.is_empty() {
            self.since = None;
            return false;
        }
        if self.mode == JoinMode::Manual {
            return changes.into_iter().fold(false, |changed, (node, role)| state.stage(node, role) | changed);
        }
        if now < *self.since.get_or_insert(now) + GATHER {
            return false;
        }
        // Should too many layouts be active, it is tried again after as long.
        self.since = Some(now);
        state.may_publish() && state.publish(changes, |_| false)
    }

    /// What is to change, if it is for this node to do it.
    fn newcomers(&self, state: &SystemState, peers: &Peers) -> BTreeMap<NodeId, NodeRole> {
        let Some(target) = state.target() else { return BTreeMap::new() };
        let up = || peers.by_id.iter().filter(|(_, peer)| peer.is_up).map(|(&node, peer)| (node, &peer.role));
        let is_up = |node: &NodeId| *node == self.node || peers.by_id.get(node).is_some_and(|peer| peer.is_up);
        if target.members().iter().find(|node| is_up(node)) != Some(&self.node) {
            return BTreeMap::new();
        }
        let change = |(node, role): (NodeId, &NodeRole)| {
            state.incarnation(node)?;
            // Whoever is listed is what an operator made of it, whatever it says of itself.
            let is_listed = target.intent().nodes.contains_key(&node);
            let is_staged = self.mode == JoinMode::Manual && state.staged().contains_key(&node);
            (!is_listed && !is_staged).then(|| (node, role.clone()))
        };
        up().chain([(self.node, &self.role)]).filter_map(change).collect()
    }
}

/// Nodes that come within this time come together: each layout costs a transition.
const GATHER: Duration = Duration::from_secs(2);
