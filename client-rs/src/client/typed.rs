//! Typed handles: a key, or a place inside a map, as one type.
//!
//! What depends on what was observed (remove, clear, reset, disable, delete) reads first, with the handle's r.

mod collections;
mod register;
mod scalars;

pub use collections::{Map, Set};
pub use register::Register;
pub use scalars::{Counter, Flag};

use std::time::Duration;

use shoal_protocol::causality::EncodedContext;

use super::Key;
use super::key::request_options;
use super::operate::Options;

/// The typed keys of a keyspace or collection.
macro_rules! typed_keys {
    () => {
        /// A key as a register.
        ///
        /// # Errors
        /// As for `key`.
        pub fn register(&self, key: impl Into<Bytes>) -> Result<Register, Error> {
            Ok(self.key(key)?.register())
        }

        /// A key as a counter.
        ///
        /// # Errors
        /// As for `key`.
        pub fn counter(&self, key: impl Into<Bytes>) -> Result<Counter, Error> {
            Ok(self.key(key)?.counter())
        }

        /// A key as a set.
        ///
        /// # Errors
        /// As for `key`.
        pub fn set(&self, key: impl Into<Bytes>) -> Result<Set, Error> {
            Ok(self.key(key)?.set())
        }

        /// A key as a flag.
        ///
        /// # Errors
        /// As for `key`.
        pub fn flag(&self, key: impl Into<Bytes>) -> Result<Flag, Error> {
            Ok(self.key(key)?.flag())
        }

        /// A key as a map.
        ///
        /// # Errors
        /// As for `key`.
        pub fn map(&self, key: impl Into<Bytes>) -> Result<Map, Error> {
            Ok(self.key(key)?.map())
        }
    };
}
pub(super) use typed_keys;

/// What every typed handle has.
macro_rules! handle {
    ($($handle:ident),+) => { $(
        impl $handle {
            pub(in crate::client) const fn at(key: Key, path: shoal_protocol::object::Path) -> Self {
                Self { key, path }
            }

            /// The key it stands on.
            #[must_use]
            pub const fn key(&self) -> &Key {
                &self.key
            }

            request_options!();

            fn changed(&self, change: impl FnOnce(&mut Options)) -> Self {
                Self { key: self.key.with_options(change), path: self.path.clone() }
            }

            async fn operate(
                &self,
                operation: shoal_protocol::object::Operation,
            ) -> Result<shoal_protocol::client::Written, crate::error::Error> {
                self.key.operate(crate::nested::wrap(&self.path, operation)).await
            }
        }
    )+ };
}

handle!(Register, Counter, Flag, Set, Map);
