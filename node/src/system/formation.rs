//! Forming the cluster: when this store proposes a first layout, and when it votes.
//!
//! Shape: `advance` looks at what is known and changes the state by one proposal or one vote, which the caller makes
//! durable before anybody sees it. A store proposes only when
//! - it knows no proposal that may still be formed, and no formed one;
//! - `expect` members, itself included, are reachable and their states have been read: none has a layout;
//! - every configured seed is one of them, so rival proposals share the common seed;
//! - it has the smallest id it has heard of;
//! - founding alone (`expect` 1, no seeds) was asked for explicitly.
//!
//! Source: DESIGN §5 (formation). Invariant: nothing here happens once a layout is formed.

use std::collections::BTreeMap;
use std::fmt;

use rand_chacha::ChaCha8Rng;
use shoal_protocol::id::{Actor, NodeId};
use shoal_protocol::layout::{Intent, Layout, NodeRole, StoreMark};

use super::founding::Proposal;
use super::keys::ClusterKeys;
use super::peers::Peers;
use super::state::SystemState;

/// How a node takes part in founding a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormationConfig {
    /// Members, itself included, that a founding store waits for.
    pub expect: usize,
    /// The configured seeds, as configured.
    pub seeds: Vec<String>,
    /// Whether `expect` 1 without seeds is meant: an explicit act, never a default.
    pub found_alone: bool,
}

/// How far forming is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is a formed layout.
    Formed,
    /// Founding alone needs an explicit act.
    NotAskedToFound,
    /// Fewer members than expected can be reached and have told their state.
    AwaitingMembers {
        /// Members so far, this node included.
        seen: usize,
        /// Members expected.
        expect: usize,
    },
    /// These seeds have not told that they have no layout.
    AwaitingSeeds(Vec<String>),
    /// A node with a smaller id is to propose.
    AwaitingProposal {
        /// The smallest id heard of.
        from: NodeId,
    },
    /// A first layout is proposed; these members have not voted for it.
    AwaitingVotes(Vec<NodeId>),
    /// No attempt is left.
    Exhausted,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formed => f.write_str("the cluster is formed"),
            Self::NotAskedToFound => f.write_str("no seeds, and not asked to found a cluster alone"),
            Self::AwaitingMembers { seen, expect } => write!(f, "{seen} of {expect} members seen"),
            Self::AwaitingSeeds(seeds) => write!(f, "waiting for seeds {}", seeds.join(", ")),
            Self::AwaitingProposal { from } => write!(f, "waiting for node {from} to propose a layout"),
            Self::AwaitingVotes(nodes) => {
                f.write_str("waiting for votes of")?;
                nodes.iter().try_for_each(|node| write!(f, " {node}"))
            }
            Self::Exhausted => f.write_str("too many failed attempts to form the cluster"),
        }
    }
}

/// This store's part in forming.
#[derive(Clone, Debug)]
pub(super) struct Formation {
    node: NodeId,
    role: NodeRole,
    store: Actor,
    config: FormationConfig,
    seeds: BTreeMap<String, NodeId>,
}

impl Formation {
    pub(super) const fn new(node: NodeId, role: NodeRole, store: Actor, config: FormationConfig) -> Self {
        Self { node, role, store, config, seeds: BTreeMap::new() }
    }

    /// The store has another incarnation from now on.
    pub(super) const fn go_on_as(&mut self, store: Actor) {
        self.store = store;
    }

    /// The node behind a configured seed address is known.
    pub(super) fn seed_found(&mut self, seed: String, node: NodeId) {
        self.seeds.insert(seed, node);
    }

    /// Votes or proposes, if it is time to; whether `state` changed.
    pub(super) fn advance(&self, state: &mut SystemState, peers: &Peers, rng: &mut ChaCha8Rng) -> bool {
        if let Some((round, id)) = state.founding.votable(self.node, self.store) {
            state.founding.votes.entry(self.store).or_default().insert(round, id);
            return true;
        }
        if state.founding.formed().is_some() {
            return false;
        }
        let (Some(round), Ok(())) = (state.founding.open_round(), self.may_propose(state, peers)) else {
            return false;
        };
        let layout = self.first_layout(peers);
        let proposal = Proposal { round, layout, keys: ClusterKeys::draw(rng) };
        state.founding.proposals.insert(proposal.id(), proposal);
        true
    }

    /// What forming waits for.
    pub(super) fn standing(&self, state: &SystemState, peers: &Peers) -> Standing {
        let founding = &state.founding;
        if founding.formed().is_some() {
            return Standing::Formed;
        }
        if let Some((&id, proposal)) = founding.proposals.iter().find(|&(&id, _)| !founding.is_dead(id)) {
            return Standing::AwaitingVotes(founding.missing_votes(id, proposal));
        }
        match self.may_propose(state, peers) {
            Err(missing) => missing,
            Ok(()) => Standing::Exhausted,
        }
    }

    /// The proposal's members: this node and the peers that can be reached and have told their state.
    fn members<'a>(&'a self, peers: &'a Peers) -> impl Iterator<Item = (NodeId, NodeRole, Actor)> + 'a {
        let others = peers.by_id.iter().filter(|(_, peer)| peer.is_up && peer.has_answered);
        let others = others.map(|(&node, peer)| (node, peer.role.clone(), peer.incarnation));
        others.chain([(self.node, self.role.clone(), self.store)])
    }

    fn may_propose(&self, state: &SystemState, peers: &Peers) -> Result<(), Standing> {
        let config = &self.config;
        if config.expect <= 1 && config.seeds.is_empty() && !config.found_alone {
            return Err(Standing::NotAskedToFound);
        }
        let members: Vec<NodeId> = self.members(peers).map(|(node, _, _)| node).collect();
        if members.len() < config.expect {
            return Err(Standing::AwaitingMembers { seen: members.len(), expect: config.expect });
        }
        let is_missing = |seed: &&String| self.seeds.get(*seed).is_none_or(|node| !members.contains(node));
        let missing: Vec<String> = config.seeds.iter().filter(is_missing).cloned().collect();
        if !missing.is_empty() {
            return Err(Standing::AwaitingSeeds(missing));
        }
        let named = state.founding.proposals.values().flat_map(|p| p.layout.stores().keys());
        match peers.by_id.keys().chain(named).min() {
            Some(&from) if from < self.node => Err(Standing::AwaitingProposal { from }),
            Some(_) | None => Ok(()),
        }
    }

    fn first_layout(&self, peers: &Peers) -> Layout {
        let (mut intent, mut stores) = (Intent::default(), BTreeMap::new());
        for (node, role, store) in self.members(peers) {
            intent.nodes.insert(node, role);
            stores.insert(node, StoreMark::first(store));
        }
        Layout::new(intent, stores)
    }
}
