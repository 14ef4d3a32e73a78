//! What a register holds: bytes, what they are, and until when.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::time::WallTime;

/// The types of content, and their numbers in the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TypeTag {
    /// Values, one or several siblings.
    Register,
    /// On or off.
    Flag,
    /// Elements.
    Set,
    /// A number that is added to.
    Counter,
    /// Fields of any type.
    Map,
}

impl TypeTag {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Register, Self::Flag, Self::Set, Self::Counter, Self::Map];

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Register => 1,
            Self::Flag => 2,
            Self::Set => 3,
            Self::Counter => 4,
            Self::Map => 5,
        }
    }
}

impl fmt::Display for TypeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Register => "register",
            Self::Flag => "flag",
            Self::Set => "set",
            Self::Counter => "counter",
            Self::Map => "map",
        })
    }
}

/// A register's value. Ordered only so that equal sets of values have one order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Value {
    /// What the bytes are.
    pub content_type: ContentType,
    /// The bytes.
    pub bytes: Bytes,
    /// From when on every read hides it; fixed when it was bound.
    pub expires_at: Option<WallTime>,
}

impl Value {
    /// A JSON value without expiry. The bytes are not checked.
    #[must_use]
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: ContentType::Json, bytes: bytes.into(), expires_at: None }
    }

    /// Whether it is hidden at `wall`.
    #[must_use]
    pub fn is_expired(&self, wall: WallTime) -> bool {
        self.expires_at.is_some_and(|end| end <= wall)
    }
}

/// What a value's bytes are. In text and serde form a media type.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ContentType {
    /// `application/json`: the default of every client.
    #[default]
    Json,
    /// `application/octet-stream`.
    Bytes,
    /// `application/msgpack`.
    MessagePack,
    /// Any other.
    Other(MediaType),
}

impl ContentType {
    /// The content type with this name.
    ///
    /// # Errors
    /// The name is empty or longer than 127 bytes.
    pub fn new(name: &str) -> Result<Self, ValueError> {
        match name {
            JSON => Ok(Self::Json),
            BYTES => Ok(Self::Bytes),
            MESSAGE_PACK => Ok(Self::MessagePack),
            _ if (1..=CONTENT_TYPE_BYTES_MAX).contains(&name.len()) => Ok(Self::Other(MediaType(name.into()))),
            _ => Err(ValueError::ContentType { bytes: name.len() }),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Json => JSON,
            Self::Bytes => BYTES,
            Self::MessagePack => MESSAGE_PACK,
            Self::Other(MediaType(name)) => name,
        }
    }
}

impl TryFrom<String> for ContentType {
    type Error = ValueError;

    fn try_from(name: String) -> Result<Self, ValueError> {
        Self::new(&name)
    }
}

impl From<ContentType> for String {
    fn from(content_type: ContentType) -> Self {
        content_type.name().into()
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A media type that has no variant of its own; made by `ContentType::new`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MediaType(String);

/// Why parts make no value. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A content type is 1 to 127 bytes.
    #[error("the content type has {bytes} bytes; 1 to {CONTENT_TYPE_BYTES_MAX} are allowed")]
    ContentType {
        /// Its length.
        bytes: usize,
    },
}

/// Longest content type, bytes: the limit of RFC 6838 for either half of one.
pub(crate) const CONTENT_TYPE_BYTES_MAX: usize = 127;

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
const MESSAGE_PACK: &str = "application/msgpack";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_has_one_form() {
        assert_eq!(ContentType::new("application/json"), Ok(ContentType::Json));
        assert_eq!(ContentType::new("text/csv").map(String::from), Ok("text/csv".to_owned()));
        assert_eq!(ContentType::new(""), Err(ValueError::ContentType { bytes: 0 }));
        assert_eq!(ContentType::new(&"x".repeat(128)), Err(ValueError::ContentType { bytes: 128 }));
    }
}
