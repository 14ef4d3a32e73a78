//! Message bodies as bytes: MessagePack, structs as arrays.
//!
//! Objects inside messages are canonical bytes already (see `object`), carried as opaque binaries.
//! Limits: the frame bounds the length; `decode` rejects trailing bytes and nesting beyond `DEPTH_MAX`.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes are not the message expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {reason}")]
pub struct CodecError {
    reason: String,
}

/// Appends `message` to `out`.
///
/// # Panics
/// Never for Shoal's own messages: writing to memory cannot fail and every type is encodable.
pub fn encode_to<T: Serialize>(message: &T, out: &mut BytesMut) {
    rmp_serde::encode::write(&mut out.writer(), message).expect("messages are encodable and memory takes them");
}

/// `message` as bytes.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> BytesMut {
    let mut out = BytesMut::new();
    encode_to(message, &mut out);
    out
}

/// Reads one message that fills `bytes` exactly.
///
/// # Errors
/// `CodecError` when the bytes are anything else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut deserializer = rmp_serde::Deserializer::new(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    let message = T::deserialize(&mut deserializer).map_err(|e| CodecError { reason: e.to_string() })?;
    if deserializer.get_ref().is_empty() { Ok(message) } else { Err(CodecError { reason: "trailing bytes".into() }) }
}

/// Nesting of enums, structs and lists in one message: a batch of operations on nested maps needs about 40.
const DEPTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&(1u8, "two"));
        assert_eq!(decode::<(u8, String)>(&bytes), Ok((1, "two".into())));
        bytes.put_u8(0);
        assert!(decode::<(u8, String)>(&bytes).is_err());
        assert!(decode::<(u8, String)>(&[0x92]).is_err());
    }
}
