//! The words every part of Shoal speaks.
//!
//! What: identities, time, addresses, causal contexts, the one causal object, the messages between client, node and
//! peer, and how they become bytes. Nothing here does I/O, reads a clock or draws a random number, so the same code runs
//! in a server, in the simulator and in a browser.
//! Invariant: builds for `wasm32-unknown-unknown`.

pub mod address;
pub mod causality;
pub mod client;
pub mod cluster;
pub mod codec;
pub mod error;
pub mod frame;
pub mod id;
pub mod layout;
pub mod member;
mod msgpack;
pub mod object;
pub mod peer;
pub mod repair;
pub mod time;
