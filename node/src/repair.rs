//! Repair: what makes replicas equal again.
//!
//! Shape: `Handoff` gives primaries what they missed: out of this node's change feed where it holds the partition too
//! (*debts*), out of what it keeps for others (*hints*). Read repair is the coordinator's.
//! Source: Dynamo §4.6; DESIGN §9. Invariant: speaks the same peer requests as everyone; every rate and every store is
//! bounded; nothing is forgotten before the one it is for has synced it.

mod debts;
mod delivery;
mod errand;
mod handoff;
mod hints;
mod pace;

pub use errand::{GiveId, HandoffEffect, HandoffFigures, HandoffLimits, HintsPage, JobId, Outcome, Row};
pub use handoff::Handoff;
