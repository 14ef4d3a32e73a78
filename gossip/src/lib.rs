//! Who is in the cluster, and who can be reached.
//!
//! What: the member list of one node. Shape: `Membership::handle(now, Input, &mut Vec<Output>)` and `next_deadline`; no I/O.
//! The host reports connections and what the other side said of itself; the list answers with what changed.
//! Invariants: a member is never forgotten once seen; liveness is this node's own belief and never changes a layout
//! (DESIGN §5); gossip carries data of other rooms and never reads it.

mod member;
mod membership;

pub use member::{Liveness, Member};
pub use membership::{Input, Membership, Output};
