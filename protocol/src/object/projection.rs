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
