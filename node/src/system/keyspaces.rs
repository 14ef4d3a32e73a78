//! Keyspaces as replicated records.
//!
//! Shape: id -> record, and the ids that were dropped. A record is first *proposed*, invisible to everyone, and
//! *established* by its creator alone once a majority holds it and no rival of its name is seen; so of two concurrent
//! creations at most one is ever visible, and nobody writes into one that is withdrawn. Dropped is for ever and removes the
//! record. Settings that may change are registers with a marker (hlc, store incarnation) used once.
//! Source: DESIGN §4 (keyspace), §5 (system state). Invariants: no id is in both maps; what is fixed at creation is the same
//! in every record of an id (ids are random, drawn by one creator).

use std::collections::{BTreeMap, BTreeSet};

use crdts::{CvRDT, GSet, LWWReg};
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::client::{KeyspaceChange, KeyspaceInfo, KeyspaceSpec, QuorumMode};
use shoal_protocol::id::{Actor, Class, KeyspaceId, NodeId};
use shoal_protocol::time::Hlc;

/// When and by which store something was written; no two writes share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Marker(pub(super) Hlc, pub(super) Actor);

/// One keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: KeyspaceName,
    /// As created; `quorum` and `ttl_s` are superseded by the registers.
    pub(super) created_as: KeyspaceSpec,
    pub(super) creator: NodeId,
    pub(super) created: Marker,
    pub(super) is_established: bool,
    pub(super) quorum: LWWReg<QuorumMode, Marker>,
    pub(super) ttl_s: LWWReg<Option<u32>, Marker>,
}

impl Record {
    pub(super) fn proposed(name: KeyspaceName, spec: KeyspaceSpec, creator: NodeId, created: Marker) -> Self {
        Self {
            name,
            created_as: spec,
            creator,
            created,
            is_established: false,
            quorum: LWWReg { val: spec.quorum, marker: created },
            ttl_s: LWWReg { val: spec.ttl_s, marker: created },
        }
    }

    pub(super) fn info(&self, id: KeyspaceId) -> KeyspaceInfo {
        let spec = KeyspaceSpec { quorum: self.quorum.val, ttl_s: self.ttl_s.val, ..self.created_as };
        KeyspaceInfo { id, name: self.name.clone(), spec }
    }

    pub(super) fn set(&mut self, change: KeyspaceChange, marker: Marker) {
        if let Some(quorum) = change.quorum {
            self.quorum.update(quorum, marker);
        }
        if let Some(ttl_s) = change.ttl_s {
            self.ttl_s.update(ttl_s, marker);
        }
    }

    /// Whether a change with this marker is here, or was superseded by a later one.
    pub(super) fn has(&self, change: KeyspaceChange, marker: Marker) -> bool {
        (change.quorum.is_none() || self.quorum.marker >= marker)
            && (change.ttl_s.is_none() || self.ttl_s.marker >= marker)
    }

    fn join(&mut self, other: &Self) {
        self.is_established |= other.is_established;
        self.quorum.merge(other.quorum.clone());
        self.ttl_s.merge(other.ttl_s.clone());
    }
}

/// All keyspaces ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keyspaces {
    pub(super) records: BTreeMap<KeyspaceId, Record>,
    pub(super) dropped: GSet<KeyspaceId>,
}

impl Keyspaces {
    pub(super) fn join(&mut self, other: &Self) {
        self.dropped.merge(other.dropped.clone());
        for (id, record) in &other.records {
            self.records.entry(*id).and_modify(|mine| mine.join(record)).or_insert_with(|| record.clone());
        }
        self.records.retain(|id, _| !self.dropped.contains(id));
    }

    pub(super) fn drop(&mut self, id: KeyspaceId) {
        self.dropped.insert(id);
        self.records.remove(&id);
    }

    pub(super) fn establish(&mut self, id: KeyspaceId) {
        if let Some(record) = self.records.get_mut(&id) {
            record.is_established = true;
        }
    }

    /// Established and proposed records of a name, the oldest first.
    pub(super) fn named(&self, name: &KeyspaceName) -> Vec<(KeyspaceId, &Record)> {
        let mut found: Vec<_> = self.records.iter().filter(|(_, r)| r.name == *name).map(|(&id, r)| (id, r)).collect();
        found.sort_by_key(|&(id, record)| (record.created, id));
        found
    }

    /// The keyspaces anybody may use.
    pub(super) fn established(&self) -> BTreeMap<KeyspaceId, KeyspaceInfo> {
        self.records.iter().filter(|(_, r)| r.is_established).map(|(&id, r)| (id, r.info(id))).collect()
    }

    /// The classes of all of them.
    pub(super) fn classes(&self) -> BTreeSet<Class> {
        self.records.values().map(|record| record.created_as.class).collect()
    }

    /// The latest reading in any marker.
    pub(super) fn newest_hlc(&self) -> Hlc {
        let readings = self.records.values().flat_map(|r| [r.created, r.quorum.marker, r.ttl_s.marker]);
        readings.map(|marker| marker.0).max().unwrap_or_default()
    }
}
