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
    /// It holds content under a dot that is not its new one, or content under its dot at more than one place.
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
        let (mut content_count, mut totals_count, mut foreign_content, mut foreign_totals) = (0, 0, false, false);
        each_location(&self.body, &mut |live| {
            content_count += 1;
            foreign_content |= live != dot;
        });
        self.body.each_cell(&mut |actor, cell| {
            if cell.p > 0 || cell.n > 0 {
                totals_count += 1;
                foreign_totals |= actor != session;
            }
        });
        if foreign_content || content_count > 1 {
            return Err(AuthorError::ForeignContent);
        }
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

/// Calls `visit` once for every place that a live dot stands at.
fn each_location(body: &Body, visit: &mut dyn FnMut(Dot)) {
    body.register.dots().chain(body.flag.dots()).chain(body.set.dots()).for_each(&mut *visit);
    for (_, field) in body.map.iter() {
        each_location(field, visit);
    }
}
