//! The session: one client's identity as an actor, and the place where its operations are bound.
//!
//! What: the dot counter, the hlc, the previous dot on each key and the running totals of its counters. `bind` fixes an
//! operation's dot, value, hlc, expiry, total and everything it observed, before the first send; every retry sends the same
//! bytes. `verdict` closes it. No clock, no randomness, no I/O: native and browser clients share it.
//! Source: DESIGN §4 (Actors, Binding); spikes/binding.rs, where these rules were fuzzed and their mutants caught.
//! Invariants: a dot is used once. A counter operation's bytes are fixed only when every earlier one of this session on the
//! key has a verdict. A refused operation leaves the totals, and the next `prev` skips its dot; one that may have been
//! applied is never called refused, and stays in the totals and in the chain of `prev`.

mod chain;
mod stored;
mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shoal_protocol::address::Place;
use shoal_protocol::causality::{Dot, EncodedContext};
use shoal_protocol::client::{ClientRequest, KeyspaceSpec, QuorumMode, SessionGrant, Write};
use shoal_protocol::object::{self, Mint, Object, Operation, Path, Totals, Value};
use shoal_protocol::time::{Hlc, Now, WallTime};

use chain::Chain;
pub use stored::{StoredSession, StoredSessionError};
use totals::TotalsTable;

/// A client's session.
#[derive(Clone, Debug)]
pub struct Session {
    grant: SessionGrant,
    last_dot: u64,
    hlc: Hlc,
    chain: Chain,
    totals: TotalsTable,
    /// Bound operations without a verdict, by dot.
    open: BTreeMap<u64, Open>,
    /// Places where one of them fixed counter totals or floors.
    counting: BTreeSet<Place>,
}

#[derive(Clone, Debug)]
struct Open {
    place: Place,
    /// What the next `prev` falls back to when this operation is refused.
    prev: u64,
    /// Whether it holds up later counter operations on its place.
    counting: bool,
    added: Option<(Path, i64)>,
}

/// What an operation has observed: its object as read, and the contexts that prove the reading to the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The object as read; a vacant one for a blind operation.
    pub object: Object,
    /// The sealed context that came with it.
    pub contexts: Vec<EncodedContext>,
}

/// An operation that is to be bound.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// Which object.
    pub place: &'a Place,
    /// The settings of its keyspace.
    pub spec: &'a KeyspaceSpec,
    /// What to do.
    pub operation: &'a Operation,
    /// What it has observed.
    pub observed: &'a Observed,
    /// Acks to wait for; `None` = the keyspace's.
    pub w: Option<u8>,
    /// What counts as an ack; `None` = what the keyspace says.
    pub quorum: Option<QuorumMode>,
}

/// An operation whose bytes are fixed: sending it again, anywhere, any number of times, counts once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundOperation {
    /// The session that minted it; only a connection of that session may carry it.
    pub grant: SessionGrant,
    /// Which object.
    pub place: Place,
    /// Its dot.
    pub dot: Dot,
    /// The canonical bytes of the delta.
    pub delta: Bytes,
    /// What justifies that which it covers.
    pub contexts: Vec<EncodedContext>,
    /// Acks to wait for; `None` = the keyspace's.
    pub w: Option<u8>,
    /// What counts as an ack; `None` = what the keyspace says.
    #[serde(default)]
    pub quorum: Option<QuorumMode>,
}

impl BoundOperation {
    /// The request that carries it.
    #[must_use]
    pub fn request(&self) -> ClientRequest {
        ClientRequest::Write(Write {
            place: self.place.clone(),
            delta: self.delta.clone(),
            contexts: self.contexts.clone(),
            w: self.w,
            quorum: self.quorum,
        })
    }
}

/// How a bound operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable as asked.
    Applied,
    /// No attempt can have been admitted: it never happened.
    Refused,
    /// Some attempt may have been admitted.
    Unknown,
}

/// Why an operation was not bound. Nothing was minted or sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// An earlier counter operation on this key has no verdict yet. Keep the operation and bind it after that verdict.
    #[error("an earlier counter operation on this key has no verdict yet")]
    EarlierOpen,
    /// The session is past its last day, or has no room for another running total. Take a new session.
    #[error("the session cannot bind any more")]
    SessionOver,
    /// The operation cannot be encoded, or would overflow its running total. Correct it.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
}

impl Session {
    /// A fresh session.
    #[must_use]
    pub fn new(grant: SessionGrant) -> Self {
        Self {
            grant,
            last_dot: 0,
            hlc: Hlc::default(),
            chain: Chain::default(),
            totals: TotalsTable::default(),
            open: BTreeMap::new(),
            counting: BTreeSet::new(),
        }
    }

    /// The session's id and the proof that a node granted it.
    #[must_use]
    pub const fn grant(&self) -> SessionGrant {
        self.grant
    }

    /// Whether the session may still mint on this day.
    #[must_use]
    pub fn is_over(&self, wall: WallTime) -> bool {
        self.grant.actor.expiry_day().is_none_or(|last| wall.day() > u64::from(last))
    }

    /// An object was read: every later operation's hlc is above all of its own.
    pub fn observe(&mut self, object: &Object) {
        self.answered(object.hlc_max());
    }

    /// A node named a reading that later operations must stay above.
    pub fn answered(&mut self, hlc: Hlc) {
        self.hlc = self.hlc.max(hlc);
    }

    /// Fixes an operation. Register values that name no expiry take the keyspace's.
    ///
    /// # Errors
    /// See `BindError`; nothing was minted.
    pub fn bind(&mut self, now: Now, intent: &Intent<'_>) -> Result<BoundOperation, BindError> {
        let Intent { place, spec, operation, observed, w, quorum } = *intent;
        if self.is_over(now.wall) {
            return Err(BindError::SessionOver);
        }
        let counting = operation.binds_counters();
        if counting && self.counting.contains(place) {
            return Err(BindError::EarlierOpen);
        }
        self.observe(&observed.object);
        let added = operation.counter_path().zip(operation.counter_by());
        let total = added.as_ref().map(|(path, by)| self.total_after(place, path, *by)).transpose()?;
        let dot = Dot { actor: self.grant.actor, n: self.last_dot + 1 };
        let prev = self.chain.prev(place, dot.n);
        let hlc = self.hlc.next(now.wall);
        let operation = with_expiry(operation, expiry(now.wall, spec));
        let delta = object::bind(&operation, &Mint { dot, prev, hlc, total }, &observed.object)
            .map_err(|error| BindError::Invalid { reason: error.to_string() })?;

        self.last_dot = dot.n;
        self.hlc = hlc;
        self.chain.set(place, dot.n);
        if let (Some((path, _)), Some(total)) = (&added, total) {
            self.totals.set(place, path, total);
        }
        if counting {
            self.counting.insert(place.clone());
        }
        self.open.insert(dot.n, Open { place: place.clone(), prev, counting, added });
        let contexts = observed.contexts.clone();
        let (place, delta) = (place.clone(), delta.encode());
        Ok(BoundOperation { grant: self.grant, place, dot, delta, contexts, w, quorum })
    }

    /// Closes a bound operation, and says what may be reported: what was closed as anything but refused before is never
    /// refused afterwards.
    pub fn verdict(&mut self, dot: Dot, verdict: Verdict) -> Verdict {
        let open = if dot.actor == self.grant.actor { self.open.remove(&dot.n) } else { None };
        let Some(open) = open else {
            return if verdict == Verdict::Refused { Verdict::Unknown } else { verdict };
        };
        if open.counting {
            self.counting.remove(&open.place);
        }
        if verdict == Verdict::Refused {
            self.take_back(dot.n, &open);
        }
        verdict
    }

    /// What survives this process. Operations without a verdict count as unknown.
    #[must_use]
    pub fn suspend(self) -> StoredSession {
        StoredSession::of(self)
    }

    fn total_after(&self, place: &Place, path: &Path, by: i64) -> Result<Totals, BindError> {
        if !self.totals.has_room(place, path) {
            return Err(BindError::SessionOver);
        }
        let total = self.totals.of(place, path).plus(by);
        total.ok_or_else(|| BindError::Invalid { reason: "the counter's running total passes 2^64".into() })
    }

    /// The operation never happened: it leaves the total, and the chain goes on from the dot before it.
    fn take_back(&mut self, dot: u64, refused: &Open) {
        if let Some((path, by)) = &refused.added {
            self.totals.take_back(&refused.place, path, *by);
        }
        if self.chain.last(&refused.place) == Some(dot) {
            self.chain.set(&refused.place, refused.prev);
        }
        for later in self.open.values_mut().filter(|open| open.prev == dot && open.place == refused.place) {
            later.prev = refused.prev;
        }
    }
}

fn expiry(wall: WallTime, spec: &KeyspaceSpec) -> Option<WallTime> {
    let ttl = Duration::from_secs(u64::from(spec.ttl_s?));
    Some(WallTime(wall.0.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))))
}

/// The same operation, with `expires_at` in register values that name no expiry.
fn with_expiry(operation: &Operation, expires_at: Option<WallTime>) -> Operation {
    let timed = |value: &Value| Value { expires_at: value.expires_at.or(expires_at), ..value.clone() };
    match operation {
        Operation::Put { value } => Operation::Put { value: timed(value) },
        Operation::Replace { value } => Operation::Replace { value: timed(value) },
        Operation::AddSibling { value } => Operation::AddSibling { value: timed(value) },
        Operation::MapUpdate { field, operation } => {
            Operation::MapUpdate { field: field.clone(), operation: Box::new(with_expiry(operation, expires_at)) }
        }
        Operation::Delete
        | Operation::Enable
        | Operation::Disable
        | Operation::SetAdd { .. }
        | Operation::SetRemove { .. }
        | Operation::SetClear
        | Operation::CounterAdd { .. }
        | Operation::CounterReset
        | Operation::MapRemove { .. } => operation.clone(),
    }
}

#[cfg(test)]
mod tests;
