//! Values on the command line: how they are given and how they are shown.
//!
//! JSON unless told otherwise: a bare word is refused, since `milk` and `"milk"` would be the same to a person and not to
//! another program. White space between the tokens of JSON is dropped, so a value is one line; numbers and the order of
//! members stay as written.

use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use shoal_protocol::object::{ContentType, Element, Value, View};
use shoal_protocol::time::WallTime;

use super::failure::Failure;

/// A value to be written.
#[derive(Debug, clap::Args)]
pub(super) struct ValueArgs {
    /// The value, JSON unless said otherwise; `@FILE` is what a file holds, `-` is standard input.
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    value: String,
    /// It is plain text.
    #[arg(long, conflicts_with_all = ["bytes", "content_type"])]
    text: bool,
    /// It is raw bytes.
    #[arg(long, conflicts_with = "content_type")]
    bytes: bool,
    /// It is of this media type, and its bytes are not looked at.
    #[arg(long, value_name = "MEDIA_TYPE")]
    content_type: Option<String>,
    /// It expires after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    expires_in: Option<u32>,
}

impl ValueArgs {
    /// The value, with its expiry.
    pub(super) fn read(&self) -> Result<Value, Failure> {
        let expires_at = self.expires_in.map(|seconds| WallTime(wall().0.saturating_add(u64::from(seconds) * 1_000)));
        Ok(Value { expires_at, ..self.value()? })
    }

    fn value(&self) -> Result<Value, Failure> {
        let bytes = source(&self.value)?;
        if let Some(name) = &self.content_type {
            let content_type = ContentType::new(name).map_err(Failure::usage)?;
            return Ok(Value { content_type, bytes: bytes.into(), expires_at: None });
        }
        if self.bytes {
            return Ok(shoal_client::value::bytes(bytes));
        }
        let text =
            String::from_utf8(bytes).map_err(|_| Failure::usage("the value is not UTF-8").hint("use --bytes"))?;
        if self.text { Ok(shoal_client::value::text(text)?) } else { Ok(Value::json(compact_json(&text)?)) }
    }
}

/// What the clock of this machine says.
pub(super) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What an argument stands for: itself, a file, or standard input.
pub(super) fn source(argument: &str) -> Result<Vec<u8>, Failure> {
    if argument == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read(path).map_err(|error| Failure::file(Path::new(path), &error)),
        None => Ok(argument.as_bytes().to_vec()),
    }
}

/// Checks JSON and drops the white space around its tokens.
fn compact_json(text: &str) -> Result<String, Failure> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
        let failure = Failure::usage(format!("the value is not JSON: {error}"));
        if text.trim_start().starts_with(['{', '[', '"']) {
            failure
        } else {
            failure.hint(format!("use --text, or write JSON: '{}'", serde_json::Value::from(text.trim())))
        }
    })?;
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        let ends = in_string && *c == '"' && !escaped;
        let begins = !in_string && *c == '"';
        escaped = in_string && *c == '\\' && !escaped;
        if ends || begins {
            in_string = begins;
        }
        in_string || !c.is_ascii_whitespace()
    };
    Ok(text.chars().filter(keep).collect())
}

/// A value as a person reads it on one line.
pub(super) fn plain(value: &Value) -> String {
    match &value.content_type {
        ContentType::Json => String::from_utf8_lossy(&value.bytes).into_owned(),
        other @ (ContentType::Bytes | ContentType::MessagePack | ContentType::Other(_)) => {
            match (other.name().starts_with("text/"), str::from_utf8(&value.bytes)) {
                (true, Ok(text)) => text.to_owned(),
                _ => format!("{{\"base64\":\"{}\"}}", STANDARD.encode(&value.bytes)),
            }
        }
    }
}

/// A set's element as JSON.
pub(super) fn element_json(element: &Element) -> serde_json::Value {
    match element {
        Element::Text(text) => text.as_str().into(),
        Element::Int(int) => (*int).into(),
        Element::Bytes(bytes) => serde_json::json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// Anything as a person reads it: registers as their values, one a line; the others as JSON of what they hold.
pub(super) fn plain_view(view: &View) -> String {
    match view {
        View::Absent => String::new(),
        View::Register { values } => values.iter().map(plain).collect::<Vec<_>>().join("\n"),
        View::Flag(on) => on.to_string(),
        View::Counter(value) => value.to_string(),
        View::Set(elements) => serde_json::Value::Array(elements.iter().map(element_json).collect()).to_string(),
        View::Map(fields) => {
            let fields = fields
                .iter()
                .map(|(field, views)| format!("{}:{}", serde_json::Value::from(field.as_str()), plain_nested(views)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        View::Conflict(views) => views.iter().map(plain_view).collect::<Vec<_>>().join("\n"),
    }
}

/// What stands in a map's field, as JSON: an array where there are several.
fn plain_nested(views: &[View]) -> String {
    let mut shown = Vec::new();
    for view in views {
        match view {
            View::Register { values } => shown.extend(values.iter().map(json_text)),
            View::Absent | View::Flag(_) | View::Counter(_) | View::Set(_) | View::Map(_) | View::Conflict(_) => {
                shown.push(plain_view(view));
            }
        }
    }
    match &shown[..] {
        [one] => one.clone(),
        several => format!("[{}]", several.join(",")),
    }
}

/// A value as JSON, where text and JSON are told apart.
fn json_text(value: &Value) -> String {
    let text = plain(value);
    if value.content_type.name().starts_with("text/") { serde_json::Value::from(text).to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn json_loses_white_space_and_nothing_else() {
        let text = " { \"b\" : [ 1.50 , 2e3 ],\n \"a\": \"x \\\" y\\\\\" , \"n\" : 123456789012345678901 } ";
        assert_eq!(compact_json(text).unwrap(), r#"{"b":[1.50,2e3],"a":"x \" y\\","n":123456789012345678901}"#);
    }

    #[test]
    fn a_bare_word_is_refused_with_the_two_ways_out() {
        let failure = compact_json("milk").unwrap_err();
        assert_eq!(failure.code(), "usage");
        assert!(failure.to_string().contains(r#"use --text, or write JSON: '"milk"'"#), "{failure}");
        assert!(compact_json("").is_err());
        assert!(compact_json("1 2").is_err());
    }

    #[test]
    fn a_map_is_shown_as_one_json_object_whatever_it_holds() {
        let fields = BTreeMap::from([
            ("name".to_owned(), vec![View::Register { values: vec![Value::json("\"Ada\"")] }]),
            ("visits".to_owned(), vec![View::Counter(3)]),
            (
                "motto".to_owned(),
                vec![View::Register { values: vec![shoal_client::value::text("a \"b\"").unwrap(), Value::json("1")] }],
            ),
            ("tags".to_owned(), vec![View::Set(vec![Element::Text("x".into()), Element::Bytes("ab".into())])]),
        ]);
        let shown = plain_view(&View::Map(fields));
        assert_eq!(shown, r#"{"motto":["a \"b\"",1],"name":"Ada","tags":["x",{"base64":"YWI="}],"visits":3}"#);
        serde_json::from_str::<IgnoredAny>(&shown).unwrap();
    }
}
