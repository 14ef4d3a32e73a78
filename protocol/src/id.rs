//! Identities: newtypes, so that two `u64`s cannot be swapped.
//!
//! Text form: lower-case hex, fixed width. Sources: DESIGN §4 (actors), §5 (cluster, node, layout ids), §7 (lsn).

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! hex_u64 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

hex_u64! {
    /// A node: the first 64 bits of blake3(cluster id, node name). It survives a wipe of the node's data.
    NodeId
}
hex_u64! {
    /// A keyspace: random, drawn when it is created. Dropping a name and creating it again gives another id.
    KeyspaceId
}
hex_u64! {
    /// A cluster: the first 64 bits of blake3(cluster secret, cluster name).
    ClusterId
}
hex_u64! {
    /// A layout: the first 64 bits of blake3 over its canonical bytes.
    LayoutId
}
hex_u64! {
    /// A fingerprint of what a node knows of layouts, retirements, incarnations and votes: equal views, equal ids.
    ViewId
}
hex_u64! {
    /// A fingerprint of all of a node's system state, keyspaces included: equal states, equal ids.
    SystemId
}

/// One event source: a store incarnation (bit 63 clear) or a client session (bit 63 set).
///
/// A session's next 15 bits are its expiry day (days since 1970-01-01), the low 48 bits are random. An incarnation's low
/// 63 bits are random; it is drawn with a store and never used by another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Actor(pub u64);

impl Actor {
    const SESSION: u64 = 1 << 63;

    /// The store incarnation with these random bits; bit 63 is cleared.
    #[must_use]
    pub const fn incarnation(random: u64) -> Self {
        Self(random & !Self::SESSION)
    }

    /// The session that expires at the end of `expiry_day` (days since 1970-01-01, 15 bits), with 48 random bits.
    #[must_use]
    pub const fn session(expiry_day: u16, random: u64) -> Self {
        Self(Self::SESSION | ((expiry_day as u64 & 0x7fff) << 48) | (random & 0xffff_ffff_ffff))
    }

    /// Whether this is a client session rather than a store incarnation.
    #[must_use]
    pub const fn is_session(self) -> bool {
        self.0 & Self::SESSION != 0
    }

    /// The last day (since 1970-01-01) on which this session may mint; `None` for a store incarnation.
    #[must_use]
    pub const fn expiry_day(self) -> Option<u16> {
        if self.is_session() { Some((self.0 >> 48 & 0x7fff) as u16) } else { None }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actor({self})")
    }
}

/// The sequence number of a record in one cell's log: strictly growing, leased so that it jumps at every start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

/// Names one request among those in flight on one connection (or, between rooms, in one node).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// How often a store lost or gave away one partition and got it back. Acks name it beside the incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RefillCount(pub u32);

/// Keyspaces with the same numbers share partitions: `n` replicas, and the quorum sizes asked for at creation.
///
/// `r` and `w` are 0 when the keyspace asked for "majority".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Class {
    /// Replicas of each key.
    pub n: u8,
    /// Replies a read waits for; 0 = majority of the replicas there are.
    pub r: u8,
    /// Acks a write waits for; 0 = majority of the replicas there are.
    pub w: u8,
}

/// One fixed slice of a class's hash space. `index` is in `0..PARTITIONS_COUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The class whose hash space is sliced.
    pub class: Class,
    /// Which slice.
    pub index: u16,
}

/// Partitions per class, Q of DESIGN §5: a power of two, fixed at formation.
pub const PARTITIONS_COUNT: u16 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_keeps_its_expiry_day_and_an_incarnation_has_none() {
        assert_eq!(Actor::session(20_777, u64::MAX).expiry_day(), Some(20_777));
        assert_eq!(Actor::incarnation(u64::MAX).expiry_day(), None);
        assert!(!Actor::incarnation(u64::MAX).is_session());
    }
}
