//! Three replicas of one key, and what a read takes away.

use bytes::Bytes;
use shoal_protocol::address::Place;
use shoal_protocol::causality::{ContextKey, ContextKeys, Dot, EncodedContext};
use shoal_protocol::id::{Actor, KeyspaceId};
use shoal_protocol::object::{Mint, Object, Operation, bind, own_total};
use shoal_protocol::time::WallTime;

/// A replica: its object, and what it needs to mint.
pub(super) struct Replica {
    pub(super) name: &'static str,
    pub(super) object: Object,
    actor: Actor,
    minted: u64,
}

impl Replica {
    pub(super) fn three() -> [Self; 3] {
        let mut number = 0;
        ["A", "B", "C"].map(|name| {
            number += 1;
            Self { name, object: Object::default(), actor: Actor::incarnation(number), minted: 0 }
        })
    }

    /// Mints and applies `operation`, which has `observed` this, or what the replica holds.
    pub(super) fn apply(&mut self, operation: &Operation, observed: Option<&Object>) -> Result<(), String> {
        let dot = Dot { actor: self.actor, n: self.minted + 1 };
        let total = match (operation.counter_path(), operation.counter_by()) {
            (Some(path), Some(by)) => {
                let total = own_total(&self.object, self.actor, &path).plus(by);
                Some(total.ok_or("the counter's total would pass 2^64")?)
            }
            _ => None,
        };
        let hlc = self.object.hlc_max().next(WallTime(0));
        let mint = Mint { dot, prev: self.minted, hlc, total };
        let delta = bind(operation, &mint, observed.unwrap_or(&self.object)).map_err(|error| error.to_string())?;
        self.minted = dot.n;
        self.object.merge_into(&delta);
        Ok(())
    }

    /// Takes in another replica's state as it travels.
    pub(super) fn receive(&mut self, bytes: &Bytes) {
        let state = Object::decode_shared(bytes).expect("a replica sends canonical bytes");
        self.object.merge_into(&state);
    }

    pub(super) fn exchange_all(replicas: &mut [Self; 3]) {
        let states: Vec<Bytes> = replicas.iter().map(|replica| replica.object.encode()).collect();
        for replica in replicas {
            states.iter().for_each(|state| replica.receive(state));
        }
    }

    pub(super) fn read(&self) -> Reading {
        Reading { object: self.object.clone(), context: EncodedContext::seal(&keys(), &place(), self.object.context()) }
    }
}

/// What a client took away from a read.
pub(super) struct Reading {
    object: Object,
    context: EncodedContext,
}

impl Reading {
    /// What an operation with this read's context has observed: a register write hands the context alone to the replica,
    /// other operations name the dots that the client's copy shows.
    pub(super) fn observed(&self, operation: &Operation) -> Result<Object, String> {
        if matches!(operation, Operation::Replace { .. }) {
            let context = self.context.open(&keys(), &place()).map_err(|error| error.to_string())?;
            return Ok(Object::of_context(context));
        }
        Ok(self.object.clone())
    }
}

fn keys() -> ContextKeys {
    ContextKeys(vec![ContextKey { id: 1, key: [1; 32] }])
}

fn place() -> Place {
    Place { keyspace: KeyspaceId(1), collection: Bytes::from_static(b"replay"), key: Bytes::from_static(b"key") }
}
