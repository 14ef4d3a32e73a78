//! Values as the case files write them.
//!
//! Shape: a set element is a string, a 64-bit integer, or any other JSON value, which is kept as bytes of its JSON text.
//! Sorted means: null, booleans, numbers, strings, arrays, objects; numbers by size, strings by bytes, the rest by text.

use std::cmp::Ordering;

use serde_json::{Value, json};
use shoal_protocol::object::{Conflict, Element, Object, View};
use shoal_protocol::time::WallTime;

use crate::replay::case::Kind;

pub(super) fn element(value: &Value) -> Element {
    match (value.as_str(), value.as_i64()) {
        (Some(text), _) => Element::Text(text.into()),
        (None, Some(int)) => Element::Int(int),
        (None, None) => Element::Bytes(value.to_string().into()),
    }
}

/// What a reader of this type sees.
pub(super) fn shown(kind: Kind, object: &Object) -> Value {
    let view = object.view(Conflict::Siblings, WallTime(0));
    match (kind, view) {
        (Kind::Register | Kind::Set, View::Absent) => json!([]),
        (Kind::Counter, View::Absent) => json!(0),
        (Kind::Flag, View::Absent) => json!(false),
        (Kind::Map, View::Absent) => json!({}),
        (_, view) => value(view),
    }
}

fn value(view: View) -> Value {
    match view {
        View::Absent => Value::Null,
        View::Register { values } => sorted(values.iter().map(|value| parsed(&value.bytes)).collect()),
        View::Flag(on) => on.into(),
        View::Set(elements) => sorted(elements.into_iter().map(json_of).collect()),
        View::Counter(sum) => sum.into(),
        View::Map(fields) => {
            let shown = fields.into_iter().filter_map(|(field, views)| Some((field, field_value(views)?)));
            Value::Object(shown.collect())
        }
        View::Conflict(views) => by_type(views),
    }
}

/// `None` for what a map leaves out: counters at zero.
fn field_value(mut views: Vec<View>) -> Option<Value> {
    views.retain(|view| *view != View::Counter(0));
    match views.len() {
        0 => None,
        1 => Some(value(views.remove(0))),
        _ => Some(by_type(views)),
    }
}

fn by_type(views: Vec<View>) -> Value {
    let name = |view: &View| match view {
        View::Absent => "absent",
        View::Register { .. } => "register",
        View::Flag(_) => "flag",
        View::Set(_) => "set",
        View::Counter(_) => "counter",
        View::Map(_) => "map",
        View::Conflict(_) => "conflict",
    };
    Value::Object(views.into_iter().map(|view| (name(&view).into(), value(view))).collect())
}

fn json_of(element: Element) -> Value {
    match element {
        Element::Text(text) => text.into(),
        Element::Int(int) => int.into(),
        Element::Bytes(bytes) => parsed(&bytes),
    }
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("the replay writes JSON text only")
}

fn sorted(mut values: Vec<Value>) -> Value {
    values.sort_by(order);
    Value::Array(values)
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let exact = x.as_i128().zip(y.as_i128()).map(|(x, y)| x.cmp(&y));
            let rough = || x.as_f64().zip(y.as_f64()).map_or(Ordering::Equal, |(x, y)| x.total_cmp(&y));
            exact.unwrap_or_else(rough)
        }
        (Value::String(x), Value::String(y)) => x.cmp(y),
        _ => rank(a).cmp(&rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}
