//! A context in a client's hands: sealed, bound to one address.
//!
//! Shape: version (1 B), keyed hash of the full `Place` (8 B), the context's canonical bytes, key id (1 B), MAC (16 B, keyed
//! blake3 over all before it). Text form: base64url without padding. About 12 B per actor.
//! Invariant: what `open` returns was sealed by a holder of the key, for that very place.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::Place;
use crate::causality::Context;

/// Why a presented context is not accepted. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// It is no encoded context, or of a version not known here.
    #[error("not an encoded context")]
    Malformed,
    /// It was sealed with a key that this cluster does not have (any more): read again.
    #[error("context sealed with unknown key {key_id}")]
    UnknownKey {
        /// The key's id.
        key_id: u8,
    },
    /// It was changed after it was sealed, or never sealed here.
    #[error("forged context")]
    Forged,
    /// It was given out for another address.
    #[error("context of another address")]
    Mismatch,
}

/// A context as a client holds it. Opaque to the client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EncodedContext(pub Bytes);

impl EncodedContext {
    /// Seals `context` for `place` with the first key.
    ///
    /// # Panics
    /// When `keys` is empty: a node holds at least one from formation on.
    #[must_use]
    pub fn seal(keys: &ContextKeys, place: &Place, context: &Context) -> Self {
        let key = keys.0.first().expect("a node that answers clients holds a context key");
        let mut out = vec![VERSION];
        out.extend(key.place_hash(place));
        context.write_with_actors(&mut out);
        out.push(key.id);
        let mac = key.mac(&out);
        out.extend(mac);
        Self(out.into())
    }

    /// The context, if it was sealed with one of `keys` for `place`.
    ///
    /// # Errors
    /// See `ContextError`.
    pub fn open(&self, keys: &ContextKeys, place: &Place) -> Result<Context, ContextError> {
        let (signed, mac) = self.0.split_last_chunk::<MAC_BYTES>().ok_or(ContextError::Malformed)?;
        let (&key_id, head) = signed.split_last().ok_or(ContextError::Malformed)?;
        let (&version, head) = head.split_first().ok_or(ContextError::Malformed)?;
        let (place_hash, ranges) = head.split_first_chunk::<PLACE_HASH_BYTES>().ok_or(ContextError::Malformed)?;
        if version != VERSION {
            return Err(ContextError::Malformed);
        }
        let key = keys.0.iter().find(|key| key.id == key_id).ok_or(ContextError::UnknownKey { key_id })?;
        if !equal_in_constant_time(&key.mac(signed), mac) {
            return Err(ContextError::Forged);
        }
        if key.place_hash(place) != *place_hash {
            return Err(ContextError::Mismatch);
        }
        Context::decode(ranges).map_err(|_| ContextError::Malformed)
    }
}

impl fmt::Display for EncodedContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl FromStr for EncodedContext {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, ContextError> {
        URL_SAFE_NO_PAD.decode(text).map(|bytes| Self(bytes.into())).map_err(|_| ContextError::Malformed)
    }
}

/// A key that seals and opens contexts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextKey {
    /// Named in every context it sealed.
    pub id: u8,
    /// The secret.
    pub key: [u8; 32],
}

impl ContextKey {
    fn place_hash(&self, place: &Place) -> [u8; PLACE_HASH_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(b"shoal context place");
        place.hash_into(&mut hasher);
        first_bytes(&hasher)
    }

    fn mac(&self, signed: &[u8]) -> [u8; MAC_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(b"shoal context mac");
        hasher.update(signed);
        first_bytes(&hasher)
    }
}

impl fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys a cluster holds: the first seals, all open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContextKeys(pub Vec<ContextKey>);

fn first_bytes<const N: usize>(hasher: &blake3::Hasher) -> [u8; N] {
    let mut bytes = [0; N];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn equal_in_constant_time(a: &[u8; MAC_BYTES], b: &[u8; MAC_BYTES]) -> bool {
    u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b) == 0
}

const VERSION: u8 = 1;
const PLACE_HASH_BYTES: usize = 8;
const MAC_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Actor, KeyspaceId};

    fn place(key: &'static str) -> Place {
        Place { keyspace: KeyspaceId(1), collection: Bytes::from_static(b"c"), key: Bytes::from_static(key.as_bytes()) }
    }

    fn keys(ids: &[u8]) -> ContextKeys {
        ContextKeys(ids.iter().map(|id| ContextKey { id: *id, key: [*id; 32] }).collect())
    }

    fn context() -> Context {
        let mut context = Context::default();
        context.insert_range(Actor(7), 0, 4);
        context.insert_range(Actor(9), 6, 8);
        context
    }

    #[test]
    fn an_older_key_still_opens_and_text_survives() {
        let sealed = EncodedContext::seal(&keys(&[1]), &place("k"), &context());
        let text = sealed.to_string();
        assert_eq!(text.parse::<EncodedContext>(), Ok(sealed));
        assert_eq!(text.parse::<EncodedContext>().unwrap().open(&keys(&[2, 1]), &place("k")), Ok(context()));
    }

    #[test]
    fn another_key_of_the_same_collection_is_a_mismatch() {
        let sealed = EncodedContext::seal(&keys(&[1]), &place("k"), &context());
        assert_eq!(sealed.open(&keys(&[1]), &place("l")), Err(ContextError::Mismatch));
        assert_eq!(sealed.open(&keys(&[2]), &place("k")), Err(ContextError::UnknownKey { key_id: 1 }));
    }

    #[test]
    fn any_changed_or_missing_byte_is_refused() {
        let sealed = EncodedContext::seal(&keys(&[1]), &place("k"), &context());
        for at in 0..sealed.0.len() {
            let mut bytes = sealed.0.to_vec();
            bytes[at] ^= 0x10;
            assert!(EncodedContext(bytes.into()).open(&keys(&[1]), &place("k")).is_err());
            assert!(EncodedContext(sealed.0.slice(..at)).open(&keys(&[1]), &place("k")).is_err());
        }
        assert_eq!("a b".parse::<EncodedContext>(), Err(ContextError::Malformed));
    }
}
