//! The host: the only room with tokio, sockets, files and clocks.
//!
//! It turns frames, answers and expired deadlines into `Input`s of the node, and performs the `Effect`s that come back.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "what the cores must not touch, this room is for: sockets, files, clocks, threads"
)]

pub mod disk;
pub mod storage_thread;
