//! One key, of any type: what every typed handle stands on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_protocol::address::{Address, Place};
use shoal_protocol::causality::EncodedContext;
use shoal_protocol::client::{KeyspaceInfo, NodeEndpoint, Written};
use shoal_protocol::id::Partition;
use shoal_protocol::object::{Operation, Value};
use shoal_protocol::time::WallTime;

use super::operate::Options;
use super::{Client, Counter, Flag, Map, Register, Set, Snapshot};
use crate::error::Error;
use crate::nested;
use crate::session::Observed;
use crate::transport::locked;

/// A key. Clones share what they have seen: a read through one sees at least what another has read or written.
#[derive(Clone, Debug)]
pub struct Key {
    pub(super) client: Client,
    pub(super) info: Arc<KeyspaceInfo>,
    address: Address,
    pub(super) place: Place,
    pub(super) options: Options,
    /// The context of the latest read or write.
    seen: Arc<Mutex<Option<EncodedContext>>>,
}

impl Key {
    pub(super) fn new(client: Client, info: Arc<KeyspaceInfo>, address: Address) -> Self {
        let place = address.place(info.id);
        Self { client, info, address, place, options: Options::default(), seen: Arc::default() }
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// As a register.
    #[must_use]
    pub fn register(&self) -> Register {
        Register::at(self.clone(), Vec::new())
    }

    /// As a counter.
    #[must_use]
    pub fn counter(&self) -> Counter {
        Counter::at(self.clone(), Vec::new())
    }

    /// As a set.
    #[must_use]
    pub fn set(&self) -> Set {
        Set::at(self.clone(), Vec::new())
    }

    /// As a flag.
    #[must_use]
    pub fn flag(&self) -> Flag {
        Flag::at(self.clone(), Vec::new())
    }

    /// As a map.
    #[must_use]
    pub fn map(&self) -> Map {
        Map::at(self.clone(), Vec::new())
    }

    /// Reads whatever is there.
    ///
    /// # Errors
    /// `stale`, `unavailable` and the like: see docs/errors.md.
    pub async fn read(&self) -> Result<Snapshot, Error> {
        let engine = &self.client.engine;
        let mut options = self.options.clone();
        if options.min_ctx.is_none() {
            options.min_ctx = locked(&self.seen).clone();
        }
        let read = engine.get(self, &options).await?;
        *locked(&self.seen) = Some(read.got.context.clone());
        Ok(Snapshot::new(self.clone(), read, engine.clock.now().wall))
    }

    /// Removes everything that is there now, of every type. Reads first; `Snapshot::delete` removes what was read.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn delete(&self) -> Result<Written, Error> {
        self.operate(Operation::Delete).await
    }

    /// Applies any operation. One that depends on what was observed reads first.
    ///
    /// # Errors
    /// See docs/errors.md; `unknown` carries the bound operation.
    pub async fn operate(&self, operation: Operation) -> Result<Written, Error> {
        if nested::observes(&operation) {
            return self.read().await?.operate(operation).await;
        }
        self.apply(operation, &Observed::default()).await
    }

    /// The nodes that hold the key, in the order in which they are asked.
    ///
    /// # Errors
    /// No node answered.
    pub async fn locate(&self) -> Result<Vec<NodeEndpoint>, Error> {
        let class = self.info.spec.class;
        let routes = self.client.routes(class).await?;
        let preference = routes.preference.get(usize::from(self.place.partition(class).index));
        let indexes = preference.into_iter().flatten();
        Ok(indexes.filter_map(|index| routes.nodes.get(usize::from(*index)).cloned()).collect())
    }

    pub(super) async fn apply(&self, operation: Operation, observed: &Observed) -> Result<Written, Error> {
        let operation = self.timed(operation);
        let written = self.client.engine.apply(self, &operation, observed).await?;
        *locked(&self.seen) = Some(written.context.clone());
        Ok(written)
    }

    /// The slice of the keyspace's class that holds it.
    pub(super) fn partition(&self) -> Option<Partition> {
        Some(self.place.partition(self.info.spec.class))
    }

    /// Register values that name no expiry take the handle's.
    pub(super) fn timed(&self, operation: Operation) -> Operation {
        let Some(expires_in) = self.options.expires_in else { return operation };
        let millis = u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX);
        let end = WallTime(self.client.engine.clock.now().wall.0.saturating_add(millis));
        let timed = |value: Value| Value { expires_at: value.expires_at.or(Some(end)), ..value };
        match operation {
            Operation::Put { value } => Operation::Put { value: timed(value) },
            Operation::Replace { value } => Operation::Replace { value: timed(value) },
            Operation::AddSibling { value } => Operation::AddSibling { value: timed(value) },
            Operation::MapUpdate { field, operation } => {
                Operation::MapUpdate { field, operation: Box::new(self.timed(*operation)) }
            }
            other @ (Operation::Delete
            | Operation::Enable
            | Operation::Disable
            | Operation::SetAdd { .. }
            | Operation::SetRemove { .. }
            | Operation::SetClear
            | Operation::CounterAdd { .. }
            | Operation::CounterReset
            | Operation::MapRemove { .. }) => other,
        }
    }

    pub(super) fn with_options(&self, change: impl FnOnce(&mut Options)) -> Self {
        let mut changed = self.clone();
        change(&mut changed.options);
        changed
    }
}

/// The options of requests, for `Key` and every typed handle: each returns a changed copy.
macro_rules! request_options {
    () => {
        /// Waits for `r` replies to reads; fewer than the keyspace's are answered as `weak`.
        #[must_use]
        pub fn r(&self, r: u8) -> Self {
            self.changed(|options| options.r = Some(r))
        }

        /// Waits for `w` acks of writes; fewer than the keyspace's are answered as `weak`.
        #[must_use]
        pub fn w(&self, w: u8) -> Self {
            self.changed(|options| options.w = Some(w))
        }

        /// Lets fallbacks hold writes for replicas that cannot take them in time, whatever the keyspace says, and the answer
        /// says how many did. No read is sure to see such a write before they have handed it on: not even one of r + w > n.
        #[must_use]
        pub fn sloppy(&self) -> Self {
            self.changed(|options| options.quorum = Some(::shoal_protocol::client::QuorumMode::Sloppy))
        }

        /// Allows each request this much time, retries included.
        #[must_use]
        pub fn deadline(&self, deadline: Duration) -> Self {
            self.changed(|options| options.deadline = Some(deadline))
        }

        /// Makes reads cover this context instead of the latest one seen through the handle.
        #[must_use]
        pub fn consistent_with(&self, context: &EncodedContext) -> Self {
            self.changed(|options| options.min_ctx = Some(context.clone()))
        }

        /// Lets register values written from now on expire; fixed for each value when it is bound.
        #[must_use]
        pub fn expires_in(&self, time: Duration) -> Self {
            self.changed(|options| options.expires_in = Some(time))
        }
    };
}
pub(super) use request_options;

impl Key {
    request_options!();

    fn changed(&self, change: impl FnOnce(&mut Options)) -> Self {
        self.with_options(change)
    }
}
