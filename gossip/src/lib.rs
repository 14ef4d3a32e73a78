//! Who is in the cluster, and who can be reached: SWIM with Lifeguard.
//!
//! What: the member list of one node. Shape: `Gossip::handle(now, Input, &mut Vec<Output>)` and `next_deadline`; no I/O.
//! The host hands in what members sent and sends what is put out; every packet may be lost, every sender is authenticated.
//! Sources: SWIM (Das, Gupta, Motivala, DSN 2002); Lifeguard (Dadgar, Phillips, Currey, arXiv 1707.00788).
//! Invariants: a member is forgotten only when the node says that it was removed; liveness is this node's own belief and
//! never changes a layout (DESIGN §5); gossip carries data of other rooms and never reads it.

mod config;
mod gossip;

pub use config::{GossipConfig, Lifeguard};
pub use gossip::{Gossip, Input, Output};
pub use shoal_protocol::member::{Liveness, Member, StoreLease};
