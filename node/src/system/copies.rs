//! The two copies of a node's system state: the working one, which has everything joined so far, and the durable one, which
//! alone is shown.
//!
//! Invariants: what is shown only grows; everything computed here belongs to the durable copy.

use std::collections::BTreeMap;

use bytes::Bytes;
use shoal_protocol::client::KeyspaceInfo;
use shoal_protocol::id::{KeyspaceId, SystemId, ViewId};
use shoal_protocol::layout::Layout;

use super::founding::Proposal;
use super::state::SystemState;

/// The two copies of the state, and what is computed from the durable one when it changes.
#[derive(Debug)]
pub(super) struct Copies {
    pub(super) working: SystemState,
    pub(super) version: u64,
    pub(super) persisting: Option<(u64, SystemState)>,
    pub(super) durable: SystemState,
    pub(super) durable_version: u64,
    pub(super) bytes: Bytes,
    pub(super) view: ViewId,
    pub(super) fingerprint: SystemId,
    pub(super) keyspaces: BTreeMap<KeyspaceId, KeyspaceInfo>,
    pub(super) founded: Option<Proposal>,
    pub(super) active: Vec<Layout>,
}

impl Copies {
    pub(super) fn new(durable: SystemState) -> Self {
        let mut copies = Self {
            working: durable.clone(),
            version: 0,
            persisting: None,
            durable: SystemState::default(),
            durable_version: 0,
            bytes: Bytes::new(),
            view: ViewId(0),
            fingerprint: SystemId(0),
            keyspaces: BTreeMap::new(),
            founded: None,
            active: Vec::new(),
        };
        copies.show(0, durable);
        copies
    }

    /// Makes `durable` what is shown.
    pub(super) fn show(&mut self, version: u64, durable: SystemState) {
        self.bytes = durable.encode().into();
        self.view = durable.view();
        self.fingerprint = SystemState::fingerprint_of(&self.bytes);
        self.keyspaces = durable.keyspaces();
        self.founded = durable.founding.formed().cloned();
        self.active = durable.active();
        (self.durable, self.durable_version) = (durable, version);
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.version == self.durable_version
    }
}
