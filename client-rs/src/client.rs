//! The client: keyspaces, keys and typed handles over connections that fail over by themselves.
//!
//! Shape: `Client` -> `Keyspace` -> `Collection` -> `Key` -> `Register`, `Counter`, `Set`, `Flag`, `Map`. Handles are cheap to
//! clone and carry the options of their requests. Every write is bound by the client's session before it is first sent, so
//! the retries inside a call, and `Client::repeat` after an unknown outcome, count once. Source: DESIGN §4, §12.

mod admin;
mod batch;
mod builder;
mod engine;
mod entry;
mod key;
mod keyspace;
mod operate;
mod scan;
mod shared_session;
#[cfg(test)]
mod tests;
mod typed;

use std::sync::Arc;

use shoal_protocol::address::{Address, KeyspaceName};
use shoal_protocol::client::Written;

pub use batch::{Batch, BatchAnswer};
pub use builder::Builder;
pub use entry::{Entry, Snapshot};
pub use key::Key;
pub use keyspace::{Collection, Keyspace};
pub use scan::{Count, Cursor, Page, Row, Rows, Scan};
pub use typed::{Counter, Flag, Map, Register, Set};

use crate::error::Error;
use crate::session::{BoundOperation, StoredSession};
use engine::Engine;

/// A client of one cluster. Clones share connections and session.
#[derive(Clone, Debug)]
pub struct Client {
    engine: Arc<Engine>,
}

impl Client {
    /// Connects to the cluster at `shoal://host[:port][,host2]/?ca=sha256:<hex>`, with the access token of `SHOAL_TOKEN` or
    /// `SHOAL_TOKEN_FILE` if there is one.
    ///
    /// # Errors
    /// `config`, `connect`, `untrusted`, or what the node said.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder().connect(url).await
    }

    /// A client with settings of its own.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The keyspace of this name. Looked up once; its successor after a drop is looked up again.
    ///
    /// # Errors
    /// `unknown_keyspace`, or no node answered.
    pub async fn keyspace(&self, name: &str) -> Result<Keyspace, Error> {
        let info = self.engine.keyspace(&KeyspaceName::new(name)?).await?;
        Ok(Keyspace::new(self.clone(), info))
    }

    /// The key at an address, whatever its keyspace's layout.
    ///
    /// # Errors
    /// The address does not fit the keyspace's layout, or the keyspace cannot be looked up.
    pub async fn key(&self, address: &Address) -> Result<Key, Error> {
        let keyspace = self.keyspace(address.keyspace.as_str()).await?;
        if address.collection.is_empty() {
            keyspace.key(address.key.clone())
        } else {
            keyspace.collection(address.collection.clone())?.key(address.key.clone())
        }
    }

    /// Sends a bound operation again: the retry after an unknown outcome. It counts once, however often it is sent.
    ///
    /// # Errors
    /// `unknown` again, as long as no node confirms it. Never a refusal: an earlier attempt may have been admitted.
    pub async fn repeat(&self, operation: &BoundOperation) -> Result<Written, Error> {
        self.engine.repeat(operation).await
    }

    /// Independent operations in one request.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// Takes the session out, for the next process (see `StoredSession` for the rules); what goes on with this client gets
    /// another one. `None` when there is no session.
    #[must_use]
    pub fn suspend(&self) -> Option<StoredSession> {
        self.engine.suspend()
    }
}
