//! The state that every node holds, as one value that joins.
//!
//! What: first layouts with their votes, later layouts and retirements (none yet), the newest incarnation of each member,
//! keyspaces. Join is commutative, associative and idempotent; equal states have equal bytes (`encoding`).
//! A member's incarnation is a register whose marker is a count: a store that finds another's incarnation under its node's
//! name writes its own above it, so no clock decides which is newer. Source: DESIGN §5 (system state, views).
//! Invariant: nothing known is ever forgotten, except the record of a dropped keyspace.

use std::collections::BTreeMap;

use crdts::{CvRDT, GSet, LWWReg};
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::KeyspaceInfo;
use shoal_protocol::id::{Actor, KeyspaceId, LayoutId, NodeId, SystemId, ViewId};
use shoal_protocol::layout::Layout;

use super::encoding;
use super::founding::Founding;
use super::keys::ClusterKeys;
use super::keyspaces::Keyspaces;

pub use super::encoding::StateError;

/// A node's newest store incarnation; the marker's count grows with every replacement.
pub(super) type Incarnation = LWWReg<Actor, (u64, Actor)>;

/// What every node knows of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemState {
    pub(super) founding: Founding,
    pub(super) layouts: BTreeMap<LayoutId, Layout>,
    pub(super) retired: GSet<LayoutId>,
    pub(super) incarnations: BTreeMap<NodeId, Incarnation>,
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
        for (node, incarnation) in &other.incarnations {
            self.incarnations
                .entry(*node)
                .and_modify(|mine| mine.merge(incarnation.clone()))
                .or_insert_with(|| incarnation.clone());
        }
        self.keyspaces.join(&other.keyspaces);
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

    /// The fingerprint of what decides where data is: layouts, votes, retirements, incarnations.
    #[must_use]
    pub fn view(&self) -> ViewId {
        let view = Self { keyspaces: Keyspaces::default(), ..self.clone() };
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

    /// The formed first layout. A node serves only with one.
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
        let named = || self.formed().and_then(|layout| layout.incarnations().get(&node).copied());
        self.incarnations.get(&node).map(|register| register.val).or_else(named)
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
