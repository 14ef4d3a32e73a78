//! What a set holds.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::object::keyed::{KEY_WEIGHT, Key};

/// One element of a set. Elements of different kinds are different, and ordered by kind first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Element {
    /// A string.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Raw bytes.
    Bytes(Bytes),
}

impl Element {
    /// Bytes of its content.
    #[must_use]
    pub fn bytes_count(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Int(_) => size_of::<i64>(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl Key for Element {
    fn weight(&self) -> usize {
        KEY_WEIGHT + self.bytes_count()
    }
}
