//! The keys a cluster makes when it is founded: the same on every node, and older than any access to them.
//!
//! They live in the proposal of the first layout, so that forming the layout settles them. They outlive the cluster secret.
//! Source: DESIGN §11.

use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use serde::{Deserialize, Serialize};
use shoal_protocol::causality::{ContextKey, ContextKeys};
use shoal_protocol::object::DigestKey;

/// The keys of one cluster. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeys {
    /// Keys the digests of objects.
    pub digest: DigestKey,
    /// Seal and open contexts in clients' hands, by id.
    pub contexts: ContextKeys,
    /// Keys the proof that a node of this cluster granted a session.
    pub session: SessionKey,
}

impl ClusterKeys {
    /// Fresh keys, with one context key.
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut key = || {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            key
        };
        Self {
            digest: DigestKey(key()),
            contexts: ContextKeys(vec![ContextKey { id: 1, key: key() }]),
            session: SessionKey(key()),
        }
    }
}

/// The secret behind `SessionGrant::mac`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionKey(pub [u8; 32]);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}
