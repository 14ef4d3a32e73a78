//! What is known of one member.
//!
//! Invariant: what a node says of itself is within the limits before anybody hears it, so that nobody refuses it.

use shoal_protocol::id::{Actor, LayoutId, NodeId};

/// What a member says of itself.
///
/// Texts and lists longer than their limits are cut off, and control characters left out, before anybody is told.
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
    /// The member within its limits.
    pub(crate) fn within_limits(mut self) -> Self {
        for (text, bytes_max) in
            [(&mut self.name, TEXT_BYTES_MAX), (&mut self.zone, TEXT_BYTES_MAX), (&mut self.version, TEXT_BYTES_MAX)]
        {
            cut(text, bytes_max);
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

/// Name, zone, software version.
pub(crate) const TEXT_BYTES_MAX: usize = 64;
/// A DNS name of 255 bytes (RFC 1035 §2.3.4), a colon, a port, and room for a label.
pub(crate) const ADDRESS_BYTES_MAX: usize = 300;
/// As many as the configuration admits.
pub(crate) const ADDRESSES_COUNT_MAX: usize = 8;
/// Stores of one node.
pub(crate) const STORES_COUNT_MAX: usize = 16;
/// A node knows two layouts at most times, and a few more while changes cross.
pub(crate) const LAYOUTS_COUNT_MAX: usize = 8;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn member(node: u64) -> Member {
        Member {
            node: NodeId(node),
            name: format!("n{node}"),
            zone: "z".into(),
            weight: 100,
            advertise_peer: vec![format!("n{node}:7400")],
            advertise_client: vec![format!("n{node}:7400")],
            version: "0.1.0".into(),
            stores: vec![StoreLease { incarnation: Actor(node), lease_end: 65_536 }],
            boot_nonce: 1,
            layouts: vec![LayoutId(7)],
        }
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_character() {
        let mut long = member(1);
        long.name = format!("{}é", "a".repeat(63));
        long.zone = "a\nb".into();
        long.advertise_peer = vec!["x".repeat(400); 20];
        long.layouts = vec![LayoutId(1); 20];
        let cut = long.within_limits();
        assert_eq!((cut.name.len(), cut.zone.as_str()), (63, "ab"));
        assert_eq!((cut.advertise_peer.len(), cut.advertise_peer[0].len(), cut.layouts.len()), (8, 300, 8));
        assert_eq!(member(1).within_limits(), member(1));
    }
}
