//! Sets and maps.

use std::collections::{BTreeMap, BTreeSet};

use shoal_protocol::client::Written;
use shoal_protocol::object::{Element, Operation, Path, TypeTag, View};

use super::super::Key;
use super::{Counter, Flag, Register};
use crate::error::Error;
use crate::value::IntoElement;

/// A set of strings, integers and bytes: of concurrent add and remove of one element, add wins.
#[derive(Clone, Debug)]
pub struct Set {
    pub(super) key: Key,
    pub(super) path: Path,
}

impl Set {
    /// Its elements; none when absent.
    ///
    /// # Errors
    /// `wrong_type`, `type_conflict`, or the read failed: see docs/errors.md.
    pub async fn read(&self) -> Result<BTreeSet<Element>, Error> {
        match self.key.read().await?.view_at(&self.path, TypeTag::Set)? {
            Some(View::Set(elements)) => Ok(elements.into_iter().collect()),
            _ => Ok(BTreeSet::new()),
        }
    }

    /// Whether `element` is in it.
    ///
    /// # Errors
    /// As for `read`.
    pub async fn contains(&self, element: impl IntoElement) -> Result<bool, Error> {
        Ok(self.read().await?.contains(&element.into_element()))
    }

    /// Adds `element`.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn add(&self, element: impl IntoElement) -> Result<Written, Error> {
        self.operate(Operation::SetAdd { element: element.into_element() }).await
    }

    /// Removes `element` as it is there now; a concurrent add survives. Reads first.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn remove(&self, element: impl IntoElement) -> Result<Written, Error> {
        self.operate(Operation::SetRemove { element: element.into_element() }).await
    }

    /// Removes every element that is there now. Reads first.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn clear(&self) -> Result<Written, Error> {
        self.operate(Operation::SetClear).await
    }
}

/// A map of fields, each of any type. Of concurrent update and remove of a field, the update wins, but keeps only what the
/// remove had not seen.
#[derive(Clone, Debug)]
pub struct Map {
    pub(super) key: Key,
    pub(super) path: Path,
}

impl Map {
    /// Its fields with what is live under each (several views where concurrent writes used several types); none when
    /// absent.
    ///
    /// # Errors
    /// `wrong_type`, `type_conflict`, or the read failed: see docs/errors.md.
    pub async fn read(&self) -> Result<BTreeMap<String, Vec<View>>, Error> {
        match self.key.read().await?.view_at(&self.path, TypeTag::Map)? {
            Some(View::Map(fields)) => Ok(fields),
            _ => Ok(BTreeMap::new()),
        }
    }

    /// Removes what is under `field` now, of every type. Reads first.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn remove(&self, field: impl Into<String>) -> Result<Written, Error> {
        self.operate(Operation::MapRemove { field: field.into() }).await
    }

    /// Removes the whole map as it is now. Reads first.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn delete(&self) -> Result<Written, Error> {
        self.operate(Operation::Delete).await
    }

    /// A field as a register.
    #[must_use]
    pub fn register(&self, field: impl Into<String>) -> Register {
        Register::at(self.key.clone(), self.below(field))
    }

    /// A field as a counter.
    #[must_use]
    pub fn counter(&self, field: impl Into<String>) -> Counter {
        Counter::at(self.key.clone(), self.below(field))
    }

    /// A field as a set.
    #[must_use]
    pub fn set(&self, field: impl Into<String>) -> Set {
        Set::at(self.key.clone(), self.below(field))
    }

    /// A field as a flag.
    #[must_use]
    pub fn flag(&self, field: impl Into<String>) -> Flag {
        Flag::at(self.key.clone(), self.below(field))
    }

    /// A field as a map.
    #[must_use]
    pub fn map(&self, field: impl Into<String>) -> Self {
        Self::at(self.key.clone(), self.below(field))
    }

    fn below(&self, field: impl Into<String>) -> Path {
        let mut path = self.path.clone();
        path.push(field.into());
        path
    }
}
