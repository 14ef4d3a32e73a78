//! What is known of one member.

use shoal_protocol::id::{Actor, NodeId};

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its share of the data in a first layout, relative to the others' weights.
    pub weight: u32,
    /// `host:port` for nodes, first choice first.
    pub advertise_peer: Vec<String>,
    /// `host:port` for clients, first choice first.
    pub advertise_client: Vec<String>,
    /// Software version.
    pub version: String,
    /// The store's current incarnation.
    pub incarnation: Actor,
    /// The end of the dot lease: no dot at or above it was ever minted.
    pub lease_end: u64,
    /// Random per process start: two live ones for one incarnation mean a cloned data directory.
    pub boot_nonce: u64,
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
}
