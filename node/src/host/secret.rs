//! The cluster secret, and everything that follows from it.
//!
//! What: 32 bytes that every node holds and no client does. From it come the cluster CA's key (tls.rs), each node's
//! stateless-reset and connection-id keys (endpoint.rs), and the ids of cluster and nodes.
//! Shape: key = HKDF-SHA256(salt, secret, purpose); cluster id = blake3(secret, cluster name)[..8]; node id =
//! blake3(cluster id, node name)[..8], both big-endian, names length-prefixed. Source: DESIGN §5, §11.
//! Invariant: the bytes of a secret are never printed; `Debug` hides them and there is no `Display`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use sha2::Sha256;
use shoal_protocol::id::{ClusterId, NodeId};

/// 32 secret bytes shared by the nodes of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; SECRET_BYTES]);

/// A text is not a cluster secret. The text itself is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Readable, but of another length.
    #[error("a cluster secret is {SECRET_BYTES} bytes, this one is {bytes}")]
    WrongLength {
        /// Its length.
        bytes: usize,
    },
    /// Neither hex nor base64.
    #[error("a cluster secret is written as 64 hex digits or as base64 of {SECRET_BYTES} bytes")]
    NotHexOrBase64,
    /// No secret where at least one is needed.
    #[error("no secret in it")]
    Missing,
}

impl ClusterSecret {
    /// The secret with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hex digits, or base64 (either alphabet, padded or not) of 32 bytes. Surrounding white space is ignored.
    ///
    /// # Errors
    /// `SecretError` when the text is anything else.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let bytes = from_hex(text).or_else(|| from_base64(text)).ok_or(SecretError::NotHexOrBase64)?;
        let bytes =
            <[u8; SECRET_BYTES]>::try_from(&bytes[..]).map_err(|_| SecretError::WrongLength { bytes: bytes.len() })?;
        Ok(Self(bytes))
    }

    /// The key for one purpose.
    pub(super) fn derive(&self, purpose: &str, of: &[u8]) -> [u8; 32] {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(HKDF_SALT), &self.0)
            .expand_multi_info(&[purpose.as_bytes(), &[0], of], &mut key)
            .expect("HKDF-SHA256 yields up to 8,160 bytes");
        key
    }

    /// The id of the cluster of this name formed with this secret.
    #[must_use]
    pub fn cluster_id(&self, cluster_name: &str) -> ClusterId {
        ClusterId(hash(&self.0, cluster_name))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// One secret, or several while one replaces another: certificates are issued from the first, all are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSecrets {
    first: ClusterSecret,
    others: Vec<ClusterSecret>,
}

impl ClusterSecrets {
    /// One secret.
    #[must_use]
    pub const fn one(secret: ClusterSecret) -> Self {
        Self { first: secret, others: Vec::new() }
    }

    /// The publicly known secret of a node that was given none. It protects nothing, so such a node listens on loopback
    /// only.
    #[must_use]
    pub const fn public() -> Self {
        Self::one(ClusterSecret([0; SECRET_BYTES]))
    }

    /// Reads one secret per line (or separated by commas); empty lines and lines beginning with `#` are skipped.
    ///
    /// # Errors
    /// `SecretError` of the first part that is not a secret, or when there is none.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let mut secrets = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
            .flat_map(|line| line.split(','))
            .filter(|part| !part.trim().is_empty())
            .map(ClusterSecret::parse);
        let first = secrets.next().ok_or(SecretError::Missing)??;
        Ok(Self { first, others: secrets.collect::<Result<_, _>>()? })
    }

    /// The secret that certificates and keys come from.
    #[must_use]
    pub const fn first(&self) -> &ClusterSecret {
        &self.first
    }

    /// All of them, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &ClusterSecret> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// The id of the node of this name in a cluster. It survives a wipe of the node's data.
#[must_use]
pub fn node_id(cluster: ClusterId, node_name: &str) -> NodeId {
    NodeId(hash(&cluster.0.to_be_bytes(), node_name))
}

fn hash(scope: &[u8], name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [scope, name.as_bytes()] {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    u64::from_be_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().map(|byte| char::from(byte).to_digit(16)).collect::<Option<Vec<u32>>>()?;
    if digits.len() % 2 != 0 {
        return None;
    }
    Some(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|engine| engine.decode(text).ok())
}

/// Bytes of a cluster secret.
pub const SECRET_BYTES: usize = 32;
const HKDF_SALT: &[u8] = b"shoal cluster secret v1";

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn hex_and_base64_of_the_same_bytes_are_the_same_secret() {
        let secret = ClusterSecret::parse(HEX).unwrap();
        for text in [
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            " AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n",
            &HEX.to_uppercase(),
        ] {
            assert_eq!(ClusterSecret::parse(text), Ok(secret.clone()), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_without_repeating_them() {
        assert_eq!(ClusterSecret::parse(&HEX[2..]), Err(SecretError::WrongLength { bytes: 31 }));
        assert_eq!(ClusterSecret::parse("not a secret!"), Err(SecretError::NotHexOrBase64));
        assert_eq!(ClusterSecrets::parse("\n# nothing\n"), Err(SecretError::Missing));
        assert_eq!(format!("{:?}", ClusterSecret::parse(HEX).unwrap()), "ClusterSecret(..)");
    }

    #[test]
    fn a_list_keeps_its_order() {
        let other = HEX.replace("00", "ff");
        let secrets = ClusterSecrets::parse(&format!("# newest first\n{other}\n\n{HEX}\n")).unwrap();
        assert_eq!(secrets.first(), &ClusterSecret::parse(&other).unwrap());
        assert_eq!(secrets.iter().count(), 2);
    }

    #[test]
    fn ids_depend_on_secret_cluster_and_node_and_never_change() {
        let secret = ClusterSecret::parse(HEX).unwrap();
        let cluster = secret.cluster_id("shoal");
        assert_ne!(cluster, secret.cluster_id("other"));
        assert_ne!(cluster, ClusterSecrets::public().first().cluster_id("shoal"));
        assert_ne!(node_id(cluster, "a"), node_id(secret.cluster_id("other"), "a"));
        // Golden: a change here would make every node a stranger to its own data.
        assert_eq!(format!("{cluster} {}", node_id(cluster, "a")), "026a404662cb59ba 0efb95f81ac6fe85");
    }
}
