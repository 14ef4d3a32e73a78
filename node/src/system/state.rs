//! The state that every node holds, as one value that joins.
//!
//! What: first layouts with their votes, later layouts and retirements with the evidence for these, the newest incarnation of
//! each member, keyspaces. Join is commutative, associative and idempotent; equal states have equal bytes (`encoding`).
//! A member's incarnation is a register whose marker is a count: a store that finds another's incarnation under its node's
//! name writes its own above it, so no clock decides which is newer. Source: DESIGN §5 (system state, views).
//! Invariant: nothing known is ever forgotten, except the record of a dropped keyspace and what a retired layout was.

use std::collections::{BTreeMap, BTreeSet};

use crdts::{CvRDT, GSet, LWWReg};
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::KeyspaceInfo;
use shoal_protocol::id::{Actor, KeyspaceId, LayoutId, NodeId, RefillCount, SystemId, ViewId};
use shoal_protocol::layout::{Intent, Layout, StoreMark};
use shoal_protocol::peer::Custody;

use super::encoding;
use super::founding::Founding;
use super::keys::ClusterKeys;
use super::keyspaces::Keyspaces;
use super::layouts::{Fenced, Synced};

pub use super::encoding::StateError;

/// A node's newest store incarnation; the marker's count grows with every replacement.
pub(super) type Incarnation = LWWReg<Actor, (u64, Actor)>;

/// What every node knows of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemState {
    pub(super) founding: Founding,
    pub(super) layouts: BTreeMap<LayoutId, Layout>,
    pub(super) retired: GSet<LayoutId>,
    pub(super) fenced: BTreeSet<Fenced>,
    pub(super) synced: BTreeSet<Synced>,
    /// What nodes are to be once somebody commits it.
    pub(super) staged: Intent,
    /// Stores that nobody waits for any more, because an operator said that they are gone for ever.
    pub(super) given_up: BTreeSet<Actor>,
    pub(super) incarnations: BTreeMap<NodeId, Incarnation>,
    /// Stores that took the place of others, once they heard from enough members what those may have been told.
    pub(super) rejoined: GSet<Actor>,
    pub(super) keyspaces: Keyspaces,
}

impl SystemState {
    /// Takes over what `other` knows; whether that was anything new.
    pub fn join(&mut self, other: &Self) -> bool {
        let before = self.clone();
        self.founding.join(&other.founding);
        for (id, layout) in &other.layouts {
            self.layouts.entry(*id).or_insert_with(|| layout.clone());
        }
        self.retired.merge(other.retired.clone());
        self.fenced.extend(&other.fenced);
        self.synced.extend(&other.synced);
        self.staged = self.staged.join(&other.staged);
        self.given_up.extend(&other.given_up);
        for (node, incarnation) in &other.incarnations {
            self.incarnations
                .entry(*node)
                .and_modify(|mine| mine.merge(incarnation.clone()))
                .or_insert_with(|| incarnation.clone());
        }
        self.rejoined.merge(other.rejoined.clone());
        self.keyspaces.join(&other.keyspaces);
        self.prune();
        *self != before
    }

    /// The canonical bytes: equal states, equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encoding::encode(self)
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// The bytes are too many, of a version not known here, or not what `encode` writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        encoding::decode(bytes)
    }

    /// The fingerprint of what decides where data is: layouts, votes, retirements, incarnations. Not of evidence, which changes
    /// often and decides nothing before a layout is retired by it.
    #[must_use]
    pub fn view(&self) -> ViewId {
        let Self { founding, layouts, retired, incarnations, given_up, .. } = self.clone();
        let view = Self { founding, layouts, retired, incarnations, given_up, ..Self::default() };
        ViewId(fingerprint(&view.encode()))
    }

    /// The fingerprint of everything.
    #[must_use]
    pub fn fingerprint(&self) -> SystemId {
        Self::fingerprint_of(&self.encode())
    }

    /// The fingerprint of the state with these canonical bytes.
    pub(super) fn fingerprint_of(bytes: &[u8]) -> SystemId {
        SystemId(fingerprint(bytes))
    }

    /// The formed first layout, whether it is active still or not. A node serves only with one.
    #[must_use]
    pub fn formed(&self) -> Option<&Layout> {
        self.founding.formed().map(|proposal| &proposal.layout)
    }

    /// The cluster's keys, once a layout is formed.
    #[must_use]
    pub fn keys(&self) -> Option<&ClusterKeys> {
        self.founding.formed().map(|proposal| &proposal.keys)
    }

    /// The newest store incarnation known of a node.
    #[must_use]
    pub fn incarnation(&self, node: NodeId) -> Option<Actor> {
        self.custody(node).map(|custody| custody.incarnation)
    }

    /// The newest store known of a node, and how many it announced before: 0 for the one that the first layout named.
    #[must_use]
    pub fn custody(&self, node: NodeId) -> Option<Custody> {
        let refill = RefillCount::default();
        if let Some(&Incarnation { val: incarnation, marker: (generation, _) }) = self.incarnations.get(&node) {
            return Some(Custody { generation, incarnation, refill });
        }
        let named = self.formed().and_then(|layout| layout.stores().get(&node).copied());
        named.map(|StoreMark { generation, incarnation }| Custody { generation, incarnation, refill })
    }

    /// The keyspaces anybody may use, by id.
    #[must_use]
    pub fn keyspaces(&self) -> BTreeMap<KeyspaceId, KeyspaceInfo> {
        self.keyspaces.established()
    }

    /// The keyspace of this name. Should several be established, the oldest.
    #[must_use]
    pub fn keyspace_by_name(&self, name: &KeyspaceName) -> Option<KeyspaceInfo> {
        self.keyspaces.named(name).into_iter().find(|(_, r)| r.is_established).map(|(id, record)| record.info(id))
    }

    /// The keyspace with this id.
    #[must_use]
    pub fn keyspace_by_id(&self, id: KeyspaceId) -> Option<KeyspaceInfo> {
        self.keyspaces.records.get(&id).filter(|record| record.is_established).map(|record| record.info(id))
    }

    /// Whether the keyspace with this id was dropped (or withdrawn while it was created).
    #[must_use]
    pub fn is_dropped(&self, id: KeyspaceId) -> bool {
        self.keyspaces.dropped.contains(&id)
    }

    /// Makes `store` the newest incarnation of `node`; whether it was not already.
    pub(super) fn announce(&mut self, node: NodeId, store: Actor) -> bool {
        if self.incarnation(node) == Some(store) {
            return false;
        }
        let count = self.incarnations.get(&node).map_or(0, |register| register.marker.0) + 1;
        self.incarnations.insert(node, LWWReg { val: store, marker: (count, store) });
        true
    }
}

fn fingerprint(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(*blake3::hash(bytes).as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};
    use shoal_protocol::client::{KeyspaceChange, KeyspaceLayout, KeyspaceSpec, QuorumMode};
    use shoal_protocol::id::Class;
    use shoal_protocol::layout::NodeRole;
    use shoal_protocol::object::Conflict;
    use shoal_protocol::time::Hlc;

    use super::super::founding::Proposal;
    use super::super::keyspaces::{Marker, Record};
    use super::*;

    /// Three stores that change their states and sometimes hear of each other's.
    fn history(seed: u64) -> [SystemState; 3] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut states: [SystemState; 3] = Default::default();
        for step in 0..40 {
            let (i, j) = ((rng.next_u64() % 3) as usize, (rng.next_u64() % 3) as usize);
            if rng.next_u64() % 4 == 0 {
                let other = states[j].clone();
                states[i].join(&other);
            } else {
                change(&mut states[i], i as u64 + 1, step, &mut rng);
            }
        }
        states
    }

    fn change(state: &mut SystemState, me: u64, step: u64, rng: &mut ChaCha8Rng) {
        let (node, store) = (NodeId(me), Actor(me * 100 + rng.next_u64() % 2));
        let marker = Marker(Hlc(step), Actor(me));
        let ids: Vec<KeyspaceId> = state.keyspaces.records.keys().copied().collect();
        let some_id = (!ids.is_empty()).then(|| ids[(rng.next_u64() % ids.len() as u64) as usize]);
        match (rng.next_u64() % 8, some_id) {
            (0, _) => {
                let roles = (1..=me).map(|id| (NodeId(id), NodeRole::active("z"))).collect();
                let layout = Layout::new(
                    Intent { nodes: roles },
                    (1..=me).map(|id| (NodeId(id), StoreMark::first(Actor(id)))).collect(),
                );
                let proposal = Proposal { round: rng.next_u32() % 2, layout, keys: ClusterKeys::draw(rng) };
                state.founding.proposals.insert(proposal.id(), proposal);
            }
            (1, _) => {
                if let Some((round, id)) = state.founding.votable(node, Actor(me)) {
                    state.founding.votes.entry(Actor(me)).or_default().insert(round, id);
                }
            }
            (2, _) => {
                state.announce(node, store);
                if step.is_multiple_of(2) {
                    state.rejoined.insert(store);
                }
            }
            (3, Some(id)) => state.keyspaces.establish(id),
            (4, Some(id)) => state.keyspaces.drop(id),
            (5, Some(id)) => {
                let change = KeyspaceChange { quorum: Some(QuorumMode::Sloppy), ttl_s: Some(Some(step as u32 + 1)) };
                state.keyspaces.records.get_mut(&id).unwrap().set(change, marker);
            }
            _ => {
                let name = KeyspaceName::new(format!("k{}", rng.next_u64() % 3)).unwrap();
                let record = Record::proposed(name, spec(), node, marker);
                state.keyspaces.records.insert(KeyspaceId(rng.next_u64()), record);
            }
        }
    }

    fn spec() -> KeyspaceSpec {
        KeyspaceSpec {
            class: Class { n: 3, r: 0, w: 0 },
            layout: KeyspaceLayout::Collection,
            conflict: Conflict::Siblings,
            quorum: QuorumMode::Strict,
            ttl_s: None,
        }
    }

    fn joined(a: &SystemState, b: &SystemState) -> SystemState {
        let mut joined = a.clone();
        joined.join(b);
        joined
    }

    proptest! {
        #[test]
        fn join_is_commutative_associative_and_idempotent(seed: u64) {
            let [a, b, c] = history(seed);
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a.clone());
            let both = joined(&a, &b);
            prop_assert_eq!(joined(&both, &a), both);
        }

        #[test]
        fn equal_states_have_equal_bytes_and_bytes_come_back(seed: u64) {
            let [a, b, _] = history(seed);
            prop_assert_eq!(joined(&a, &b).encode(), joined(&b, &a).encode());
            prop_assert_eq!(SystemState::decode(&a.encode()), Ok(a.clone()));
            prop_assert_eq!(a == b, a.encode() == b.encode());
        }

        #[test]
        fn damaged_bytes_are_refused_or_are_another_canonical_state(seed: u64, at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = history(seed)[0].encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(state) = SystemState::decode(&bytes) {
                prop_assert_eq!(state.encode(), bytes.clone());
            }
            bytes.truncate(at);
            prop_assert!(SystemState::decode(&bytes).is_err());
        }
    }

    #[test]
    fn join_tells_whether_it_learned_anything() {
        let [a, b, _] = history(3);
        let mut state = a.clone();
        assert!(state.join(&b));
        assert!(!state.join(&b));
        assert!(!state.join(&a));
    }

    #[test]
    fn the_view_ignores_keyspaces_and_the_fingerprint_does_not() {
        let mut state = SystemState::default();
        let empty = state.clone();
        let record = Record::proposed(KeyspaceName::new("k").unwrap(), spec(), NodeId(1), Marker(Hlc(1), Actor(1)));
        state.keyspaces.records.insert(KeyspaceId(1), record);
        assert_eq!(state.view(), empty.view());
        assert_ne!(state.fingerprint(), empty.fingerprint());
        state.announce(NodeId(1), Actor(1));
        assert_ne!(state.view(), empty.view());
    }

    #[test]
    fn the_last_store_to_announce_itself_is_the_newest_without_a_clock() {
        let (mut a, mut b) = (SystemState::default(), SystemState::default());
        a.announce(NodeId(1), Actor(9));
        b.join(&a);
        b.announce(NodeId(1), Actor(3));
        a.join(&b);
        assert_eq!(a.incarnation(NodeId(1)), Some(Actor(3)));
        assert!(!a.announce(NodeId(1), Actor(3)));
    }

    #[test]
    fn a_member_whose_store_was_replaced_is_known_by_all_whichever_announcement_they_heard_first() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut formed = SystemState::default();
        let nodes = [1, 2].map(NodeId);
        let roles = nodes.iter().map(|&node| (node, NodeRole::active("z"))).collect();
        let layout = Layout::new(
            Intent { nodes: roles },
            nodes.iter().map(|&node| (node, StoreMark::first(Actor(node.0)))).collect(),
        );
        let proposal = Proposal { round: 0, layout, keys: ClusterKeys::draw(&mut rng) };
        for node in nodes {
            formed.founding.votes.entry(Actor(node.0)).or_default().insert(0, proposal.id());
        }
        formed.founding.proposals.insert(proposal.id(), proposal);
        assert!(formed.replaced().is_empty());
        assert!(!formed.announce(NodeId(1), Actor(1)));

        let custody = |generation, store| Custody { generation, incarnation: Actor(store), refill: RefillCount(0) };
        assert_eq!(formed.custody(NodeId(1)), Some(custody(0, 1)));
        let (mut second, mut third) = (formed.clone(), formed.clone());
        second.announce(NodeId(1), Actor(9));
        third.announce(NodeId(1), Actor(5));
        let both = joined(&second, &third);
        assert_eq!(both, joined(&third, &second));
        assert_eq!(both.replaced(), BTreeMap::from([(NodeId(1), custody(1, 9))]));
        // The one that did not win announces itself again.
        let mut again = both.clone();
        assert!(again.announce(NodeId(1), Actor(5)));
        assert_eq!(again.replaced(), BTreeMap::from([(NodeId(1), custody(2, 5))]));
        // The first store is back, from a copy: it is as wiped as any.
        again.announce(NodeId(1), Actor(1));
        assert_eq!(joined(&again, &both).replaced(), BTreeMap::from([(NodeId(1), custody(3, 1))]));
    }

    #[test]
    fn bytes_that_are_no_state_name_their_fault() {
        assert!(matches!(SystemState::decode(&[]), Err(StateError::Malformed { .. })));
        assert_eq!(SystemState::decode(&[9, 1]), Err(StateError::Version { version: 9 }));
        let long = vec![1; encoding::STATE_BYTES_MAX + 1];
        assert_eq!(SystemState::decode(&long), Err(StateError::TooLong { bytes: long.len() }));
        let mut trailing = SystemState::default().encode();
        trailing.push(0);
        assert!(matches!(SystemState::decode(&trailing), Err(StateError::Malformed { .. })));
    }

    #[test]
    fn a_fresh_state_shows_no_secret_when_printed() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let keys = ClusterKeys::draw(&mut rng);
        let shown = format!("{keys:?}");
        assert!(!shown.contains(&format!("{:?}", keys.session.0)) && !shown.contains(&format!("{:?}", keys.digest.0)));
    }
}
