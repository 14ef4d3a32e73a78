//! Values: what an application's types become, and back.
//!
//! JSON is the default of every client; bytes, text and MessagePack on request. Reading goes by the content type that is
//! stored, so what one client wrote as MessagePack another reads into the same type.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_protocol::object::{ContentType, Element, Value};

use crate::error::Error;

/// `value` as JSON.
///
/// # Errors
/// `Error::Value` when it has no JSON form.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    Ok(Value::json(serde_json::to_vec(value).map_err(wrong)?))
}

/// `value` as MessagePack, structs with field names.
///
/// # Errors
/// `Error::Value` when it has no MessagePack form.
pub fn message_pack<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    let bytes = rmp_serde::to_vec_named(value).map_err(wrong)?;
    Ok(Value { content_type: ContentType::MessagePack, bytes: bytes.into(), expires_at: None })
}

/// Raw bytes.
#[must_use]
pub fn bytes(value: impl Into<Bytes>) -> Value {
    Value { content_type: ContentType::Bytes, bytes: value.into(), expires_at: None }
}

/// Plain text (`text/plain; charset=utf-8`).
///
/// # Errors
/// None in practice: the content type is a valid one.
pub fn text(value: impl Into<String>) -> Result<Value, Error> {
    let content_type = ContentType::new(TEXT).map_err(wrong)?;
    Ok(Value { content_type, bytes: value.into().into(), expires_at: None })
}

/// Reads a value into a Rust type, by its content type: JSON, MessagePack, or text as a string. Take other values, and
/// bytes, from `Value::bytes`.
///
/// # Errors
/// `Error::Value` when the bytes are no `T`.
pub fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    match &value.content_type {
        ContentType::Json => serde_json::from_slice(&value.bytes).map_err(wrong),
        ContentType::MessagePack => rmp_serde::from_slice(&value.bytes).map_err(wrong),
        ContentType::Other(_) if value.content_type.name().starts_with("text/") => {
            let text = str::from_utf8(&value.bytes).map_err(wrong)?;
            serde_json::from_value(serde_json::Value::String(text.into())).map_err(wrong)
        }
        other @ (ContentType::Bytes | ContentType::Other(_)) => {
            Err(Error::Value { reason: format!("a value of type {other} has only bytes") })
        }
    }
}

/// What may stand in a set.
pub trait IntoElement {
    /// The element.
    fn into_element(self) -> Element;
}

impl IntoElement for Element {
    fn into_element(self) -> Element {
        self
    }
}

impl IntoElement for &Element {
    fn into_element(self) -> Element {
        self.clone()
    }
}

impl IntoElement for &str {
    fn into_element(self) -> Element {
        Element::Text(self.into())
    }
}

impl IntoElement for String {
    fn into_element(self) -> Element {
        Element::Text(self)
    }
}

impl IntoElement for i64 {
    fn into_element(self) -> Element {
        Element::Int(self)
    }
}

impl IntoElement for Bytes {
    fn into_element(self) -> Element {
        Element::Bytes(self)
    }
}

fn wrong(error: impl ToString) -> Error {
    Error::Value { reason: error.to_string() }
}

const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Profile {
        name: String,
        tags: Vec<u32>,
    }

    #[test]
    fn a_struct_survives_json_and_message_pack_and_reads_by_content_type() {
        let profile = Profile { name: "Ada".into(), tags: vec![1, 2] };
        for value in [json(&profile).unwrap(), message_pack(&profile).unwrap()] {
            assert_eq!(decode::<Profile>(&value).unwrap(), profile, "{}", value.content_type);
        }
        assert_eq!(decode::<String>(&text("plain").unwrap()).unwrap(), "plain");
    }

    #[test]
    fn bytes_are_no_struct_and_a_wrong_shape_is_an_error() {
        assert!(matches!(decode::<Profile>(&bytes(&b"x"[..])), Err(Error::Value { .. })));
        assert!(matches!(decode::<Profile>(&json("x").unwrap()), Err(Error::Value { .. })));
    }
}
