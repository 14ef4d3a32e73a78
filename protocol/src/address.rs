//! Addresses: keyspace / collection / key.
//!
//! Shape: a keyspace has a name (`[a-z0-9_-]`, 1..=64 bytes, `_` first = reserved); a collection and a key are 1..=512
//! bytes, any bytes. In a keyspace with layout `key` the collection is empty and the text form has two parts.
//! Text form: every part percent-encoded (unreserved characters of RFC 3986 and `:` `@` stay), joined by `/`.
//! `Place` is an address whose keyspace name was resolved to its id: rows, contexts and placement use it, so a dropped
//! and re-created keyspace starts empty. Source: DESIGN §4.

use std::fmt;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

use crate::id::{Class, KeyspaceId, PARTITIONS_COUNT, Partition};

/// Longest keyspace name, bytes.
pub const KEYSPACE_BYTES_MAX: usize = 64;
/// Longest collection name, bytes.
pub const COLLECTION_BYTES_MAX: usize = 512;
/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// Why text or parts are no address. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// A keyspace name is 1 to 64 of `a-z`, `0-9`, `_`, `-`.
    #[error("`{name}` is no keyspace name: 1 to 64 of a-z 0-9 _ -")]
    Keyspace {
        /// The name given.
        name: String,
    },
    /// The collection is empty or longer than 512 bytes.
    #[error("the collection has {bytes} bytes; 1 to {COLLECTION_BYTES_MAX} are allowed")]
    Collection {
        /// Its length.
        bytes: usize,
    },
    /// The key is empty or longer than 512 bytes.
    #[error("the key has {bytes} bytes; 1 to {KEY_BYTES_MAX} are allowed")]
    Key {
        /// Its length.
        bytes: usize,
    },
    /// The text does not have the expected parts.
    #[error("`{text}` is no address: {expected}")]
    Shape {
        /// The text given.
        text: String,
        /// What would be one.
        expected: &'static str,
    },
}

/// A keyspace's name, checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyspaceName(String);

impl KeyspaceName {
    /// Checks `name`.
    ///
    /// # Errors
    /// `AddressError::Keyspace` unless it is 1 to 64 of `a-z 0-9 _ -`.
    pub fn new(name: impl Into<String>) -> Result<Self, AddressError> {
        let name = name.into();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if (1..=KEYSPACE_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name))
        } else {
            Err(AddressError::Keyspace { name })
        }
    }

    /// Whether the name is Shoal's own (begins with `_`): clients may not create it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KeyspaceName {
    type Error = AddressError;

    fn try_from(name: String) -> Result<Self, AddressError> {
        Self::new(name)
    }
}

impl From<KeyspaceName> for String {
    fn from(name: KeyspaceName) -> Self {
        name.0
    }
}

impl fmt::Display for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client calls one object: keyspace name, collection (empty under layout `key`), key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The keyspace's name.
    pub keyspace: KeyspaceName,
    /// The collection; empty in a keyspace with layout `key`.
    pub collection: Bytes,
    /// The key.
    pub key: Bytes,
}

impl Address {
    /// An address in a keyspace with layout `collection`.
    ///
    /// # Errors
    /// A part is empty or too long.
    pub fn in_collection(
        keyspace: KeyspaceName,
        collection: impl Into<Bytes>,
        key: impl Into<Bytes>,
    ) -> Result<Self, AddressError> {
        let (collection, key) = (collection.into(), key.into());
        if collection.is_empty() {
            return Err(AddressError::Collection { bytes: 0 });
        }
        check(&collection, &key)?;
        Ok(Self { keyspace, collection, key })
    }

    /// An address in a keyspace with layout `key`.
    ///
    /// # Errors
    /// The key is empty or too long.
    pub fn in_keyspace(keyspace: KeyspaceName, key: impl Into<Bytes>) -> Result<Self, AddressError> {
        let key = key.into();
        check(&[], &key)?;
        Ok(Self { keyspace, collection: Bytes::new(), key })
    }

    /// Reads `keyspace/key` or `keyspace/collection/key`.
    ///
    /// # Errors
    /// The text has another shape, or a part is not allowed.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let shape = || AddressError::Shape { text: text.into(), expected: "keyspace/key or keyspace/collection/key" };
        let mut parts = text.split('/');
        let keyspace = KeyspaceName::new(parts.next().ok_or_else(shape)?)?;
        match (parts.next(), parts.next(), parts.next()) {
            (Some(key), None, None) => Self::in_keyspace(keyspace, decode_part(key)),
            (Some(collection), Some(key), None) => {
                Self::in_collection(keyspace, decode_part(collection), decode_part(key))
            }
            _ => Err(shape()),
        }
    }

    /// The same address with its keyspace resolved.
    #[must_use]
    pub fn place(&self, keyspace: KeyspaceId) -> Place {
        Place { keyspace, collection: self.collection.clone(), key: self.key.clone() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.collection.is_empty() {
            write!(f, "{}/{}", self.keyspace, encode_part(&self.key))
        } else {
            write!(f, "{}/{}/{}", self.keyspace, encode_part(&self.collection), encode_part(&self.key))
        }
    }
}

/// An address whose keyspace is known by id: what rows, contexts and placement use. Ordered as rows are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The keyspace's id.
    pub keyspace: KeyspaceId,
    /// The collection; empty in a keyspace with layout `key`.
    pub collection: Bytes,
    /// The key.
    pub key: Bytes,
}

impl Place {
    /// The 256-bit hash that decides partition and bucket: blake3 over keyspace id and collection, plus the key under
    /// layout `key` (where the collection is empty).
    #[must_use]
    pub fn placement_hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.keyspace.0.to_be_bytes());
        hasher.update(&(self.collection.len() as u64).to_be_bytes());
        hasher.update(&self.collection);
        if self.collection.is_empty() {
            hasher.update(&self.key);
        }
        *hasher.finalize().as_bytes()
    }

    /// Which bucket of its partition a row falls into, from the top bits on: the first 64 bits of blake3 over every part with
    /// its length. Unkeyed, since replicas compare buckets; what a bucket adds up is keyed (`Digest`). It is not the hash
    /// that `partition` cuts, so the rows of one partition spread over all buckets under either layout.
    #[must_use]
    pub fn row_hash(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        self.hash_into(&mut hasher);
        let hash = *hasher.finalize().as_bytes();
        u64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
    }

    /// Feeds every part, each with its length, so that no two places feed the same bytes.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.keyspace.0.to_be_bytes());
        for part in [&self.collection, &self.key] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }

    /// The partition of `class` that holds this place.
    #[must_use]
    pub fn partition(&self, class: Class) -> Partition {
        let hash = self.placement_hash();
        let top = u16::from_be_bytes([hash[0], hash[1]]);
        Partition { class, index: top >> (16 - PARTITIONS_COUNT.trailing_zeros()) }
    }
}

/// Percent-encodes one part of an address.
#[must_use]
pub fn encode_part(part: &[u8]) -> String {
    percent_encode(part, ESCAPED).to_string()
}

/// Percent-decodes one part of an address.
#[must_use]
pub fn decode_part(part: &str) -> Vec<u8> {
    percent_decode_str(part).collect()
}

fn check(collection: &[u8], key: &[u8]) -> Result<(), AddressError> {
    if collection.len() > COLLECTION_BYTES_MAX {
        return Err(AddressError::Collection { bytes: collection.len() });
    }
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(AddressError::Key { bytes: key.len() });
    }
    Ok(())
}

const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@').remove(b'+');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_survives_slashes_and_raw_bytes() {
        let keyspace = KeyspaceName::new("app").expect("a name");
        let address = Address::in_collection(keyspace, "chat/42", &b"\xff:a b"[..]).expect("an address");
        assert_eq!(address.to_string(), "app/chat%2F42/%FF:a%20b");
        assert_eq!(Address::parse(&address.to_string()), Ok(address));
    }

    #[test]
    fn bad_parts_are_refused_by_name() {
        assert!(matches!(Address::parse("App/x"), Err(AddressError::Keyspace { .. })));
        assert!(matches!(Address::parse("app"), Err(AddressError::Shape { .. })));
        assert!(matches!(Address::parse("app/"), Err(AddressError::Key { bytes: 0 })));
        assert!(matches!(Address::parse("app//k"), Err(AddressError::Collection { bytes: 0 })));
        assert!(matches!(Address::parse("app/a/b/c"), Err(AddressError::Shape { .. })));
        let long = format!("app/{}", "k".repeat(KEY_BYTES_MAX + 1));
        assert!(matches!(Address::parse(&long), Err(AddressError::Key { bytes: 513 })));
    }

    #[test]
    fn a_collection_is_one_partition_and_keys_of_a_key_layout_are_spread() {
        let class = Class { n: 3, r: 0, w: 0 };
        let place = |collection: &str, key: String| Place {
            keyspace: KeyspaceId(7),
            collection: Bytes::copy_from_slice(collection.as_bytes()),
            key: key.into(),
        };
        let one: std::collections::BTreeSet<_> =
            (0..100).map(|i| place("chat", format!("{i}")).partition(class)).collect();
        let many: std::collections::BTreeSet<_> =
            (0..100).map(|i| place("", format!("{i}")).partition(class)).collect();
        assert_eq!(one.len(), 1);
        assert!(many.len() > 50);
    }

    #[test]
    fn row_hashes_are_the_same_on_every_replica_and_spread_whatever_the_layout() {
        let place = |collection: &str, key: String| Place {
            keyspace: KeyspaceId(7),
            collection: Bytes::copy_from_slice(collection.as_bytes()),
            key: key.into(),
        };
        // Written down: a change would make replicas of two versions differ in every bucket.
        assert_eq!(place("chat", "42".into()).row_hash(), 0xe486_da3a_4366_21a6);
        let class = Class { n: 3, r: 0, w: 0 };
        for collection in ["chat", ""] {
            let partition = place(collection, "0".into()).partition(class);
            let places = (0..100_000).map(|i| place(collection, format!("{i}")));
            let inside = places.filter(|place| place.partition(class) == partition).take(300);
            let buckets: std::collections::BTreeSet<_> = inside.map(|place| place.row_hash() >> 54).collect();
            assert!(buckets.len() > 200, "{} buckets", buckets.len());
        }
    }
}
