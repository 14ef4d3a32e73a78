//! What a node is told about itself and its limits before it starts.

use shoal_protocol::id::{ClusterId, LayoutId, NodeId};
use shoal_protocol::member::{Member, StoreLease};
use shoal_protocol::object::Limits;

use crate::repair::{HandoffLimits, RepairConfig};
use crate::storage::Budget;
use crate::system::JoinMode;

/// Who this node is and whom it expects.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its share of the data relative to the others in a first layout.
    pub weight: u32,
    /// `host:port` for nodes.
    pub advertise_peer: Vec<String>,
    /// `host:port` for clients.
    pub advertise_client: Vec<String>,
    /// Software version.
    pub version: String,
    /// Members to see, itself included, before it proposes a first layout.
    pub expect: usize,
    /// The configured seeds, as configured: every one must have answered "empty" before it proposes.
    pub seeds: Vec<String>,
    /// Whether it may found a cluster alone. An explicit act, never a default.
    pub found_alone: bool,
    /// What it does with nodes that no layout lists.
    pub join: JoinMode,
    /// Random per process start.
    pub boot_nonce: u64,
    /// Reads how many allocations this process has made, where the host can tell: a figure of the status, nothing more.
    pub allocations: Option<fn() -> u64>,
    /// Bounds.
    pub limits: NodeLimits,
}

/// The bounds of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Admission limits of objects.
    pub objects: Limits,
    /// Client requests in flight, batch items counted one by one; beyond, `overloaded`.
    pub requests_max: usize,
    /// Requests of peers in flight at the replica; beyond, they are refused as overloaded.
    pub replica_requests_max: usize,
    /// Memory of memtables and object cache.
    pub storage: Budget,
    /// Hints, and how fast what others missed is given back.
    pub handoff: HandoffLimits,
    /// How much repair does, and how often.
    pub repair: RepairConfig,
}

impl NodeConfig {
    /// What the node says of itself, with these stores and layouts.
    pub(super) fn member(&self, stores: Vec<StoreLease>, layouts: Vec<LayoutId>) -> Member {
        Member {
            node: self.node,
            name: self.name.clone(),
            zone: self.zone.clone(),
            weight: self.weight,
            advertise_peer: self.advertise_peer.clone(),
            advertise_client: self.advertise_client.clone(),
            version: self.version.clone(),
            stores,
            boot_nonce: self.boot_nonce,
            layouts,
        }
    }
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            objects: Limits::default(),
            requests_max: 10_000,
            replica_requests_max: 50_000,
            storage: Budget::default(),
            handoff: HandoffLimits::default(),
            repair: RepairConfig::default(),
        }
    }
}
