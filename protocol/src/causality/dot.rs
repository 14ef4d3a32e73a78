//! One event: the `n`-th of one actor.
//!
//! Invariant: a dot names one mutation of one key for ever; `n` is at least 1. An actor's numbers grow across all keys, so
//! on one key they have holes.

use serde::{Deserialize, Serialize};

use crate::id::Actor;

/// One event of one actor. Ordered by actor, then number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who.
    pub actor: Actor,
    /// Which of its events, from 1.
    pub n: u64,
}
