//! What a member of a cluster says of itself, and what others believe of it.
//!
//! Shape: one description per node, sent in every hello between nodes and spread by gossip. Limits: names of 128 bytes, 16
//! addresses of 261 bytes each, 16 stores, 8 layouts; `Member::check` enforces them where a description comes in. Source: DESIGN §4
//! (Actors), §8.

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

/// A description over a limit. It is not believed; nothing of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a member's {what} is {actual} long; the limit is {max}")]
pub struct MemberLimit {
    /// Which part.
    pub what: &'static str,
    /// Bytes, or how many.
    pub actual: usize,
    /// The limit.
    pub max: usize,
}

impl Member {
    /// The incarnation of its home store, which acks and layouts name; none before it said so.
    #[must_use]
    pub fn incarnation(&self) -> Option<Actor> {
        self.stores.first().map(|store| store.incarnation)
    }

    /// Whether it is within the limits.
    ///
    /// # Errors
    /// The first part that is not.
    pub fn check(&self) -> Result<(), MemberLimit> {
        let at_most = |what, actual, max| if actual <= max { Ok(()) } else { Err(MemberLimit { what, actual, max }) };
        at_most("name", self.name.len(), NAME_BYTES_MAX)?;
        at_most("zone", self.zone.len(), NAME_BYTES_MAX)?;
        at_most("version", self.version.len(), NAME_BYTES_MAX)?;
        for addresses in [&self.advertise_peer, &self.advertise_client] {
            at_most("address list", addresses.len(), ADDRESSES_COUNT_MAX)?;
            let longest = addresses.iter().map(String::len).max().unwrap_or(0);
            at_most("address", longest, ADDRESS_BYTES_MAX)?;
        }
        at_most("store list", self.stores.len(), STORES_COUNT_MAX)?;
        at_most("layout list", self.layouts.len(), LAYOUTS_COUNT_MAX)
    }
}

/// Longest name, zone or version, bytes.
pub const NAME_BYTES_MAX: usize = 128;
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
    fn each_limit_is_checked() {
        assert_eq!(member().check(), Ok(()));
        let over: [(&str, fn(&mut Member)); 6] = [
            ("name", |member| member.name = "n".repeat(129)),
            ("zone", |member| member.zone = "z".repeat(129)),
            ("address list", |member| member.advertise_peer = vec!["a:1".into(); 17]),
            ("address", |member| member.advertise_client = vec!["a".repeat(262)]),
            ("store list", |member| member.stores = vec![member.stores[0]; 17]),
            ("layout list", |member| member.layouts = vec![LayoutId(0); 9]),
        ];
        for (what, make) in over {
            let mut one = member();
            make(&mut one);
            assert_eq!(one.check().map_err(|limit| limit.what), Err(what));
        }
    }
}
