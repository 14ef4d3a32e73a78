//! Who is in the cluster, and who can be reached: SWIM with Lifeguard.
//!
//! What: the member list of one node. Shape: `Gossip::handle(now, Input, &mut Vec<Output>)` and `next_deadline`; no I/O.
//! The host hands in what members sent and sends what is put out; every packet may be lost, every sender is authenticated.
//! Sources: SWIM (Das, Gupta, Motivala, DSN 2002); Lifeguard (Dadgar, Phillips, Currey, arXiv 1707.00788).
//! Invariants: a member is forgotten only when the node says that it was removed; liveness is this node's own belief and
//! never changes a layout (DESIGN §5); gossip carries data of other rooms and never reads it.

mod broadcasts;
mod claim;
mod config;
mod gossip;
mod health;
mod input;
mod member;
mod message;
mod output;
mod own;
mod probe;
mod random;
mod roster;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod suspicion;

pub use config::{GossipConfig, GossipTicks, Lifeguard, SuspicionConfig};
pub use gossip::{Dropped, Gossip};
pub use input::Input;
pub use member::{Liveness, Member, StoreLease};
pub use output::Output;
