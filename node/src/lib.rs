//! A node of a Shoal cluster: rooms without I/O, and the host that runs them.

#[cfg(feature = "host")]
pub mod host;
pub mod storage;
