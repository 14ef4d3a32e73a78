//! Digests: what anti-entropy compares instead of objects.
//!
//! Shape: the first 128 bits of keyed blake3 over the place (every part with its length), then the canonical bytes.
//! Invariant: replicas with equal objects have equal digests; a bucket adds them up modulo 2^128.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::Place;
use crate::object::Object;

/// The digest of one object at one place.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of an object whose canonical bytes are at hand.
    #[must_use]
    pub fn of_encoded(key: &DigestKey, place: &Place, canonical: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        place.hash_into(&mut hasher);
        hasher.update(canonical);
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:032x})", self.0)
    }
}

/// The cluster's key for digests: without it nobody can make two objects with one digest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DigestKey(pub [u8; 32]);

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

impl Object {
    /// This object's digest at `place`.
    #[must_use]
    pub fn digest(&self, key: &DigestKey, place: &Place) -> Digest {
        Digest::of_encoded(key, place, &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::KeyspaceId;

    #[test]
    fn a_digest_tells_places_apart_and_keys() {
        let place = |collection: &'static str, key: &'static str| Place {
            keyspace: KeyspaceId(1),
            collection: collection.into(),
            key: key.into(),
        };
        let (key, object) = (DigestKey([1; 32]), Object::default());
        assert_eq!(
            object.digest(&key, &place("ab", "c")),
            Digest::of_encoded(&key, &place("ab", "c"), &object.encode())
        );
        assert_ne!(object.digest(&key, &place("ab", "c")), object.digest(&key, &place("a", "bc")));
        assert_ne!(object.digest(&key, &place("ab", "c")), object.digest(&DigestKey([2; 32]), &place("ab", "c")));
    }
}
