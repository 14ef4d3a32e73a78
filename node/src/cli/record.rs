//! Records: one key as a line of NDJSON, for `import`, `export`, `scan --json` and `get --json`.
//!
//! Shape: `{collection, key, type, values: [{json | base64, content_type, expires_at}]}` for registers, where `value` is a
//! shorthand for one value and `type` may be left out; `value` alone for the other types: `{"json": [elements]}` for a set,
//! a number for a counter, true or false for a flag, an object of `{type, value(s)}` by field for a map (a list of those
//! where concurrent writes left several types). Names that are not UTF-8 are `{"base64": ...}`, and so are a set's bytes.
//! Units: `expires_at` in milliseconds since 1970. Invariants: JSON values keep their bytes, both ways; unknown members are
//! refused; reading what was written gives the same.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use shoal_protocol::object::{ContentType, Element, Value, View};
use shoal_protocol::time::WallTime;

/// One key and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// `None` where the line names none.
    pub(super) collection: Option<Bytes>,
    pub(super) key: Bytes,
    /// Neither absent nor a conflict.
    pub(super) view: View,
}

impl Record {
    /// Reads a line.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| said(&error))?;
        let view = content(line.kind, line.values, line.value)?;
        let collection = line.collection.map(Name::into_bytes).transpose()?;
        Ok(Self { collection, key: line.key.into_bytes()?, view })
    }
}

/// The lines of one row: one, one for each type where concurrent writes left several, or its name alone.
pub(super) fn lines(collection: &Bytes, key: &Bytes, view: &View) -> std::io::Result<Vec<String>> {
    let collection = (!collection.is_empty()).then(|| Name::of(collection));
    let line = |content| {
        let printed = Printed { collection: collection.clone(), key: Name::of(key), content };
        Ok(serde_json::to_string(&printed)?)
    };
    let contents = typed(view);
    if contents.is_empty() { Ok(vec![line(None)?]) } else { contents.into_iter().map(Some).map(line).collect() }
}

/// The content of a view as it stands in a record: one for each live type.
pub(super) fn typed(view: &View) -> Vec<Typed<'_>> {
    let one = |kind, value| vec![Typed { kind, values: None, value: Some(value) }];
    match view {
        View::Absent => Vec::new(),
        View::Conflict(views) => views.iter().flat_map(typed).collect(),
        View::Register { values } => {
            let values = Some(values.iter().map(PrintedValue::of).collect());
            vec![Typed { kind: Kind::Register, values, value: None }]
        }
        View::Flag(on) => one(Kind::Flag, Natural::Flag(*on)),
        View::Counter(value) => one(Kind::Counter, Natural::Counter(*value)),
        View::Set(elements) => one(Kind::Set, Natural::Set { json: elements.iter().map(PrintedElement::of).collect() }),
        View::Map(fields) => {
            one(Kind::Map, Natural::Map(fields.iter().map(|(name, views)| (name.as_str(), field(views))).collect()))
        }
    }
}

fn field(views: &[View]) -> Field<'_> {
    let mut all: Vec<_> = views.iter().flat_map(typed).collect();
    if all.len() == 1 { Field::One(all.remove(0)) } else { Field::Several(all) }
}

/// Content of one type, to be printed.
#[derive(Serialize)]
pub(super) struct Typed<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<PrintedValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Natural<'a>>,
}

#[derive(Serialize)]
struct Printed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    collection: Option<Name>,
    key: Name,
    #[serde(flatten)]
    content: Option<Typed<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Natural<'a> {
    Flag(bool),
    Counter(i64),
    Set { json: Vec<PrintedElement<'a>> },
    Map(BTreeMap<&'a str, Field<'a>>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Field<'a> {
    One(Typed<'a>),
    Several(Vec<Typed<'a>>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum PrintedElement<'a> {
    Text(&'a str),
    Int(i64),
    Bytes { base64: String },
}

impl<'a> PrintedElement<'a> {
    fn of(element: &'a Element) -> Self {
        match element {
            Element::Text(text) => Self::Text(text),
            Element::Int(int) => Self::Int(*int),
            Element::Bytes(bytes) => Self::Bytes { base64: STANDARD.encode(bytes) },
        }
    }
}

#[derive(Serialize)]
struct PrintedValue {
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

impl PrintedValue {
    fn of(value: &Value) -> Self {
        let is_json = value.content_type == ContentType::Json;
        let json = if is_json { inline_json(&value.bytes) } else { None };
        let base64 = json.is_none().then(|| STANDARD.encode(&value.bytes));
        let content_type = base64.is_some().then(|| value.content_type.name().to_owned());
        Self { json, base64, content_type, expires_at: value.expires_at.map(|at| at.0) }
    }
}

/// JSON that can stand in a line as it is: valid, on one line, and nothing around it that would get lost.
fn inline_json(bytes: &Bytes) -> Option<Box<RawValue>> {
    let text = str::from_utf8(bytes).ok().filter(|text| !text.contains('\n') && text.trim() == *text)?;
    RawValue::from_string(text.to_owned()).ok()
}

/// A collection or key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Raw(RawName),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawName {
    base64: String,
}

impl Name {
    fn of(bytes: &Bytes) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Raw(RawName { base64: STANDARD.encode(bytes) }),
        }
    }

    fn into_bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Raw(RawName { base64 }) => from_base64(&base64),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Register,
    Flag,
    Set,
    Counter,
    Map,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    collection: Option<Name>,
    key: Name,
    #[serde(rename = "type", default)]
    kind: Kind,
    #[serde(default)]
    values: Option<Vec<GivenValue>>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    #[serde(rename = "type", default)]
    kind: Kind,
    #[serde(default)]
    values: Option<Vec<GivenValue>>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenValue {
    #[serde(default, deserialize_with = "present")]
    json: Option<Box<RawValue>>,
    #[serde(default)]
    base64: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    expires_at: Option<u64>,
}

/// A member that is there, though it be null.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

fn content(kind: Kind, values: Option<Vec<GivenValue>>, value: Option<Box<RawValue>>) -> Result<View, String> {
    if kind == Kind::Register {
        return register(values, value);
    }
    if values.is_some() {
        return Err("only a register has `values`; this type has `value`".into());
    }
    let value = value.ok_or("`value` is missing")?;
    Ok(match kind {
        Kind::Register => return Err("a register was read above".into()),
        Kind::Flag => View::Flag(natural(&value)?),
        Kind::Counter => View::Counter(natural(&value)?),
        Kind::Set => View::Set(elements(&value)?),
        Kind::Map => View::Map(fields(&value)?),
    })
}

fn register(values: Option<Vec<GivenValue>>, value: Option<Box<RawValue>>) -> Result<View, String> {
    let given = match (values, value) {
        (Some(_), Some(_)) => return Err("`value` and `values` at once".into()),
        (Some(values), None) if values.is_empty() => return Err("`values` is empty".into()),
        (Some(values), None) => values,
        (None, Some(value)) => vec![serde_json::from_str(value.get()).map_err(|error| said(&error))?],
        (None, None) => return Err("`values` (or `value`) is missing".into()),
    };
    Ok(View::Register { values: given.into_iter().map(GivenValue::into_value).collect::<Result<_, _>>()? })
}

impl GivenValue {
    fn into_value(self) -> Result<Value, String> {
        let content_type = self.content_type.map(|name| ContentType::new(&name)).transpose();
        let content_type = content_type.map_err(|error| error.to_string())?;
        let expires_at = self.expires_at.map(WallTime);
        match (self.json, self.base64, content_type) {
            (Some(json), None, None | Some(ContentType::Json)) => {
                let bytes = Bytes::from(json.get().to_owned());
                Ok(Value { content_type: ContentType::Json, bytes, expires_at })
            }
            (Some(_), None, Some(other)) => Err(format!("`json` is of type application/json, not {other}")),
            (None, Some(base64), content_type) => {
                let content_type = content_type.unwrap_or(ContentType::Bytes);
                Ok(Value { content_type, bytes: from_base64(&base64)?, expires_at })
            }
            (Some(_), Some(_), _) | (None, None, _) => Err("a value is either `json` or `base64`".into()),
        }
    }
}

/// `5`, or `{"json": 5}`.
fn natural<T: for<'de> Deserialize<'de>>(value: &RawValue) -> Result<T, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wrapped<T> {
        json: T,
    }
    serde_json::from_str::<Wrapped<T>>(value.get())
        .map(|wrapped| wrapped.json)
        .or_else(|_| serde_json::from_str(value.get()))
        .map_err(|error| said(&error))
}

fn elements(value: &RawValue) -> Result<Vec<Element>, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Int(i64),
        Text(String),
        Raw(RawName),
    }
    let given: Vec<Given> = natural(value).map_err(|_| "a set is a list of strings, whole numbers and {\"base64\"}")?;
    given
        .into_iter()
        .map(|element| {
            Ok(match element {
                Given::Int(int) => Element::Int(int),
                Given::Text(text) => Element::Text(text),
                Given::Raw(RawName { base64 }) => Element::Bytes(from_base64(&base64)?),
            })
        })
        .collect()
}

fn fields(value: &RawValue) -> Result<BTreeMap<String, Vec<View>>, String> {
    let given: BTreeMap<String, Box<RawValue>> = serde_json::from_str(value.get()).map_err(|error| said(&error))?;
    let read = |(name, given): (String, Box<RawValue>)| {
        let in_field = |error: String| format!("field {name:?}: {error}");
        let nested: Vec<Nested> = if given.get().starts_with('[') {
            serde_json::from_str(given.get())
        } else {
            serde_json::from_str(given.get()).map(|one| vec![one])
        }
        .map_err(|error| in_field(said(&error)))?;
        let views = nested.into_iter().map(|nested| content(nested.kind, nested.values, nested.value));
        let views = views.collect::<Result<Vec<_>, _>>().map_err(in_field)?;
        Ok((name, views))
    };
    given.into_iter().map(read).collect()
}

fn from_base64(text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("not base64: {error}"))
}

/// Without serde's own line number: there is only one line.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line 1 column ") {
        Some((said, column)) => format!("{said} (column {column})"),
        None => text,
    }
}

#[cfg(test)]
mod tests;
