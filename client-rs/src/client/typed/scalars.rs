//! Counters and flags.

use shoal_protocol::client::Written;
use shoal_protocol::object::{Operation, Path, TypeTag, View};

use super::super::Key;
use crate::error::Error;

/// A counter. Additions through one session wait for each other, key by key: each total stands on the one before.
#[derive(Clone, Debug)]
pub struct Counter {
    pub(super) key: Key,
    pub(super) path: Path,
}

impl Counter {
    /// Its value; 0 when absent.
    ///
    /// # Errors
    /// `wrong_type`, `type_conflict`, or the read failed: see docs/errors.md.
    pub async fn read(&self) -> Result<i64, Error> {
        match self.key.read().await?.view_at(&self.path, TypeTag::Counter)? {
            Some(View::Counter(value)) => Ok(value),
            _ => Ok(0),
        }
    }

    /// Adds `by`; negative to subtract.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn add(&self, by: i64) -> Result<Written, Error> {
        self.operate(Operation::CounterAdd { by }).await
    }

    /// Removes what is counted now; a concurrent addition survives. Reads first.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn reset(&self) -> Result<Written, Error> {
        self.operate(Operation::CounterReset).await
    }
}

/// A flag: of concurrent enable and disable, enable wins.
#[derive(Clone, Debug)]
pub struct Flag {
    pub(super) key: Key,
    pub(super) path: Path,
}

impl Flag {
    /// Whether it is on; an absent flag is off.
    ///
    /// # Errors
    /// `wrong_type`, `type_conflict`, or the read failed: see docs/errors.md.
    pub async fn read(&self) -> Result<bool, Error> {
        Ok(self.key.read().await?.view_at(&self.path, TypeTag::Flag)? == Some(View::Flag(true)))
    }

    /// Turns it on.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn enable(&self) -> Result<Written, Error> {
        self.operate(Operation::Enable).await
    }

    /// Turns it off; a concurrent enable wins. Reads first.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn disable(&self) -> Result<Written, Error> {
        self.operate(Operation::Disable).await
    }
}
