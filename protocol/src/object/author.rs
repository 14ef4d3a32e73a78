//! Whether a client's delta is its own: checked where it enters, before anything changes.
//!
//! Invariant: a session can remove only what a context it presents has seen, and write only under its own new dot.

use serde::{Deserialize, Serialize};

use crate::causality::{Context, Dot};
use crate::id::Actor;
use crate::object::Object;
use crate::object::body::Body;
use crate::object::join::DotStore;

/// Why a delta is not acceptable as a session's own (`forged_context` to the client). Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorError {
    /// It covers no dot of the session: every operation has one.
    #[error("the delta has no dot of its session")]
    NoDot,
    /// It covers events that no presented context has seen.
    #[error("the delta covers events of {actor} that its contexts have not seen")]
    Unseen {
        /// Whose events.
        actor: Actor,
    },
    /// It holds content under a dot that is not its new one.
    #[error("the delta holds content that is not its own")]
    ForeignContent,
    /// It raises another actor's totals, or its own on more than one counter.
    #[error("the delta holds totals that are not its own")]
    ForeignTotals,
}

impl Object {
    /// The new dot of this delta, if `session` may have made it having seen `presented`.
    ///
    /// # Errors
    /// See `AuthorError`.
    pub fn authored_by(&self, session: Actor, presented: &Context) -> Result<Dot, AuthorError> {
        let dot = Dot { actor: session, n: self.context.max(session) };
        if dot.n == 0 {
            return Err(AuthorError::NoDot);
        }
        for (actor, lo, hi) in self.context.ranges().filter(|(actor, _, _)| *actor != session) {
            let mut range = Context::default();
            range.insert_range(actor, lo, hi);
            if !presented.covers_all(&range) {
                return Err(AuthorError::Unseen { actor });
            }
        }
        if self.body.dots().any(|live| live != dot) {
            return Err(AuthorError::ForeignContent);
        }
        let (mut totals_count, mut foreign_totals) = (0, false);
        self.body.each_cell(&mut |actor, cell| {
            if cell.p > 0 || cell.n > 0 {
                totals_count += 1;
                foreign_totals |= actor != session;
            }
        });
        if foreign_totals || totals_count > 1 {
            return Err(AuthorError::ForeignTotals);
        }
        Ok(dot)
    }
}

/// Whether every counter floor in `delta` lies within what `current` knows of that cell: a floor above it would swallow
/// additions that nobody has seen.
#[must_use]
pub fn floors_known(current: &Object, delta: &Object) -> bool {
    body_floors_known(&current.body, &delta.body)
}

fn body_floors_known(current: &Body, delta: &Body) -> bool {
    let absent = Body::default();
    delta.counter.iter().all(|(actor, cell)| {
        let known = current.counter.cell(actor).totals();
        cell.pr <= known.p && cell.nr <= known.n
    }) && delta.map.iter().all(|(field, body)| body_floors_known(current.map.get(field).unwrap_or(&absent), body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Element, Mint, Operation, Totals, bind, merge};
    use crate::time::Hlc;

    const SESSION: Actor = Actor::session(20_000, 1);
    const OTHER: Actor = Actor::session(20_000, 2);

    fn made(actor: Actor, n: u64, operation: &Operation, seen: &Object) -> Object {
        let mint = Mint { dot: Dot { actor, n }, prev: n - 1, hlc: Hlc(n), total: Some(Totals { p: 5, n: 0 }) };
        bind(operation, &mint, seen).unwrap()
    }

    fn add(element: i64) -> Operation {
        Operation::SetAdd { element: Element::Int(element) }
    }

    #[test]
    fn what_no_presented_context_saw_cannot_be_removed() {
        let theirs = made(OTHER, 3, &add(1), &Object::default());
        let removal = made(SESSION, 1, &Operation::SetClear, &theirs);
        assert_eq!(removal.authored_by(SESSION, theirs.context()), Ok(Dot { actor: SESSION, n: 1 }));
        assert_eq!(removal.authored_by(SESSION, &Context::default()), Err(AuthorError::Unseen { actor: OTHER }));
        assert_eq!(theirs.authored_by(SESSION, theirs.context()), Err(AuthorError::NoDot));
    }

    #[test]
    fn content_and_totals_must_be_the_session_s_own_new_ones() {
        let own = made(SESSION, 1, &add(1), &Object::default());
        let next = made(SESSION, 2, &add(2), &own);
        let both = merge(&own, &next);
        assert_eq!(both.authored_by(SESSION, &Context::default()), Err(AuthorError::ForeignContent));
        let totals = made(OTHER, 1, &Operation::CounterAdd { by: 5 }, &Object::default());
        let smuggled = merge(&own, &totals);
        assert_eq!(smuggled.authored_by(SESSION, totals.context()), Err(AuthorError::ForeignTotals));
    }

    #[test]
    fn a_floor_above_every_known_total_is_unknown() {
        let counted = made(OTHER, 1, &Operation::CounterAdd { by: 5 }, &Object::default());
        let reset = made(SESSION, 1, &Operation::CounterReset, &counted);
        assert!(reset.authored_by(SESSION, &Context::default()).is_ok());
        assert!(floors_known(&counted, &reset));
        assert!(!floors_known(&Object::default(), &reset));
    }
}
