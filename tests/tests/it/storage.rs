//! Storage under faults: the real store and engine on a disk that fails on purpose.
//!
//! Judged from outside: nothing that was called synced is lost, the rows are the join of a prefix of what was applied, no
//! dot is handed out twice, and damaged bytes are never shown.

mod cells;
mod crash;
mod damage;
mod dropping;
mod exchange;
mod failure;
mod log;
mod order;
mod rig;
mod thread;
