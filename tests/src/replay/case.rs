//! The shape of a file of cases.

use serde::Deserialize;
use serde_json::Value;
use shoal_protocol::object::{self, Operation};

use crate::replay::shape;

/// A file.
#[derive(Deserialize)]
pub(super) struct File {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) cases: Vec<Case>,
}

/// The type that a file's cases are about.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Register,
    Set,
    Counter,
    Flag,
    Map,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Set => "set",
            Self::Counter => "counter",
            Self::Flag => "flag",
            Self::Map => "map",
        }
    }
}

/// One case; its operations are read one by one, so that an error names the operation.
#[derive(Deserialize)]
pub(super) struct Case {
    pub(super) id: Value,
    pub(super) ops: Vec<Value>,
}

/// One operation: what moves or looks at states, or a write.
pub(super) enum Op {
    Read { at: String, name: String },
    Sync { a: String, b: String },
    ReplicateOneWay { from: String, to: String },
    Write(Write),
}

/// A write at one replica, perhaps with the context of an earlier read.
pub(super) struct Write {
    pub(super) at: String,
    pub(super) ctx: Option<String>,
    what: What,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Movement {
    Read {
        at: String,
        #[serde(rename = "as")]
        name: String,
    },
    Sync {
        a: String,
        b: String,
    },
    ReplicateOneWay {
        from: String,
        to: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum What {
    Put { value: Value },
    Add { elem: Value },
    Remove { elem: Value },
    Clear,
    Increment { by: Option<i64> },
    Reset,
    Enable,
    Disable,
    FieldSetAdd { field: String, elem: Value },
    FieldSetRemove { field: String, elem: Value },
    FieldCounterIncrement { field: String, by: Option<i64> },
    FieldRemove { field: String },
}

#[derive(Deserialize)]
struct Place {
    op: String,
    at: Option<String>,
    ctx: Option<String>,
}

impl<'de> Deserialize<'de> for Op {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let value = Value::deserialize(deserializer)?;
        let Place { op, at, ctx } = serde_json::from_value(value.clone()).map_err(D::Error::custom)?;
        if matches!(op.as_str(), "read" | "sync" | "replicate_one_way") {
            let movement =
                serde_json::from_value(value).map_err(|error| D::Error::custom(format!("`{op}`: {error}")))?;
            return Ok(match movement {
                Movement::Read { at, name } => Self::Read { at, name },
                Movement::Sync { a, b } => Self::Sync { a, b },
                Movement::ReplicateOneWay { from, to } => Self::ReplicateOneWay { from, to },
            });
        }
        let what = serde_json::from_value(value).map_err(|error| D::Error::custom(format!("`{op}`: {error}")))?;
        let at = at.ok_or_else(|| D::Error::custom(format!("`{op}`: missing field `at`")))?;
        Ok(Self::Write(Write { at, ctx, what }))
    }
}

impl Write {
    pub(super) fn kind(&self) -> Kind {
        match self.what {
            What::Put { .. } => Kind::Register,
            What::Add { .. } | What::Remove { .. } | What::Clear => Kind::Set,
            What::Increment { .. } | What::Reset => Kind::Counter,
            What::Enable | What::Disable => Kind::Flag,
            What::FieldSetAdd { .. }
            | What::FieldSetRemove { .. }
            | What::FieldCounterIncrement { .. }
            | What::FieldRemove { .. } => Kind::Map,
        }
    }

    /// The product's operation: a put without a context is blind, so it stands beside everything.
    pub(super) fn operation(&self, has_context: bool) -> Operation {
        let in_field =
            |field: &String, operation| Operation::MapUpdate { field: field.clone(), operation: Box::new(operation) };
        match &self.what {
            What::Put { value } => {
                let value = object::Value::json(value.to_string());
                if has_context { Operation::Replace { value } } else { Operation::AddSibling { value } }
            }
            What::Add { elem } => Operation::SetAdd { element: shape::element(elem) },
            What::Remove { elem } => Operation::SetRemove { element: shape::element(elem) },
            What::Clear => Operation::SetClear,
            What::Increment { by } => Operation::CounterAdd { by: by.unwrap_or(1) },
            What::Reset => Operation::CounterReset,
            What::Enable => Operation::Enable,
            What::Disable => Operation::Disable,
            What::FieldSetAdd { field, elem } => in_field(field, Operation::SetAdd { element: shape::element(elem) }),
            What::FieldSetRemove { field, elem } => {
                in_field(field, Operation::SetRemove { element: shape::element(elem) })
            }
            What::FieldCounterIncrement { field, by } => in_field(field, Operation::CounterAdd { by: by.unwrap_or(1) }),
            What::FieldRemove { field } => Operation::MapRemove { field: field.clone() },
        }
    }
}
