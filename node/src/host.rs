//! The host: the only room with tokio, sockets, files and clocks.
//!
//! It turns frames, answers and expired deadlines into `Input`s of the node, and performs the `Effect`s that come back.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "what the cores must not touch, this room is for: sockets, files, clocks, threads"
)]

mod acceptor;
mod address_book;
mod clock;
pub mod config;
pub mod disk;
mod endpoint;
mod event;
mod event_loop;
mod gossip;
pub mod limits;
mod links;
mod load;
mod outbox;
mod peers;
pub mod secret;
mod server;
pub mod stopped;
pub mod storage_threads;
mod switchboard;
pub mod tls;

#[cfg(feature = "testing")]
pub(crate) use server::bind;
pub use server::{Facts, RunningServer, Server, ServerFailure, StartError, Stopper};

use std::sync::OnceLock;

/// Tells the nodes of this process how to read its allocator's count of allocations: it becomes a figure of their status.
/// Only the first call counts. For the program's `main`, which alone can choose the allocator.
pub fn count_allocations_with(read: fn() -> u64) {
    let _ = ALLOCATIONS.set(read);
}

static ALLOCATIONS: OnceLock<fn() -> u64> = OnceLock::new();
