//! A node of a Shoal cluster: rooms without I/O, and the host that runs them.
//!
//! See `ARCHITECTURE.md` for the map. Data flows one way: host -> node -> coordinator -> replica -> storage.

#[cfg(feature = "cli")]
pub mod cli;
pub mod coordinator;
#[cfg(feature = "host")]
pub mod host;
pub mod node;
pub mod repair;
pub mod replica;
pub mod ring;
pub mod storage;
pub mod system;
#[cfg(feature = "testing")]
pub mod testing;
