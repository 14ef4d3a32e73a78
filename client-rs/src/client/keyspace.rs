//! Keyspaces and collections: the way to keys.

use std::sync::Arc;

use bytes::Bytes;
use shoal_protocol::address::Address;
use shoal_protocol::client::{KeyspaceInfo, KeyspaceLayout, ScanScope};
use shoal_protocol::id::PARTITIONS_COUNT;

use super::typed::typed_keys;
use super::{Client, Counter, Flag, Key, Map, Register, Scan, Set};
use crate::error::Error;

/// A keyspace, looked up.
#[derive(Clone, Debug)]
pub struct Keyspace {
    client: Client,
    info: Arc<KeyspaceInfo>,
}

impl Keyspace {
    pub(super) const fn new(client: Client, info: Arc<KeyspaceInfo>) -> Self {
        Self { client, info }
    }

    /// Its id, name and settings.
    #[must_use]
    pub fn info(&self) -> &KeyspaceInfo {
        &self.info
    }

    /// A collection of a keyspace with layout `collection`.
    ///
    /// # Errors
    /// `config`: the layout is `key`, or the name is empty or too long.
    pub fn collection(&self, name: impl Into<Bytes>) -> Result<Collection, Error> {
        let name = name.into();
        self.expect_layout(KeyspaceLayout::Collection)?;
        // Checked together with a key that is surely allowed.
        Address::in_collection(self.info.name.clone(), name.clone(), &b"k"[..])?;
        Ok(Collection { keyspace: self.clone(), name })
    }

    /// A key of a keyspace with layout `key`.
    ///
    /// # Errors
    /// `config`: the layout is `collection`, or the key is empty or too long.
    pub fn key(&self, key: impl Into<Bytes>) -> Result<Key, Error> {
        self.expect_layout(KeyspaceLayout::Key)?;
        let address = Address::in_keyspace(self.info.name.clone(), key)?;
        Ok(Key::new(self.client.clone(), Arc::clone(&self.info), address))
    }

    typed_keys!();

    /// Everything in the keyspace, partition by partition: in no useful order.
    #[must_use]
    pub fn scan(&self) -> Scan {
        let scopes = (0..PARTITIONS_COUNT).map(ScanScope::Partition).collect();
        Scan::new(self.client.clone(), Arc::clone(&self.info), scopes)
    }

    fn expect_layout(&self, layout: KeyspaceLayout) -> Result<(), Error> {
        if self.info.spec.layout == layout {
            return Ok(());
        }
        let name = &self.info.name;
        let reason = match layout {
            KeyspaceLayout::Collection => format!("the keys of `{name}` stand by themselves: {name}/key"),
            KeyspaceLayout::Key => format!("the keys of `{name}` are in collections: {name}/collection/key"),
        };
        Err(Error::Config { reason })
    }
}

/// A collection: keys that live together, in order.
#[derive(Clone, Debug)]
pub struct Collection {
    keyspace: Keyspace,
    name: Bytes,
}

impl Collection {
    /// Its keyspace.
    #[must_use]
    pub const fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &Bytes {
        &self.name
    }

    /// A key.
    ///
    /// # Errors
    /// `config`: the key is empty or too long.
    pub fn key(&self, key: impl Into<Bytes>) -> Result<Key, Error> {
        let Keyspace { client, info } = &self.keyspace;
        let address = Address::in_collection(info.name.clone(), self.name.clone(), key)?;
        Ok(Key::new(client.clone(), Arc::clone(info), address))
    }

    typed_keys!();

    /// Its rows in the order of their keys.
    #[must_use]
    pub fn scan(&self) -> Scan {
        let Keyspace { client, info } = &self.keyspace;
        Scan::new(client.clone(), Arc::clone(info), vec![ScanScope::Collection(self.name.clone())])
    }
}
