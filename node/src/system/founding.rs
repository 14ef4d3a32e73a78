//! Proposals of a first layout and the votes for them: what decides, once, who founds the cluster.
//!
//! Shape: a proposal has a round; a store votes at most once in a round, and never in a round before one it voted in. A
//! proposal is *formed* when all its members, under the incarnations it names, voted for it. It is *dead* when a member
//! voted in its round or later without having voted for it: that member never will. A store that voted moves to a later
//! round only when everything it voted for is dead.
//! Why rounds: with one vote for ever (round 0 alone) two rival proposals may split the votes and stay unformed for ever.
//! Why safe: two formed proposals share a member (both contain the common seed). In one round that member voted once. In
//! different rounds it voted in the later one only after the earlier was dead, and what is dead never forms.
//! Source: DESIGN §5 (formation). Invariants: join is a union; formed and dead exclude each other and never end.

use std::collections::BTreeMap;

use shoal_protocol::id::{Actor, NodeId};
use shoal_protocol::layout::{Layout, StoreMark};

use super::keys::ClusterKeys;

/// Names a proposal: the first 64 bits of blake3 over its canonical bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProposalId(pub(super) u64);

/// A first layout and the keys of the cluster it would found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    /// Which attempt, from 0.
    pub(super) round: u32,
    /// Its members, with the incarnations that may vote.
    pub(super) layout: Layout,
    /// The cluster's keys if this is formed.
    pub(super) keys: ClusterKeys,
}

/// All proposals and votes known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Founding {
    pub(super) proposals: BTreeMap<ProposalId, Proposal>,
    /// Store incarnation -> round -> what it voted for.
    pub(super) votes: BTreeMap<Actor, BTreeMap<u32, ProposalId>>,
}

impl Founding {
    pub(super) fn join(&mut self, other: &Self) {
        for (id, proposal) in &other.proposals {
            self.proposals.entry(*id).or_insert_with(|| proposal.clone());
        }
        for (store, rounds) in &other.votes {
            let mine = self.votes.entry(*store).or_default();
            for (round, vote) in rounds {
                // A store votes once in a round; the smaller id keeps the join a join whatever arrives.
                mine.entry(*round).and_modify(|known| *known = (*known).min(*vote)).or_insert(*vote);
            }
        }
    }

    /// The proposal that founded the cluster.
    pub(super) fn formed(&self) -> Option<&Proposal> {
        self.proposals.iter().find(|(id, proposal)| self.missing_votes(**id, proposal).is_empty()).map(|(_, p)| p)
    }

    /// The members whose vote for this proposal is not known.
    pub(super) fn missing_votes(&self, id: ProposalId, proposal: &Proposal) -> Vec<NodeId> {
        let voted = |store: &Actor| self.votes.get(store).and_then(|rounds| rounds.get(&proposal.round)) == Some(&id);
        let stores = proposal.layout.stores().iter();
        stores.filter(|(_, store)| !voted(&store.incarnation)).map(|(&node, _)| node).collect()
    }

    /// Whether the proposal can never be formed. An unknown proposal is not known to be dead.
    pub(super) fn is_dead(&self, id: ProposalId) -> bool {
        self.proposals.get(&id).is_some_and(|proposal| {
            proposal.layout.stores().values().filter_map(|store| self.votes.get(&store.incarnation)).any(|rounds| {
                rounds.range(proposal.round..).next().is_some() && rounds.get(&proposal.round) != Some(&id)
            })
        })
    }

    /// The proposal the store of `node` is to vote for now, with its round; `None`: none, or its vote stands.
    pub(super) fn votable(&self, node: NodeId, store: Actor) -> Option<(u32, ProposalId)> {
        let cast = self.votes.get(&store);
        let is_bound = cast.is_some_and(|rounds| rounds.values().any(|&vote| !self.is_dead(vote)));
        let last = cast.and_then(|rounds| rounds.keys().next_back());
        if is_bound || self.formed().is_some() {
            return None;
        }
        let names_me = |p: &Proposal| p.layout.names(node, StoreMark::first(store));
        self.proposals
            .iter()
            .filter(|(id, p)| names_me(p) && last.is_none_or(|&last| p.round > last) && !self.is_dead(**id))
            // The lowest round first, so that every member of a live proposal votes in its round or kills it; then the
            // rival with the smallest member, on which most stores agree.
            .min_by_key(|(id, p)| (p.round, p.layout.stores().keys().next().copied(), **id))
            .map(|(&id, p)| (p.round, id))
    }

    /// The round in which a proposal may be made now: all proposals known are dead, or there is none.
    pub(super) fn open_round(&self) -> Option<u32> {
        if self.proposals.keys().any(|&id| !self.is_dead(id)) {
            return None;
        }
        let next = self.proposals.values().map(|p| p.round + 1).max().unwrap_or(0);
        (next < ROUNDS_MAX).then_some(next)
    }
}

/// Attempts to found a cluster. Each failed one takes a new pair of rivals, which know each other afterwards; a guess that
/// bounds the state.
pub(super) const ROUNDS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;
    use shoal_protocol::layout::{Intent, NodeRole};

    use super::*;

    /// A proposal of these nodes, whose stores have their nodes' numbers.
    fn propose(founding: &mut Founding, round: u32, nodes: &[u64]) -> ProposalId {
        let intent = Intent { nodes: nodes.iter().map(|&n| (NodeId(n), NodeRole::active("z"))).collect() };
        let layout = Layout::new(intent, nodes.iter().map(|&n| (NodeId(n), StoreMark::first(Actor(n)))).collect());
        let proposal = Proposal { round, layout, keys: ClusterKeys::draw(&mut ChaCha8Rng::from_seed([0; 32])) };
        let id = proposal.id();
        founding.proposals.insert(id, proposal);
        id
    }

    fn vote(founding: &mut Founding, store: u64, round: u32, id: ProposalId) {
        founding.votes.entry(Actor(store)).or_default().insert(round, id);
    }

    #[test]
    fn a_layout_is_formed_when_its_last_member_voted_and_then_nobody_votes() {
        let mut founding = Founding::default();
        let id = propose(&mut founding, 0, &[1, 2]);
        vote(&mut founding, 1, 0, id);
        assert!(founding.formed().is_none());
        assert_eq!(founding.votable(NodeId(2), Actor(2)), Some((0, id)));
        vote(&mut founding, 2, 0, id);
        assert_eq!(founding.formed().map(Proposal::id), Some(id));
        propose(&mut founding, 1, &[3]);
        assert_eq!(founding.votable(NodeId(3), Actor(3)), None);
    }

    #[test]
    fn a_store_votes_only_for_what_names_it_and_once_per_round() {
        let mut founding = Founding::default();
        let id = propose(&mut founding, 0, &[1, 2]);
        assert_eq!(founding.votable(NodeId(1), Actor(9)), None);
        assert_eq!(founding.votable(NodeId(3), Actor(3)), None);
        vote(&mut founding, 2, 0, id);
        propose(&mut founding, 0, &[2, 3]);
        assert_eq!(founding.votable(NodeId(2), Actor(2)), None);
    }

    #[test]
    fn split_votes_kill_both_rivals_and_open_the_next_round() {
        let mut founding = Founding::default();
        let (low, high) = (propose(&mut founding, 0, &[1, 2, 3]), propose(&mut founding, 0, &[2, 3, 4]));
        vote(&mut founding, 1, 0, low);
        vote(&mut founding, 2, 0, low);
        vote(&mut founding, 4, 0, high);
        assert_eq!((founding.is_dead(low), founding.is_dead(high)), (false, true));
        assert_eq!((founding.open_round(), founding.votable(NodeId(2), Actor(2))), (None, None));
        vote(&mut founding, 3, 0, high);
        assert!(founding.is_dead(low));
        assert_eq!(founding.open_round(), Some(1));
        let next = propose(&mut founding, 1, &[1, 2, 3, 4]);
        assert_eq!(founding.open_round(), None);
        for node in 1..=4 {
            assert_eq!(founding.votable(NodeId(node), Actor(node)), Some((1, next)));
        }
    }

    #[test]
    fn a_vote_in_a_later_round_kills_what_its_store_passed_over() {
        let mut founding = Founding::default();
        let passed = propose(&mut founding, 0, &[1, 2]);
        let later = propose(&mut founding, 1, &[2, 3]);
        vote(&mut founding, 2, 1, later);
        assert!(founding.is_dead(passed));
        assert_eq!(founding.votable(NodeId(2), Actor(2)), None);
    }
}
