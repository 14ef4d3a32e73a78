//! What a member of a cluster says of itself, and what others believe of it.
//!
//! Shape: one description per node, sent in every hello between nodes and spread by gossip. Limits: texts of 64 bytes, twice 16
//! addresses of 261 bytes each, 16 stores, 8 layouts; what a node says of itself is cut to them before anybody hears it.
//! Source: DESIGN §4 (Actors), §8.

use serde::{Deserialize, Serialize};

use crate::id::{Actor, LayoutId, NodeId};

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Its stores, the home store first.
    pub stores: Vec<StoreLease>,
    /// Random per process start: two live ones for one node mean a cloned data directory.
    pub boot_nonce: u64,
    /// The layouts it knows.
    pub layouts: Vec<LayoutId>,
}

/// A store and how far its dots may have been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreLease {
    /// The store's current incarnation.
    pub incarnation: Actor,
    /// The end of the dot lease: no dot at or above it was ever minted.
    pub lease_end: u64,
}

/// What a node believes of a member (SWIM §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It did not answer; it may refute that.
    Suspect,
    /// It did not refute in time. It stays a member and is tried again.
    Down,
    /// It said goodbye. It stays a member and may come back.
    Left,
}

impl Liveness {
    /// Whether it is alive for all that is known: alive or suspect.
    #[must_use]
    pub const fn is_live(self) -> bool {
        match self {
            Self::Alive | Self::Suspect => true,
            Self::Down | Self::Left => false,
        }
    }
}

impl Member {
    /// The incarnation of its home store, which acks and layouts name; none before it said so.
    #[must_use]
    pub fn incarnation(&self) -> Option<Actor> {
        self.stores.first().map(|store| store.incarnation)
    }

    /// The member within its limits: texts and lists that are longer are cut off, and control characters left out.
    #[must_use]
    pub fn within_limits(mut self) -> Self {
        for text in [&mut self.name, &mut self.zone, &mut self.version] {
            cut(text, TEXT_BYTES_MAX);
        }
        for addresses in [&mut self.advertise_peer, &mut self.advertise_client] {
            addresses.truncate(ADDRESSES_COUNT_MAX);
            addresses.iter_mut().for_each(|address| cut(address, ADDRESS_BYTES_MAX));
        }
        self.stores.truncate(STORES_COUNT_MAX);
        self.layouts.truncate(LAYOUTS_COUNT_MAX);
        self
    }
}

fn cut(text: &mut String, bytes_max: usize) {
    text.retain(|c| !c.is_control());
    text.truncate(text.floor_char_boundary(bytes_max));
}

/// Longest name, zone or version, bytes.
pub const TEXT_BYTES_MAX: usize = 64;
/// Addresses per list.
pub const ADDRESSES_COUNT_MAX: usize = 16;
/// Longest `host:port`, bytes: a DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 261;
/// Stores per node.
pub const STORES_COUNT_MAX: usize = 16;
/// Layouts named; more than can be active at once (DESIGN §5).
pub const LAYOUTS_COUNT_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            node: NodeId(1),
            name: "n1".into(),
            zone: "a".into(),
            weight: 100,
            advertise_peer: vec!["n1:7400".into()],
            advertise_client: vec!["n1:7400".into()],
            version: "0.1.0".into(),
            stores: vec![StoreLease { incarnation: Actor(5), lease_end: 65_536 }],
            boot_nonce: 1,
            layouts: Vec::new(),
        }
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_character() {
        let mut long = member();
        long.name = format!("{}é", "a".repeat(63));
        long.zone = "a\nb".into();
        long.advertise_peer = vec!["x".repeat(400); 20];
        long.layouts = vec![LayoutId(1); 20];
        long.stores = vec![long.stores[0]; 20];
        let cut = long.within_limits();
        assert_eq!((cut.name.len(), cut.zone.as_str()), (63, "ab"));
        assert_eq!((cut.advertise_peer.len(), cut.advertise_peer[0].len()), (16, 261));
        assert_eq!((cut.layouts.len(), cut.stores.len()), (8, 16));
        assert_eq!(member().within_limits(), member());
    }
}
