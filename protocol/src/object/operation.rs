//! What a client asks for: the operations of every type. Also their wire form when a node is to mint.

use serde::{Deserialize, Serialize};

use crate::object::{Element, Value};
use crate::time::WallTime;

/// Map fields that lead from the top level to a nested place; empty for the top level.
pub type Path = Vec<String>;

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Register: write without having read (`lww`). Replaces observed values of lower (hlc, dot) only.
    Put {
        /// What to write.
        value: Value,
    },
    /// Register: write instead of everything observed.
    Replace {
        /// What to write.
        value: Value,
    },
    /// Register: write beside everything else.
    AddSibling {
        /// What to write.
        value: Value,
    },
    /// Remove everything observed, of every type.
    Delete,
    /// Flag: turn on.
    Enable,
    /// Flag: turn off as observed.
    Disable,
    /// Set: add.
    SetAdd {
        /// What to add.
        element: Element,
    },
    /// Set: remove as observed.
    SetRemove {
        /// What to remove.
        element: Element,
    },
    /// Set: remove every observed element.
    SetClear,
    /// Counter: add.
    CounterAdd {
        /// How much; negative to subtract.
        by: i64,
    },
    /// Counter: remove what was observed.
    CounterReset,
    /// Map: an operation on one field.
    MapUpdate {
        /// The field.
        field: String,
        /// What to do there. `Delete` here is `MapRemove`.
        operation: Box<Operation>,
    },
    /// Map: remove everything observed of one field, of every type.
    MapRemove {
        /// The field.
        field: String,
    },
}

impl Operation {
    /// The path of the counter that this adds to; `None` for every other operation. A session keeps its running totals by
    /// place and this path.
    #[must_use]
    pub fn counter_path(&self) -> Option<Path> {
        let (path, operation) = self.target();
        matches!(operation, Self::CounterAdd { .. }).then(|| path.into_iter().cloned().collect())
    }

    /// How much a counter operation adds; `None` for every other operation.
    #[must_use]
    pub fn counter_by(&self) -> Option<i64> {
        match self.target().1 {
            Self::CounterAdd { by } => Some(*by),
            Self::Put { .. }
            | Self::Replace { .. }
            | Self::AddSibling { .. }
            | Self::Delete
            | Self::Enable
            | Self::Disable
            | Self::SetAdd { .. }
            | Self::SetRemove { .. }
            | Self::SetClear
            | Self::CounterReset
            | Self::MapUpdate { .. }
            | Self::MapRemove { .. } => None,
        }
    }

    /// Whether binding fixes counter totals or floors: its bytes may be fixed only when every earlier operation of the
    /// session on this key for which this holds has a verdict (DESIGN §4, Binding).
    #[must_use]
    pub fn binds_counters(&self) -> bool {
        match self.target().1 {
            Self::CounterAdd { .. }
            | Self::CounterReset
            | Self::Delete
            | Self::Replace { .. }
            | Self::MapRemove { .. } => true,
            Self::Put { .. }
            | Self::AddSibling { .. }
            | Self::Enable
            | Self::Disable
            | Self::SetAdd { .. }
            | Self::SetRemove { .. }
            | Self::SetClear
            | Self::MapUpdate { .. } => false,
        }
    }

    /// Gives a register value that names no expiry this one: binding fixes expiry (DESIGN §4).
    pub fn expire_by_default(&mut self, expires_at: Option<WallTime>) {
        match self {
            Self::Put { value } | Self::Replace { value } | Self::AddSibling { value } => {
                value.expires_at = value.expires_at.or(expires_at);
            }
            Self::MapUpdate { operation, .. } => operation.expire_by_default(expires_at),
            Self::Delete
            | Self::Enable
            | Self::Disable
            | Self::SetAdd { .. }
            | Self::SetRemove { .. }
            | Self::SetClear
            | Self::CounterAdd { .. }
            | Self::CounterReset
            | Self::MapRemove { .. } => {}
        }
    }

    /// The operation inside all map updates, and the fields around it.
    fn target(&self) -> (Vec<&String>, &Self) {
        let (mut path, mut operation) = (Vec::new(), self);
        while let Self::MapUpdate { field, operation: inner } = operation {
            path.push(field);
            operation = inner;
        }
        (path, operation)
    }
}
