//! System state as bytes, for disk and wire.
//!
//! Shape: a version byte, then MessagePack of plain tuples and sorted lists (structs as arrays). Canonical: `decode` accepts
//! only what `encode` writes, checked by writing it again. Ids that are hashes are computed, never read.
//! Limits: `STATE_BYTES_MAX` in all, so every count and text inside is bounded too.
//! Source: DESIGN §5; STYLE §3 (state derives no encoding).

use std::collections::BTreeMap;

use crdts::{GSet, LWWReg};
use serde::{Deserialize, Serialize};
use shoal_protocol::address::KeyspaceName;
use shoal_protocol::causality::ContextKeys;
use shoal_protocol::client::{KeyspaceSpec, QuorumMode};
use shoal_protocol::codec;
use shoal_protocol::id::{Actor, Class, KeyspaceId, LayoutId, NodeId};
use shoal_protocol::layout::{Intent, Layout};
use shoal_protocol::object::DigestKey;
use shoal_protocol::time::Hlc;

use super::founding::{Founding, Proposal, ProposalId};
use super::keys::{ClusterKeys, SessionKey};
use super::keyspaces::{Keyspaces, Marker, Record};
use super::layouts::{Fenced, Synced};
use super::state::SystemState;

/// Why bytes are no system state. Nothing was taken from them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Longer than any state a node makes.
    #[error("system state of {bytes} bytes; at most {STATE_BYTES_MAX} are allowed")]
    TooLong {
        /// Their length.
        bytes: usize,
    },
    /// Written by a newer version; upgrade this node first.
    #[error("system state of version {version}; this build knows {VERSION}")]
    Version {
        /// The version found.
        version: u8,
    },
    /// Not what `encode` writes.
    #[error("malformed system state: {reason}")]
    Malformed {
        /// What does not fit.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct WireState {
    proposals: Vec<WireProposal>,
    votes: BTreeMap<Actor, BTreeMap<u32, u64>>,
    layouts: Vec<Layout>,
    retired: Vec<LayoutId>,
    fenced: Vec<(Actor, LayoutId)>,
    synced: Vec<(Actor, LayoutId, LayoutId, Class)>,
    staged: Intent,
    given_up: Vec<Actor>,
    incarnations: BTreeMap<NodeId, (u64, Actor)>,
    rejoined: Vec<Actor>,
    records: BTreeMap<KeyspaceId, WireRecord>,
    dropped: Vec<KeyspaceId>,
}

#[derive(Serialize, Deserialize)]
struct WireProposal {
    round: u32,
    layout: Layout,
    digest_key: [u8; 32],
    context_keys: ContextKeys,
    session_key: SessionKey,
}

#[derive(Serialize, Deserialize)]
struct WireRecord {
    name: KeyspaceName,
    created_as: KeyspaceSpec,
    creator: NodeId,
    created: (Hlc, Actor),
    is_established: bool,
    quorum: (QuorumMode, Hlc, Actor),
    ttl_s: (Option<u32>, Hlc, Actor),
}

pub(super) fn encode(state: &SystemState) -> Vec<u8> {
    let wire = WireState {
        proposals: state.founding.proposals.values().map(WireProposal::from).collect(),
        votes: state
            .founding
            .votes
            .iter()
            .map(|(&s, rounds)| (s, rounds.iter().map(|(&r, v)| (r, v.0)).collect()))
            .collect(),
        layouts: state.layouts.values().cloned().collect(),
        retired: state.retired.read().into_iter().collect(),
        fenced: state.fenced.iter().map(|Fenced { store, layout }| (*store, *layout)).collect(),
        synced: state.synced.iter().map(|Synced { store, from, to, class }| (*store, *from, *to, *class)).collect(),
        staged: state.staged.clone(),
        given_up: state.given_up.iter().copied().collect(),
        incarnations: state.incarnations.iter().map(|(&node, register)| (node, register.marker)).collect(),
        rejoined: state.rejoined.read().into_iter().collect(),
        records: state.keyspaces.records.iter().map(|(&id, record)| (id, WireRecord::from(record))).collect(),
        dropped: state.keyspaces.dropped.read().into_iter().collect(),
    };
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&codec::encode(&wire));
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<SystemState, StateError> {
    if bytes.len() > STATE_BYTES_MAX {
        return Err(StateError::TooLong { bytes: bytes.len() });
    }
    let malformed = |reason: &str| StateError::Malformed { reason: reason.into() };
    let (&version, body) = bytes.split_first().ok_or_else(|| malformed("empty"))?;
    if version != VERSION {
        return Err(StateError::Version { version });
    }
    let wire: WireState = codec::decode(body).map_err(|error| malformed(&error.to_string()))?;
    let proposals = wire.proposals.into_iter().map(Proposal::from).map(|proposal| (proposal.id(), proposal)).collect();
    let rounds = |rounds: BTreeMap<u32, u64>| rounds.into_iter().map(|(round, id)| (round, ProposalId(id))).collect();
    let votes = wire.votes.into_iter().map(|(store, cast)| (store, rounds(cast))).collect();
    let register = |(count, store)| LWWReg { val: store, marker: (count, store) };
    let mut state = SystemState {
        founding: Founding { proposals, votes },
        layouts: wire.layouts.into_iter().map(|layout| (layout.id(), layout)).collect(),
        retired: set(wire.retired),
        fenced: wire.fenced.into_iter().map(|(store, layout)| Fenced { store, layout }).collect(),
        synced: wire.synced.into_iter().map(|(store, from, to, class)| Synced { store, from, to, class }).collect(),
        staged: wire.staged,
        given_up: wire.given_up.into_iter().collect(),
        incarnations: wire.incarnations.into_iter().map(|(node, marker)| (node, register(marker))).collect(),
        rejoined: set(wire.rejoined),
        keyspaces: Keyspaces {
            records: wire.records.into_iter().map(|(id, record)| (id, Record::from(record))).collect(),
            dropped: set(wire.dropped),
        },
    };
    state.prune();
    let is_disjoint = state.keyspaces.records.keys().all(|id| !state.keyspaces.dropped.contains(id));
    if is_disjoint && encode(&state) == bytes { Ok(state) } else { Err(malformed("not canonical")) }
}

impl Proposal {
    /// The hash of the canonical bytes.
    pub(super) fn id(&self) -> ProposalId {
        let hash = blake3::hash(&codec::encode(&WireProposal::from(self)));
        ProposalId(u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")))
    }
}

impl From<&Proposal> for WireProposal {
    fn from(proposal: &Proposal) -> Self {
        Self {
            round: proposal.round,
            layout: proposal.layout.clone(),
            digest_key: proposal.keys.digest.0,
            context_keys: proposal.keys.contexts.clone(),
            session_key: proposal.keys.session,
        }
    }
}

impl From<WireProposal> for Proposal {
    fn from(wire: WireProposal) -> Self {
        let keys =
            ClusterKeys { digest: DigestKey(wire.digest_key), contexts: wire.context_keys, session: wire.session_key };
        Self { round: wire.round, layout: wire.layout, keys }
    }
}

impl From<&Record> for WireRecord {
    fn from(record: &Record) -> Self {
        Self {
            name: record.name.clone(),
            created_as: record.created_as,
            creator: record.creator,
            created: (record.created.0, record.created.1),
            is_established: record.is_established,
            quorum: (record.quorum.val, record.quorum.marker.0, record.quorum.marker.1),
            ttl_s: (record.ttl_s.val, record.ttl_s.marker.0, record.ttl_s.marker.1),
        }
    }
}

impl From<WireRecord> for Record {
    fn from(wire: WireRecord) -> Self {
        let (quorum, ttl_s) = (wire.quorum, wire.ttl_s);
        Self {
            name: wire.name,
            created_as: wire.created_as,
            creator: wire.creator,
            created: Marker(wire.created.0, wire.created.1),
            is_established: wire.is_established,
            quorum: LWWReg { val: quorum.0, marker: Marker(quorum.1, quorum.2) },
            ttl_s: LWWReg { val: ttl_s.0, marker: Marker(ttl_s.1, ttl_s.2) },
        }
    }
}

fn set<T: Ord>(items: Vec<T>) -> GSet<T> {
    let mut set = GSet::new();
    items.into_iter().for_each(|item| set.insert(item));
    set
}

/// Longest encoded state: room for a hundred thousand dropped keyspaces and every live one.
pub(super) const STATE_BYTES_MAX: usize = 4 << 20;
const VERSION: u8 = 1;
