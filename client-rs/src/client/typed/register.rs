//! Registers: one value, or the siblings that concurrent writes left.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_protocol::client::Written;
use shoal_protocol::error::RequestError;
use shoal_protocol::object::{Conflict, Operation, Path, Value};

use super::super::{Entry, Key};
use crate::error::Error;
use crate::value;

/// A register.
#[derive(Clone, Debug)]
pub struct Register {
    pub(super) key: Key,
    pub(super) path: Path,
}

impl Register {
    /// Reads it; an absent register is an entry without values.
    ///
    /// # Errors
    /// `wrong_type`, `type_conflict`, or the read failed: see docs/errors.md.
    pub async fn read(&self) -> Result<Entry, Error> {
        Entry::new(self.key.read().await?, self.path.clone())
    }

    /// Writes `value` as JSON without having read, in a keyspace that keeps the last write (`lww`).
    ///
    /// # Errors
    /// `bad_request` in a `siblings` keyspace, where a blind write never replaces anything: read and `replace`, `update`, or
    /// say `add_sibling`. Else see docs/errors.md; `unknown` carries the bound operation.
    pub async fn put<T: Serialize + ?Sized>(&self, value: &T) -> Result<Written, Error> {
        self.put_value(value::json(value)?).await
    }

    /// `put` with a value of any content type.
    ///
    /// # Errors
    /// As for `put`.
    pub async fn put_value(&self, value: Value) -> Result<Written, Error> {
        if self.key.info.spec.conflict == Conflict::Siblings {
            let reason = "put writes without having read; in a siblings keyspace use replace, update or add_sibling";
            return Err(RequestError::BadRequest { reason: reason.into() }.into());
        }
        self.operate(Operation::Put { value }).await
    }

    /// Writes `value` as JSON beside whatever is there.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn add_sibling<T: Serialize + ?Sized>(&self, value: &T) -> Result<Written, Error> {
        self.add_sibling_value(value::json(value)?).await
    }

    /// `add_sibling` with a value of any content type.
    ///
    /// # Errors
    /// As for `add_sibling`.
    pub async fn add_sibling_value(&self, value: Value) -> Result<Written, Error> {
        self.operate(Operation::AddSibling { value }).await
    }

    /// Reads, lets `merge` make one value of the siblings (none when the register is absent), and replaces exactly those.
    ///
    /// # Errors
    /// `value` when a sibling is no `T`; else see docs/errors.md; `unknown` carries the bound operation.
    pub async fn update<T: Serialize + DeserializeOwned>(
        &self,
        merge: impl FnOnce(Vec<T>) -> T,
    ) -> Result<Written, Error> {
        let entry = self.read().await?;
        let merged = merge(entry.siblings()?);
        entry.replace(&merged).await
    }

    /// Removes what is there now; reads first.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn delete(&self) -> Result<Written, Error> {
        self.operate(Operation::Delete).await
    }
}
