//! Projection: what a reader is shown.
//!
//! Invariant: expired values are hidden at once; under `lww` an expired winner hides what it replaced. Equal objects give
//! equal views at equal times.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::object::body::Body;
use crate::object::join::DotStore;
use crate::object::register::winner;
use crate::object::{Element, Object, TypeTag, Value};
use crate::time::WallTime;

/// What a keyspace does with concurrent register values. Fixed when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Conflict {
    /// Every concurrent value is shown.
    Siblings,
    /// The value with the greatest (hlc, dot) is shown.
    Lww,
}

/// An object as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Nothing is live.
    Absent,
    /// A register.
    Register {
        /// The siblings in the order of their dots, equal ones once; exactly one under `lww`.
        values: Vec<Value>,
    },
    /// A flag that is on; one that is off is absent.
    Flag(bool),
    /// A set's elements, in order.
    Set(Vec<Element>),
    /// A counter, held at the ends of `i64`.
    Counter(i64),
    /// A map: what is live under each field, several views where concurrent writes used several types.
    Map(BTreeMap<String, Vec<Self>>),
    /// Several types are live: the views in the order of the types. Resolved by deleting all but one.
    Conflict(Vec<Self>),
}

impl Object {
    /// What a reader sees at `wall`.
    #[must_use]
    pub fn view(&self, conflict: Conflict, wall: WallTime) -> View {
        let mut views = views(&self.body, conflict, wall);
        match views.len() {
            0 => View::Absent,
            1 => views.remove(0),
            _ => View::Conflict(views),
        }
    }
}

fn views(body: &Body, conflict: Conflict, wall: WallTime) -> Vec<View> {
    let view = |tag| match tag {
        TypeTag::Register => {
            let values = values(body, conflict, wall);
            (!values.is_empty()).then_some(View::Register { values })
        }
        TypeTag::Flag => (!body.flag.is_empty()).then_some(View::Flag(true)),
        TypeTag::Set if body.set.is_empty() => None,
        TypeTag::Set => Some(View::Set(body.set.iter().map(|(element, _)| element.clone()).collect())),
        TypeTag::Counter => body.counter.is_live().then(|| View::Counter(body.counter.value())),
        TypeTag::Map => {
            let fields = body.map.iter().map(|(field, body)| (field.clone(), views(body, conflict, wall)));
            let live: BTreeMap<_, _> = fields.filter(|(_, views)| !views.is_empty()).collect();
            (!live.is_empty()).then_some(View::Map(live))
        }
    };
    TypeTag::ALL.into_iter().filter_map(view).collect()
}

fn values(body: &Body, conflict: Conflict, wall: WallTime) -> Vec<Value> {
    let shown: Vec<&Value> = match conflict {
        Conflict::Siblings => body.register.iter().map(|(_, entry)| &entry.value).collect(),
        Conflict::Lww => winner(&body.register).map(|(_, entry)| &entry.value).into_iter().collect(),
    };
    let mut values: Vec<Value> = Vec::with_capacity(shown.len());
    for value in shown {
        if !value.is_expired(wall) && !values.contains(value) {
            values.push(value.clone());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::causality::Dot;
    use crate::id::Actor;
    use crate::object::{Mint, Operation, bind};
    use crate::time::Hlc;

    fn write(actor: u64, hlc: u64, text: &'static str, end: Option<u64>) -> Object {
        let value = Value { expires_at: end.map(WallTime), ..Value::json(text) };
        let mint = Mint { dot: Dot { actor: Actor(actor), n: 1 }, prev: 0, hlc: Hlc(hlc), total: None };
        bind(&Operation::AddSibling { value }, &mint, &Object::default()).unwrap()
    }

    fn joined(objects: &[Object]) -> Object {
        let mut all = Object::default();
        for object in objects {
            all.merge_into(object);
        }
        all
    }

    fn shown(object: &Object, conflict: Conflict, wall: u64) -> Vec<Bytes> {
        let View::Register { values } = object.view(conflict, WallTime(wall)) else { return Vec::new() };
        values.into_iter().map(|value| value.bytes).collect()
    }

    #[test]
    fn equal_siblings_are_shown_once_and_the_greatest_hlc_wins() {
        let object = joined(&[write(1, 9, "a", None), write(2, 9, "b", None), write(3, 1, "a", None)]);
        assert_eq!(shown(&object, Conflict::Siblings, 0), ["a", "b"]);
        assert_eq!(shown(&object, Conflict::Lww, 0), ["b"], "the dot decides between equal hlcs");
        assert_eq!(object.hlc_max(), Hlc(9));
    }

    #[test]
    fn an_expired_value_is_hidden_and_under_lww_hides_what_it_replaced() {
        let object = joined(&[write(1, 1, "old", None), write(2, 2, "new", Some(100))]);
        assert_eq!(shown(&object, Conflict::Lww, 99), ["new"]);
        assert_eq!(shown(&object, Conflict::Lww, 100), [""; 0]);
        assert_eq!(shown(&object, Conflict::Siblings, 100), ["old"]);
        let mut pruned = object.clone();
        pruned.prune_lww();
        assert_eq!(shown(&pruned, Conflict::Siblings, 99), ["new"]);
        assert_eq!(pruned.context(), object.context());
    }
}
