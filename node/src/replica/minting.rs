//! Minting: a sessionless operation becomes a delta under this store's incarnation.
//!
//! At-least-once: a caller that repeats the call asks for another operation. What it observed is what this replica holds,
//! or as much of it as the caller's context covers.
//! Invariants: a dot is used only from a durable lease; the delta leaves the node only after its local sync (DESIGN §4). Where
//! rows were lost, what this store minted before is never gone on with: `prev` then names no dot that the object may be missing,
//! or whoever has that dot would take it for removed.

use shoal_protocol::causality::{Context, Dot};
use shoal_protocol::error::RequestError;
use shoal_protocol::object::{Mint, Object, Operation, bind, own_total};
use shoal_protocol::peer::Refusal;
use shoal_protocol::time::{Hlc, Instant, Now, WallTime};

use super::{Replica, ReplicaEffect, Work, WorkKind, check, refuse};
use crate::storage::{RowKey, Visible};

/// What to mint.
#[derive(Debug)]
pub(crate) struct MintRequest {
    operation: Operation,
    observed: Option<Context>,
}

impl MintRequest {
    /// `expires_at` is for register values that name no expiry of their own.
    pub(crate) fn new(mut operation: Operation, expires_at: Option<WallTime>, observed: Option<Context>) -> Self {
        operation.expire_by_default(expires_at);
        Self { operation, observed }
    }
}

impl<T: Clone> Replica<T> {
    /// Mints on the visible object of `key`, which is at hand; waits for a lease if there is none.
    pub(crate) fn mint(
        &mut self,
        now: Now,
        key: &RowKey,
        (from, deadline, request): (T, Instant, Box<MintRequest>),
        out: &mut Vec<ReplicaEffect<T>>,
    ) {
        let mut effects = Vec::new();
        let n = self.store.mint(&mut effects);
        out.extend(effects.drain(..).map(ReplicaEffect::Store));
        let Some(n) = n else {
            self.unleased.push((key.clone(), Work { from, deadline, kind: WorkKind::Mint(request) }));
            return;
        };
        let dot = Dot { actor: self.store.leases().incarnation, n };
        let Visible::Ready(visible) = self.store.visible(key, &mut effects) else {
            out.push(refuse(from, Refusal::NotSynced));
            return;
        };
        self.hlc = self.hlc.max(visible.object.hlc_max()).next(now.wall);
        let prev = Dot { actor: dot.actor, n: visible.object.context().max(dot.actor) };
        let is_doubtful = self.refills.is_below_floor(key.partition(), prev);
        if is_doubtful && request.operation.counter_path().is_some() {
            // A total that leaves out what was lost would be joined as less than that. Another replica has none to continue.
            out.push(refuse(from, Refusal::NotSynced));
            return;
        }
        let prev = if is_doubtful { n.saturating_sub(1) } else { prev.n };
        let bound = bound(&request, &visible.object, (dot, prev), self.hlc)
            .and_then(|delta| check(&visible.object, &delta, &self.limits, now.wall).map(|()| delta));
        match bound {
            Ok(delta) if !self.has_room_for(&delta) => out.push(refuse(from, Refusal::Full)),
            Ok(delta) => {
                let bytes = delta.encode();
                let lsn = self.apply(key, &delta, bytes.clone(), out);
                let ack = ReplicaEffect::Ack { to: from, partition: key.partition(), lsn, minted: Some(bytes) };
                self.leave_slowed(now, lsn, ack, out);
            }
            Err(refusal) => out.push(refuse(from, refusal)),
        }
    }
}

fn bound(request: &MintRequest, visible: &Object, (dot, prev): (Dot, u64), hlc: Hlc) -> Result<Object, Refusal> {
    // What the caller saw and wants removed must be here to be removed: another replica may have it.
    let is_seen = |context: &Context| visible.context().covers_all(context);
    if removes_part(&request.operation) && !request.observed.as_ref().is_none_or(is_seen) {
        return Err(Refusal::Behind);
    }
    let bad = |reason: String| Refusal::Request(RequestError::BadRequest { reason });
    let total = match (request.operation.counter_path(), request.operation.counter_by()) {
        (Some(path), Some(by)) => {
            let total = own_total(visible, dot.actor, &path).plus(by);
            Some(total.ok_or_else(|| bad("the counter's totals do not fit 64 bits".into()))?)
        }
        (None, _) | (_, None) => None,
    };
    let mint = Mint { dot, prev, hlc, total };
    let observed = request.observed.as_ref().map(|context| visible.as_seen_by(context));
    bind(&request.operation, &mint, observed.as_ref().unwrap_or(visible)).map_err(|error| bad(error.to_string()))
}

/// Whether the operation removes content that it has to find first. (A whole replace or delete removes by context alone.)
fn removes_part(operation: &Operation) -> bool {
    match operation {
        Operation::MapUpdate { operation, .. } => {
            matches!(**operation, Operation::Replace { .. } | Operation::Delete) || removes_part(operation)
        }
        Operation::Disable
        | Operation::SetRemove { .. }
        | Operation::SetClear
        | Operation::CounterReset
        | Operation::MapRemove { .. } => true,
        Operation::Put { .. }
        | Operation::Replace { .. }
        | Operation::AddSibling { .. }
        | Operation::Delete
        | Operation::Enable
        | Operation::SetAdd { .. }
        | Operation::CounterAdd { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use shoal_protocol::id::Actor;
    use shoal_protocol::object::{Conflict, Element, View, merge};

    use super::*;

    const STORE: Actor = Actor(5);

    fn add(element: i64, (n, prev): (u64, u64), visible: &Object) -> Object {
        let operation = Operation::SetAdd { element: Element::Int(element) };
        let request = MintRequest::new(operation, None, None);
        bound(&request, visible, (Dot { actor: STORE, n }, prev), Hlc::default()).unwrap()
    }

    /// This store minted dots 5 and 9 for an object and lost its row. The other replica that was asked has only the first.
    #[test]
    fn going_on_from_a_healed_object_would_remove_what_was_lost_from_those_who_have_it() {
        let first = add(1, (5, 0), &Object::default());
        let second = add(2, (9, 5), &first);
        let (healed, third_replica) = (first.clone(), merge(&first, &second));
        let elements = |object: &Object| {
            let View::Set(elements) = object.view(Conflict::Siblings, WallTime(0)) else { panic!("{object:?}") };
            elements.len()
        };
        let going_on = add(3, (20, healed.context().max(STORE)), &healed);
        assert_eq!(elements(&merge(&third_replica, &going_on)), 2, "the second add is taken for removed");
        let careful = add(3, (20, 19), &healed);
        assert_eq!(elements(&merge(&third_replica, &careful)), 3);
    }
}
