//! What a read returned, and what can be done with exactly that.
//!
//! Invariant: a replace or delete through an entry removes what the entry has seen, and nothing else.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_protocol::causality::EncodedContext;
use shoal_protocol::client::Written;
use shoal_protocol::object::{Operation, Path, TypeTag, Value, View};
use shoal_protocol::time::WallTime;

use super::Key;
use super::operate::Read;
use crate::error::Error;
use crate::session::Observed;
use crate::{nested, value};

/// One key as it was read, of any type.
#[derive(Clone, Debug)]
pub struct Snapshot {
    key: Key,
    observed: Observed,
    context: EncodedContext,
    view: View,
    replies: u8,
    weak: bool,
}

impl Snapshot {
    pub(super) fn new(key: Key, read: Read, wall: WallTime) -> Self {
        let Read { got, object } = read;
        let view = object.view(key.info.spec.conflict, wall);
        let observed = Observed { object, contexts: vec![got.context.clone()] };
        Self { key, observed, context: got.context, view, replies: got.replies, weak: got.weak }
    }

    /// What is there.
    #[must_use]
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.view == View::Absent
    }

    /// The context of the read, for `consistent_with` anywhere.
    #[must_use]
    pub const fn context(&self) -> &EncodedContext {
        &self.context
    }

    /// Replicas that were merged.
    #[must_use]
    pub const fn replies(&self) -> u8 {
        self.replies
    }

    /// Whether fewer replies were asked for than the keyspace's r.
    #[must_use]
    pub const fn is_weak(&self) -> bool {
        self.weak
    }

    /// Applies an operation that has observed this.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn operate(&self, operation: Operation) -> Result<Written, Error> {
        self.key.apply(operation, &self.observed).await
    }

    /// Removes everything that was read.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn delete(&self) -> Result<Written, Error> {
        self.operate(Operation::Delete).await
    }

    /// What is at `path`, if it is of type `wanted`.
    pub(super) fn view_at(&self, path: &Path, wanted: TypeTag) -> Result<Option<View>, Error> {
        nested::only(nested::views_at(self.view.clone(), path)?, wanted)
    }

    pub(super) const fn observed(&self) -> &Observed {
        &self.observed
    }
}

/// A register as it was read.
#[derive(Clone, Debug)]
pub struct Entry {
    snapshot: Snapshot,
    path: Path,
    values: Vec<Value>,
}

impl Entry {
    pub(super) fn new(snapshot: Snapshot, path: Path) -> Result<Self, Error> {
        let values = match snapshot.view_at(&path, TypeTag::Register)? {
            Some(View::Register { values }) => values,
            _ => Vec::new(),
        };
        Ok(Self { snapshot, path, values })
    }

    /// Whether no value is there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.values.is_empty()
    }

    /// The one value; `None` when there is none.
    ///
    /// # Errors
    /// `siblings` when there are several, `value` when it is no `T`.
    pub fn value<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        match &self.values[..] {
            [] => Ok(None),
            [one] => value::decode(one).map(Some),
            several => Err(Error::Siblings { count: several.len() }),
        }
    }

    /// Every concurrent value.
    ///
    /// # Errors
    /// `value` when one is no `T`.
    pub fn siblings<T: DeserializeOwned>(&self) -> Result<Vec<T>, Error> {
        self.values.iter().map(value::decode).collect()
    }

    /// Every concurrent value as stored.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The read as a whole: context, replies.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The context of the read, for `consistent_with` anywhere.
    #[must_use]
    pub const fn context(&self) -> &EncodedContext {
        self.snapshot.context()
    }

    /// Writes `value` as JSON instead of what was read.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn replace<T: Serialize + ?Sized>(&self, value: &T) -> Result<Written, Error> {
        self.replace_value(value::json(value)?).await
    }

    /// Writes `value` instead of what was read.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn replace_value(&self, value: Value) -> Result<Written, Error> {
        self.snapshot.operate(nested::wrap(&self.path, Operation::Replace { value })).await
    }

    /// Removes what was read.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn delete(&self) -> Result<Written, Error> {
        self.snapshot.operate(nested::wrap(&self.path, Operation::Delete)).await
    }
}
