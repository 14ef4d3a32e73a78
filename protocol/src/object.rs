//! The one causal object: every type, every state, every delta.
//!
//! What: `Object { context, body }`. The body holds live content, each piece under the dot that wrote it; the context holds
//! every dot seen. A dot in the context but not in the body was removed: *the context is the tombstone*. A delta is an
//! object too, and applying it is merging it.
//! Shape: a dot survives a merge if both sides hold it, or one holds it and the other's context does not cover it; counter
//! cells join by maximum. Sources: DESIGN §4; notes/model.md §2.3; Almeida et al. (2018), "Delta State Replicated Data
//! Types".
//! Invariants: `merge` is commutative, associative, idempotent, never refuses; every live dot is covered by the context and
//! lives at one place; equal objects have equal bytes. Limits are checked by `admit` and nowhere else.

mod admit;
mod author;
mod bind;
mod body;
mod codec;
mod counter;
mod digest;
mod dot_map;
mod element;
mod join;
mod keyed;
mod operation;
mod projection;
mod register;
mod value;

pub use admit::{Limits, Refusal, admit};
pub use author::{AuthorError, floors_known};
pub use bind::{BindError, Mint, bind, own_total};
pub use codec::DEPTH_MAX;
pub use counter::Totals;
pub use digest::{Digest, DigestKey};
pub use element::Element;
pub use join::MergeWork;
pub use operation::{Operation, Path};
pub use projection::{Conflict, View};
pub use value::{ContentType, MediaType, TypeTag, Value, ValueError};

pub use crate::msgpack::DecodeError;

use crate::causality::Context;
use crate::time::Hlc;

use body::Body;
use join::{DotStore, Join};

/// A state of one key, or a delta of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    context: Context,
    body: Body,
    /// Of the body, kept up by every merge.
    weight: usize,
}

impl Object {
    /// What is known of an object whose content is not at hand: its context alone.
    #[must_use]
    pub fn of_context(context: Context) -> Self {
        Self { context, ..Self::default() }
    }

    /// What somebody who has seen only `context` would hold of this: the rest is left out, the context is theirs. Counters
    /// have no dots to tell by and stay whole.
    #[must_use]
    pub fn as_seen_by(&self, context: &Context) -> Self {
        let mut unseen = Context::default();
        self.body.dots().filter(|dot| !context.covers(*dot)).for_each(|dot| unseen.insert(dot));
        let mut seen = self.clone();
        seen.merge_into(&Self::of_context(unseen));
        seen.context = context.clone();
        seen
    }

    fn new(context: Context, body: Body) -> Self {
        let weight = body.weight();
        Self { context, body, weight }
    }

    /// Every dot seen.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether no content is live: never written, or all of it removed. Counters all at their floors count as removed.
    #[must_use]
    pub fn is_vacant(&self) -> bool {
        !self.body.is_live()
    }

    /// The types with live content, in the order of their tags; more than one is a type conflict.
    pub fn live_types(&self) -> impl Iterator<Item = TypeTag> {
        self.body.live_types()
    }

    /// The greatest hlc of any register value here; a session that read this mints above it.
    #[must_use]
    pub fn hlc_max(&self) -> Hlc {
        self.body.hlc_max()
    }

    /// About how many bytes this takes, in memory and encoded; kept up by every merge, so asking is free.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight + CONTEXT_RANGE_WEIGHT * self.context.ranges_count()
    }

    /// Joins `delta` in. Costs by the delta and by what it removes, not by the object.
    pub fn merge_into(&mut self, delta: &Self) -> MergeWork {
        let mut join = Join::new(&self.context);
        let covered = self.body.covered_by(&delta.context, &mut join);
        self.body.merge(&delta.body, &mut join, &covered);
        let (work, weight) = join.finish(self.weight);
        self.weight = weight;
        self.context.join(&delta.context);
        work
    }

    /// The delta that makes of `old` what merging all of this would: what it lacks, what it still has and this has removed,
    /// and nothing else. Merging it into anything else is safe too, it just may not suffice.
    #[must_use]
    pub fn delta_for(&self, old: &Self) -> Self {
        let body = self.body.unseen_by(&old.body, &old.context);
        let mut context = self.context.minus(&old.context);
        old.body.each_gone(&self.body, &mut |dot| {
            if self.context.covers(dot) {
                context.insert(dot);
            }
        });
        body.dots().for_each(|dot| context.insert(dot));
        Self::new(context, body)
    }

    /// In an `lww` keyspace: the register values that `prune_lww` would drop. A delta of this context does the same.
    #[must_use]
    pub fn lww_losers(&self) -> Context {
        let mut losers = Context::default();
        self.body.each_lww_loser(&mut |dot| losers.insert(dot));
        losers
    }

    /// In an `lww` keyspace: drops every register value, nested ones too, whose (hlc, dot) is below the greatest of its
    /// register. Their dots stay covered, so they are gone for good everywhere this state reaches.
    pub fn prune_lww(&mut self) {
        let mut join = Join::new(&self.context);
        self.body.prune_lww(&mut join);
        self.weight = join.finish(self.weight).1;
    }
}

/// The join of two objects.
#[must_use]
pub fn merge(a: &Object, b: &Object) -> Object {
    let mut joined = a.clone();
    joined.merge_into(b);
    joined
}

/// Bytes that one context range takes: an actor and two bounds.
const CONTEXT_RANGE_WEIGHT: usize = 24;
