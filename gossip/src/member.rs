//! What is known of one member.

use shoal_protocol::id::{Actor, LayoutId, NodeId};

/// What a member says of itself.
///
/// Texts and lists longer than their limits are cut off before they are told to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Its name; at most 64 bytes.
    pub name: String,
    /// Its zone; at most 64 bytes.
    pub zone: String,
    /// Its share of the data in a first layout, relative to the others' weights.
    pub weight: u32,
    /// `host:port` for nodes, first choice first; at most 8 of 300 bytes.
    pub advertise_peer: Vec<String>,
    /// `host:port` for clients, first choice first; at most 8 of 300 bytes.
    pub advertise_client: Vec<String>,
    /// Software version; at most 64 bytes.
    pub version: String,
    /// Its stores, home first; at most 16.
    pub stores: Vec<StoreLease>,
    /// Random per process start: two live ones for one id mean a cloned data directory.
    pub boot_nonce: u64,
    /// Ids of the layouts it knows; at most 8.
    pub layouts: Vec<LayoutId>,
}

/// How far one store may have minted dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreLease {
    /// The store's current incarnation.
    pub incarnation: Actor,
    /// The end of the dot lease: no dot at or above it was ever minted.
    pub lease_end: u64,
}

/// What this node believes of a member (SWIM §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// It can be reached.
    Alive,
    /// It did not answer; it may refute that.
    Suspect,
    /// It cannot be reached.
    Down,
    /// It said that it goes, and has not come back.
    Left,
}
