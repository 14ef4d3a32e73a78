//! The host: the only room with tokio, sockets, files and clocks.
//!
//! It turns frames, answers and expired deadlines into `Input`s of the node, and performs the `Effect`s that come back.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "what the cores must not touch, this room is for: sockets, files, clocks, threads"
)]

mod acceptor;
mod clock;
pub mod config;
pub mod disk;
mod endpoint;
mod event;
mod event_loop;
mod links;
mod outbox;
mod peers;
pub mod secret;
mod server;
pub mod storage_thread;
mod switchboard;
pub mod tls;

#[cfg(feature = "testing")]
pub(crate) use server::bind;
pub use server::{Facts, RunningServer, Server, ServerFailure, StartError, Stopper};
